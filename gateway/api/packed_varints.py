"""Packed lists of varints as arrays, and back, without a Python object for each element.

Source: protobuf encoding specification, "Base 128 Varints" and "Packed Repeated Fields".
"""

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from gateway.tensor import Array, Datatype

Unsigned = npt.NDArray[np.uint64]

LONGEST: Final = 10  # bytes of 64 bits
_PART: Final = 1 << 16  # bytes that are worked on at once: what that takes beside them is bounded


def count_varints(packed: bytes | memoryview) -> int:
    """Returns how many numbers the bytes hold, those that are cut not counted."""
    return int(np.count_nonzero(np.frombuffer(packed, np.uint8) < 0x80))


def read_varints(packed: bytes | memoryview) -> Unsigned | None:
    """Returns the numbers, negative ones as their 64 bits; None for bytes that are no list of varints."""
    encoded = np.frombuffer(packed, np.uint8)
    if not encoded.size:
        return np.empty(0, np.uint64)
    if encoded[-1] >= 0x80:
        return None
    parts = []
    for part in _parts(encoded):
        values = _read(part)
        if values is None:
            return None
        parts.append(values)
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def pack_numbers(array: Array) -> bytes:
    """Returns the elements of whole numbers, or of booleans, as a packed list; negative ones take ten bytes each."""
    flat = array.reshape(-1)
    return write_varints(flat.astype(np.int64).view(np.uint64) if array.dtype.kind == "i" else flat.astype(np.uint64))


def write_varints(values: Unsigned) -> bytes:
    """Returns the numbers as a packed list."""
    return b"".join(_write(values[start : start + _PART]) for start in range(0, len(values), _PART))


def as_datatype(values: Unsigned, datatype: Datatype, *, signed: bool) -> Array | None:
    """Returns numbers of a field that is `signed` or not as the datatype; None where one does not fit it.

    The fields of datatypes of less than 64 bits have 32: what is longer on the wire is cut, as protobuf cuts it.
    """
    if datatype is Datatype.BOOL:
        return np.not_equal(values, 0)
    wide: Array = values if datatype.size == 8 else values.astype(np.uint32)
    if signed:
        wide = wide.view(np.int64 if datatype.size == 8 else np.int32)
    dtype = np.dtype(datatype.dtype)
    bounds = np.iinfo(dtype)
    if len(wide) and (int(wide.min()) < bounds.min or int(wide.max()) > bounds.max):
        return None
    return wide.astype(dtype, copy=False)


def _parts(encoded: npt.NDArray[np.uint8]) -> Iterator[npt.NDArray[np.uint8]]:
    """Yields parts that end where a number ends. The last byte ends one."""
    start = 0
    while start < len(encoded):
        end = min(start + _PART, len(encoded))
        while encoded[end - 1] >= 0x80 and end - start < _PART + LONGEST:
            end += 1
        yield encoded[start:end]
        start = end


def _read(encoded: npt.NDArray[np.uint8]) -> Unsigned | None:
    last = np.flatnonzero(encoded < 0x80)
    if len(last) == len(encoded):
        return encoded.astype(np.uint64)  # each number has one byte
    if not len(last) or last[-1] != len(encoded) - 1:
        return None
    starts = np.concatenate(([0], last[:-1] + 1))
    lengths = last - starts + 1
    if lengths.max() > LONGEST:
        return None
    places = np.arange(len(encoded)) - np.repeat(starts, lengths)
    shifted = (encoded & np.uint8(0x7F)).astype(np.uint64) << (7 * places).astype(np.uint64)
    return np.bitwise_or.reduceat(shifted, starts)


def _write(values: Unsigned) -> bytes:
    if not len(values):
        return b""
    most = int(values.max())
    if most < 0x80:
        return values.astype(np.uint8).tobytes()
    lengths = np.ones(len(values), np.int64)
    for place in range(1, LONGEST):
        if most < 1 << 7 * place:
            break
        lengths += values >= np.uint64(1 << 7 * place)
    ends = np.cumsum(lengths)
    starts = ends - lengths
    encoded = np.empty(int(ends[-1]), np.uint8)
    for place in range(int(lengths.max())):
        longer = lengths > place
        groups = (values[longer] >> np.uint64(7 * place)).astype(np.uint8) & np.uint8(0x7F)
        more = (lengths[longer] > place + 1).astype(np.uint8) << np.uint8(7)
        encoded[starts[longer] + place] = groups | more
    return encoded.tobytes()
