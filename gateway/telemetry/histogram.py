"""Latency histograms of plain integers, and the one way in which snapshots are added."""

from bisect import bisect_left
from typing import Final

MS: Final = 1_000_000  # nanoseconds

# A call takes from tens of microseconds (a tiny model) to seconds (a queue that is full).
LATENCY_BOUNDS_NS: Final[tuple[int, ...]] = (
    50_000, 100_000, 200_000, 300_000, 500_000, 750_000, 1 * MS, 1_500_000, 2 * MS, 3 * MS, 5 * MS, 7_500_000, 10 * MS,
    15 * MS, 25 * MS, 50 * MS, 100 * MS, 250 * MS, 500 * MS, 1000 * MS, 2500 * MS, 5000 * MS, 10_000 * MS, 30_000 * MS,
)  # fmt: skip
# How soon a committed route serves; the goal is 10 ms.
APPLY_BOUNDS_NS: Final[tuple[int, ...]] = tuple(
    int(ms * MS) for ms in (0.5, 1, 2, 3, 5, 7.5, 10, 15, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 60_000)
)
# Nearly all calls take less than 10 ms: their place is looked up. All bounds up to there are multiples of the step.
_STEP_NS: Final = 50_000
_NEAR_NS: Final = 10 * MS
_NEAR_PLACES: Final = bytes(bisect_left(LATENCY_BOUNDS_NS, step * _STEP_NS) for step in range(_NEAR_NS // _STEP_NS + 1))


def latency_place(value_ns: int) -> int:
    """Returns the place of a latency among `LATENCY_BOUNDS_NS`."""
    if 0 <= value_ns <= _NEAR_NS:
        return _NEAR_PLACES[(value_ns + _STEP_NS - 1) // _STEP_NS]
    return bisect_left(LATENCY_BOUNDS_NS, value_ns)


class Histogram:
    """Counts by bound (inclusive, the last one open) and the exact sum.

    Units: nanoseconds.
    """

    __slots__ = ("bounds_ns", "counts", "sum_ns")

    def __init__(self, bounds_ns: tuple[int, ...]) -> None:
        self.bounds_ns = bounds_ns
        self.counts = [0] * (len(bounds_ns) + 1)
        self.sum_ns = 0

    def observe(self, value_ns: int) -> None:
        self.counts[bisect_left(self.bounds_ns, value_ns)] += 1
        self.sum_ns += value_ns

    def snapshot(self) -> dict[str, object]:
        """Returns two values that add: counts by bound, and the sum."""
        return {"counts": list(self.counts), "sum_ns": self.sum_ns}
