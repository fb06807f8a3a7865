"""TensorFlow's TensorProto to raw tensors and back, by walking the wire: no Python object for each element.

Source: tensorflow/core/framework/tensor.proto and tensor.cc (`Tensor::FromProto`); protobuf encoding specification.
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from math import prod
from struct import Struct
from types import MappingProxyType
from typing import Final, NamedTuple

import numpy as np
from google.protobuf.message import DecodeError

from gateway.api.contents import MAX_ELEMENTS
from gateway.api.naming import shown
from gateway.api.tfserving.packed_varints import count_varints, read_varints, write_varints
from gateway.api.wire import varint
from gateway.errors import InvalidArgument
from gateway.pb import tensorflow_pb2 as tf
from gateway.tensor import Array, Datatype, TensorSpec

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_LONGEST_VARINT: Final = 10
_STRING_LENGTH: Final = Struct("<I")
_DTYPE, _SHAPE, _CONTENT, _STRINGS = 1, 2, 4, 8  # numbers of fields


class Carried(NamedTuple):
    """How TensorProto carries a datatype: its number in `DataType`, and the field of the list of its elements."""

    number: int
    field: int


# The one table of what is carried; a datatype that is not in it cannot be asked for by this protocol.
CARRIED: Final[Mapping[Datatype, Carried]] = MappingProxyType(
    {
        Datatype.FP32: Carried(tf.DT_FLOAT, 5),
        Datatype.FP64: Carried(tf.DT_DOUBLE, 6),
        Datatype.INT32: Carried(tf.DT_INT32, 7),
        Datatype.UINT8: Carried(tf.DT_UINT8, 7),
        Datatype.INT16: Carried(tf.DT_INT16, 7),
        Datatype.INT8: Carried(tf.DT_INT8, 7),
        Datatype.UINT16: Carried(tf.DT_UINT16, 7),
        Datatype.BYTES: Carried(tf.DT_STRING, _STRINGS),
        Datatype.INT64: Carried(tf.DT_INT64, 10),
        Datatype.BOOL: Carried(tf.DT_BOOL, 11),
        Datatype.FP16: Carried(tf.DT_HALF, 13),
        Datatype.BF16: Carried(tf.DT_BFLOAT16, 13),
        Datatype.UINT32: Carried(tf.DT_UINT32, 16),
        Datatype.UINT64: Carried(tf.DT_UINT64, 17),
    }
)
_BY_NUMBER: Final = {carried.number: datatype for datatype, carried in CARRIED.items()}
_LISTS: Final = frozenset(carried.field for carried in CARRIED.values())
# Elements of these are on the wire as they are in memory; those of the others are varints.
_FIXED: Final = {Datatype.FP32: _FIXED32, Datatype.FP64: _FIXED64}


class GivenTensor(NamedTuple):
    """A tensor of a request. `data` are its raw little-endian bytes; of texts, each behind its length."""

    datatype: Datatype
    shape: tuple[int, ...]
    data: bytes | memoryview


def fields(message: memoryview, what: str) -> Iterator[tuple[int, int, memoryview]]:
    """Yields each field's number, its wire type and its bytes (of a number: its encoding).

    Raises: InvalidArgument.
    """
    offset, size = 0, len(message)
    while offset < size:
        tag, offset = _varint_at(message, offset, what)
        kind = tag & 7
        start = offset
        if kind == _LENGTH:
            length, start = _varint_at(message, offset, what)
            offset = start + length
        elif kind == _VARINT:
            _, offset = _varint_at(message, offset, what)
        elif kind in (_FIXED32, _FIXED64):
            offset += 4 if kind == _FIXED32 else 8
        else:
            raise _broken(what)
        if offset > size or not tag >> 3:
            raise _broken(what)
        yield tag >> 3, kind, message[start:offset]


def read_tensor(name: str, message: memoryview, max_bytes: int) -> GivenTensor:
    """Returns the tensor that the serialized TensorProto describes. `max_bytes` bounds what a short list is filled to.

    Raises: InvalidArgument (no tensor, an unknown datatype or shape, a list that does not fit them).
    """
    what = f"input {shown(name)}"
    number, content = 0, memoryview(b"")
    shape: tuple[int, ...] = ()
    lists: dict[int, list[tuple[int, memoryview]]] = {}
    for field, kind, value in fields(message, what):
        if field == _DTYPE and kind == _VARINT:
            number = _varint_at(value, 0, what)[0]
        elif field == _SHAPE and kind == _LENGTH:
            shape = _shape(bytes(value), what)
        elif field == _CONTENT and kind == _LENGTH:
            content = value
        elif field in _LISTS:
            lists.setdefault(field, []).append((kind, value))
    datatype = _BY_NUMBER.get(number)
    if datatype is None:
        raise InvalidArgument(
            f"{what} has the dtype {_name_of(number)}; served are {', '.join(map(_name_of, _BY_NUMBER))}"
        )
    count = prod(shape)
    if count * (datatype.size or 1) > max_bytes:
        raise InvalidArgument(f"{what} of shape {list(shape)} is larger than a message may be ({max_bytes} bytes)")
    if len(content):
        return GivenTensor(datatype, shape, _of_content(name, datatype, shape, content))
    given = lists.pop(CARRIED[datatype].field, [])
    if lists and any(len(value) for values in lists.values() for _, value in values):
        raise InvalidArgument(
            f"{what}: elements of {_name_of(number)} belong in {_field_name(CARRIED[datatype].field)}, not in "
            f"{', '.join(_field_name(field) for field in sorted(lists))}"
        )
    if datatype is Datatype.BYTES:
        return GivenTensor(datatype, shape, _texts(what, [value for _, value in given], count, max_bytes))
    return GivenTensor(datatype, shape, _numbers(what, datatype, given, count))


def write_tensor(spec: TensorSpec, array: Array) -> bytes:
    """Returns the serialized TensorProto, its elements in the list of its datatype, as TensorFlow Serving writes it.

    Raises: KeyError for a datatype that is not carried.
    """
    number, field = CARRIED[spec.datatype]
    head = _head(number, array.shape)
    if spec.datatype is Datatype.BYTES:
        texts = [text.encode() if isinstance(text, str) else bytes(text) for text in array.reshape(-1).tolist()]
        tag = varint(field << 3 | _LENGTH)
        return b"".join((head, *(piece for text in texts for piece in (tag, varint(len(text)), text))))
    if spec.datatype in _FIXED:
        packed = np.ascontiguousarray(array).tobytes()
    elif spec.datatype is Datatype.FP16:
        packed = write_varints(np.ascontiguousarray(array).view(np.uint16).reshape(-1).astype(np.uint64))
    elif array.dtype.kind == "i":  # negative numbers have the 64 bits of their two's complement
        packed = write_varints(array.reshape(-1).astype(np.int64).view(np.uint64))
    else:
        packed = write_varints(array.reshape(-1).astype(np.uint64))
    return b"".join((head, varint(field << 3 | _LENGTH), varint(len(packed)), packed))


@lru_cache(1024)
def _head(number: int, shape: tuple[int, ...]) -> bytes:
    dimensions = [tf.TensorShapeProto.Dim(size=size) for size in shape]
    return tf.TensorProto(dtype=number, tensor_shape=tf.TensorShapeProto(dim=dimensions)).SerializeToString()  # type: ignore[arg-type]


@lru_cache(1024)
def _parsed_shape(message: bytes) -> tuple[int, ...] | None:
    """Returns the shape; None for an unknown one or bytes that are none."""
    try:
        shape = tf.TensorShapeProto.FromString(message)
    except DecodeError:
        return None
    sizes = tuple(dimension.size for dimension in shape.dim)
    return None if shape.unknown_rank or any(size < 0 for size in sizes) else sizes


def _shape(message: bytes, what: str) -> tuple[int, ...]:
    shape = _parsed_shape(message)
    if shape is None:
        raise InvalidArgument(f"{what}: tensor_shape has to give the size of each dimension")
    return shape


def _of_content(name: str, datatype: Datatype, shape: tuple[int, ...], content: memoryview) -> bytes | memoryview:
    if datatype is Datatype.BYTES:
        return _texts_of_content(name, shape, content)
    expected = prod(shape) * datatype.size
    if len(content) != expected:
        raise InvalidArgument(
            f"input {shown(name)}: tensor_content has {len(content)} bytes, shape {list(shape)} of "
            f"{datatype.wire_name} takes {expected}"
        )
    return content


def _texts_of_content(name: str, shape: tuple[int, ...], content: memoryview) -> bytes:
    """Returns texts that came as TensorFlow packs them: all lengths as varints, then all texts."""
    what, count, offset = f"input {shown(name)}", prod(shape), 0
    lengths: list[int] = []
    _check_texts(what, count)
    for _ in range(count):
        length, offset = _varint_at(content, offset, what)
        lengths.append(length)
    if offset + sum(lengths) != len(content):
        raise InvalidArgument(f"{what}: tensor_content does not hold {count} texts and nothing else")
    texts = []
    for length in lengths:
        texts.append(content[offset : offset + length])
        offset += length
    return _joined(texts)


def _texts(what: str, given: list[memoryview], count: int, max_bytes: int) -> bytes:
    _check_texts(what, count)
    if len(given) > count:
        raise _too_many(what, len(given), count)
    last, missing = given[-1] if given else memoryview(b""), count - len(given)
    if missing * len(last) > max_bytes:
        raise InvalidArgument(
            f"{what} filled up with its last text is larger than a message may be ({max_bytes} bytes)"
        )
    return _joined(given + [last] * missing)


def _joined(texts: list[memoryview]) -> bytes:
    return b"".join(piece for text in texts for piece in (_STRING_LENGTH.pack(len(text)), text))


def _check_texts(what: str, count: int) -> None:
    if count > MAX_ELEMENTS:
        raise InvalidArgument(f"{what} has {count} texts, the limit is {MAX_ELEMENTS}")


def _numbers(what: str, datatype: Datatype, given: list[tuple[int, memoryview]], count: int) -> bytes | memoryview:
    """Returns the elements, filled up with the last of them; zeros, if there are none."""
    fixed = _FIXED.get(datatype)
    single = _VARINT if fixed is None else fixed
    if any(kind not in (_LENGTH, single) for kind, _ in given):
        raise _broken(what)
    packed = given[0][1] if len(given) == 1 else memoryview(b"".join(value for _, value in given))
    have = len(packed) // datatype.size if fixed is not None else count_varints(packed)
    if have > count:
        raise _too_many(what, have, count)
    if fixed is not None:
        if len(packed) % datatype.size:
            raise _broken(what)
        elements: Array = np.frombuffer(packed, datatype.dtype)
    else:
        elements = _of_varints(what, datatype, packed)
    if len(elements) == count:
        return packed if fixed is not None else elements.tobytes()
    if not len(elements):
        return bytes(count * datatype.size)
    filled = np.full(count, elements[-1], elements.dtype)
    filled[: len(elements)] = elements
    return filled.tobytes()


def _of_varints(what: str, datatype: Datatype, packed: memoryview) -> Array:
    values = read_varints(packed)
    if values is None:
        raise _broken(what)
    if datatype is Datatype.BOOL:
        return np.not_equal(values, 0)
    if datatype in (Datatype.FP16, Datatype.BF16):
        if len(values) and values.max() > 0xFFFF:
            raise InvalidArgument(f"{what}: half_val has a value of more than 16 bits")
        return values.astype("<u2")
    dtype = np.dtype(datatype.dtype)
    whole = values.view(np.int64) if dtype.kind == "i" or datatype.size < 8 else values
    bounds = np.iinfo(dtype)
    if len(whole) and (int(whole.min()) < bounds.min or int(whole.max()) > bounds.max):
        raise InvalidArgument(
            f"{what}: {_field_name(CARRIED[datatype].field)} has a value that does not fit {datatype.wire_name} "
            f"({bounds.min} to {bounds.max})"
        )
    return whole.astype(dtype)


def _varint_at(message: memoryview, offset: int, what: str) -> tuple[int, int]:
    value = 0
    for place, byte in enumerate(message[offset : offset + _LONGEST_VARINT]):
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, offset + place + 1
    raise _broken(what)


def _broken(what: str) -> InvalidArgument:
    return InvalidArgument(f"{what}: its bytes are not the message that is expected")


def _too_many(what: str, given: int, count: int) -> InvalidArgument:
    return InvalidArgument(f"{what} has {given} elements, its shape takes {count}")


def _name_of(number: int) -> str:
    try:
        return tf.DataType.Name(number)
    except ValueError:
        return str(number)


def _field_name(number: int) -> str:
    return str(tf.TensorProto.DESCRIPTOR.fields_by_number[number].name)
