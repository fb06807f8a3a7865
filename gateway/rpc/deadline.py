"""Deadlines: how a client writes one, and one timer for all calls of a server."""

from asyncio import AbstractEventLoop, TimerHandle
from time import monotonic_ns
from typing import Final, Protocol

_UNITS: Final = {b"n": 1, b"u": 10**3, b"m": 10**6, b"S": 10**9, b"M": 60 * 10**9, b"H": 3600 * 10**9}

# A tick is 2^24 ns, 16.8 ms; the wheel holds 68.7 s of them.
_SHIFT: Final = 24
_SLOTS: Final = 4096
_MASK: Final = _SLOTS - 1
_RESORT: Final = _SLOTS // 4


def parse_timeout(value: bytes) -> int:
    """Returns the nanoseconds of a `grpc-timeout`.

    Raises: ValueError where it is not one to eight digits and a unit.
    """
    unit = _UNITS.get(value[-1:])
    digits = value[:-1]
    if unit is None or not 1 <= len(digits) <= 8 or not digits.isdigit():
        raise ValueError(f"grpc-timeout {value!r} is not up to 8 digits and one of H M S m u n")
    return int(digits) * unit


class Timed(Protocol):
    """A member of a wheel. It knows the slot that it is in, so that leaving costs one dict removal.

    Units: `deadline_ns` on the monotonic clock.
    """

    deadline_ns: int
    slot: "Slot | None"

    def expire(self) -> None: ...


Slot = dict[Timed, None]


class DeadlineWheel:
    """Calls `expire()` of each member once its deadline has passed, at most two ticks (34 ms) late, never early.

    Adding and removing cost a dict operation each, and no timer of the event loop. The one timer that turns the wheel
    rests while the wheel is empty.
    """

    __slots__ = ("_far", "_last", "_loop", "_slots", "_tick", "_timer")

    def __init__(self, loop: AbstractEventLoop) -> None:
        self._loop = loop
        self._slots: list[Slot] = [{} for _ in range(_SLOTS)]
        self._far: Slot = {}
        self._tick = 0  # every tick before this one has been turned
        self._last = 0  # no member of the slots is due after this tick
        self._timer: TimerHandle | None = None

    def add(self, member: Timed) -> None:
        """Takes in a member whose `deadline_ns` is set, and which has no slot yet."""
        tick = member.deadline_ns >> _SHIFT
        if self._timer is None:
            self._tick = monotonic_ns() >> _SHIFT
            self._schedule()
        ahead = tick - self._tick
        if ahead >= _SLOTS - 1:
            slot = self._far
        else:
            if ahead < 0:
                tick = self._tick
            slot = self._slots[tick & _MASK]
            if tick > self._last:
                self._last = tick
        slot[member] = None
        member.slot = slot

    def stop(self) -> None:
        """Stops the timer: nothing expires any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def turn(self, now_ns: int) -> None:
        """Expires every member whose tick is over."""
        end = now_ns >> _SHIFT
        while self._tick < end:
            slot = self._slots[self._tick & _MASK]
            self._tick += 1
            if slot:
                due = list(slot)
                slot.clear()
                for member in due:
                    member.slot = None  # before any of them acts: what one does may close another
                for member in due:
                    member.expire()
            if self._tick % _RESORT == 0 and self._far:
                self._resort()

    def _resort(self) -> None:
        for member in [member for member in self._far if (member.deadline_ns >> _SHIFT) - self._tick < _SLOTS - 1]:
            del self._far[member]
            self.add(member)

    def _schedule(self) -> None:
        self._timer = self._loop.call_later((1 << _SHIFT) / 1e9, self._on_time)

    def _on_time(self) -> None:
        self._schedule()
        self.turn(monotonic_ns())
        if self._tick > self._last and not self._far and self._timer is not None:
            self._timer.cancel()
            self._timer = None
