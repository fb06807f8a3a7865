"""The sequential test of the sample ratio: whether the arms got the shares of keys that the route says.

A mismatch means lost records, fallbacks or an arm that crashes: results of such a test are not to be trusted. It
holds within one revision, since a new weight is a new ratio: a new revision begins a new test. Keys are counted
exactly, on a hash sample of them; an estimate of their number would itself look like a mismatch.

Source: Lindon and Malek (arXiv 2011.03567), with a Dirichlet prior of concentration 1000 around the weights.
"""

import math
from collections.abc import Sequence
from typing import Final

CONCENTRATION: Final = 1000.0
MISMATCH_LOG_E: Final = math.log(1000)
LEAST_DEVIATION: Final = 0.005  # a smaller one is not worth a stop, however certain it is


def mismatch_log_e(counts: Sequence[int], weights: Sequence[float]) -> float:
    """Returns the logarithm of the evidence that the counts do not come from the weights.

    Units:  `weights` sum to 1; arms of weight 0 must have no count, else the evidence is infinite.
    Raises: ValueError (weights that do not sum to 1, or not one for each count).
    """
    if len(counts) != len(weights) or not math.isclose(sum(weights), 1.0, abs_tol=1e-9):
        raise ValueError(f"one weight for each of {len(counts)} counts, which sum to 1, not {list(weights)}")
    total = sum(counts)
    log_e = math.lgamma(CONCENTRATION) - math.lgamma(CONCENTRATION + total)
    for count, weight in zip(counts, weights, strict=True):
        if weight <= 0:
            if count:
                return math.inf
            continue
        prior = CONCENTRATION * weight
        log_e += math.lgamma(prior + count) - math.lgamma(prior) - count * math.log(weight)
    return log_e


def largest_deviation(counts: Sequence[int], weights: Sequence[float]) -> float:
    """Returns by how much the share of an arm differs most from its weight; 0 without a count."""
    total = sum(counts)
    if not total:
        return 0.0
    return max(abs(count / total - weight) for count, weight in zip(counts, weights, strict=True))


def is_mismatch(log_e: float, deviation: float) -> bool:
    """Returns whether the arms' shares are wrong, with certainty and by an amount that matters."""
    return log_e >= MISMATCH_LOG_E and deviation >= LEAST_DEVIATION
