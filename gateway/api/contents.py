"""Tensor data that is not simply its raw bytes: BYTES elements, BOOL values, typed contents.

Source: Open Inference Protocol v2, "Tensor Data" and InferTensorContents.
"""

from math import prod
from struct import Struct

import numpy as np

from gateway.api.naming import shown
from gateway.api.packed_varints import pack_numbers
from gateway.api.varint import varint
from gateway.errors import InvalidArgument
from gateway.pb import inference_pb2 as pb
from gateway.tensor import Array, Datatype

# An element of BYTES costs 4 bytes on the wire and about 50 here: their number needs a bound of its own.
MAX_ELEMENTS = 1 << 20
_LENGTH = Struct("<I")
_PART = 1 << 16  # elements that are made in one go: the interpreter lets other threads run in between

# The field of InferTensorContents that carries a datatype; FP16 and BF16 have none.
TYPED_FIELDS = {
    Datatype.BOOL: "bool_contents",
    Datatype.INT8: "int_contents",
    Datatype.INT16: "int_contents",
    Datatype.INT32: "int_contents",
    Datatype.INT64: "int64_contents",
    Datatype.UINT8: "uint_contents",
    Datatype.UINT16: "uint_contents",
    Datatype.UINT32: "uint_contents",
    Datatype.UINT64: "uint64_contents",
    Datatype.FP32: "fp32_contents",
    Datatype.FP64: "fp64_contents",
    Datatype.BYTES: "bytes_contents",
}
PACKED_AS_RAW = frozenset((Datatype.FP32, Datatype.FP64))  # the others are varints in a message


def check_bool(name: str, raw: bytes | memoryview) -> None:
    """Checks that every byte is 0 or 1.

    Raises: InvalidArgument.
    """
    if len(raw) > _PART and np.frombuffer(raw, np.uint8).max() <= 1:
        return  # 50 times as fast as what follows
    rest = bytes(raw).strip(b"\x00\x01")  # empty unless some byte is neither
    if rest:
        raise InvalidArgument(f"input {shown(name)} of datatype BOOL has a byte of value {rest[0]}: 0 or 1 is allowed")


def split_bytes(name: str, data: bytes | memoryview, shape: tuple[int, ...]) -> Array:
    """Returns the BYTES elements of a raw tensor, each a Python bytes object holding UTF-8.

    Raises: InvalidArgument (too many elements, a length that leads out of the buffer, bytes left over, not UTF-8).
    """
    count = prod(shape)
    raw = bytes(data)
    check_elements(name, count)
    if count * 4 > len(raw):
        raise InvalidArgument(
            f"expected {count} strings for inference input {shown(name)}: they take {count * 4} bytes or more, "
            f"got {len(raw)} bytes"
        )
    elements: list[bytes] = []
    offset, size = 0, len(raw)
    while offset < size:
        if len(elements) == count:
            raise InvalidArgument(
                f"expected {count} strings for inference input {shown(name)}, got {size - offset} bytes more"
            )
        if size - offset < 4:
            raise InvalidArgument(
                f"incomplete string length indicator for inference input {shown(name)}, expecting 4 bytes but only "
                f"{size - offset} bytes available"
            )
        (length,) = _LENGTH.unpack_from(raw, offset)
        offset += 4
        if length > size - offset:
            raise InvalidArgument(
                f"incomplete string data for inference input {shown(name)}, expecting string of length {length} but "
                f"only {size - offset} bytes available"
            )
        elements.append(raw[offset : offset + length])
        offset += length
    if len(elements) != count:
        raise InvalidArgument(f"expected {count} strings for inference input {shown(name)}, got {len(elements)}")
    return strings(name, elements, shape)


def from_typed(name: str, datatype: Datatype, contents: pb.InferTensorContents, shape: tuple[int, ...]) -> Array:
    """Returns the array that typed contents describe.

    Raises: InvalidArgument (raw-only datatype, wrong or several fields, wrong count, value out of range).
    """
    fields = contents.ListFields()
    count = prod(shape)
    if not fields:
        if count:
            raise InvalidArgument(f"unable to find data for input tensor {shown(name)}: {count} elements are expected")
        return np.empty(shape, datatype.dtype)
    if len(fields) > 1:
        given = ", ".join(descriptor.name for descriptor, _ in fields)
        raise InvalidArgument(f"input {shown(name)}: contents has several fields ({given}), one is allowed")
    descriptor, values = fields[0]
    if descriptor.name != typed_field(name, datatype):
        raise wrong_field(name, datatype, descriptor.name)
    if len(values) != count:
        raise wrong_count(name, count, len(values))
    if datatype is Datatype.BYTES:
        check_elements(name, count)
        return strings(name, list(values), shape)
    try:
        if count <= _PART:
            return np.fromiter(values, datatype.dtype, count).reshape(shape)
        array = np.empty(count, datatype.dtype)
        for start in range(0, count, _PART):
            part = values[start : start + _PART]
            array[start : start + _PART] = np.fromiter(part, datatype.dtype, len(part))
        return array.reshape(shape)
    except OverflowError:
        raise unfit(name, datatype) from None


def typed_field(name: str, datatype: Datatype) -> str:
    """Returns the field of InferTensorContents that carries the datatype. Raises: InvalidArgument (none does)."""
    field = TYPED_FIELDS.get(datatype)
    if field is None:
        raise InvalidArgument(
            f"input {shown(name)}: datatype {datatype.wire_name} has no typed contents, send it in raw_input_contents"
        )
    return field


def wrong_field(name: str, datatype: Datatype, given: str) -> InvalidArgument:
    """Returns the refusal of elements in another datatype's field."""
    return InvalidArgument(
        f"unexpected explicit tensor data for input {shown(name)}: datatype {datatype.wire_name} is sent in "
        f"{TYPED_FIELDS[datatype]}, got {given}"
    )


def wrong_count(name: str, expected: int, given: int) -> InvalidArgument:
    """Returns the refusal of more or fewer elements than the shape says."""
    return InvalidArgument(f"unexpected number of elements for input {shown(name)}: expected {expected}, got {given}")


def unfit(name: str, datatype: Datatype) -> InvalidArgument:
    """Returns the refusal of a number that is out of the datatype's range."""
    bounds = np.iinfo(np.dtype(datatype.dtype))
    return InvalidArgument(
        f"input {shown(name)}: {TYPED_FIELDS[datatype]} has a value that does not fit {datatype.wire_name} "
        f"({bounds.min} to {bounds.max})"
    )


def join_bytes(array: Array) -> bytes:
    """Returns the raw form of a BYTES tensor: each element behind its length."""
    parts: list[bytes] = []
    for element in array.reshape(-1).tolist():
        data = element.encode() if isinstance(element, str) else bytes(element)
        parts.append(_LENGTH.pack(len(data)))
        parts.append(data)
    return b"".join(parts)


def pack_typed(datatype: Datatype, array: Array) -> bytes:
    """Returns the typed contents of an output, serialized. The datatype has a typed field."""
    tag = varint(pb.InferTensorContents.DESCRIPTOR.fields_by_name[TYPED_FIELDS[datatype]].number << 3 | 2)
    if datatype is Datatype.BYTES:
        texts = [value.encode() if isinstance(value, str) else bytes(value) for value in array.reshape(-1).tolist()]
        return b"".join(piece for text in texts for piece in (tag, varint(len(text)), text))
    if not array.size:
        return b""
    packed = array.tobytes() if datatype in PACKED_AS_RAW else pack_numbers(array)
    return b"".join((tag, varint(len(packed)), packed))


def check_elements(name: str, count: int) -> None:
    if count > MAX_ELEMENTS:
        raise InvalidArgument(f"input {shown(name)} has {count} BYTES elements, the limit is {MAX_ELEMENTS}")


def strings(name: str, elements: list[bytes], shape: tuple[int, ...]) -> Array:
    for position, element in enumerate(elements):
        if not element.isascii():
            try:
                element.decode()
            except UnicodeDecodeError:
                raise InvalidArgument(
                    f"input {shown(name)}: element {position} is not UTF-8, as texts must be"
                ) from None
    array = np.empty(len(elements), np.object_)
    array[:] = elements
    return array.reshape(shape)
