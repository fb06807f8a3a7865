"""A confidence sequence for the ratio of two arms' rates: intervals that hold at every look together.

It is {r0 : mean over r of LR(r) < LR(r0) / alpha} on a grid of ratios, widened to the next point outside, so that the
grid makes it no narrower than it is.
"""

from dataclasses import dataclass

import numpy as np

from gateway.rollout.statistics.rate_ratio import Counts, Floats, log_likelihood_ratios, log_mean_exp, two_sided_grid


@dataclass(frozen=True, slots=True)
class RatioInterval:
    """What the ticks so far say about each ratio of the grid. Shapes: `log_ratios` is (..., 97), against ratio 1."""

    log_ratios: Floats

    @staticmethod
    def none(*, side_by_side: tuple[int, ...] = ()) -> "RatioInterval":
        """Returns what is known before the first tick: nothing."""
        return RatioInterval(np.zeros((*side_by_side, len(two_sided_grid()))))

    def after(self, canary: Counts, stable: Counts, canary_events: Counts, stable_events: Counts) -> "RatioInterval":
        """Returns what is known after one tick more. Shapes: as `HarmEvidence.after`."""
        added = log_likelihood_ratios(two_sided_grid(), 1.0, canary, stable, canary_events, stable_events)
        return RatioInterval(self.log_ratios + added)

    def bounds(self, alpha: float = 0.05) -> tuple[Floats, Floats]:
        """Returns the lowest and the highest ratio that the events allow; 0 and infinity beyond the grid.

        Shapes: (...) each. Over all looks together an interval misses the ratio with a probability of at most
        `alpha`.
        """
        grid = two_sided_grid()
        inside = log_mean_exp(self.log_ratios)[..., None] - self.log_ratios < -np.log(alpha)
        first = inside.argmax(axis=-1)
        last = len(grid) - 1 - inside[..., ::-1].argmax(axis=-1)
        edges = np.concatenate([[0.0], grid, [np.inf]])
        return edges[first], edges[last + 2]

    @property
    def likeliest(self) -> Floats:
        """Returns the ratio of the grid under which the events were likeliest; 1 before the first event."""
        grid = two_sided_grid()
        flat = self.log_ratios.max(axis=-1) == self.log_ratios.min(axis=-1)
        return np.where(flat, 1.0, grid[self.log_ratios.argmax(axis=-1)])
