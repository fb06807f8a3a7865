"""Quantities as people write them: 50ms, 1MiB, 2.5%, 95/s. Pure."""

import re
from typing import Final

from gateway.errors import InvalidArgument

_NUMBER: Final = r"(\d+(?:\.\d+)?)"
_TIMES: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}
_SIZES: Final = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def seconds_of(text: str, path: str) -> float:
    """Returns seconds. Raises: InvalidArgument."""
    return _read(text, path, _TIMES, "a time such as 50ms, 1.5s or 2m")


def bytes_of(text: str | int, path: str) -> int:
    """Returns bytes. Raises: InvalidArgument."""
    return int(_read(str(text), path, _SIZES, "a size such as 512, 64KiB or 1MiB"))


def share_of_text(text: str, path: str) -> float:
    """Returns a share from 0 to 1. Raises: InvalidArgument."""
    value = _read(text, path, {"%": 0.01}, "a share such as 0.1%")
    if value > 1:
        raise InvalidArgument(f"{path}: {text!r} is more than 100 %")
    return value


def _read(text: str, path: str, units: dict[str, float] | dict[str, int], what: str) -> float:
    match = re.fullmatch(rf"{_NUMBER}\s*([A-Za-z%]*)", text.strip())
    if match is None or match[2] not in units:
        raise InvalidArgument(f"{path}: {text!r} is not {what}")
    return float(match[1]) * units[match[2]]


def time_text(seconds: float) -> str:
    """Returns a time with three digits that say something."""
    if seconds == float("inf"):
        return "none"
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size or unit == "us":
            return f"{seconds / size:.3g} {unit}" if seconds < 1000 * size else f"{seconds / size:.0f} {unit}"
    return f"{seconds:g} s"
