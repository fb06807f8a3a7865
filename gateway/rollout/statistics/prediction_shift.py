"""Evidence that two arms' predictions have different distributions, and by how much they differ.

Each bin of the predictions (a class, or a decile of the stable arm's scores) is an event; a bin whose rate differs
between the arms shows as a ratio of rates other than 1, in the way of `rate_ratio`. The evidence is the mean over the
bins, which is valid although their counts hang together, whatever the weights and the volume of keys. With many
requests a difference too small to matter is certain, so the population stability index is asked as well.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from gateway.rollout.statistics.rate_ratio import Counts, Floats, log_likelihood_ratios, log_mean_exp, two_sided_grid

MAX_BINS: Final = 32
SHIFT_LOG_E: Final = float(np.log(100))
SHIFT_PSI: Final = 0.2
_POINTS: Final = 48  # an even number: the ratio 1 itself is no evidence
_HALF: Final = 0.5  # added to each count of a bin, so that an empty one has a logarithm


@dataclass(frozen=True, slots=True)
class ShiftEvidence:
    """The state of one metric's test.

    Shapes: `log_ratios` is (bins, points of the grid); `canary` and `stable` are the counts by bin so far.
    """

    log_ratios: Floats
    canary: Floats
    stable: Floats

    @staticmethod
    def none(bins: int) -> "ShiftEvidence":
        """Returns the evidence before the first tick: 1. Raises: ValueError (fewer than 2 bins, or more than 32)."""
        if not 2 <= bins <= MAX_BINS:
            raise ValueError(f"predictions are compared in 2 to {MAX_BINS} bins, not {bins}")
        return ShiftEvidence(np.zeros((bins, _POINTS)), np.zeros(bins), np.zeros(bins))

    def after(self, canary: Counts, stable: Counts) -> "ShiftEvidence":
        """Returns the evidence with one tick more. Shapes: the counts are (bins,), of predictions in each bin."""
        in_canary, in_stable = np.asarray(canary, float), np.asarray(stable, float)
        totals = np.full_like(in_canary, in_canary.sum()), np.full_like(in_stable, in_stable.sum())
        added = log_likelihood_ratios(
            two_sided_grid(_POINTS), 1.0, *(counts[:, None] for counts in (*totals, in_canary, in_stable))
        )
        return ShiftEvidence(self.log_ratios + added, self.canary + in_canary, self.stable + in_stable)

    @property
    def log_e(self) -> float:
        """Returns the logarithm of the evidence that some bin's rate differs."""
        return float(log_mean_exp(log_mean_exp(self.log_ratios)))

    @property
    def psi(self) -> float:
        """Returns the population stability index of the counts so far; 0 where an arm has none."""
        if not self.canary.sum() or not self.stable.sum():
            return 0.0
        seen = self.canary + self.stable > 0  # a bin that nobody is in says nothing, and would add to the index
        canary, stable = self.canary[seen] + _HALF, self.stable[seen] + _HALF
        p, q = canary / canary.sum(), stable / stable.sum()
        return float(((p - q) * np.log(p / q)).sum())

    @property
    def is_shift(self) -> bool:
        """Returns whether the predictions differ, with certainty and by an amount that matters."""
        return self.log_e >= SHIFT_LOG_E and self.psi >= SHIFT_PSI
