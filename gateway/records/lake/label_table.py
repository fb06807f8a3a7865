"""Labels as Arrow tables, for the lake's folder `labels`. Imports pyarrow, which a worker never loads."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from time import gmtime, strftime
from uuid import UUID

import pyarrow as pa

from gateway.records.lake.layout import labels_folder
from gateway.records.worker.label import Label
from gateway.records.worker.segment import Segment

_MOMENT = pa.timestamp("us", "UTC")
_SCHEMA = pa.schema(
    [
        ("model", pa.string()), ("request_id", pa.string()), ("request_hash", pa.uint64()), ("row_index", pa.int32()),
        ("label_num", pa.float64()), ("label_text", pa.string()), ("reward", pa.float64()), ("label_ts", _MOMENT),
        ("received_ts", _MOMENT), ("source", pa.string()), ("version", pa.string()), ("predicted_ts", _MOMENT),
        ("gateway", pa.string()), ("worker", pa.string()), ("boot", pa.binary(16)), ("wal_seq", pa.int64()),
        ("record", pa.int64()),
    ]
)  # fmt: skip


def label_tables(calls: Sequence[tuple[int, Sequence[Label]]], segment: Segment) -> Iterator[tuple[str, pa.Table]]:
    """Yields the labels of a segment by model and day of receipt (UTC), with their folder below the lake.

    Shapes: one row per label, in the order of receipt; null where a label does not say.
    """
    groups: dict[tuple[str, str], list[tuple[int, Label]]] = defaultdict(list)
    for first, labels in calls:
        for number, label in enumerate(labels, first):
            day = strftime("%Y-%m-%d", gmtime(label.received_us // 1_000_000))
            groups[label.model, day].append((number, label))
    for (model, day), numbered in groups.items():
        yield f"{labels_folder(model)}/date={day}", _table(numbered, segment)


def _table(numbered: Sequence[tuple[int, Label]], segment: Segment) -> pa.Table:
    boot = UUID(segment.boot).bytes
    rows = [
        (
            label.model, label.request_id or None, label.request_hash, label.row_index, label.number, label.text,
            label.reward, label.label_us, label.received_us, label.source or None, label.version or None,
            label.predicted_us or None, segment.gateway, segment.worker, boot, segment.seq, number,
        )
        for number, label in numbered
    ]  # fmt: skip
    columns = zip(*rows, strict=True)
    return pa.table([pa.array(column, field.type) for column, field in zip(columns, _SCHEMA, strict=True)], _SCHEMA)
