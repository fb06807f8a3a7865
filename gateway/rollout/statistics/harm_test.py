"""The harm test: evidence that an arm has an event more often than a bound times the other arm's rate.

The evidence begins anew again and again: of the unit mass that a bet starts with, 0.4 is laid on the beginning, and
with every tenth tick a sixtieth of what is left is laid on a fault that begins then. A fault that comes after a good
hour is found about as fast as one that was there from the start, and the share of false alarms stays below alpha,
because the masses are chosen beforehand.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from gateway.rollout.statistics.rate_ratio import (
    Counts,
    Floats,
    harm_grid,
    log_likelihood_ratios,
    log_mean_exp,
)

FIRST_MASS: Final = 0.4
RESTART_TICKS: Final = 10
RESTART_SHARE: Final = 1 / 60


@dataclass(frozen=True, slots=True)
class HarmEvidence:
    """The state of one metric's test: what a successor needs to go on.

    Shapes: `log_mass` is (..., points of the grid), `ticks` the number of ticks that were added. Leading axes are
            tests that run side by side.
    Units:  `log_unspent` is the logarithm of the mass that is laid on no start yet.
    """

    bound: float
    log_mass: Floats
    log_unspent: float
    ticks: int = 0

    @staticmethod
    def none(bound: float, *, side_by_side: tuple[int, ...] = ()) -> "HarmEvidence":
        """Returns the evidence before the first tick: 1. Raises: ValueError (a bound below 1)."""
        points = len(harm_grid(bound))
        log_mass = np.full((*side_by_side, points), np.log(FIRST_MASS / points))
        return HarmEvidence(bound, log_mass, float(np.log1p(-FIRST_MASS)))

    def after(self, canary: Counts, stable: Counts, canary_events: Counts, stable_events: Counts) -> "HarmEvidence":
        """Returns the evidence with one tick more.

        Shapes: the counts are (..., strata), of requests completed in the tick and of events among them.
        """
        grid = harm_grid(self.bound)
        log_mass, log_unspent, ticks = self.log_mass, self.log_unspent, self.ticks + 1
        if ticks % RESTART_TICKS == 0:
            log_mass = np.logaddexp(log_mass, log_unspent + np.log(RESTART_SHARE / len(grid)))
            log_unspent += float(np.log1p(-RESTART_SHARE))
        added = log_likelihood_ratios(grid, self.bound, canary, stable, canary_events, stable_events)
        return HarmEvidence(self.bound, log_mass + added, log_unspent, ticks)

    @property
    def log_e(self) -> Floats:
        """Returns the logarithm of the e-value. Shapes: (...), a scalar array for one test."""
        points = self.log_mass.shape[-1]
        result: Floats = np.logaddexp(log_mean_exp(self.log_mass) + np.log(points), self.log_unspent)
        return result
