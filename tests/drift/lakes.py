"""Lakes for the tests of reports: rows that go the whole way of a logged prediction, from the log to Parquet."""

import asyncio
import uuid
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from gateway.records.lake import parquet
from gateway.records.lake.compactor import Compactor, CompactorConfig
from gateway.records.lake.label_table import label_tables
from gateway.records.lake.retention import RetentionLimits
from gateway.records.worker.feature_names import name_features
from gateway.records.worker.label import Label, request_hash
from gateway.records.worker.prediction_log import PredictionLog
from gateway.records.worker.record import Record
from gateway.records.worker.redaction import Redaction
from gateway.records.worker.sampling import Sampling
from gateway.records.worker.segment import Segment
from gateway.tensor import Datatype, TensorSpec

Array = npt.NDArray[Any]
DAY_US = 86_400_000_000
START_US = 1_790_812_800_000_000  # 2026-10-01


def lake_of(data_dir: Path) -> Path:
    return data_dir / "log" / "lake"


def write_rows(
    data_dir: Path,
    ts_us: Array,
    inputs: dict[str, Array],
    outputs: dict[str, Array],
    *,
    model: str = "homes",
    version: str = "1",
    arm: str = "stable",
    shadow_of: str = "",
    names: Sequence[str] | None = None,
    features: Sequence[str] = (),
    codes: Sequence[int] | None = None,
    sampling: Sampling | None = None,
    redaction: Redaction | None = None,
    digest: str = "sha256:aa",
    reason: str = "SPLIT",
) -> list[str]:
    """Logs and compacts one record per row, features with these names; the ids of the requests.

    Shapes: [rows] or [rows, d] of each tensor.
    """
    ids = list(names) if names is not None else [f"{model}-{version}-{index}" for index in range(len(ts_us))]
    specs = [tuple(spec_of(name, values) for name, values in tensors.items()) for tensors in (inputs, outputs)]

    async def go(directory: Path) -> None:
        log = PredictionLog(
            directory,
            worker="w0",
            gateway="gw",
            boot=str(uuid.uuid4()),
            sampling=sampling,
            redaction=redaction,
        )
        named, why = name_features(specs[0], ",".join(features)) if features else (specs[0], "")
        assert not why
        stream = log.stream(model, version, arm, named, specs[1], digest, shadow_of)
        for index, moment in enumerate(ts_us.tolist()):
            code = 0 if codes is None else codes[index]
            sent = [tensor_of(values, index) for values in inputs.values()]
            shapes = [tensor.shape for tensor in sent]
            got = [] if code else [tensor_of(values, index) for values in outputs.values()]
            bucket = index * 618_033 % 1_000_000  # spread evenly
            stream.append(Record(moment, ids[index], code, reason, 3, bucket, 1, 5, 7, 20, shapes, sent, got))
            if index % 50_000 == 49_999:
                await log.flush()
        await log.close()
        counts = log.counts()
        assert counts.written + counts.sampled_out == len(ts_us), counts

    with TemporaryDirectory() as wal:
        asyncio.run(go(Path(wal)))
        # A clock of that time: by today's the rows could be old enough to be deleted.
        kept = RetentionLimits(max_age_s=1e9)
        clock = float(ts_us[-1]) / 1e6
        Compactor(CompactorConfig(wal, str(lake_of(data_dir)), retention=kept), clock=lambda: clock).step()
    return ids


def write_labels(
    data_dir: Path,
    ids: Sequence[str],
    values: Sequence[float | str | None],
    label_us: Sequence[int],
    *,
    model: str = "homes",
    delay_us: int = 3_600_000_000,
    rewards: Sequence[float | None] | None = None,
) -> None:
    """Feedback as the compactor publishes it, received `delay_us` after the time that the label is of."""
    made = [
        Label(
            model, request_hash(name), 0, moment, moment + delay_us, name,
            number=None if isinstance(value, str) or value is None else float(value),
            text=value if isinstance(value, str) else None,
            reward=None if rewards is None else rewards[index],
        )
        for index, (name, value, moment) in enumerate(zip(ids, values, label_us, strict=True))
    ]  # fmt: skip
    segment = Segment("gw", "w0", str(uuid.uuid4()), 0)
    for folder, rows in label_tables([(0, made)], segment):
        parquet.publish(rows, lake_of(data_dir), folder, f"{uuid.uuid4()}.parquet")


def spec_of(name: str, values: Array) -> TensorSpec:
    kind = Datatype.BYTES if values.dtype.kind in "OU" else next(
        known for known in Datatype if known is not Datatype.BYTES and np.dtype(known.dtype) == values.dtype
    )  # fmt: skip
    return TensorSpec(name, kind, (-1, *values.shape[1:]))


def tensor_of(values: Array, index: int) -> Array:
    row = values[index : index + 1]
    if values.dtype.kind not in "OU":
        return np.ascontiguousarray(row)
    made = np.empty(row.shape, object)
    made[:] = [str(value).encode() for value in row]
    return made
