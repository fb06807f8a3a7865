"""How much what a process holds grows with requests, and whether that is known well enough to say."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

WARM_UP: Final = 0.25  # share of a life that is left out: pools, arenas and caches fill then
BLOCKS: Final = 20
FEWEST: Final = 200_000  # requests in what is left: over fewer, anything else grows more than what they leave behind
_QUANTILE: Final = 1.96  # 95 % of a normal distribution


class Verdict(Enum):
    """UNDECIDED: the run was too short, or too uneven, to tell."""

    HOLDS = "holds"
    GROWS = "grows"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Slope:
    """Growth per million requests, with the ends of a 95 % interval."""

    value: float
    lowest: float
    highest: float

    def verdict(self, most: float) -> Verdict:
        """Returns whether it is below `most`; a count that never changed is."""
        if self.highest < most:
            return Verdict.HOLDS
        return Verdict.GROWS if self.lowest > most else Verdict.UNDECIDED


def slope(requests: Sequence[float], values: Sequence[float]) -> Slope | None:
    """Returns the growth of the values per million requests; None where there is too little to fit.

    The first part of the life is left out, the rest is summed up in blocks by their medians, and the slope is the
    median of the slopes between any two: a few samples of a peak do not move it.

    Shapes: both of one length, in the order of time; `requests` counts up.
    Source: Sen, "Estimates of the regression coefficient based on Kendall's tau" (1968), for value and interval.
    """
    start = int(len(requests) * WARM_UP)
    blocks = _blocks(list(zip(requests[start:], values[start:], strict=True)))
    slopes = sorted(
        (late[1] - early[1]) / (late[0] - early[0]) * 1e6
        for place, early in enumerate(blocks)
        for late in blocks[place + 1 :]
        if late[0] > early[0]
    )
    count = len(blocks)
    if count < BLOCKS or not slopes or blocks[-1][0] - blocks[0][0] < FEWEST:
        return None
    spread = _QUANTILE * math.sqrt(count * (count - 1) * (2 * count + 5) / 18)
    low = max(0, int((len(slopes) - spread) / 2))
    high = min(len(slopes) - 1, math.ceil((len(slopes) + spread) / 2))
    return Slope(_median(slopes), slopes[low], slopes[high])


def _blocks(samples: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    size = len(samples) / BLOCKS
    if size < 1:
        return []
    parts = [samples[round(number * size) : round((number + 1) * size)] for number in range(BLOCKS)]
    return [(_median([one for one, _ in part]), _median([other for _, other in part])) for part in parts]


def _median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
