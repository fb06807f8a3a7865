"""Which versions stay in memory: the decision, as a pure function of what is there and what it needs."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Generic, TypeVar

T = TypeVar("T")

# At least so much counts for a version whose trial showed no growth: a session, its queue and its series.
LEAST_BYTES = 256 << 10
_IN_USE_S = 0.1  # until a version that runs now is looked at again


@dataclass(frozen=True, slots=True)
class Residence:
    """How much memory of a host the versions may have that are loaded on demand, and how long one stays at least.

    `workers` share the memory of weights that are held once per host.

    Units: `limit_bytes` of this worker, 0: no limit; `stay_s` from the load of a version until it may make room for
           another one, so that more versions in turn than there is room for do not only load and unload.
    """

    limit_bytes: int = 0
    stay_s: float = 10.0
    workers: int = 1


@dataclass(frozen=True, slots=True)
class Resident(Generic[T]):
    """A version in memory. `is_kept`: a route, or a rollback, needs it; `is_used`: a call holds it now.

    Units: seconds on one clock.
    """

    name: T
    size_bytes: int
    used_s: float
    loaded_s: float
    is_kept: bool = False
    is_used: bool = False


@dataclass(frozen=True, slots=True)
class Room(Generic[T]):
    """What makes room: the versions to unload, and after what time to look again; 0: there is room then, `inf`: never.

    `held_bytes` is what cannot be unloaded.
    """

    unload: tuple[T, ...] = ()
    wait_s: float = 0.0
    held_bytes: int = 0


def room_for(size_bytes: int, residents: Sequence[Resident[T]], residence: Residence, now_s: float) -> Room[T]:
    """Returns how a version of that size finds room.

    1. Where all fits, nothing is unloaded.
    2. Kept versions and those in use stay. Of the others the least recently used go first, and only as many as needed.
    3. None goes before it has stayed for `stay_s`: the new one waits.
    4. Nothing is unloaded in vain: where the rest would not make room either, all stay.
    """
    over = size_bytes + sum(resident.size_bytes for resident in residents) - residence.limit_bytes
    if not residence.limit_bytes or over <= 0:
        return Room()
    held_bytes = sum(resident.size_bytes for resident in residents if resident.is_kept)
    if held_bytes + size_bytes > residence.limit_bytes:
        return Room(wait_s=inf, held_bytes=held_bytes)
    unload: list[T] = []
    freed = 0
    soonest_s = inf
    for resident in sorted(residents, key=lambda resident: resident.used_s):
        left_s = max(resident.loaded_s + residence.stay_s - now_s, _IN_USE_S if resident.is_used else 0.0)
        if resident.is_kept:
            continue
        if left_s > 0:
            soonest_s = min(soonest_s, left_s)
            continue
        unload.append(resident.name)
        freed += resident.size_bytes
        if freed >= over:
            return Room(tuple(unload))
    return Room(wait_s=soonest_s, held_bytes=held_bytes)
