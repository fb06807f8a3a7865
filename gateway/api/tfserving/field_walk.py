"""The fields of a message in the form that serializers write; a message in another form is written anew by protobuf.

So what is walked here needs no rules of its own for what protobuf also reads: fields that come twice, lists that are
not packed, groups. A client can send those, but no more of them than `_REWRITTEN_BYTES`: protobuf's objects of a
message without content take a hundred times its bytes.

Source: protobuf encoding specification.
"""

from typing import Final

from google.protobuf.message import DecodeError, Message

from gateway.errors import InvalidArgument

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
_LONGEST_VARINT: Final = 10
_MOST_FIELDS: Final = 4096  # of one message: many more than 256 inputs and 256 outputs
_REWRITTEN_BYTES: Final = 1 << 20

Field = tuple[int, int, memoryview]


def walk(message: memoryview, until: int = 0) -> tuple[list[Field], int] | None:
    """Returns each field's number, wire type and bytes (of a number: its encoding), and where the walk ended.

    It ends at the first field with the tag `until`, else behind the message. None: protobuf has to look at it.
    """
    fields: list[Field] = []
    offset, size = 0, len(message)
    while offset < size:
        tag, start = varint_at(message, offset)
        if tag == until and until:
            return fields, offset
        kind = tag & 7
        if start < 0 or not tag >> 3 or len(fields) == _MOST_FIELDS:
            return None
        if kind == LENGTH:
            length, start = varint_at(message, start)
            offset = start + length
        elif kind == VARINT:
            _, offset = varint_at(message, start)
        elif kind in (FIXED32, FIXED64):
            offset = start + (4 if kind == FIXED32 else 8)
        else:
            return None
        if start < 0 or offset < start or offset > size:
            return None
        fields.append((tag >> 3, kind, message[start:offset]))
    return fields, offset


def rewritten(kind: type[Message], message: memoryview, what: str) -> memoryview:
    """Returns the message in the form that is walked, without what is not known of it.

    Raises: InvalidArgument (protobuf does not read it, or it is too long for that).
    """
    if len(message) > _REWRITTEN_BYTES:
        raise InvalidArgument(
            f"{what} has {len(message)} bytes in a form that serializers do not write (lists that are not packed, "
            f"fields that come twice, more than {_MOST_FIELDS} fields): the limit for that is {_REWRITTEN_BYTES} bytes"
        )
    try:
        parsed = kind.FromString(bytes(message))
    except DecodeError:
        raise broken(what) from None
    parsed.DiscardUnknownFields()
    return memoryview(parsed.SerializeToString())


def varint_at(message: memoryview | bytes, offset: int) -> tuple[int, int]:
    """Returns the number of up to 64 bits at the offset, and the offset behind it: -1 where there is none."""
    value = 0
    for place, byte in enumerate(message[offset : offset + _LONGEST_VARINT]):
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, offset + place + 1
    return 0, -1


def broken(what: str) -> InvalidArgument:
    """Returns the refusal of bytes that are not the message they should be."""
    return InvalidArgument(f"{what}: its bytes are not the message that is expected")
