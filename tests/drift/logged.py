"""A prediction log with rows of chosen times, compacted with the drift monitor in the same pass."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gateway.drift.online.monitor import Monitor
from gateway.drift.profile_files import ProfileFiles
from gateway.drift.statistics.building import build_profile
from gateway.drift.statistics.reference_profile import Profile
from gateway.records.lake.compactor import Compactor, CompactorConfig
from gateway.records.worker.record import Record
from gateway.records.worker.record_stream import RecordStream
from gateway.runtime.compaction import ledgers
from tests.records.traffic import LABEL, SCORES, X, open_log

HOUR_S = 3600
BEGIN_S = 1_790_035_200  # of the log; a midnight


def config(directory: Path, *, window_s: int = HOUR_S) -> CompactorConfig:
    return CompactorConfig(
        str(directory / "wal"),
        str(directory / "lake"),
        published_directory=str(directory / "published"),
        data_directory=str(directory / "data"),
        drift_window_s=window_s,
    )


def after(hours: int) -> float:
    """A moment when so many hours of the log are over and in the lake."""
    return BEGIN_S + hours * HOUR_S + 300.0


def watched(directory: Path, *, hours: int = 20) -> tuple[Compactor, Monitor]:
    """A compactor and its monitor, as the process has them, after so many hours of the log."""
    (monitor,) = ledgers(config(directory))
    assert isinstance(monitor, Monitor)
    return Compactor(config(directory), clock=lambda: after(hours), ledgers=[monitor]), monitor


def save_profile(directory: Path, x: npt.NDArray[Any], scores: npt.NDArray[Any], *, version: str = "1") -> Profile:
    """A profile of the model `flights` of `tests.records.traffic`: inputs x_0 to x_3, outputs class and score."""
    inputs = {f"f.x_{index}": x[:, index] for index in range(4)}
    outputs = {"pred_class": np.zeros(len(x), np.int64), "pred_score": scores}
    profile = build_profile("flights", version, inputs, outputs, created_at=1.0, source="test")
    return ProfileFiles(directory / "data").save(profile)


async def log_rows(
    directory: Path,
    batches: Sequence[tuple[int, npt.NDArray[Any], npt.NDArray[Any]]],
    *,
    version: str = "1",
    arm: str = "stable",
    code: int = 0,
    shadow_of: str = "",
    classes: npt.NDArray[Any] | None = None,
    prefix: str = "",
) -> None:
    """Writes one segment of requests: seconds since the epoch, x [rows, 4] and the score of each row."""
    log = open_log(directory / "wal")
    stream: RecordStream = log.stream("flights", version, arm, (X,), (LABEL, SCORES), "sha256:aa", shadow_of)
    for number, (at_s, x, scores) in enumerate(batches):
        rows = len(x)
        three = np.zeros((rows, 3), "<f4")
        three[:, 0] = scores
        named = np.zeros(rows, "<i8") if classes is None else classes.astype("<i8")
        outputs = () if code else (named.tobytes(), three.tobytes())
        identity = f"{prefix}{number}"
        inputs = (x.astype("<f4").tobytes(),)
        stream.append(Record(at_s * 1_000_000, identity, code, "SPLIT", 7, 42, rows, 1, 2, 3, None, inputs, outputs))
    await log.close()
