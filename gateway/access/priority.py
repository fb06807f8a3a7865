"""Priority classes: who is refused first, and who runs first, while there is more work than the worker can do."""

from enum import IntEnum
from typing import Final

from gateway.errors import InvalidArgument


class Priority(IntEnum):
    """The classes; the lower the number, the later it is refused and the sooner it runs."""

    CRITICAL = 0
    DEFAULT = 1
    SHEDDABLE = 2


# The share of the admission's limits up to which a class is admitted. Above `MIRRORS` no call is mirrored.
LADDER: Final[dict[Priority, float]] = {Priority.CRITICAL: 1.0, Priority.DEFAULT: 0.95, Priority.SHEDDABLE: 0.9}
NAMES: Final = {priority.name.lower(): priority for priority in Priority}


def named(name: object, where: str) -> Priority:
    """Returns the class of that name. Raises: InvalidArgument."""
    priority = NAMES.get(name) if isinstance(name, str) else None
    if priority is None:
        raise InvalidArgument(f"{where} is {name!r}, allowed: {', '.join(NAMES)}")
    return priority


def requested(level: int, otherwise: Priority) -> Priority:
    """Returns the class that a request's own `priority` asks for; 0 asks for none.

    Source: Triton's schedule policy: 1 is the highest, 0 the model's default; a level beyond the last is the last.
    """
    return otherwise if level <= 0 else Priority(min(level, len(Priority)) - 1)
