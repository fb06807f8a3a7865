"""When calls begin, whatever becomes of those before them. Pure.

A load is a rate over time, made of straight lines. Calls begin where the area under it has grown by one more step: by
exactly 1 (constant), or by what an exponential distribution draws (Poisson): the time change of a Poisson process.

Source: Tene, "How not to measure latency" (coordinated omission); Cinlar, "Introduction to stochastic processes", 4.7.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import merge
from itertools import pairwise
from math import sqrt
from random import Random
from typing import Literal

Spacing = Literal["poisson", "constant"]
RateLine = tuple[tuple[float, float], ...]  # (share of the time, calls per second)


@dataclass(frozen=True, slots=True)
class Arrivals:
    """A rate over the whole of a run, and how calls are spread by it."""

    line: RateLine
    spacing: Spacing = "poisson"

    @property
    def highest(self) -> float:
        """Returns the highest rate, in calls per second."""
        return max(rate for _, rate in self.line)

    def rate_at(self, share: float) -> float:
        """Returns the calls per second at this share of the time."""
        for (start, low), (end, high) in pairwise(self.line):
            if start <= share <= end and end > start:
                return low + (high - low) * (share - start) / (end - start)
        return self.line[-1][1]

    def scaled(self, factor: float) -> "Arrivals":
        """Returns the same course of the load with rates so many times as high."""
        return Arrivals(tuple((share, rate * factor) for share, rate in self.line), self.spacing)

    def moments(self, seconds: float, seed: int) -> Iterator[float]:
        """Yields when calls begin, in seconds from the start; the same for the same seed."""
        draw = Random(seed)
        area, wanted = 0.0, self._step(draw) if self.spacing == "poisson" else 0.5
        for (start, low), (end, high) in pairwise(self.line):
            length_s = (end - start) * seconds
            here = (low + high) / 2 * length_s
            while wanted < area + here:
                yield start * seconds + _reached(wanted - area, low, high, length_s)
                wanted += self._step(draw)
            area += here

    def _step(self, draw: Random) -> float:
        return draw.expovariate(1.0) if self.spacing == "poisson" else 1.0


def steady(per_second: float, spacing: Spacing = "poisson") -> Arrivals:
    """Returns the same rate from beginning to end."""
    return Arrivals(((0.0, per_second), (1.0, per_second)), spacing)


def ramp(first: float, last: float, spacing: Spacing = "poisson") -> Arrivals:
    """Returns a rate that goes evenly from the one to the other."""
    return Arrivals(((0.0, first), (1.0, last)), spacing)


def spike(per_second: float, peak: float, start: float, end: float, spacing: Spacing = "poisson") -> Arrivals:
    """Returns a rate that is `peak` between two shares of the time."""
    line = ((0.0, per_second), (start, per_second), (start, peak), (end, peak), (end, per_second), (1.0, per_second))
    return Arrivals(line, spacing)


def share_of(moments: Iterator[float], index: int, count: int) -> Iterator[tuple[int, float]]:
    """Yields those calls that fall to one of `count` senders, each with its number in the whole."""
    return ((place, moment) for place, moment in enumerate(moments) if place % count == index)


def merged(schedules: Sequence[Iterator[tuple[int, float]]]) -> Iterator[tuple[float, int, int]]:
    """Yields (moment, which schedule, number in it) of all schedules in their order."""

    def tagged(which: int, schedule: Iterator[tuple[int, float]]) -> Iterator[tuple[float, int, int]]:
        return ((moment, which, place) for place, moment in schedule)

    return merge(*(tagged(which, schedule) for which, schedule in enumerate(schedules)))


def _reached(area: float, low: float, high: float, length_s: float) -> float:
    """Returns after how many seconds a line from rate `low` to `high` has this area under it."""
    slope = (high - low) / length_s
    if abs(slope) * length_s < 1e-9 * max(low, high):
        return area / low
    return (sqrt(max(0.0, low * low + 2 * slope * area)) - low) / slope
