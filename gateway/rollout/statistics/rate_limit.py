"""Evidence that a rate is above a fixed limit, or below it: for what has no arm to compare with."""

from dataclasses import dataclass

import numpy as np

from gateway.rollout.statistics.rate_ratio import Floats, log_mean_exp

_POINTS = 24


@dataclass(frozen=True, slots=True)
class RateLimitEvidence:
    """The state of one test of "at most `limit`", or with `below` of "at least".

    Shapes: `log_ratios` is (..., points of the grid).
    Units:  `limit` is events per trial, in (0, 1).
    """

    limit: float
    log_ratios: Floats
    below: bool = False

    @staticmethod
    def none(limit: float, *, below: bool = False, side_by_side: tuple[int, ...] = ()) -> "RateLimitEvidence":
        """Returns the evidence before the first trial: 1. Raises: ValueError (a limit outside (0, 1))."""
        if not 0 < limit < 1:
            raise ValueError(f"a limit on a rate is between 0 and 1, not {limit}")
        return RateLimitEvidence(limit, np.zeros((*side_by_side, _POINTS)), below)

    def after(self, trials: int | Floats, events: float | Floats) -> "RateLimitEvidence":
        """Returns the evidence with more trials, each of which may be a part of an event.

        For a part the ratio is that power of the one for an event, and as much of the other: convex, so that its mean
        is at most what it is for events of the same rate.
        Raises: ValueError (more events than trials).
        """
        n, bad = np.asarray(trials, float)[..., None], np.asarray(events, float)[..., None]
        if (bad > n).any():
            raise ValueError(f"{events} events of {trials} trials")
        rates = self._rates()
        added = bad * np.log(rates / self.limit) + (n - bad) * np.log((1 - rates) / (1 - self.limit))
        return RateLimitEvidence(self.limit, self.log_ratios + added, self.below)

    @property
    def log_e(self) -> Floats:
        """Returns the logarithm of the e-value."""
        return log_mean_exp(self.log_ratios)

    def _rates(self) -> Floats:
        """Returns rates beyond the limit, spaced evenly by their log-odds, to near 1 or a thousandth of the limit."""
        odds = self.limit / (1 - self.limit)
        far = 1 / 1000 if self.below else max(1000.0, 1000 / odds)
        spaced = odds * np.geomspace(1 / 1.1 if self.below else 1.1, far, _POINTS)
        rates: Floats = spaced / (1 + spaced)
        return rates
