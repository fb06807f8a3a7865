"""Chances and classes that come true, even over a day, and a profile that has them as its baseline."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gateway.drift.profile_files import ProfileFiles
from gateway.drift.statistics.answers import find_outputs, labelled_columns, sql_kind
from gateway.drift.statistics.baseline import build_baseline
from gateway.drift.statistics.building import build_profile
from gateway.drift.statistics.column import Column
from gateway.drift.training import answer_columns
from tests.drift.labelled import BEGIN_US, DAY_US

Floats = npt.NDArray[np.float64]
RNG = np.random.default_rng(5)


def draw(rows: int, *, slope: float = 1.0, rng: np.random.Generator = RNG) -> tuple[Floats, Floats]:
    """Chances of class 1, and the classes that come true; a slope below 1 makes the chances worse than they say."""
    chances = rng.beta(0.6, 0.6, rows)
    return chances, (rng.random(rows) < 0.5 + slope * (chances - 0.5)).astype(np.float64)


def pair(chances: Floats) -> npt.NDArray[np.float32]:
    return np.column_stack([1 - chances, chances]).astype(np.float32)


def spread(rows: int, *, day: int = 0) -> npt.NDArray[np.int64]:
    """Moments that are even over a day."""
    return BEGIN_US + day * DAY_US + np.arange(rows) * (DAY_US // rows)


def save_profile(directory: Path, chances: Floats, labels: Floats, *, labelled: bool = True) -> None:
    """A profile of version 1 with the labels of these answers."""
    shown = {f"out.p_{place}": Column(pair(chances)[:, place]) for place in (0, 1)}
    outputs = answer_columns(shown)
    profile = build_profile("homes", "1", {"f.x": chances}, outputs, created_at=1.0, source="test")
    if labelled:
        columns = find_outputs({name: sql_kind(column) for name, column in outputs.items()})
        rows = labelled_columns(Column(labels), outputs, columns)
        assert rows is not None
        profile = replace(profile, baseline=build_baseline(rows, "test", rng=np.random.default_rng(0)))
    ProfileFiles(directory).save(profile)
