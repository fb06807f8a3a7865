"""Rows of a published Parquet file, one after the other, for those who want rows and not files."""

from collections.abc import Iterator
from itertools import repeat
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from gateway.records.lake.damaged_parquet import DamagedParquet, reading

_MOST_ROWS = 1000
_MOST_READ = 8000  # at a time: opening a batch costs as much as a hundred rows
_BATCH_BYTES = 4 << 20  # before they are JSON, which is about three times as long
_SEGMENT = ("gateway", "worker", "boot", "wal_seq")
_encode = msgspec.json.Encoder().encode


class StoredRow(NamedTuple):
    """One row. `id` is the same whenever the row is read: a reader drops what it has seen by it."""

    id: str
    kind: str  # prediction, or label
    model: str
    request_id: str
    value: bytes  # JSON: all columns that are not null


class Unreadable(Exception):
    """The file is no Parquet file of the log."""


def stored_rows(path: Path, *, start: int = 0) -> Iterator[list[StoredRow]]:
    """Yields the rows from number `start` on, in lists of bounded length; of the file no more is in memory.

    Units: moments as microseconds since the epoch; what JSON cannot say (NaN, infinities) is null.
    Raises: OSError, Unreadable.
    """
    try:
        with (
            reading(path),
            pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20, page_checksum_verification=True) as file,
        ):
            left = start
            for batch in file.iter_batches(batch_size=_rows_at_a_time(file.metadata)):
                for first in range(min(left, batch.num_rows), batch.num_rows, _MOST_ROWS):
                    yield _rows(batch.slice(first, _MOST_ROWS))
                left = max(left - batch.num_rows, 0)
    except (DamagedParquet, KeyError) as error:
        raise Unreadable(str(error)) from error


def json_rows(batch: pa.RecordBatch) -> list[bytes]:
    """Returns each row as a JSON object of its columns that are not null, in their order.

    A row is a template of the batch's columns, filled: values become JSON a column at a time, what all rows have in
    common is in the template, and a row costs no dictionary.
    """
    template, columns = b"", []
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if column.null_count == len(column):
            continue
        key = b"," + _encode(name) + b":"
        pieces = _pieces(column)
        if column.null_count:  # who has no value has no key
            absent = column.is_null().to_pylist()
            columns.append([b"" if gone else key + piece for gone, piece in zip(absent, pieces, strict=True)])
            template += b"%b"
        elif pieces[0] == pieces[-1] and pieces.count(pieces[0]) == len(pieces):
            template += (key + pieces[0]).replace(b"%", b"%%")
        else:
            columns.append(pieces)
            template += key.replace(b"%", b"%%") + b"%b"
    filled = [template % values for values in zip(*columns, strict=True)] if columns else [template % ()] * len(batch)
    return [b"{" + row[1:] + b"}" for row in filled]


def _rows_at_a_time(metadata: Any) -> int:
    """Returns as many rows as make a batch of bounded size."""
    rows = max(1, int(metadata.num_rows))
    size = max(1, sum(int(metadata.row_group(index).total_byte_size) for index in range(metadata.num_row_groups)))
    return max(1, min(_MOST_READ, _BATCH_BYTES * rows // size))


def _rows(batch: pa.RecordBatch) -> list[StoredRow]:
    kind = "label" if "label_ts" in batch.schema.names else "prediction"
    requests = [request or "" for request in batch.column("request_id").to_pylist()]
    models = _items(batch.column("model"))
    return list(map(StoredRow, _ids(batch, kind), repeat(kind), models, requests, json_rows(batch)))


def _ids(batch: pa.RecordBatch, kind: str) -> list[str]:
    """Returns the id of each row: of the record and the row in it; of a label its own number."""
    segments: dict[tuple[Any, ...], str] = {}
    prefixes = []
    for segment in zip(*(_items(batch.column(name)) for name in _SEGMENT), strict=True):
        if segment not in segments:
            gateway, worker, boot, seq = segment
            segments[segment] = f"{gateway}/{worker}-{UUID(bytes=boot).hex}-{seq}/"
        prefixes.append(segments[segment])
    records, rows = _items(batch.column("record")), _items(batch.column("row_index"))
    if kind == "label":
        return [f"{prefix}{record}" for prefix, record in zip(prefixes, records, strict=True)]
    return [f"{prefix}{record}.{row}" for prefix, record, row in zip(prefixes, records, rows, strict=True)]


def _pieces(column: pa.Array) -> list[bytes]:
    """Returns the JSON of each value; of a null anything."""
    kind = column.type
    if pa.types.is_timestamp(kind):
        return _pieces(column.cast(pa.int64()))
    if pa.types.is_fixed_size_binary(kind):
        column = column.dictionary_encode()
        known = [_encode(value.hex()) for value in column.dictionary.to_pylist()] or [b"null"]
        return [known[place or 0] for place in _items(column.indices)]
    if pa.types.is_dictionary(kind):
        known = [_encode(_plain(value)) for value in column.dictionary.to_pylist()] or [b"null"]
        return [known[place or 0] for place in _items(column.indices)]
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
        return _encode(_items(column))[1:-1].split(b",")
    return [_encode(_plain(value)) for value in column.to_pylist()]


def _items(column: pa.Array) -> list[Any]:
    """Returns the values as Python has them; a dictionary's are looked up, and numbers take the short way."""
    kind = column.type
    if pa.types.is_fixed_size_binary(kind):  # few are different
        column = column.dictionary_encode()
        kind = column.type
    if pa.types.is_dictionary(kind) and not column.null_count:
        known = column.dictionary.to_pylist()
        return [known[place] for place in _items(column.indices)]
    if column.null_count or not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        return list(column.to_pylist())
    return list(column.to_numpy(zero_copy_only=False).tolist())


def _plain(value: Any) -> Any:
    """Returns the value as JSON can say it: of a digest the bytes in hexadecimal."""
    if isinstance(value, dict):
        return {key: item.hex() if isinstance(item, bytes) else item for key, item in value.items()}
    return value
