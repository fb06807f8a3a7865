"""A data directory with a real log and real models, and replays of it by the process that makes them."""

import asyncio
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from gateway.replay.replay_question import REPLAY_PROCESS, ReplayMessage, ReplayQuestion
from gateway.replay.replay_report import ReplayReport
from gateway.replay.replay_run import replay
from tests.drift.lakes import DAY_US, START_US, write_rows
from tests.models import classifier, fragile, row_mixing

ROWS = 120
Floats = npt.NDArray[np.float32]


def softmax(x: Floats, classes: int) -> Floats:
    """What `tests.models.classifier` answers."""
    matrix = np.zeros((x.shape[1], classes), np.float32)
    for feature in range(x.shape[1]):
        matrix[feature, feature % classes] = 1.0
    powers = np.exp(x @ matrix - (x @ matrix).max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)


def inputs() -> Floats:
    return np.random.default_rng(7).normal(size=(ROWS, 4)).astype("<f4")


def write_model(directory: Path, model: str, versions: Mapping[str, bytes]) -> None:
    for version, content in versions.items():
        folder = directory / "models" / model / version
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.onnx").write_bytes(content)


def made(directory: Path) -> Path:
    """Returns a directory with `models` and `data`: the model `kinds` with a log, `whole` that mixes rows, `weak`."""
    data = directory / "data"
    data.mkdir()
    write_model(
        directory, "kinds", {"1": classifier(), "2": classifier(4), "3": classifier(), "5": classifier(features=5)}
    )
    write_model(directory, "weak", {"1": fragile(1000), "2": fragile(8)})
    write_model(directory, "whole", {"1": row_mixing()})
    x = inputs()
    moments = START_US + np.arange(ROWS) * 1000
    write_rows(data, moments, {"x": x}, {"scores": softmax(x, 3)}, model="kinds")
    numbers = np.arange(ROWS) % 12
    write_rows(data, moments, {"i": numbers.astype("<i8")}, {"y": numbers.astype("<f4")}, model="weak")
    return directory


def question(directory: Path, model: str, version: str, **changes: Any) -> ReplayQuestion:
    asked = ReplayQuestion(
        str(directory / "data"),
        model,
        version,
        START_US,
        START_US + DAY_US,
        START_US + DAY_US,
        repository=str(directory / "models"),
    )
    return msgspec.structs.replace(asked, **changes)


def messages(asked: ReplayQuestion) -> list[ReplayMessage]:
    """All that the process of a replay says."""
    done = subprocess.run(
        [sys.executable, *REPLAY_PROCESS], input=msgspec.json.encode(asked) + b"\n", capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    return [msgspec.json.decode(line, type=ReplayMessage) for line in done.stdout.splitlines()]


def report_of(asked: ReplayQuestion) -> ReplayReport:
    """The report, made in this process; the versions run in theirs."""
    return asyncio.run(replay(asked, lambda done, total: None))
