"""What one arm of a route did while it was judged: counts that add up over workers and hosts."""

from collections.abc import Iterable
from typing import Final

import msgspec

ROWS_BINS: Final = ("1", "2-3", "4-7", "8-15", "16+")  # rows of a run: a canary's batches are smaller than the others'


class ArmCounts(msgspec.Struct, frozen=True):
    """Requests that a split sent to the arm, and runs of them.

    Shapes: `latency` counts requests by the bounds of `LATENCY_BOUNDS_NS`, the last one open; `runs` has such a
            list for each bin of `ROWS_BINS`. Both may be empty: nothing was counted.
    `errors` are those of the gateway and the version; requests that failed by their client's fault are in none of it.
    """

    completed: int = 0
    errors: int = 0
    latency: tuple[int, ...] = ()
    runs: tuple[tuple[int, ...], ...] = ()

    def __add__(self, other: "ArmCounts") -> "ArmCounts":
        return ArmCounts(
            self.completed + other.completed,
            self.errors + other.errors,
            _added(self.latency, other.latency),
            tuple(_added(self._run(index), other._run(index)) for index in range(max(len(self.runs), len(other.runs)))),
        )

    def since(self, before: "ArmCounts") -> "ArmCounts":
        """Returns what was counted after `before`.

        It is never less than nothing, and never more errors than requests, also where counts were lost or made up.
        """
        completed = max(0, self.completed - before.completed)
        return ArmCounts(
            completed,
            min(completed, max(0, self.errors - before.errors)),
            _less(self.latency, before.latency),
            tuple(_less(run, before._run(index)) for index, run in enumerate(self.runs)),
        )

    def slower_than(self, bound: int) -> int:
        """Returns how many requests took longer than the bound with that index."""
        return sum(self.latency[bound + 1 :])

    def _run(self, index: int) -> tuple[int, ...]:
        return self.runs[index] if index < len(self.runs) else ()


NOTHING: Final = ArmCounts()


def total(counts: Iterable[ArmCounts]) -> ArmCounts:
    """Returns the sum."""
    return sum(counts, NOTHING)


def quantile_bound(histogram: tuple[int, ...], quantile: float) -> int:
    """Returns the index of the lowest bound that at most a share of 1 - `quantile` of the observations is above.

    The last, open bucket has no bound: where so many are in it, the last bound is returned.
    Raises: ValueError (an empty histogram).
    """
    observations = sum(histogram)
    if not observations:
        raise ValueError("a histogram without observations has no quantile")
    above = observations
    for index, count in enumerate(histogram[:-1]):
        above -= count
        if above <= (1 - quantile) * observations + 1e-9:
            return index
    return len(histogram) - 2


def _added(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    if len(one) < len(other):
        one, other = other, one
    return tuple(count + (other[index] if index < len(other) else 0) for index, count in enumerate(one))


def _less(now: tuple[int, ...], before: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(max(0, count - (before[index] if index < len(before) else 0)) for index, count in enumerate(now))
