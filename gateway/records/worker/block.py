"""A block: the records of one stream and one flush, laid out by column so that a reader needs no loop over rows.

head     kind, flags, stream, count, number of the first record
table    count rows of fixed size (ROW)
reasons  the distinct routing reasons; rows hold their index
ids      request ids, one after the other; rows hold their lengths
columns  each input, then each output: layout, which records have it, and then
         DENSE   the instances' values as they are; sizes follow from the schema and the rows
         RAGGED  per record a shape and a length, then the values; or digests of large instances
         TEXTS   per record a shape, per element a length, then the elements
"""

import struct
from collections.abc import Callable, Iterable, Sequence
from enum import IntEnum
from hashlib import sha256
from typing import Final

import numpy as np

from gateway.records.worker.digest import MAX_TENSOR_BYTES, Digests, digest
from gateway.records.worker.frame import FrameKind
from gateway.records.worker.record import Logged, Record, Shape
from gateway.records.worker.redaction import StreamRedaction
from gateway.records.worker.stream_schema import StreamSchema, fixed_bytes, is_batched, is_flat
from gateway.tensor import Buffer, Datatype, TensorSpec

HEAD = struct.Struct("<BBHIIQ")
ROW = np.dtype(
    [
        ("ts_us", "<i8"), ("revision", "<i8"), ("bucket", "<i4"), ("rows", "<i4"), ("queue_us", "<i8"),
        ("infer_us", "<i8"), ("total_us", "<i8"), ("code", "<i2"), ("reason", "<u2"), ("id_bytes", "<u2"),
        ("kept", "u1"), ("sample_p", "<f4"),
    ]
)  # fmt: skip
PACKED_ROW = struct.Struct("<qqiiqqqhHHBf")  # as ROW
MAX_ID_BYTES: Final = 512
MAX_TEXT_BYTES = 1024
ENCODE_ERRORS = (TypeError, ValueError, AttributeError, BufferError, IndexError, OverflowError, struct.error)


class ColumnLayout(IntEnum):
    DENSE = 1
    RAGGED = 2
    TEXTS = 3


class ColumnMode(IntEnum):
    """Names what a record has of a tensor."""

    ABSENT = 0
    VALUES = 1
    DIGEST = 2


class RedactionFailed(Exception):
    """A rule could not be applied to a value; the payload must not be written."""


def encode(
    schema: StreamSchema,
    stream: int,
    records: Sequence[Record],
    *,
    first_record: int,
    redaction: StreamRedaction,
    payload: bool = True,
    new_id: Callable[[int], str],
) -> bytes:
    """Returns the body of a ROWS frame; `payload` False leaves every tensor out.

    Raises: ENCODE_ERRORS (a record does not fit the schema), RedactionFailed.
    """
    pack = PACKED_ROW.pack
    reasons = {reason: index for index, reason in enumerate({record.reason for record in records})}
    ids = [(record.request_id or new_id(record.ts_us)).encode(errors="replace")[:MAX_ID_BYTES] for record in records]
    rows = [
        pack(*_fields(record), reasons[record.reason], len(name), record.kept, record.sample_p)
        for record, name in zip(records, ids, strict=True)
    ]
    parts = [HEAD.pack(FrameKind.ROWS, 0, 0, stream, len(records), first_record), *rows, *reason_parts(reasons), *ids]
    counts = [record.rows for record in records]
    shaped = any(record.in_shapes is not None for record in records)
    all_inputs = [record.inputs if payload else () for record in records]
    all_outputs = [_placed(record, len(schema.outputs)) if payload else () for record in records]
    for index, spec in enumerate(schema.inputs):
        given = [own[index] if own else None for own in all_inputs]
        shapes = [_own_shape(record, index) for record in records] if shaped else None
        parts += _column(spec, given, shapes, counts, redaction)
    for index, spec in enumerate(schema.outputs):
        made: list[Logged | None] = [own[index] if own else None for own in all_outputs]
        parts += _column(spec, made, None, counts, redaction)
    return b"".join(parts)


def _fields(record: Record) -> tuple[int, ...]:
    """Returns the numbers of a record that begin its row."""
    return (
        record.ts_us, record.revision, record.bucket, record.rows, record.queue_us, record.infer_us, record.total_us,
        record.code,
    )  # fmt: skip


def reason_parts(reasons: Iterable[str]) -> list[bytes]:
    """Returns the reasons of a block, whose rows name them by number."""
    texts = [reason.encode(errors="replace")[:1024] for reason in reasons]
    return [struct.pack("<H", len(texts)), *(part for text in texts for part in (struct.pack("<H", len(text)), text))]


def _placed(record: Record, count: int) -> Sequence[Logged | None]:
    """Returns the outputs of a record in the order of the schema, None where one was not asked for.

    Raises: ValueError (more or fewer than there should be: which is which cannot be told).
    """
    outputs, wanted = record.outputs, record.wanted
    if not outputs:
        return ()
    if len(outputs) != (count if wanted is None else len(wanted)):
        raise ValueError(f"record has {len(outputs)} outputs, the schema {count}, wanted were {wanted}")
    if wanted is None:
        return outputs
    placed: list[Logged | None] = [None] * count
    for index, output in zip(wanted, outputs, strict=True):
        placed[index] = output
    return placed


def _own_shape(record: Record, index: int) -> Shape | None:
    return record.in_shapes[index] if record.in_shapes else None  # a request that was not read has none


def _column(
    spec: TensorSpec,
    tensors: list[Logged | None],
    shapes: list[Shape | None] | None,
    rows: list[int],
    redaction: StreamRedaction,
) -> list[bytes]:
    if redaction.withholds(spec.name):
        tensors = [None] * len(tensors)
    if spec.datatype is Datatype.BYTES:
        return _texts(spec, tensors, _all_shapes(spec, tensors, shapes, rows), redaction)
    size = fixed_bytes(spec)
    if 0 < size <= MAX_TENSOR_BYTES:
        dense = _dense(spec, tensors, shapes, rows, redaction)
        if dense is not None:
            return dense
    return _ragged(spec, tensors, _all_shapes(spec, tensors, shapes, rows), redaction)


def _dense(
    spec: TensorSpec,
    tensors: list[Logged | None],
    shapes: list[Shape | None] | None,
    rows: list[int],
    redaction: StreamRedaction,
) -> list[bytes] | None:
    """Returns the column as DENSE, or None where a shape differs from what schema and rows say."""
    batched, size = is_batched(spec), fixed_bytes(spec)
    if shapes is not None and any(
        shape is not None and tensor is not None and shape != ((count, *spec.shape[1:]) if batched else spec.shape)
        for shape, tensor, count in zip(shapes, tensors, rows, strict=True)
    ):
        return None
    expected = [size * count for count in rows] if batched else [size] * len(rows)
    present = [tensor is not None for tensor in tensors]
    if not all(present):
        expected = [length for length, held in zip(expected, present, strict=True) if held]
    given = [tensor for tensor in tensors if tensor is not None and not isinstance(tensor, Digests)]
    if [len(tensor) if isinstance(tensor, bytes) else tensor.nbytes for tensor in given] != expected:
        return None
    try:
        data = b"".join(given)  # type: ignore[arg-type]  # arrays are buffers
    except (BufferError, TypeError):  # arrays that are not contiguous
        data = b"".join([_values(spec, tensor) for tensor in given])
    if spec.name in redaction.changes:
        data = _redacted(spec, data, redaction)
    return [struct.pack("<B", ColumnLayout.DENSE), bytes(present), struct.pack("<Q", len(data)), data]


def _ragged(
    spec: TensorSpec, tensors: list[Logged | None], shapes: list[Shape], redaction: StreamRedaction
) -> list[bytes]:
    modes = bytearray(len(tensors))
    parts: list[bytes | memoryview] = []
    for index, (tensor, shape) in enumerate(zip(tensors, shapes, strict=True)):
        data: bytes | memoryview = b""
        if isinstance(tensor, Digests):
            modes[index] = ColumnMode.DIGEST
            data = tensor.data
        elif tensor is not None:
            modes[index] = ColumnMode.VALUES
            data = _values(spec, tensor)
            _check_shape(spec, shape)
            if len(data) != spec.datatype.size * int(np.prod(shape, dtype=np.int64)):
                raise ValueError(f"tensor {spec.name!r} has {len(data)} bytes, which is not its shape {list(shape)}")
            if spec.name in redaction.changes and data:
                data = _redacted(spec, data, redaction)
            instances = shape[0] if is_batched(spec) and shape else 1
            if instances and len(data) > MAX_TENSOR_BYTES * instances:
                modes[index] = ColumnMode.DIGEST
                data = digest(spec, data, instances)
        parts.append(data)
    lengths = np.array([len(part) for part in parts], "<u4").tobytes()
    body = b"".join(parts)
    return [
        struct.pack("<B", ColumnLayout.RAGGED), bytes(modes), lengths, _dimensions(shapes),
        struct.pack("<Q", len(body)), body,
    ]  # fmt: skip


def _texts(
    spec: TensorSpec, tensors: list[Logged | None], shapes: list[Shape], redaction: StreamRedaction
) -> list[bytes]:
    present = bytes([tensor is not None for tensor in tensors])
    elements: list[bytes] = []
    for tensor, shape in zip(tensors, shapes, strict=True):
        if tensor is None or isinstance(tensor, Digests):
            continue
        own = _elements(tensor)
        _check_shape(spec, shape)
        if len(own) != int(np.prod(shape, dtype=np.int64)):
            raise ValueError(f"tensor {spec.name!r} has {len(own)} elements, which is not its shape {list(shape)}")
        if spec.name in redaction.changes:
            try:
                own = redaction.texts(spec, own)
            except ENCODE_ERRORS as error:
                raise RedactionFailed(spec.name) from error
        elements += own
    elements = [element if len(element) <= MAX_TEXT_BYTES else _marker(element) for element in elements]
    lengths = np.array([len(element) for element in elements], "<u4").tobytes()
    body = b"".join(elements)
    head = struct.pack("<QQ", len(elements), len(body))
    return [struct.pack("<B", ColumnLayout.TEXTS), present, _dimensions(shapes), head, lengths, body]


def _all_shapes(
    spec: TensorSpec, tensors: list[Logged | None], shapes: list[Shape | None] | None, rows: list[int]
) -> list[Shape]:
    all_shapes: list[Shape] = []
    for index, tensor in enumerate(tensors):
        shape = shapes[index] if shapes is not None else None
        if tensor is None:
            all_shapes.append(())
        elif shape is not None:
            all_shapes.append(tuple(shape))
        elif isinstance(tensor, Digests) or (
            isinstance(tensor, np.ndarray) and (spec.any_shape or len(tensor.shape) == len(spec.shape))
        ):
            all_shapes.append(tensor.shape)
        else:
            all_shapes.append((rows[index], *spec.shape[1:]) if is_batched(spec) else spec.shape)
    return all_shapes


def _dimensions(shapes: list[Shape]) -> bytes:
    flat = [size for shape in shapes for size in shape]
    ranks = bytes([len(shape) for shape in shapes])
    return ranks + struct.pack("<I", len(flat)) + np.array(flat, "<i8").tobytes()


def _values(spec: TensorSpec, tensor: Buffer) -> bytes | memoryview:
    """Returns the raw values; a tensor that is raw already is not copied."""
    if isinstance(tensor, np.ndarray):
        return np.ascontiguousarray(tensor, dtype=spec.datatype.dtype).tobytes()
    return tensor


def _redacted(spec: TensorSpec, data: bytes | memoryview, redaction: StreamRedaction) -> bytes:
    try:
        return redaction.numbers(spec, np.frombuffer(data, spec.datatype.dtype)).tobytes()
    except ENCODE_ERRORS as error:
        raise RedactionFailed(spec.name) from error


def _elements(tensor: Buffer) -> list[bytes]:
    """Returns the elements of a BYTES tensor, from an array or from the wire's length-prefixed form."""
    if isinstance(tensor, np.ndarray):
        return [item.encode() if isinstance(item, str) else bytes(item) for item in tensor.ravel().tolist()]
    raw, elements, position = bytes(tensor), [], 0
    while position < len(raw):
        (length,) = struct.unpack_from("<I", raw, position)
        position += 4 + length
        if position > len(raw):
            raise ValueError("BYTES tensor ends inside an element")
        elements.append(raw[position - length : position])
    return elements


def _check_shape(spec: TensorSpec, shape: Shape) -> None:
    """Raises: ValueError (a flat tensor of another width: its features would not be the columns' features)."""
    if is_flat(spec) and (len(shape) != len(spec.shape) or shape[1:] != spec.shape[1:]):
        raise ValueError(f"tensor {spec.name!r} has shape {list(shape)}, expected {list(spec.shape)}")


def _marker(element: bytes) -> bytes:
    return f"sha256:{sha256(element).hexdigest()}:{len(element)}".encode()
