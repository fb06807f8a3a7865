"""Calls on their way: their long messages were let in at the beginning, and have not come whole."""

from collections import deque
from time import monotonic_ns
from typing import Final

_COUNTED_NS: Final = 1_000_000_000  # a client that takes longer to send says nothing of when its call will be there


class Arrival:
    """One call from the beginning of its message to its end; it `waits` for others then, as far as can be foreseen."""

    __slots__ = ("begun_ns", "over", "waits")

    def __init__(self, begun_ns: int, *, waits: bool) -> None:
        self.begun_ns = begun_ns
        self.waits = waits
        self.over = False

    def end(self) -> None:
        """Notes that the message has come whole, or never will."""
        self.over = True


class Arrivals:
    """Counts the calls on their way to one version, none for longer than a second."""

    __slots__ = ("_arrivals",)

    def __init__(self) -> None:
        self._arrivals: deque[Arrival] = deque()

    def begin(self, *, waits: bool) -> Arrival:
        """Returns a call that is let in."""
        arrival = Arrival(monotonic_ns(), waits=waits)
        self._arrivals.append(arrival)
        return arrival

    def count(self, now_ns: int) -> int:
        """Returns how many are on their way."""
        arrivals = self._arrivals
        while arrivals and (arrivals[0].over or now_ns - arrivals[0].begun_ns > _COUNTED_NS):
            arrivals.popleft()
        count = 0
        for arrival in arrivals:
            if not arrival.over:
                count += 1
        return count
