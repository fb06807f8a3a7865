"""Labels for the tests of this room, and what comes out of the lake."""

from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow.parquet as pq

from gateway.records.worker.feedback_log import FeedbackLimits, FeedbackLog
from gateway.records.worker.label import Label, request_hash
from tests.records.traffic import NOW_US


def open_labels(directory: Path, *, worker: str = "w0", limits: FeedbackLimits | None = None) -> FeedbackLog:
    return FeedbackLog(directory, worker=worker, gateway="gw", boot=uuid4().hex, limits=limits)


def label(
    request_id: str,
    *,
    model: str = "flights",
    row: int = 0,
    number: float | None = 1.0,
    received_us: int = NOW_US,
    label_us: int | None = None,
) -> Label:
    return Label(
        model=model,
        request_hash=request_hash(request_id),
        row_index=row,
        label_us=received_us if label_us is None else label_us,
        received_us=received_us,
        request_id=request_id,
        number=number,
        source="tests",
    )


def lake_labels(lake: Path) -> list[dict[str, Any]]:
    """Every label that a reader of the lake sees."""
    rows: list[dict[str, Any]] = []
    for path in sorted(lake.glob("labels/model_dir=*/date=*/*.parquet")):
        rows += pq.read_table(path, partitioning=None).to_pylist()
    return rows
