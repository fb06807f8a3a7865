"""Blocks to Arrow to Parquet files. Imports pyarrow, which a worker never loads."""

import base64
import ctypes
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gateway.records.lake.explode import Explosion, explode
from gateway.records.lake.lake_columns import listed_names
from gateway.records.lake.prediction_columns import prediction_columns
from gateway.records.worker.block import ColumnMode
from gateway.records.worker.digest import MAX_TENSOR_BYTES
from gateway.records.worker.feature_names import columns_by_place, from_metadata, to_metadata
from gateway.records.worker.label import request_hash
from gateway.records.worker.reading import Block, TensorColumn, readable
from gateway.records.worker.sampling import Kept
from gateway.records.worker.segment import Segment, sync_directory
from gateway.records.worker.stream_schema import StreamSchema, fixed_bytes, is_batched, is_flat, width
from gateway.tensor import Array, Datatype

ROW_GROUP = 131_072
_TABLE_BYTES = 32 << 20
_METADATA_BYTES = 256  # of a row, about: what every row has
_DICTIONARY = [
    "model", "version", "version_digest", "arm", "primary_version", "reason", "sample_reason", "redacted", "gateway",
    "worker", "boot",
]  # fmt: skip
_HOUR_US = 3_600_000_000
_TEXT = pa.dictionary(pa.int32(), pa.string())
_KEPT = pa.array([kept.name.lower() for kept in Kept])
_TYPES = {
    Datatype.BOOL: pa.bool_(), Datatype.UINT8: pa.uint8(), Datatype.UINT16: pa.uint16(), Datatype.UINT32: pa.uint32(),
    Datatype.UINT64: pa.uint64(), Datatype.INT8: pa.int8(), Datatype.INT16: pa.int16(), Datatype.INT32: pa.int32(),
    Datatype.INT64: pa.int64(), Datatype.FP32: pa.float32(), Datatype.FP64: pa.float64(), Datatype.BYTES: pa.string(),
    # Readers are at home with float32; both are exact in it.
    Datatype.FP16: pa.float32(), Datatype.BF16: pa.float32(),
}  # fmt: skip
_TRIM = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's alone
Columns = dict[str, pa.Array]


@dataclass(frozen=True, slots=True)
class Published:
    """A Parquet file in its final place."""

    path: str  # below the lake
    rows: int
    size_bytes: int


def limit_threads() -> None:
    """Keeps Arrow to one thread: the compactor lives beside workers that need the cores."""
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)


def release_unused() -> None:
    """Returns to the system what Arrow and the C library keep for the next time, which is a minute away."""
    pa.default_memory_pool().release_unused()
    if _TRIM is not None:
        _TRIM(0)


def row_bytes(schema: StreamSchema) -> int:
    """Returns about how many bytes a row takes in memory, beside those of tensors that are no columns of their own."""
    flat = (spec for spec in (*schema.inputs, *schema.outputs) if is_flat(spec))
    return _METADATA_BYTES + sum(width(spec) * max(spec.datatype.size, 4) for spec in flat)


def tables(block: Block, segment: Segment, *, limit: int | None = None) -> Iterator[pa.Table]:
    """Yields one row per instance, in tables of bounded size, or of at most `limit` rows.

    Shapes: metadata, then f.* or in.* of the inputs, out.* of the outputs, and the prediction; the same columns for
            every block of a schema.
    """
    for exploded in explode(block, limit or max(1, _TABLE_BYTES // row_bytes(block.schema))):
        yield _table(block, segment, exploded)


def _table(block: Block, segment: Segment, exploded: Explosion) -> pa.Table:
    columns = _metadata(block, segment, exploded)
    named = columns_by_place(block.schema)
    taken = {*columns, "pred_class", "pred_score"}
    for prefix, flat_prefix, tensors in (("in.", "f.", block.inputs), ("out.", "out.", block.outputs)):
        for column in tensors:
            if column.spec.name in block.schema.dropped:
                continue
            if is_flat(column.spec):
                hidden = block.schema.hidden.get(column.spec.name, ())
                features = _flat(column, exploded, flat_prefix + column.spec.name, hidden)
            else:
                features = _nested(column, exploded, prefix + column.spec.name)
            for name, values in features.items():
                columns[_unique(named.get(name, name), taken)] = values
    columns |= prediction_columns(block, exploded)
    written = {place: column for place, column in named.items() if column in columns}
    return pa.table(columns, metadata=to_metadata(written))


def split_by_hour(rows: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """Yields the rows of each hour (UTC), with the partition they belong to: "date=YYYY-MM-DD/hour=HH"."""
    hours = rows.column("ts").cast(pa.int64()).to_numpy() // _HOUR_US
    for hour in np.unique(hours).tolist():
        text = str(np.datetime64(hour, "h"))
        chosen = rows if (hours == hour).all() else rows.filter(pa.array(hours == hour))
        yield f"date={text[:-3]}/hour={text[-2:]}", chosen


def answered(rows: pa.Table) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Returns the rows that somebody got an answer from, as what labels name them by: request hash, row index, arrival.

    Units: arrival in microseconds since the epoch.
    """
    real = pc.and_(pc.equal(rows.column("status"), 0), pc.invert(rows.column("is_shadow")))
    chosen = rows.select(["request_hash", "row_index", "ts"]).filter(real)
    hashes, indices, moments = (chosen.column(name) for name in chosen.column_names)
    return hashes.to_numpy(), indices.cast(pa.int64()).to_numpy(), moments.cast(pa.int64()).to_numpy()


def join(tables: Sequence[pa.Table]) -> pa.Table:
    """Returns one table of the rows of all, in order."""
    return pa.concat_tables(tables).unify_dictionaries()


def write_options(schema: pa.Schema) -> dict[str, Any]:
    """Returns how files of these columns are written: dictionaries only where values repeat."""
    texts = [field.name for field in schema if field.type == pa.string() and field.name != "request_id"]
    repeating = [name for name in (*_DICTIONARY, *texts) if name in schema.names]
    # Without Arrow's own schema in the file every reader sees Parquet's types: text is text, not a dictionary.
    return {
        "compression": "zstd", "compression_level": 1, "use_dictionary": repeating, "store_schema": False,
        "write_page_checksum": True,
    }  # fmt: skip


def keep_names(writer: pq.ParquetWriter, schema: pa.Schema) -> None:
    """Writes into the file what its columns of features are called by their tensors; without Arrow's own schema nothing
    else carries it."""
    if named := from_metadata(schema.metadata):
        writer.add_key_value_metadata(to_metadata(named))


def publish(rows: pa.Table, lake: Path, partition: str, name: str) -> Published:
    """Writes a file under a temporary name and moves it to its place, replacing what an interrupted run left there.

    Order: when this returns, the file is complete and durable under its name.
    Raises: OSError.
    """
    folder = lake / partition
    folder.mkdir(parents=True, exist_ok=True)
    temporary = lake / "_tmp" / name
    temporary.parent.mkdir(exist_ok=True)
    with temporary.open("wb") as file:
        with pq.ParquetWriter(file, rows.schema, **write_options(rows.schema)) as writer:
            writer.write_table(rows, row_group_size=ROW_GROUP)
            keep_names(writer, rows.schema)
        file.flush()
        os.fsync(file.fileno())
        size_bytes = file.tell()
    os.rename(temporary, folder / name)
    sync_directory(folder)
    return Published(f"{partition}/{name}", rows.num_rows, size_bytes)


def _metadata(block: Block, segment: Segment, exploded: Explosion) -> Columns:
    schema, records, total = block.schema, block.table[exploded.records], exploded.total
    numbers = block.first_record + exploded.records
    return {
        "ts": pa.array(_plain(records["ts_us"])).cast(pa.timestamp("us", "UTC")),
        "request_id": pa.array(block.ids, pa.string()).take(pa.array(exploded.records)),
        "request_hash": pa.array(_hashes(block.ids)[exploded.records]),
        "row_index": pa.array(exploded.row_index.astype("<i4")),
        "batch_size": pa.array(exploded.sizes[exploded.records].astype("<i4")),
        "model": _constant(schema.model, total),
        "version": _constant(schema.version, total),
        "version_digest": _constant(schema.digest, total),
        "arm": _constant(schema.arm, total),
        "is_shadow": pa.array(np.full(total, bool(schema.shadow_of))),
        "primary_version": _constant(schema.shadow_of or schema.version, total),
        "rule_rev": pa.array(_plain(records["revision"])),
        "reason": pa.DictionaryArray.from_arrays(
            pa.array(records["reason"].astype("<i4")), pa.array(block.reasons, pa.string())
        ),
        "bucket": pa.array(_plain(records["bucket"])),
        "status": pa.array(_plain(records["code"])),
        "queue_us": pa.array(_plain(records["queue_us"])),
        "infer_us": pa.array(_plain(records["infer_us"])),
        "total_us": pa.array(_plain(records["total_us"])),
        "sample_p": pa.array(_plain(records["sample_p"])),
        "sample_reason": pa.DictionaryArray.from_arrays(pa.array(records["kept"].astype("<i4")), _KEPT),
        "redaction_rev": pa.array(np.full(total, schema.redaction_revision, "<i4")),
        "redacted": _redacted(schema, total),
        "gateway": _constant(segment.gateway, total),
        "worker": _constant(segment.worker, total),
        "boot": pa.array([UUID(segment.boot).bytes], pa.binary(16)).take(pa.array(np.zeros(total, "<i4"))),
        "wal_seq": pa.array(np.full(total, segment.seq, "<i8")),
        "record": pa.array(numbers.astype("<i8")),
    }


def _redacted(schema: StreamSchema, total: int) -> pa.Array:
    """Returns the names of the tensors that redaction touched, null where there are none."""
    names = listed_names(schema.redacted)
    return _constant(names, total) if names else pa.nulls(total, _TEXT)


def _hashes(ids: Sequence[str]) -> npt.NDArray[np.uint64]:
    return np.fromiter(map(request_hash, ids), np.uint64, len(ids))


def _flat(column: TensorColumn, exploded: Explosion, name: str, hidden: tuple[int, ...]) -> Columns:
    features = width(column.spec)
    names = [name] if features == 1 else [f"{name}_{index}" for index in range(features)]
    complete = bool((column.leads == exploded.sizes).all())
    arrow_type = _TYPES[column.spec.datatype]
    if column.text is not None:
        made = _flat_texts(column, exploded, features)
    else:
        values = np.asarray(column.values).reshape(-1, features)
        absent = None
        if complete:
            values = values[exploded.start : exploded.start + exploded.total]
        else:
            holds, source = exploded.located(column.leads)
            spread = np.zeros((exploded.total, features), values.dtype)
            spread[holds] = values[source]
            absent = ~holds
            values = spread
        made = [_array(column, values[:, index], absent) for index in range(features)]
    return {
        label: pa.nulls(exploded.total, arrow_type) if index in hidden else made[index]
        for index, label in enumerate(names)
    }


def _flat_texts(column: TensorColumn, exploded: Explosion, features: int) -> list[pa.Array]:
    holds, source = exploded.located(column.leads)
    first = int(source[0]) if len(source) else 0
    last = int(source[-1]) + 1 if len(source) else 0
    texts = _texts(column, first * features, last * features)
    places = np.zeros(exploded.total, np.int64)
    places[holds] = (source - first) * features
    return [texts.take(pa.array(places + index, mask=~holds)) for index in range(features)]


def _nested(column: TensorColumn, exploded: Explosion, name: str) -> Columns:
    """Returns a tensor as one list per row: its instance if every row has one, else all of it on the first row."""
    per_row = (column.leads == exploded.sizes) & is_batched(column.spec)
    sizes = np.diff(column.starts)
    at_records = exploded.records
    first = exploded.row_index == 0
    has = (column.modes[at_records] == ColumnMode.VALUES) & (per_row[at_records] | first)
    lengths = np.where(has, np.where(per_row, sizes // exploded.sizes, sizes)[at_records], 0)
    offsets = np.zeros(exploded.total + 1, "<i4")
    np.cumsum(lengths, out=offsets[1:])
    begin = _first_element(column, exploded, per_row)
    end = begin + int(offsets[-1])
    if column.text is not None:
        elements = _texts(column, begin, end)
    else:
        elements = _array(column, np.asarray(column.values)[begin:end], None)
    made: Columns = {name: _lists(offsets, elements, ~has)}
    present = (column.modes[at_records] != ColumnMode.ABSENT) & (per_row[at_records] | first)
    made[f"{name}.shape"] = _shapes(column, exploded, per_row, present)
    if column.text is None and not 0 < fixed_bytes(column.spec) <= MAX_TENSOR_BYTES:
        made[f"{name}.digest"] = _digests(column, exploded, per_row)
    return made


def _first_element(column: TensorColumn, exploded: Explosion, per_row: npt.NDArray[np.bool_]) -> int:
    """Returns the element of the block that the rows begin with."""
    if not exploded.total:
        return 0
    record, index = int(exploded.records[0]), int(exploded.row_index[0])
    begin, end = int(column.starts[record]), int(column.starts[record + 1])
    if per_row[record]:
        return begin + index * ((end - begin) // int(exploded.sizes[record]))
    return begin if index == 0 else end


def _shapes(
    column: TensorColumn, exploded: Explosion, per_row: npt.NDArray[np.bool_], present: npt.NDArray[np.bool_]
) -> pa.Array:
    shapes = [column.shape(index)[1:] if per_row[index] else column.shape(index) for index in range(len(per_row))]
    ranks = np.where(present, np.array([len(shape) for shape in shapes], np.int64)[exploded.records], 0)
    offsets = np.zeros(exploded.total + 1, "<i4")
    np.cumsum(ranks, out=offsets[1:])
    sizes = [size for row in np.flatnonzero(present).tolist() for size in shapes[exploded.records[row]]]
    return _lists(offsets, pa.array(np.minimum(np.array(sizes, np.int64), 2**31 - 1).astype("<i4")), ~present)


def _digests(column: TensorColumn, exploded: Explosion, per_row: npt.NDArray[np.bool_]) -> pa.Array:
    held = column.modes == ColumnMode.DIGEST
    counts = np.where(held, column.leads, 0)
    starts = np.cumsum(counts) - counts
    rows = held[exploded.records] & (per_row[exploded.records] | (exploded.row_index == 0))
    places = (starts[exploded.records] + np.where(per_row[exploded.records], exploded.row_index, 0))[rows]
    digests = column.digests
    fields = ("mean", "std", "min", "max")
    index = np.zeros(exploded.total, np.int64)
    index[rows] = np.arange(len(places))
    chosen = digests[places] if digests is not None else np.zeros(0, [(name, "<f8") for name in fields])
    if digests is None or not len(chosen):
        return pa.nulls(exploded.total, _DIGEST)
    sums = pa.array([item.tobytes() for item in chosen["xxh3_128"]], pa.binary(16))
    numbers = [pa.array(_plain(chosen[name])) for name in fields]
    made = pa.StructArray.from_arrays([sums, *numbers, pa.array(chosen["nan"].astype("<i8"))], fields=list(_DIGEST))
    return made.take(pa.array(index, mask=~rows))


_DIGEST = pa.struct(
    [("xxh3_128", pa.binary(16))]
    + [(name, pa.float64()) for name in ("mean", "std", "min", "max")]
    + [("nan", pa.int64())]
)


def _texts(column: TensorColumn, first: int, last: int) -> pa.Array:
    """Returns elements of a BYTES tensor as text; what is no UTF-8 becomes "base64:..."."""
    assert column.text is not None
    lengths = column.values[first:last]
    begin = int(column.values[:first].sum(dtype=np.int64))
    offsets = np.zeros(len(lengths) + 1, "<i4")
    np.cumsum(lengths, out=offsets[1:])
    data = pa.py_buffer(bytes(column.text[begin : begin + int(offsets[-1])]))
    raw = pa.Array.from_buffers(pa.binary(), len(lengths), [None, pa.py_buffer(offsets.tobytes()), data])
    try:
        return pc.cast(raw, pa.string())
    except pa.ArrowInvalid:
        return pa.array([_as_text(value) for value in raw.to_pylist()], pa.string())


def _as_text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return "base64:" + base64.b64encode(value).decode()


def _array(column: TensorColumn, values: Array, absent: npt.NDArray[np.bool_] | None) -> pa.Array:
    plain = _plain(readable(column.spec, values))
    if plain.dtype == np.float16:
        plain = plain.astype("<f4")
    return pa.array(plain, _TYPES[column.spec.datatype], mask=absent)


def _lists(offsets: npt.NDArray[np.int32], elements: pa.Array, absent: npt.NDArray[np.bool_]) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), elements, mask=pa.array(absent))


def _plain(values: Array) -> Array:
    """Returns a contiguous, aligned copy; fields of a frame are neither."""
    return np.array(values, copy=True, order="C")


def _constant(value: str, total: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(total, "<i4")), pa.array([value], pa.string())).cast(_TEXT)


def _unique(name: str, taken: set[str]) -> str:
    """Returns the name, numbered where another column has it already (readers ignore case); marks it taken."""
    candidate, number = name, 2
    while candidate.lower() in taken:
        candidate, number = f"{name}~{number}", number + 1
    taken.add(candidate.lower())
    return candidate
