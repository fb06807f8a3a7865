"""Numbers of bytes as people write them, 64KiB or 2GiB, and as they read them, 1.5 MiB. Pure."""

import re
from typing import Final

_UNITS: Final = {name: 1 << 10 * power for power, name in enumerate(("B", "KiB", "MiB", "GiB", "TiB", "PiB"))}
_WRITTEN: Final = re.compile(rf"([0-9]+)({'|'.join(_UNITS)})")
BYTE_FORMS: Final = "as a number or such as 64KiB, 512MiB, 2GiB"


def read_bytes(text: str) -> int:
    """Returns how many bytes a whole number is, with or without a unit. Raises: ValueError if it is neither."""
    written = _WRITTEN.fullmatch(text.strip())
    return int(text) if written is None else int(written[1]) * _UNITS[written[2]]


def written_bytes(value: int) -> str:
    """Returns the shortest text that reads as exactly these bytes; without a unit below 1 KiB."""
    for name, size in reversed(_UNITS.items()):
        if size > 1 and value >= size and value % size == 0:
            return f"{value // size}{name}"
    return str(value)


def rounded_bytes(value: float) -> str:
    """Returns the bytes for people, to a tenth of the largest unit of which there is at least one."""
    for name, size in reversed(_UNITS.items()):
        below = size >> 10
        if below and round(value / below, 1 if below > 1 else None) >= 1024:  # as it would be read
            return f"{value / size:.1f} {name}"
    return f"{value:.0f} B"
