"""Evidence about the ratio of two arms' rates of an event, valid at every look and for any rates.

Per tick and stratum the two arms completed n_c and n_s requests, S of the canary and F of both had the event. Against
a bound b on the ratio rate_c / rate_s, the ratio r gives the likelihood ratio of the canary's observed share of
events:

    w = n_c / (n_c + n_s);  q = w b / (w b + 1 - w);  p = w r / (w r + 1 - w)
    l = S ln(p / q) + (F - S) ln((1 - p) / (1 - q))

Given n_c and n_s the expectation of exp(l) is at most exp(L (q' p / q + (1 - q') (1 - p) / (1 - q) - 1)), where L is
the expected number of events and q' the canary's share of it. That is at most 1 where q' <= q < p (the canary does no
harm, r > b), where q' >= q > p (it is not proven harmless, r < b), and where q' = q. So products over ticks are
nonnegative supermartingales, and a false alarm has a probability of at most alpha over all looks (Ville's
inequality). Rates need not be small, and may change together: an outage of both arms changes nothing. The share w is
the observed one, so keys of unequal volume and changes of the weight change nothing either.

Source: Lindon, Sanden and Shirikian, KDD 2022 (arXiv 2205.14762) for tests by the share of events; restarts after
Shin, Ramdas and Rinaldo (arXiv 2203.03532).
"""

from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Counts = npt.ArrayLike  # of any shape; strata are the last axis

_HIGHEST: Final = 300.0


def harm_grid(bound: float, points: int = 24) -> Floats:
    """Returns ratios above `bound`, evenly spaced by their logarithm, from just over it up to 300.

    Every one is above the bound: a ratio below it would make the evidence invalid. For 1.2 they begin at 1.3.
    """
    if not 1.0 <= bound < _HIGHEST / 2:
        raise ValueError(f"a bound on the ratio of rates is between 1 and {_HIGHEST / 2:g}, not {bound}")
    return np.geomspace(bound * 13 / 12, _HIGHEST, points)


def harmless_grid(points: int = 12) -> Floats:
    """Returns ratios from 0.3 to 1, evenly spaced by their logarithm: what a version that is not worse would have."""
    return np.geomspace(0.3, 1.0, points)


def two_sided_grid(points: int = 97) -> Floats:
    """Returns ratios from 1/300 to 300, evenly spaced by their logarithm; the middle one of an odd number is 1."""
    return np.geomspace(1 / _HIGHEST, _HIGHEST, points)


def log_likelihood_ratios(
    grid: Floats, bound: float, canary: Counts, stable: Counts, canary_events: Counts, stable_events: Counts
) -> Floats:
    """Returns for each ratio of the grid the logarithm of its likelihood ratio against `bound`, summed over strata.

    Shapes: the counts are (..., strata) and equal; the result is (..., len(grid)). A stratum in which an arm
    completed
            nothing says nothing.
    """
    n_c, n_s = np.asarray(canary, float), np.asarray(stable, float)
    bad_c, bad_s = np.asarray(canary_events, float), np.asarray(stable_events, float)
    both = (n_c > 0) & (n_s > 0)
    share = np.where(both, n_c / np.where(both, n_c + n_s, 1.0), 0.5)[..., None]
    # ln(p / q) = ln(r / b) - ln(share r + 1 - share) + ln(share b + 1 - share); that of 1 - p has no first term.
    other = np.log(share * bound + 1 - share) - np.log(share * grid + 1 - share)
    events = np.where(both, bad_c, 0.0)[..., None], np.where(both, bad_s, 0.0)[..., None]
    result: Floats = (events[0] * (np.log(grid / bound) + other) + events[1] * other).sum(axis=-2)
    return result


def log_mean_exp(values: Floats) -> Floats:
    """Returns the logarithm of the mean of exp(values) over the last axis; -inf stands for 0.

    The mean of e-values is an e-value under any dependence between them.
    """
    highest = values.max(axis=-1, keepdims=True)
    highest = np.where(np.isfinite(highest), highest, 0.0)
    with np.errstate(divide="ignore"):
        result: Floats = np.log(np.exp(values - highest).mean(axis=-1)) + highest[..., 0]
    return result
