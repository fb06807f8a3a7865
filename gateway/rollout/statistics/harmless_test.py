"""The pass test: evidence that an arm's rate of an event is below a margin times the other arm's.

Its null hypothesis is that the canary is worse by the margin or more. 20 is the usual bar. It needs events: with
none, `zero_events_bound` says what is known.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from gateway.rollout.statistics.rate_ratio import Counts, Floats, harmless_grid, log_likelihood_ratios, log_mean_exp

PASS_LOG_E: Final = float(np.log(20))


@dataclass(frozen=True, slots=True)
class HarmlessEvidence:
    """The state of one metric's pass test.

    Shapes: `log_ratios` is (..., points of the grid).
    Units:  `margin` is the ratio of rates that is too bad: 2.0 asks whether the canary has less than twice the rate.
    """

    margin: float
    log_ratios: Floats

    @staticmethod
    def none(margin: float, *, side_by_side: tuple[int, ...] = ()) -> "HarmlessEvidence":
        """Returns the evidence before the first tick: 1. Raises: ValueError (a margin of 1 or less)."""
        if margin <= 1:
            raise ValueError(f"a margin is more than 1, not {margin}: equal arms cannot be told from each other")
        return HarmlessEvidence(margin, np.zeros((*side_by_side, len(harmless_grid()))))

    def after(self, canary: Counts, stable: Counts, canary_events: Counts, stable_events: Counts) -> "HarmlessEvidence":
        """Returns the evidence with one tick more. Shapes: as `HarmEvidence.after`."""
        added = log_likelihood_ratios(harmless_grid(), self.margin, canary, stable, canary_events, stable_events)
        return HarmlessEvidence(self.margin, self.log_ratios + added)

    @property
    def log_e(self) -> Floats:
        """Returns the logarithm of the e-value; it passes from `PASS_LOG_E` on."""
        return log_mean_exp(self.log_ratios)


def zero_events_bound(completed: int, *, confidence: float = 0.95) -> float:
    """Returns the rate that an event which never came in `completed` requests is below: about 3 / n at 95 %.

    With nothing completed it is 1: nothing is known.
    """
    if completed <= 0:
        return 1.0
    return float(-np.expm1(np.log1p(-confidence) / completed))
