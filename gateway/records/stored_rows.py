"""Rows of a published Parquet file, one after the other, for those who want rows and not files."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

_MOST_ROWS = 1000
_BATCH_BYTES = 4 << 20  # before they are JSON, which is about three times as long
_ID = ("gateway", "worker", "boot", "wal_seq", "record", "row_index")


@dataclass(frozen=True, slots=True)
class StoredRow:
    """One row. `id` is the same whenever the row is read: a reader drops what it has seen by it."""

    id: str
    kind: str  # prediction, or label
    model: str
    request_id: str
    value: bytes  # JSON: all columns that are not null


class Unreadable(Exception):
    """The file is no Parquet file of the log."""


def stored_rows(path: Path, *, start: int = 0) -> Iterator[list[StoredRow]]:
    """The rows from number `start` on, in lists of bounded length; of the file no more is in memory.

    Units: moments as microseconds since the epoch; what JSON cannot say (NaN, infinities) is null.
    Raises: OSError, Unreadable.
    """
    try:
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20) as file:
            left = start
            for batch in file.iter_batches(batch_size=_rows_at_a_time(file.metadata)):
                if left >= batch.num_rows:
                    left -= batch.num_rows
                    continue
                yield _rows(batch.slice(left))
                left = 0
    except (pa.ArrowInvalid, KeyError) as error:
        raise Unreadable(str(error)) from error


def _rows_at_a_time(metadata: Any) -> int:
    """As many rows as make a batch of bounded size."""
    rows = max(1, int(metadata.num_rows))
    size = max(1, sum(int(metadata.row_group(index).total_byte_size) for index in range(metadata.num_row_groups)))
    return max(1, min(_MOST_ROWS, _BATCH_BYTES * rows // size))


def _rows(batch: pa.RecordBatch) -> list[StoredRow]:
    names = batch.schema.names
    columns = [_values(column) for column in batch.columns]
    by_name = dict(zip(names, columns, strict=True))
    kind = "label" if "label_ts" in by_name else "prediction"
    ids = zip(*(by_name[name] for name in _ID), strict=True)
    models, requests = by_name["model"], by_name["request_id"]
    encode = msgspec.json.Encoder().encode
    found = []
    for index, (values, (gateway, worker, boot, seq, record, row)) in enumerate(
        zip(zip(*columns, strict=True), ids, strict=True)
    ):
        # A record of several rows has one number; a label has one for itself.
        name = f"{gateway}/{worker}-{boot}-{seq}/{record}" + ("" if kind == "label" else f".{row}")
        value = encode({key: item for key, item in zip(names, values, strict=True) if item is not None})
        found.append(StoredRow(name, kind, models[index], requests[index] or "", value))
    return found


def _values(column: pa.Array) -> list[Any]:
    """The column as JSON can say it. Numbers take the short way."""
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    elif pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    elif pa.types.is_fixed_size_binary(column.type):
        return [None if value is None else UUID(bytes=value).hex for value in column.to_pylist()]
    if pa.types.is_primitive(column.type) and not pa.types.is_boolean(column.type) and not column.null_count:
        return list(column.to_numpy().tolist())
    if pa.types.is_struct(column.type):
        return [_digest(value) for value in column.to_pylist()]
    return list(column.to_pylist())


def _digest(value: dict[str, Any] | None) -> dict[str, Any] | None:
    if value is None:
        return None
    return {key: item.hex() if isinstance(item, bytes) else item for key, item in value.items()}
