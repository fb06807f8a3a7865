"""Records for the tests of this room: a log with real files, streams, and what comes out of the lake."""

import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from gateway.records.lake.compactor import Compactor, CompactorConfig
from gateway.records.worker.prediction_log import LogCounts, LogLimits, PredictionLog
from gateway.records.worker.record import Record
from gateway.records.worker.record_stream import RecordStream
from gateway.records.worker.redaction import Redaction
from gateway.records.worker.sampling import Sampling
from gateway.tensor import Buffer, Datatype, TensorSpec

X = TensorSpec("x", Datatype.FP32, (-1, 4))
LABEL = TensorSpec("label", Datatype.INT64, (-1,))
SCORES = TensorSpec("scores", Datatype.FP32, (-1, 3))
NOW_US = 4_000_000_000_000_000  # far ahead, so that no real clock finds the rows old


def open_log(
    directory: Path,
    *,
    worker: str = "w0",
    boot: str | None = None,
    limits: LogLimits | None = None,
    sampling: Sampling | None = None,
    redaction: Redaction | None = None,
) -> PredictionLog:
    return PredictionLog(
        directory,
        worker=worker,
        gateway="gw",
        boot=boot or str(uuid.uuid4()),
        limits=limits,
        sampling=sampling,
        redaction=redaction,
    )


def open_stream(log: PredictionLog, *, model: str = "flights", version: str = "1", shadow_of: str = "") -> RecordStream:
    return log.stream(model, version, "stable", (X,), (LABEL, SCORES), "sha256:aa", shadow_of)


def append(stream: RecordStream, request_id: str, *, rows: int = 1, code: int = 0, ts_us: int = NOW_US) -> None:
    """A record whose values follow from its id, so that a reader can check them."""
    seed = sum(request_id.encode())
    x = (np.arange(rows * 4, dtype="<f4") + seed).tobytes()
    label, scores = np.full(rows, seed, "<i8"), np.tile(np.array([0.1, 0.7, 0.2], "<f4"), (rows, 1))
    outputs: Sequence[Buffer] = () if code else (label.tobytes(), scores.tobytes())
    stream.append(Record(ts_us, request_id, code, "SPLIT", 7, 42, rows, 11, 22, 33, None, (x,), outputs))


def balanced(counts: LogCounts) -> bool:
    return counts.seen == counts.written + counts.sampled_out + sum(counts.dropped.values()) + counts.buffered


def compactor(log: Path, lake: Path) -> Compactor:
    return Compactor(CompactorConfig(str(log), str(lake)))


def lake_rows(lake: Path, *, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Every row of every Parquet file that a reader of the lake sees."""
    rows: list[dict[str, Any]] = []
    for path in sorted(lake.glob("predictions/model_dir=*/version_dir=*/date=*/hour=*/*.parquet")):
        rows += pq.read_table(path, columns=list(columns) if columns else None, partitioning=None).to_pylist()
    return rows


def lake_ids(lake: Path) -> list[str]:
    return [row["request_id"] for row in lake_rows(lake, columns=["request_id"])]
