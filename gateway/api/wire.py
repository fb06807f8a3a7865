"""Protobuf's wire format where a message object would cost more than it gives: large requests, ready-made answers.

Source: protobuf encoding specification.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from google.protobuf.message import DecodeError

from gateway.api.packed_contents import PackedContents, take_contents
from gateway.api.unread_tensor import UnreadTensor
from gateway.api.varint import read_varint, varint
from gateway.errors import InvalidArgument
from gateway.pb import inference_pb2 as pb

# Below this protobuf's own copies of raw tensors are cheaper than walking the fields here.
LARGE_BYTES: Final = 128 * 1024
_MODEL_TAG: Final = 1 << 3 | 2
_VERSION_TAG: Final = 2 << 3 | 2
_INPUT_TAG: Final = 5 << 3 | 2
_RAW_INPUT_TAG: Final = 7 << 3 | 2
_INPUT_HEAD: Final = bytes((_INPUT_TAG,))
_LENGTH_DELIMITED: Final = 2
# Of one message; more than all inputs, outputs and parameters that there may be. A field takes two bytes there, and a
# hundred times that as an object.
_MOST_FIELDS: Final = 4096
_ODD_BYTES: Final = 1 << 20  # of a message whose fields are not seen here, and so not counted; and beside its tensors
_TAKEN_BYTES: Final = 4096  # of an input, from which on its contents are taken out

Raw = Sequence[bytes | memoryview | UnreadTensor]
Packed = Mapping[int, PackedContents]  # by the place of their input
UNPACKED: Final[Packed] = {}


def parse(message: bytes | memoryview) -> tuple[pb.ModelInferRequest, Raw, Packed]:
    """Returns the request, its raw tensors and its packed contents.

    The tensors of a large message are views of it, not copies as by protobuf; the contents that are packed are empty in
    the request then.

    Raises: InvalidArgument (the bytes are not a ModelInferRequest, or one of too many fields).
    """
    rest: bytes | None = None
    views: list[memoryview] = []
    packed: Packed = UNPACKED
    if len(message) >= LARGE_BYTES:
        taken: dict[int, PackedContents] = {}
        rest = _without_tensors(message, views, taken)
        packed = taken
        if rest is not None and len(rest) > _ODD_BYTES:
            raise InvalidArgument(
                f"the request has {len(rest)} bytes beside raw tensors and packed contents, the limit is {_ODD_BYTES}: "
                "send tensors in raw_input_contents"
            )
        if rest is None and len(message) > _ODD_BYTES:
            raise InvalidArgument(
                f"the request's {len(message)} bytes are not a ModelInferRequest in the form that serializers write; "
                f"in another form {_ODD_BYTES} bytes are read"
            )
    try:
        request = pb.ModelInferRequest.FromString(bytes(message) if rest is None else rest)
    except (DecodeError, ValueError):
        raise InvalidArgument(f"the request's {len(message)} bytes are not a ModelInferRequest") from None
    return request, request.raw_input_contents if rest is None else views, packed


def _without_tensors(
    message: bytes | memoryview, views: list[memoryview], packed: dict[int, PackedContents]
) -> bytes | None:
    """Returns the message without its raw tensors and the packed contents of its inputs, which go into these.

    None: protobuf has to look at it.

    Raises: InvalidArgument (more fields than any request has).
    """
    view = memoryview(message)
    kept: list[bytes | memoryview] = []
    inputs = 0
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
        elif tag == _INPUT_TAG:
            taken = take_contents(view[offset : offset + length]) if length >= _TAKEN_BYTES else None
            if taken is not None:
                kept += (view[kept_from:start], _INPUT_HEAD, varint(len(taken[0])), taken[0])
                packed[inputs] = taken[1]
                kept_from = offset + length
            inputs += 1
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
