"""A bound on the lines of the log that clients can cause."""

from typing import Final

BURST: Final = 10
REFILL_NS: Final = 6_000_000_000


class LineLimit:
    """Ten lines at once, then one in six seconds; says with the next line how many were left out."""

    __slots__ = ("_full_ns", "_omitted")

    def __init__(self) -> None:
        self._full_ns = 0  # when all lines are available again
        self._omitted = 0

    def take(self, now_ns: int) -> int:
        """Returns how many lines were omitted before this one; -1 if this one is to be omitted too."""
        full_ns = max(self._full_ns, now_ns) + REFILL_NS
        if full_ns - now_ns > BURST * REFILL_NS:
            self._omitted += 1
            return -1
        self._full_ns = full_ns
        omitted, self._omitted = self._omitted, 0
        return omitted
