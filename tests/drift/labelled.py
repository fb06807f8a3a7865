"""A prediction log with answers and labels of chosen times, compacted with the monitor of performance in the same
pass."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import numpy.typing as npt

from gateway.drift.online.performance_monitor import PerformanceMonitor
from gateway.records.lake.compactor import Compactor, CompactorConfig
from gateway.records.lake.retention import RetentionLimits
from gateway.records.worker.label import Label, request_hash
from gateway.records.worker.prediction_log import PredictionLog
from gateway.records.worker.record import Record
from gateway.records.worker.sampling import Sampling
from gateway.runtime.compaction import observers
from gateway.telemetry.published import published
from tests.drift.lakes import spec_of, tensor_of
from tests.records.labels import open_labels

Array = npt.NDArray[Any]
MODEL = "homes"
BEGIN_US = 1_790_812_800_000_000  # 2026-10-01
DAY_US = 86_400_000_000
HOUR_US = 3_600_000_000


def config_of(directory: Path) -> CompactorConfig:
    return CompactorConfig(
        str(directory / "log" / "wal"),
        str(directory / "log" / "lake"),
        retention=RetentionLimits(max_age_s=1e9),
        published_directory=str(directory / "run" / "published"),
        data_directory=str(directory),
    )


def watch(directory: Path, now_us: int) -> tuple[Compactor, PerformanceMonitor]:
    """A compactor and its monitor, as the process has them, at that time."""
    config = config_of(directory)
    (monitor,) = observers(config)
    assert isinstance(monitor, PerformanceMonitor)
    return Compactor(config, clock=lambda: now_us / 1e6, observers=[monitor]), monitor


def look(directory: Path, now_us: int) -> dict[str, Any]:
    """What is said of the only arm after everything in the log has gone to the lake."""
    worker, monitor = watch(directory, now_us)
    worker.step()
    worker.tend(last=True)
    assert not monitor.failures
    (arm,) = report(directory)["arms"]
    content: dict[str, Any] = arm
    return content


def report(directory: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((directory / "run" / "published" / "performance.json").read_text())
    return content


def metrics(directory: Path, name: str) -> dict[str, float]:
    """The samples of a metric of the only arm, by what it is called (and which bound)."""
    content = published(directory / "run" / "published").get(name, [])
    return {"/".join(filter(None, (own.get("name"), own.get("bound")))): value for _, own, value in content}


def values(arm: dict[str, Any], side: str) -> dict[str, float]:
    return {one["name"]: one["value"] for one in arm[side]["metrics"]}


def states(arm: dict[str, Any], side: str) -> dict[str, str | None]:
    return {one["name"]: one["state"] for one in arm[side]["metrics"]}


async def log_answers(
    directory: Path,
    moments_us: Array,
    outputs: dict[str, Array],
    *,
    inputs: Array | None = None,
    version: str = "1",
    arm: str = "stable",
    shadow_of: str = "",
    first: int = 0,
    code: int = 0,
    sampling: Sampling | None = None,
    reason: str = "SPLIT",
) -> list[str]:
    """Writes a segment with a request for each row, and returns their ids: r0, r1, ... from `first` on."""
    x = np.zeros((len(moments_us), 1), "<f4") if inputs is None else inputs
    log = PredictionLog(directory / "log" / "wal", worker="w0", gateway="gw", boot=str(uuid4()), sampling=sampling)
    specs = tuple(spec_of(name, array) for name, array in outputs.items())
    stream = log.stream(MODEL, version, arm, (spec_of("x", x),), specs, "sha256:aa", shadow_of)
    names = [f"r{first + number}" for number in range(len(moments_us))]
    for index, moment in enumerate(moments_us.tolist()):
        sent = [tensor_of(x, index)]
        got = [] if code else [tensor_of(array, index) for array in outputs.values()]
        shapes = [tensor.shape for tensor in sent]
        stream.append(Record(moment, names[index], code, reason, 3, 42, 1, 1, 2, 3, shapes, sent, got))
        if index % 20_000 == 19_999:
            await log.flush()
    await log.close()
    return names


async def send_labels(
    directory: Path,
    names: Sequence[str],
    given: Sequence[float | str],
    *,
    received_us: int,
    label_us: int | None = None,
) -> None:
    """Writes a segment with a label for each of these requests."""
    feedback = open_labels(directory / "log" / "wal")
    labels = [
        Label(
            MODEL, request_hash(name), 0, received_us if label_us is None else label_us, received_us, name,
            number=None if isinstance(value, str) else float(value),
            text=value if isinstance(value, str) else None,
        )
        for name, value in zip(names, given, strict=True)
    ]  # fmt: skip
    for start in range(0, len(labels), 1000):
        await feedback.write(labels[start : start + 1000])
    await feedback.close()
