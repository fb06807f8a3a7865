"""Tensor data that is not simply its raw bytes: BYTES elements, BOOL values, typed contents.

Source: Open Inference Protocol v2, "Tensor Data" and InferTensorContents.
"""

from math import prod
from struct import Struct

import numpy as np

from gateway.api.naming import shown
from gateway.errors import InvalidArgument
from gateway.pb import inference_pb2 as pb
from gateway.tensor import Array, Datatype

# An element of BYTES costs 4 bytes on the wire and about 50 here: their number needs a bound of its own.
MAX_ELEMENTS = 1 << 20
_LENGTH = Struct("<I")

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


def check_bool(name: str, raw: bytes) -> None:
    """Checks that every byte is 0 or 1.

    Raises: InvalidArgument.
    """
    rest = raw.strip(b"\x00\x01")  # empty unless some byte is neither
    if rest:
        raise InvalidArgument(f"input {shown(name)} of datatype BOOL has a byte of value {rest[0]}: 0 or 1 is allowed")


def split_bytes(name: str, raw: bytes, shape: tuple[int, ...]) -> Array:
    """Returns the BYTES elements of a raw tensor, each a Python bytes object holding UTF-8.

    Raises: InvalidArgument (too many elements, a length that leads out of the buffer, bytes left over, not UTF-8).
    """
    count = prod(shape)
    _check_elements(name, count)
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
    return _strings(name, elements, shape)


def from_typed(name: str, datatype: Datatype, contents: pb.InferTensorContents, shape: tuple[int, ...]) -> Array:
    """Returns the array that typed contents describe.

    Raises: InvalidArgument (raw-only datatype, wrong or several fields, wrong count, value out of range).
    """
    fields = contents.ListFields()
    count = prod(shape)
    expected = TYPED_FIELDS.get(datatype)
    if expected is None and fields:
        raise InvalidArgument(
            f"input {shown(name)}: datatype {datatype.wire_name} has no typed contents, send it in raw_input_contents"
        )
    if not fields:
        if count:
            raise InvalidArgument(f"unable to find data for input tensor {shown(name)}: {count} elements are expected")
        return np.empty(shape, datatype.dtype)
    if len(fields) > 1:
        given = ", ".join(descriptor.name for descriptor, _ in fields)
        raise InvalidArgument(f"input {shown(name)}: contents has several fields ({given}), one is allowed")
    descriptor, values = fields[0]
    if descriptor.name != expected:
        raise InvalidArgument(
            f"unexpected explicit tensor data for input {shown(name)}: datatype {datatype.wire_name} is sent in "
            f"{expected}, got {descriptor.name}"
        )
    if len(values) != count:
        raise InvalidArgument(
            f"unexpected number of elements for input {shown(name)}: expected {count}, got {len(values)}"
        )
    if datatype is Datatype.BYTES:
        _check_elements(name, count)
        return _strings(name, list(values), shape)
    try:
        return np.fromiter(values, datatype.dtype, count).reshape(shape)
    except OverflowError:
        bounds = np.iinfo(np.dtype(datatype.dtype))
        raise InvalidArgument(
            f"input {shown(name)}: {descriptor.name} has a value that does not fit {datatype.wire_name} "
            f"({bounds.min} to {bounds.max})"
        ) from None


def join_bytes(array: Array) -> bytes:
    """Returns the raw form of a BYTES tensor: each element behind its length."""
    parts: list[bytes] = []
    for element in array.reshape(-1).tolist():
        data = element.encode() if isinstance(element, str) else bytes(element)
        parts.append(_LENGTH.pack(len(data)))
        parts.append(data)
    return b"".join(parts)


def to_typed(datatype: Datatype, array: Array) -> pb.InferTensorContents:
    """Returns the typed contents of an output. The datatype has a typed field."""
    values = array.reshape(-1).tolist()
    if datatype is Datatype.BYTES:
        values = [value.encode() if isinstance(value, str) else bytes(value) for value in values]
    contents = pb.InferTensorContents()
    getattr(contents, TYPED_FIELDS[datatype]).extend(values)
    return contents


def _check_elements(name: str, count: int) -> None:
    if count > MAX_ELEMENTS:
        raise InvalidArgument(f"input {shown(name)} has {count} BYTES elements, the limit is {MAX_ELEMENTS}")


def _strings(name: str, elements: list[bytes], shape: tuple[int, ...]) -> Array:
    for position, element in enumerate(elements):
        if not element.isascii():
            try:
                element.decode()
            except UnicodeDecodeError:
                raise InvalidArgument(
                    f"input {shown(name)}: element {position} is not UTF-8, which the strings of ONNX models are"
                ) from None
    array = np.empty(len(elements), np.object_)
    array[:] = elements
    return array.reshape(shape)
