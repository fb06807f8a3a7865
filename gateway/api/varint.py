"""Single varints: numbers, tags and lengths of protobuf's wire format.

Source: protobuf encoding specification, "Base 128 Varints".
"""

_ONE_BYTE = tuple(bytes((value,)) for value in range(0x80))


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


def read_varint(message: bytes | memoryview, offset: int) -> tuple[int, int]:
    """Returns a number of at most five bytes and the offset behind it; the offset is -1 where there is none."""
    value = 0
    for place, byte in enumerate(message[offset : offset + 5]):
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, offset + place + 1
    return 0, -1
