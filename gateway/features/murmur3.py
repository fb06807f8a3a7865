"""MurmurHash3, the 32-bit variant for x86, by which Feast names the fields of a row.

Source: Austin Appleby, MurmurHash3_x86_32 (public domain).
"""

from typing import Final

_MASK: Final = 0xFFFFFFFF


def murmur3_32(data: bytes) -> int:
    """Returns the hash of the bytes with seed 0, as an unsigned number."""
    state = 0
    whole = len(data) & ~3
    for start in range(0, whole, 4):
        state ^= _scrambled(int.from_bytes(data[start : start + 4], "little"))
        state = (_turned(state, 13) * 5 + 0xE6546B64) & _MASK
    state ^= _scrambled(int.from_bytes(data[whole:], "little"))
    state ^= len(data)
    state = ((state ^ state >> 16) * 0x85EBCA6B) & _MASK
    state = ((state ^ state >> 13) * 0xC2B2AE35) & _MASK
    return state ^ state >> 16


def _scrambled(block: int) -> int:
    return (_turned((block * 0xCC9E2D51) & _MASK, 15) * 0x1B873593) & _MASK


def _turned(number: int, bits: int) -> int:
    return (number << bits | number >> (32 - bits)) & _MASK
