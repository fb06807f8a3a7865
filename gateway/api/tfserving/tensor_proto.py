"""TensorFlow's TensorProto to raw tensors and back, by walking the wire: no Python object for each element.

Source: tensorflow/core/framework/tensor.proto and tensor.cc (`Tensor::FromProto`); protobuf encoding specification.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from math import prod
from struct import Struct
from types import MappingProxyType
from typing import Final, NamedTuple

import numpy as np
from google.protobuf.message import DecodeError

from gateway.api.contents import PACKED_AS_RAW
from gateway.api.naming import shown
from gateway.api.packed_contents import split_texts
from gateway.api.packed_varints import LONGEST, as_datatype, count_varints, pack_numbers, read_varints
from gateway.api.signature import MAX_RANK
from gateway.api.tfserving.field_walk import LENGTH, VARINT, broken, rewritten, varint_at, walk
from gateway.api.unread_tensor import LONG_BYTES, UnreadTensor
from gateway.api.varint import varint
from gateway.errors import InvalidArgument
from gateway.pb import tensorflow_pb2 as tf
from gateway.tensor import Array, Datatype, TensorSpec

# Elements that are worked on one by one, or made: more keep a worker from its other requests for a second. Those of
# `tensor_content`, and whole lists of floating point, cost nothing.
MAX_TEXTS: Final = 1 << 18
MAX_LISTED: Final = 1 << 22
_SHAPE_BYTES: Final = 4096  # many more than a shape takes: what is kept of shapes is bounded
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
_KINDS: Final = {_DTYPE: VARINT, _SHAPE: LENGTH, _CONTENT: LENGTH, **dict.fromkeys(_LISTS, LENGTH)}
_TEXT_TAG: Final = _STRINGS << 3 | LENGTH
_UNSIGNED: Final = frozenset((Datatype.UINT32, Datatype.UINT64))  # those whose list is of unsigned numbers


class GivenTensor(NamedTuple):
    """A tensor of a request. `data` are its raw little-endian bytes; of texts, each behind its length.

    Those of a long list have still to be made.
    """

    datatype: Datatype
    shape: tuple[int, ...]
    data: bytes | memoryview | UnreadTensor


class _Parts(NamedTuple):
    """The fields of a TensorProto."""

    number: int
    shape: bytes
    content: memoryview
    lists: Mapping[int, memoryview]
    texts: list[bytes]


def read_tensor(name: str, message: memoryview, max_bytes: int) -> GivenTensor:
    """Returns the tensor that the serialized TensorProto describes, as protobuf and TensorFlow read it.

    `max_bytes` bounds what a short list is filled to.

    Raises: InvalidArgument (no tensor, an unknown datatype or shape, a list that does not fit them).
    """
    what = f"input {shown(name)}"
    parts = _parts(message)
    if parts is None:
        parts = _parts(rewritten(tf.TensorProto, message, what), checked=True)
        if parts is None:
            raise broken(what)
    datatype = _BY_NUMBER.get(parts.number)
    if datatype is None:
        raise InvalidArgument(
            f"{what} has the dtype {_name_of(parts.number)}; served are {', '.join(map(_name_of, _BY_NUMBER))}"
        )
    shape = _shape(parts.shape, what)
    count = prod(shape)
    if count * (datatype.size or _STRING_LENGTH.size) > max_bytes:
        raise InvalidArgument(
            f"{what} of shape {list(shape)} is larger than a message may be ({max_bytes} bytes are left for it)"
        )
    if len(parts.content):
        return GivenTensor(datatype, shape, _of_content(name, datatype, shape, parts.content))
    own = CARRIED[datatype].field
    others = [field for field, value in parts.lists.items() if field != own and len(value)]
    if parts.texts and own != _STRINGS:
        others.append(_STRINGS)
    if others:
        raise InvalidArgument(
            f"{what}: elements of {_name_of(parts.number)} belong in {_field_name(own)}, not in "
            f"{', '.join(map(_field_name, sorted(others)))}"
        )
    if datatype is Datatype.BYTES:
        return GivenTensor(datatype, shape, _texts(what, parts.texts, count, max_bytes))
    packed = parts.lists.get(own, memoryview(b""))
    if datatype in PACKED_AS_RAW and len(packed) == count * datatype.size:
        return GivenTensor(datatype, shape, packed)
    if count > MAX_LISTED:
        raise too_many_listed(what, count)
    if max(count * datatype.size, len(packed)) <= LONG_BYTES:
        return GivenTensor(datatype, shape, _numbers(what, datatype, packed, count))
    read = partial(_numbers, what, datatype, packed, count)
    return GivenTensor(
        datatype, shape, UnreadTensor(read, count * datatype.size, partial(_first, what, datatype, packed))
    )


def takes_long(message: memoryview) -> bool:
    """Returns whether to read the serialized TensorProto takes long: it has very many texts, or an odd form."""
    walked = walk(message, _TEXT_TAG)
    if walked is None:
        return len(message) > LONG_BYTES
    fields, end = walked
    dtypes = [bytes(value) for field, _, value in fields if field == _DTYPE]
    in_content = dtypes == [bytes((tf.DT_STRING,))] and any(len(value) > LONG_BYTES for _, _, value in fields)
    return in_content or len(message) - end > LONG_BYTES


def _parts(message: memoryview, *, checked: bool = False) -> _Parts | None:
    """Returns what the message says, None where protobuf has to look at it: each field is to be there once, texts last.

    `checked`: protobuf has read the lists that nobody will look at.
    """
    walked = walk(message, _TEXT_TAG)
    if walked is None:
        return None
    number, shape, content = 0, b"", memoryview(b"")
    lists: dict[int, memoryview] = {}
    seen: set[int] = set()
    for field, kind, value in walked[0]:
        if _KINDS.get(field, kind) != kind or field in seen:
            return None
        if field == _DTYPE:
            number = varint_at(value, 0)[0] & 0xFFFF_FFFF
        elif field == _SHAPE:
            shape = bytes(value)
        elif field == _CONTENT:
            content = value
        elif field in _LISTS:
            lists[field] = value
        else:
            continue
        seen.add(field)
    # One more than there may be at most, so that too many are refused by their number.
    texts = split_texts(bytes(message[walked[1] :]), _TEXT_TAG, MAX_TEXTS + 1)
    if texts is None or (len(content) and (lists or texts) and not checked):
        return None
    return _Parts(number, shape, content, lists, texts)


def write_tensor(spec: TensorSpec, array: Array) -> bytes:
    """Returns the serialized TensorProto, its elements in the list of its datatype, as TensorFlow Serving writes it.

    Raises: KeyError for a datatype that is not carried.
    """
    number, field = CARRIED[spec.datatype]
    head = _head(number, array.shape)
    if spec.datatype is Datatype.BYTES:
        texts = [text.encode() if isinstance(text, str) else bytes(text) for text in array.reshape(-1).tolist()]
        tag = varint(field << 3 | LENGTH)
        return b"".join((head, *(piece for text in texts for piece in (tag, varint(len(text)), text))))
    if spec.datatype in PACKED_AS_RAW:
        packed = np.ascontiguousarray(array).tobytes()
    elif spec.datatype is Datatype.FP16:
        packed = pack_numbers(np.ascontiguousarray(array).view(np.uint16))
    else:
        packed = pack_numbers(array)
    return b"".join((head, varint(field << 3 | LENGTH), varint(len(packed)), packed))


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
    if len(message) > _SHAPE_BYTES:
        raise InvalidArgument(f"{what}: tensor_shape has {len(message)} bytes, the limit is {_SHAPE_BYTES}")
    shape = _parsed_shape(message)
    if shape is None:
        raise InvalidArgument(f"{what}: tensor_shape has to give the size of each dimension")
    if len(shape) > MAX_RANK:  # before the sizes are multiplied
        raise InvalidArgument(f"{what} has {len(shape)} dimensions, the limit is {MAX_RANK}")
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
        length, offset = varint_at(content, offset)
        if offset < 0:
            raise broken(what)
        lengths.append(length)
    if offset + sum(lengths) != len(content):
        raise InvalidArgument(f"{what}: tensor_content does not hold {count} texts and nothing else")
    texts = []
    for length in lengths:
        texts.append(content[offset : offset + length])
        offset += length
    return _joined(texts)


def _texts(what: str, given: list[bytes], count: int, max_bytes: int) -> bytes:
    _check_texts(what, count)
    if len(given) > count:
        raise _too_many(what, len(given), count)
    last, missing = given[-1] if given else b"", count - len(given)
    if missing * (_STRING_LENGTH.size + len(last)) > max_bytes:
        raise InvalidArgument(
            f"{what} filled up with its last text is larger than a message may be ({max_bytes} bytes are left for it)"
        )
    return _joined(given) + _joined([last]) * missing


def _joined(texts: Sequence[bytes | memoryview]) -> bytes:
    return b"".join(piece for text in texts for piece in (_STRING_LENGTH.pack(len(text)), text))


def _check_texts(what: str, count: int) -> None:
    if count > MAX_TEXTS:
        raise too_many_texts(what, count)


def _numbers(what: str, datatype: Datatype, packed: memoryview, count: int) -> bytes | memoryview:
    """Returns the elements, filled up with the last of them; zeros, if there are none."""
    fixed = datatype in PACKED_AS_RAW
    have = len(packed) // datatype.size if fixed else count_varints(packed)
    if have > count:
        raise _too_many(what, have, count)
    if fixed:
        if len(packed) % datatype.size:
            raise broken(what)
        elements: Array = np.frombuffer(packed, datatype.dtype)
    else:
        elements = _of_varints(what, datatype, packed)
    if len(elements) == count:
        return packed if fixed else elements.tobytes()
    if not len(elements):
        return bytes(count * datatype.size)
    filled = np.full(count, elements[-1], elements.dtype)
    filled[: len(elements)] = elements
    return filled.tobytes()


def _first(what: str, datatype: Datatype, packed: memoryview) -> bytes | memoryview:
    """Returns the first element alone."""
    size = datatype.size
    if datatype not in PACKED_AS_RAW:
        size = next((place for place, byte in enumerate(packed[:LONGEST], 1) if byte < 0x80), 0)
    return _numbers(what, datatype, packed[:size], 1)


def _of_varints(what: str, datatype: Datatype, packed: memoryview) -> Array:
    values = read_varints(packed)
    if values is None:
        raise broken(what)
    if datatype in (Datatype.FP16, Datatype.BF16):
        halves = as_datatype(values, Datatype.UINT16, signed=False)
        if halves is None:
            raise InvalidArgument(f"{what}: half_val has a value of more than 16 bits")
        return halves
    numbers = as_datatype(values, datatype, signed=datatype not in _UNSIGNED)
    if numbers is None:
        bounds = np.iinfo(np.dtype(datatype.dtype))
        raise InvalidArgument(
            f"{what}: {_field_name(CARRIED[datatype].field)} has a value that does not fit {datatype.wire_name} "
            f"({bounds.min} to {bounds.max})"
        )
    return numbers


def too_many_listed(what: str, count: int) -> InvalidArgument:
    """Returns the refusal of lists that are too long to be worked on."""
    return InvalidArgument(
        f"{what} has {count} elements in lists, the limit is {MAX_LISTED}: send them in tensor_content, which "
        "has no limit of its own"
    )


def too_many_texts(what: str, count: int) -> InvalidArgument:
    """Returns the refusal of more texts than are worked on."""
    return InvalidArgument(f"{what} has {count} texts, the limit is {MAX_TEXTS}")


def _too_many(what: str, given: int, count: int) -> InvalidArgument:
    return InvalidArgument(f"{what} has {given} elements, its shape takes {count}")


def _name_of(number: int) -> str:
    try:
        return tf.DataType.Name(number)
    except ValueError:
        return str(number)


def _field_name(number: int) -> str:
    return str(tf.TensorProto.DESCRIPTOR.fields_by_number[number].name)
