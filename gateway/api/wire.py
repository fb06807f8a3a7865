"""Protobuf's wire format where a message object would cost more than it gives: large requests, ready-made answers.

Source: protobuf encoding specification.
"""

from collections.abc import Sequence
from typing import Final

from google.protobuf.message import DecodeError

from gateway.errors import InvalidArgument
from gateway.pb import inference_pb2 as pb

# Below this protobuf's own copies of raw tensors are cheaper than walking the fields here.
LARGE_BYTES: Final = 128 * 1024
_MODEL_TAG: Final = 1 << 3 | 2
_VERSION_TAG: Final = 2 << 3 | 2
_RAW_INPUT_TAG: Final = 7 << 3 | 2
_LENGTH_DELIMITED: Final = 2
# Of one message; more than all inputs, outputs and parameters that there may be. A field takes two bytes there, and a
# hundred times that as an object.
_MOST_FIELDS: Final = 4096
_ODD_BYTES: Final = 1 << 20  # of a message whose fields are not seen here, and so not counted

_ONE_BYTE = tuple(bytes((value,)) for value in range(0x80))

Raw = Sequence[bytes | memoryview]


def varint(value: int) -> bytes:
    """Returns the encoding of an unsigned number."""
    if value < 0x80:
        return _ONE_BYTE[value]
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def parse(message: bytes | memoryview) -> tuple[pb.ModelInferRequest, Raw]:
    """Returns the request and its raw tensors; those of a large message are views of it, not copies as by protobuf.

    Raises: InvalidArgument (the bytes are not a ModelInferRequest, or one of too many fields).
    """
    rest: bytes | None = None
    views: list[memoryview] = []
    if len(message) >= LARGE_BYTES:
        rest = _without_raw(message, views)
        if rest is None and len(message) > _ODD_BYTES:
            raise InvalidArgument(
                f"the request's {len(message)} bytes are not a ModelInferRequest in the form that serializers write; "
                f"in another form {_ODD_BYTES} bytes are read"
            )
    try:
        request = pb.ModelInferRequest.FromString(bytes(message) if rest is None else rest)
    except (DecodeError, ValueError):
        raise InvalidArgument(f"the request's {len(message)} bytes are not a ModelInferRequest") from None
    return request, request.raw_input_contents if rest is None else views


def _without_raw(message: bytes | memoryview, views: list[memoryview]) -> bytes | None:
    """Returns the message without its raw tensors, which go into `views`; None where protobuf has to look at it.

    Raises: InvalidArgument (more fields than any request has).
    """
    view = memoryview(message)
    kept: list[memoryview] = []
    offset, kept_from, size, left = 0, 0, len(message), _MOST_FIELDS
    while offset < size:
        if not left:
            raise InvalidArgument(
                f"the request has more than {_MOST_FIELDS} fields, inputs, outputs and parameters together"
            )
        left -= 1
        start = offset
        tag, offset = read_varint(message, offset)
        if offset < 0 or tag & 7 != _LENGTH_DELIMITED:
            return None  # every field of a ModelInferRequest is length-delimited
        length, offset = read_varint(message, offset)
        if offset < 0 or length > size - offset:
            return None
        if tag == _RAW_INPUT_TAG:
            kept.append(view[kept_from:start])
            views.append(view[offset : offset + length])
            kept_from = offset + length
        offset += length
    kept.append(view[kept_from:])
    return b"".join(kept)


def leading_names(lead: bytes) -> tuple[str, str]:
    """Returns the model and the version that a message names in its first fields, as serializers write them.

    `lead` is the beginning of the message. What is not there, or in another form, is "".
    """
    model, offset = _leading_text(lead, 0, _MODEL_TAG)
    version, _ = _leading_text(lead, offset, _VERSION_TAG) if model else ("", 0)
    return model, version


def _leading_text(lead: bytes, offset: int, tag: int) -> tuple[str, int]:
    """Returns the text of the field at the offset and the offset behind it; "" and the same offset for another one."""
    if lead[offset : offset + 1] != bytes((tag,)):
        return "", offset
    length, start = read_varint(lead, offset + 1)
    if start < 0 or start + length > len(lead):
        return "", offset
    try:
        return lead[start : start + length].decode(), start + length
    except UnicodeDecodeError:
        return "", offset


def read_varint(message: bytes | memoryview, offset: int) -> tuple[int, int]:
    """Returns a number of at most five bytes and the offset behind it; the offset is -1 where there is none."""
    value = 0
    for place, byte in enumerate(message[offset : offset + 5]):
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, offset + place + 1
    return 0, -1
