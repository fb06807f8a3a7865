"""Small lasting changes of a mean: cumulative sums of what each window is above or below its baseline.

Source: Page, "Continuous inspection schemes" (1954), in the standardised form with allowance k and decision limit h.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

ALLOWANCE: Final = 0.5  # k: half of the shift, in standard deviations, that is to be found soonest
LIMIT: Final = 5.0  # h
WARM_UP: Final = 30  # windows that a baseline is learned from


@dataclass(frozen=True, slots=True)
class Cusum:
    """The two sums after the last value, and for how many values in a row one of them has been above the limit.

    Neither grows beyond twice the limit, so that it comes back soon after the change has ended.
    """

    up: float
    down: float
    streak: int

    @property
    def alarm(self) -> bool:
        return self.streak > 0

    @property
    def direction(self) -> str:
        return ("higher" if self.up >= self.down else "lower") if self.alarm else ""


def accumulate(scores: Sequence[float], *, allowance: float = ALLOWANCE, limit: float = LIMIT) -> Cusum:
    """The cumulative sums of standardised values, in their order. Values that are not finite are passed over."""
    up = down = 0.0
    streak = 0
    for score in scores:
        if not math.isfinite(score):
            continue
        up = min(max(up + score - allowance, 0.0), 2.0 * limit)
        down = min(max(down - score - allowance, 0.0), 2.0 * limit)
        streak = streak + 1 if max(up, down) > limit else 0
    return Cusum(up, down, streak)


def standardised_means(
    means: Sequence[float], rows: Sequence[float], *, mean: float, sd: float, spread: float
) -> list[float]:
    """Returns how many standard deviations each window's mean is from the reference's.

    `sd` is that of single rows; `spread` is how far means of the reference's own windows are apart, whichever rows.
    """
    deviations = []
    for value, n in zip(means, rows, strict=True):
        scale = max(sd / math.sqrt(n) if n > 0 else 0.0, spread)
        deviations.append((value - mean) / scale if scale > 0 and n > 0 else math.nan)
    return deviations


def standardised_shares(hits: Sequence[float], rows: Sequence[float]) -> list[float]:
    """Returns how many standard deviations each window's share is from that of the first 30 windows; none for those.

    Their share has half a hit more than it had, so that a first error among many rows is a surprise, not an infinite
    one. The scale is that of independent rows, or of those windows where they differ by more.
    """
    known = [(h, n) for h, n in zip(hits, rows, strict=True) if n > 0]
    first, rest = known[:WARM_UP], known[WARM_UP:]
    if not rest:
        return []
    total = sum(n for _, n in first)
    share = (sum(h for h, _ in first) + 0.5) / (total + 1.0)
    excess = sum((h / n - share) ** 2 for h, n in first) / len(first) - share * (1.0 - share) * len(first) / total
    spread = max(excess, 0.0)
    return [(h / n - share) / math.sqrt(share * (1.0 - share) / n + spread) for h, n in rest]
