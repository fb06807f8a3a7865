"""Segments read back: frames to schemas and columns. Imported by the compactor and by the tail; knows no Arrow."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from mmap import mmap

import msgspec
import numpy as np
import numpy.typing as npt

from gateway.records.worker.block import HEAD, ROW, ColumnLayout, ColumnMode
from gateway.records.worker.digest import DIGEST
from gateway.records.worker.frame import Damage, Frame, FrameKind, scan
from gateway.records.worker.label import Label, decode_labels
from gateway.records.worker.segment import Segment
from gateway.records.worker.stream_schema import StreamSchema, fixed_bytes, is_batched, width
from gateway.tensor import Array, Datatype, TensorSpec

DECODE_ERRORS = (ValueError, TypeError, KeyError, IndexError, struct.error, OverflowError)


@dataclass(frozen=True, slots=True)
class TensorColumn:
    """One tensor of a block.

    Shapes: `modes` [records]; `leads` [records] first dimension (1 where not batched, 0 where absent); `values` the
            elements of all present records one after the other, `starts` [records + 1] where each begins;
            `dims` one shape per record, None where the schema gives it; for BYTES `values` is the element lengths and
            `text` their bytes; `digests` the digests in order of the records in mode DIGEST.
    """

    spec: TensorSpec
    modes: npt.NDArray[np.uint8]
    leads: npt.NDArray[np.int64]
    values: Array
    starts: npt.NDArray[np.int64]
    dims: tuple[tuple[int, ...], ...] | None
    text: memoryview | None = None
    digests: npt.NDArray[np.void] | None = None

    def shape(self, record: int) -> tuple[int, ...]:
        if self.dims is not None:
            return self.dims[record]
        if not is_batched(self.spec):
            return self.spec.shape
        return (int(self.leads[record]), *self.spec.shape[1:])

    def elements(self, record: int, limit: int) -> list[object]:
        """Returns a record's first elements as Python values; texts as str, with what is no UTF-8 replaced."""
        first = int(self.starts[record])
        last = min(int(self.starts[record + 1]), first + limit)
        if self.text is None:
            return list(readable(self.spec, self.values[first:last]).tolist())
        texts: list[object] = []
        position = int(self.values[:first].astype("<i8").sum())
        for length in self.values[first:last].tolist():
            texts.append(bytes(self.text[position : position + length]).decode(errors="replace"))
            position += length
        return texts


@dataclass(frozen=True, slots=True)
class Block:
    """The records of one ROWS frame."""

    schema: StreamSchema
    first_record: int
    table: npt.NDArray[np.void]
    reasons: tuple[str, ...]
    ids: tuple[str, ...]
    inputs: tuple[TensorColumn, ...]
    outputs: tuple[TensorColumn, ...]


@dataclass(slots=True)
class SegmentContent:
    """Tells what a segment holds: its rows, what could not be read, and what its writer counted.

    `labels`: those of each LABELS frame, with the number of the first. Rows are decoded as they are asked for, and
    damage inside them is known by then.
    """

    rows: list[Frame] = field(default_factory=list)
    schemas: dict[int, StreamSchema] = field(default_factory=dict)
    labels: list[tuple[int, list[Label]]] = field(default_factory=list)
    damages: list[tuple[Damage, str]] = field(default_factory=list)
    header: dict[str, object] | None = None
    seal: dict[str, object] | None = None
    torn_bytes: int = 0

    def blocks(self) -> Iterator[Block]:
        """Yields the blocks in order, each decoded when it is its turn."""
        for frame in self.rows:
            try:
                stream, _ = peek_rows(frame.body)
                block = decode(frame.body, self.schemas[stream])
            except DECODE_ERRORS as error:
                self.damages.append((_damage(frame), f"content: {type(error).__name__}"))
            else:
                yield block


def read(data: bytes | mmap, segment: Segment) -> SegmentContent:
    """Returns everything of a segment that checks out, and each part that does not, with a reason."""
    content = SegmentContent()
    frames: list[Frame] = []
    for part in scan(data, seed=segment.seed):
        if isinstance(part, Frame):
            frames.append(part)
        elif part.torn:
            content.torn_bytes += part.length
        else:
            content.damages.append((part, "checksum"))
    # A schema is written before its first rows and again at the seal: either copy will do.
    for frame in frames:
        if frame.kind == FrameKind.SCHEMA:
            try:
                stream, schema = parse_schema(frame.body)
                content.schemas.setdefault(stream, schema)
            except DECODE_ERRORS:
                content.damages.append((_damage(frame), "schema"))
    for frame in frames:
        if frame.kind == FrameKind.SCHEMA:
            continue
        try:
            _take(frame, content)
        except DECODE_ERRORS as error:
            content.damages.append((_damage(frame), f"content: {type(error).__name__}"))
    return content


def parse_schema(body: memoryview) -> tuple[int, StreamSchema]:
    """Returns stream number and schema of a SCHEMA frame.

    Raises: DECODE_ERRORS.
    """
    return int(struct.unpack_from("<I", body, 1)[0]), StreamSchema.from_json(body[5:])


def peek_rows(body: bytes | memoryview) -> tuple[int, int]:
    """Returns stream number and record count of a ROWS frame, from its first bytes."""
    _, _, _, stream, count, _ = HEAD.unpack_from(body)
    return int(stream), int(count)


def decode(body: memoryview, schema: StreamSchema) -> Block:
    """Returns the records of a ROWS frame.

    Raises: DECODE_ERRORS (the body was not written with this schema).
    """
    _, _, _, _, count, first_record = HEAD.unpack_from(body)
    reader = _Reader(body, HEAD.size)
    table = reader.array(ROW, count)
    reasons = tuple(bytes(reader.take(reader.number("<H"))).decode() for _ in range(reader.number("<H")))
    ends = np.cumsum(table["id_bytes"], dtype=np.int64).tolist()
    names = bytes(reader.take(ends[-1] if ends else 0))
    ids = tuple(names[a:b].decode(errors="replace") for a, b in zip([0, *ends], ends, strict=False))
    rows = table["rows"].astype(np.int64)
    inputs = tuple(_column(reader, spec, rows) for spec in schema.inputs)
    outputs = tuple(_column(reader, spec, rows) for spec in schema.outputs)
    if reader.position != len(body):
        raise ValueError(f"{len(body) - reader.position} bytes are left over")
    return Block(schema, int(first_record), table, reasons, ids, inputs, outputs)


def readable(spec: TensorSpec, values: Array) -> Array:
    """BF16 patterns as float32; everything else as it is."""
    if spec.datatype is Datatype.BF16:
        return (values.astype("<u4") << np.uint32(16)).view("<f4")
    return values


def _take(frame: Frame, content: SegmentContent) -> None:
    if frame.kind == FrameKind.ROWS:
        content.rows.append(frame)
    elif frame.kind == FrameKind.LABELS:
        content.labels.append(decode_labels(frame.body))
    elif frame.kind == FrameKind.FILE:
        content.header = msgspec.json.decode(frame.body[1:], type=dict[str, object])
    elif frame.kind == FrameKind.SEAL:
        content.seal = msgspec.json.decode(frame.body[1:], type=dict[str, object])
    else:
        raise ValueError(f"frame of unknown kind {frame.kind}")


def _damage(frame: Frame) -> Damage:
    return Damage(frame.offset, frame.end - frame.offset, torn=False)


class _Reader:
    """A position in a body that never runs over its end."""

    __slots__ = ("body", "position")

    def __init__(self, body: memoryview, position: int) -> None:
        self.body = body
        self.position = position

    def take(self, size: int) -> memoryview:
        if size < 0 or self.position + size > len(self.body):
            raise ValueError(f"{size} bytes wanted at {self.position} of {len(self.body)}")
        self.position += size
        return self.body[self.position - size : self.position]

    def number(self, kind: str) -> int:
        return int(struct.unpack(kind, self.take(struct.calcsize(kind)))[0])

    def array(self, dtype: npt.DTypeLike, count: int) -> npt.NDArray[np.void]:
        size = np.dtype(dtype).itemsize
        return np.frombuffer(self.take(size * count), dtype, count)


def _column(reader: _Reader, spec: TensorSpec, rows: npt.NDArray[np.int64]) -> TensorColumn:
    layout, count = reader.number("<B"), len(rows)
    modes = reader.array("u1", count).view(np.uint8)
    if layout == ColumnLayout.DENSE:
        leads = np.where(modes > 0, rows if is_batched(spec) else 1, 0).astype(np.int64)
        data = reader.take(reader.number("<Q"))
        starts = _starts(leads * width(spec))
        if len(data) != int(leads.sum()) * fixed_bytes(spec):
            raise ValueError(f"tensor {spec.name!r} has {len(data)} bytes")
        return TensorColumn(spec, modes, leads, np.frombuffer(data, spec.datatype.dtype), starts, None)
    if layout == ColumnLayout.RAGGED:
        return _ragged(reader, spec, modes)
    if layout == ColumnLayout.TEXTS:
        dims = _dims(reader, count)
        elements, size = reader.number("<Q"), reader.number("<Q")
        lengths = reader.array("<u4", elements)
        sizes = np.array([int(np.prod(shape, dtype=np.int64)) for shape in dims], np.int64) * (modes > 0)
        if int(sizes.sum()) != elements or int(lengths.astype(np.int64).sum()) != size:
            raise ValueError(f"tensor {spec.name!r} has {elements} elements of {size} bytes")
        return TensorColumn(spec, modes, _leads(spec, modes, dims), lengths, _starts(sizes), dims, reader.take(size))
    raise ValueError(f"column of unknown layout {layout}")


def _ragged(reader: _Reader, spec: TensorSpec, modes: npt.NDArray[np.uint8]) -> TensorColumn:
    lengths = reader.array("<u4", len(modes)).astype(np.int64)
    dims = _dims(reader, len(modes))
    body = reader.take(reader.number("<Q"))
    if int(lengths.sum()) != len(body):
        raise ValueError(f"tensor {spec.name!r} has {len(body)} bytes, its records {int(lengths.sum())}")
    values, digests, position = [], [], 0
    for mode, length in zip(modes.tolist(), lengths.tolist(), strict=True):
        if mode == ColumnMode.DIGEST:
            digests.append(body[position : position + length])
        elif mode == ColumnMode.VALUES:
            values.append(body[position : position + length])
        position += length
    sizes = np.where(modes == ColumnMode.VALUES, lengths // spec.datatype.size, 0)
    return TensorColumn(
        spec,
        modes,
        _leads(spec, modes, dims),
        np.frombuffer(b"".join(values), spec.datatype.dtype),
        _starts(sizes),
        dims,
        digests=np.frombuffer(b"".join(digests), DIGEST),
    )


def _dims(reader: _Reader, count: int) -> tuple[tuple[int, ...], ...]:
    ranks = reader.array("u1", count).tolist()
    known = reader.array("<i8", reader.number("<I")).tolist()
    if len(known) != sum(ranks):
        raise ValueError(f"shapes of {sum(ranks)} dimensions have {len(known)}")
    sizes: Iterator[int] = iter(known)
    return tuple(tuple(next(sizes) for _ in range(rank)) for rank in ranks)


def _leads(spec: TensorSpec, modes: npt.NDArray[np.uint8], dims: tuple[tuple[int, ...], ...]) -> npt.NDArray[np.int64]:
    batched = is_batched(spec)
    leads = [shape[0] if batched and shape else 1 for shape in dims]
    return np.where(modes > 0, np.array(leads, np.int64), 0).astype(np.int64)


def _starts(sizes: Array) -> npt.NDArray[np.int64]:
    starts = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(sizes, out=starts[1:])
    return starts
