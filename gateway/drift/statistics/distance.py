"""Tells how far apart two distributions are, from their counts in the same bins or from their values.

Counts are arrays whose last axis is the bins; every axis before it is taken element by element, so that one call
compares many windows. They may be fractions: a sampled row stands for 1 / p rows. A bin that is empty on both sides is
no bin. How surprising a distance is, `significance` says.
"""

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64] | npt.NDArray[np.float64]
Floats = npt.NDArray[np.float64]
_PSEUDO_COUNT = 0.5  # keeps the logarithm of an empty bin finite


def psi(reference: Counts, current: Counts) -> Floats:
    """Population stability index, Σ (q - p) ln(q / p). Its mean is (B - 1)(1/n + 1/m) where nothing has changed.

    Source: Yurdakul, "Statistical properties of population stability index" (2018).
    """
    p, q, live = _smoothed(reference, current)
    return np.asarray(((q - p) * np.log(q / p)).sum(axis=-1, where=live), np.float64)


def debiased_psi(reference: Counts, current: Counts) -> Floats:
    """PSI less what it is on average without any change, so that small and large windows have one threshold."""
    return np.asarray(psi(reference, current) - psi_null_mean(reference, current), np.float64)


def psi_null_mean(reference: Counts, current: Counts) -> Floats:
    """The mean of PSI between two samples of one distribution, (B - 1)(1/n + 1/m) over the bins that are in use."""
    live = _live(reference, current).sum(axis=-1)
    return np.asarray((live - 1.0) * _noise(reference, current), np.float64)


def psi_null_sd(reference: Counts, current: Counts) -> Floats:
    """The standard deviation that goes with `psi_null_mean`: PSI is then about (1/n + 1/m) χ²(B - 1)."""
    live = _live(reference, current).sum(axis=-1)
    return np.asarray(np.sqrt(2.0 * np.maximum(live - 1.0, 0.0)) * _noise(reference, current), np.float64)


def js_distance(reference: Counts, current: Counts) -> Floats:
    """Jensen-Shannon distance: the square root of the divergence to base 2, from 0 to 1."""
    p, q = shares(reference), shares(current)
    middle = (p + q) / 2.0
    divergence = (_relative_entropy(p, middle) + _relative_entropy(q, middle)) / 2.0
    return np.asarray(np.sqrt(np.clip(divergence, 0.0, 1.0)), np.float64)


def hellinger(reference: Counts, current: Counts) -> Floats:
    """Hellinger distance, from 0 to 1."""
    gap = np.sqrt(shares(reference)) - np.sqrt(shares(current))
    return np.asarray(np.sqrt((gap**2).sum(axis=-1) / 2.0), np.float64)


def tvd(reference: Counts, current: Counts) -> Floats:
    """Total variation distance: the share of rows that would have to move, from 0 to 1."""
    return np.asarray(np.abs(shares(reference) - shares(current)).sum(axis=-1) / 2.0, np.float64)


def l_infinity(reference: Counts, current: Counts) -> Floats:
    """The largest difference of a single bin's share, from 0 to 1."""
    return np.asarray(np.abs(shares(reference) - shares(current)).max(axis=-1), np.float64)


def wasserstein_binned(reference: Counts, current: Counts, positions: Floats) -> Floats:
    """Earth mover's distance of two histograms whose bins lie at `positions`, which ascend.

    Shapes: `positions` [B].
    Units: those of `positions`; divide by a standard deviation to compare features.
    """
    gap = np.cumsum(shares(reference) - shares(current), axis=-1)[..., :-1]
    return np.asarray((np.abs(gap) * np.diff(positions)).sum(axis=-1), np.float64)


def wasserstein(reference: Floats, current: Floats) -> float:
    """Earth mover's distance of two samples, exact.

    Units: those of the values.
    Raises: ValueError (a sample is empty).
    """
    _check_filled(reference, current)
    merged = np.sort(np.concatenate([reference, current]))
    gap = _cdf(reference, merged[:-1]) - _cdf(current, merged[:-1])
    return float((np.abs(gap) * np.diff(merged)).sum())


def ks_distance(reference: Floats, current: Floats) -> float:
    """Kolmogorov-Smirnov D: the largest difference of the two samples' distribution functions, exact.

    Raises: ValueError (a sample is empty).
    """
    _check_filled(reference, current)
    merged = np.concatenate([reference, current])
    return float(np.abs(_cdf(reference, merged) - _cdf(current, merged)).max())


def ks_binned(reference: Counts, current: Counts) -> Floats:
    """The largest difference of the distribution functions at the ends of ordered bins: D or a little less."""
    gap = np.cumsum(shares(reference) - shares(current), axis=-1)
    return np.asarray(np.abs(gap).max(axis=-1), np.float64)


def shares(counts: Counts) -> Floats:
    """The counts over their sum; zeros where there is nothing to share."""
    total = np.asarray(counts.sum(axis=-1, keepdims=True), np.float64)
    return np.divide(counts, total, out=np.zeros(np.shape(counts)), where=total > 0)


def effective_rows(weight: float, squares: float) -> float:
    """Returns how many rows of equal weight tell as much as rows of this total weight and sum of squared weights.

    Source: Kish, "Survey Sampling" (1965).
    """
    return weight * weight / squares if squares > 0 else 0.0


def _smoothed(reference: Counts, current: Counts) -> tuple[Floats, Floats, npt.NDArray[np.bool_]]:
    live = _live(reference, current)
    bins = live.sum(axis=-1, keepdims=True)
    parts = [
        (counts + _PSEUDO_COUNT) / (counts.sum(axis=-1, keepdims=True) + _PSEUDO_COUNT * np.maximum(bins, 1))
        for counts in (reference, current)
    ]
    return parts[0], parts[1], live


def _live(reference: Counts, current: Counts) -> npt.NDArray[np.bool_]:
    return np.asarray((reference > 0) | (current > 0), np.bool_)


def _noise(reference: Counts, current: Counts) -> Floats:
    """1/n + 1/m; infinite where a side is empty."""
    with np.errstate(divide="ignore"):
        return np.asarray(1.0 / reference.sum(axis=-1) + 1.0 / current.sum(axis=-1), np.float64)


def _relative_entropy(p: Floats, q: Floats) -> Floats:
    ratio = np.divide(p, q, out=np.ones(np.broadcast_shapes(p.shape, q.shape)), where=(q > 0) & (p > 0))
    return np.asarray((p * np.log2(ratio)).sum(axis=-1), np.float64)


def _cdf(values: Floats, at: Floats) -> Floats:
    return np.asarray(np.searchsorted(np.sort(values), at, side="right") / len(values), np.float64)


def _check_filled(reference: Floats, current: Floats) -> None:
    for name, values in (("reference", reference), ("current", current)):
        if not len(values):
            raise ValueError(f"the {name} sample has no values, at least one is needed")
