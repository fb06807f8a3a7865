"""Tells how surprising a difference is if nothing has changed: p-values, intervals of shares, and many tests at once.

The gamma function's tail is our own: the compactor of every gateway needs it, and nothing else of SciPy, which comes
with the extra `analysis` (0.3 s to load, 21 MiB of memory, 140 MB on disk).
"""

import math
from statistics import NormalDist
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from gateway.drift.statistics.distance import Counts, Floats

_MIN_EXPECTED = 5.0  # cells below are merged: Cochran's rule
_EXACT_BELOW = 25.0  # expected count up to which shares are compared exactly
_TINY = 1e-300
_ROUNDS = 10_000
_NORMAL: Final = NormalDist()


class ChiSquare(NamedTuple):
    """A statistic that is χ² distributed where nothing has changed, its degrees of freedom and its p-value."""

    statistic: float
    freedom: int
    p: float


class ConfidenceInterval(NamedTuple):
    """A confidence interval."""

    low: float
    high: float


def chi2_test(reference: Counts, current: Counts) -> ChiSquare:
    """Pearson's test that both histograms come from one distribution.

    Cells that expect fewer than five rows on a side are taken together; with one cell left the p-value is 1.
    Shapes: [B] each.
    """
    r, c = np.asarray(reference, np.float64), np.asarray(current, np.float64)
    m, n = float(r.sum()), float(c.sum())
    if m <= 0 or n <= 0:
        return ChiSquare(0.0, 0, 1.0)
    both = r + c
    rare = both * (min(m, n) / (m + n)) < _MIN_EXPECTED
    r, c = np.append(r[~rare], r[rare].sum()), np.append(c[~rare], c[rare].sum())
    both = r + c
    r, c, both = r[both > 0], c[both > 0], both[both > 0]
    if len(both) > 2 and both[-1] * (min(m, n) / (m + n)) < _MIN_EXPECTED and rare.any():
        least = int(np.argmin(both[:-1]))  # even together the rare ones are rare
        for cells in (r, c):
            cells[least] += cells[-1]
        r, c = r[:-1], c[:-1]
        both = r + c
    expected_r, expected_c = both * (m / (m + n)), both * (n / (m + n))
    statistic = float(((r - expected_r) ** 2 / expected_r).sum() + ((c - expected_c) ** 2 / expected_c).sum())
    freedom = len(both) - 1
    return ChiSquare(statistic, freedom, chi2_tail(statistic, freedom))


def chi2_tail(statistic: float, freedom: int) -> float:
    """P(X >= statistic) for X ~ χ² of that many degrees of freedom; 1 where there are none."""
    if freedom <= 0 or statistic <= 0:
        return 1.0
    return gamma_tail(freedom / 2.0, statistic / 2.0)


def gamma_tail(a: float, x: float) -> float:
    """Q(a, x), the regularised upper incomplete gamma function, for a > 0 and x >= 0.

    A series below a + 1, Lentz's continued fraction above: each where it converges fast.
    """
    if x <= 0:
        return 1.0
    if math.isinf(x):
        return 0.0
    front = math.exp(min(a * math.log(x) - x - math.lgamma(a), 700.0))
    if x < a + 1.0:
        term = total = 1.0 / a
        for n in range(1, _ROUNDS):
            term *= x / (a + n)
            total += term
            if term < total * 1e-16:
                break
        return min(max(1.0 - front * total, 0.0), 1.0)
    b = x + 1.0 - a
    c, d = 1.0 / _TINY, 1.0 / b
    fraction = d
    for n in range(1, _ROUNDS):
        factor = -n * (n - a)
        b += 2.0
        d = 1.0 / _away_from_zero(factor * d + b)
        c = _away_from_zero(b + factor / c)
        fraction *= d * c
        if abs(d * c - 1.0) < 1e-15:
            break
    return min(max(front * fraction, 0.0), 1.0)


def normal_tail(z: float) -> float:
    """P(Z >= z) of a standard normal variable."""
    return 0.5 * math.erfc(z / math.sqrt(2.0))


def normal_quantile(share: float) -> float:
    """The value that this share of a standard normal variable lies below. Raises: ValueError (not between 0 and 1)."""
    return _NORMAL.inv_cdf(share)


def ks_p(distance: float, n: int, m: int) -> float:
    """The p-value of a Kolmogorov-Smirnov distance between samples of n and m values.

    Source: Stephens, "Use of the Kolmogorov-Smirnov, Cramer-von Mises and related statistics" (1970).
    """
    if n <= 0 or m <= 0 or distance <= 0:
        return 1.0
    root = math.sqrt(n * m / (n + m))
    scaled = (root + 0.12 + 0.11 / root) * distance
    if scaled < 0.2:
        return 1.0
    total = math.fsum((1 if j % 2 else -1) * math.exp(-2.0 * j * j * scaled * scaled) for j in range(1, 101))
    return min(max(2.0 * total, 0.0), 1.0)


def wilson(hits: float, rows: float, z: float = 1.959964) -> ConfidenceInterval:
    """Wilson's interval of a share; everything where there are no rows."""
    if rows <= 0:
        return ConfidenceInterval(0.0, 1.0)
    low, high = _wilson(np.array([hits], np.float64), rows, z)
    return ConfidenceInterval(float(low[0]), float(high[0]))


def newcombe(
    reference_hits: float, reference_rows: float, hits: float, rows: float, z: float = 1.959964
) -> ConfidenceInterval:
    """Newcombe's interval of the difference of two shares, current less reference.

    Source: Newcombe, "Interval estimation for the difference between independent proportions" (1998), method 10.
    """
    if reference_rows <= 0 or rows <= 0:
        return ConfidenceInterval(-1.0, 1.0)
    low, high = _newcombe(np.array([reference_hits]), reference_rows, np.array([hits]), rows, z)
    return ConfidenceInterval(float(low[0]), float(high[0]))


def least_difference(
    reference_hits: npt.ArrayLike, reference_rows: float, hits: npt.ArrayLike, rows: float, z: float
) -> Floats:
    """Returns how far apart two shares are at least: the end of Newcombe's interval that is nearer to 0, and 0 where
    the interval holds it.

    Shapes: hits of both sides alike; the result as they.
    """
    before, now = np.asarray(reference_hits, np.float64), np.asarray(hits, np.float64)
    if reference_rows <= 0 or rows <= 0:
        return np.zeros(now.shape)
    low, high = _newcombe(before, reference_rows, now, rows, z)
    return np.asarray(np.maximum(np.maximum(low, -high), 0.0), np.float64)


def share_test(reference_hits: float, reference_rows: float, hits: float, rows: float) -> float:
    """The two-sided p-value that two shares are one: Fisher's exact test doubled, χ² where counts are large."""
    if reference_rows <= 0 or rows <= 0:
        return 1.0
    total, all_rows = reference_hits + hits, reference_rows + rows
    expected = [side * part / all_rows for side in (total, all_rows - total) for part in (reference_rows, rows)]
    if min(expected) >= _EXACT_BELOW:
        gap = hits / rows - reference_hits / reference_rows
        pooled = total / all_rows
        z = abs(gap) / math.sqrt(pooled * (1.0 - pooled) * (1.0 / reference_rows + 1.0 / rows))
        return 2.0 * normal_tail(z)
    if total > all_rows / 2.0:  # the other outcome is the rare one: the same test, and a shorter sum
        hits, total = rows - hits, all_rows - total
    whole_rows, others = max(round(rows), 1), max(round(reference_rows), 1)
    return min(2.0 * _hypergeometric_tail(round(hits), round(total), whole_rows, others), 1.0)


def benjamini_hochberg(p_values: npt.ArrayLike) -> Floats:
    """The p-values adjusted so that those below α hold a share of at most α false ones.

    Source: Benjamini and Hochberg, "Controlling the false discovery rate" (1995).
    """
    p = np.asarray(p_values, np.float64)
    if not p.size:
        return p
    order = np.argsort(p)[::-1]
    scaled = p[order] * (p.size / np.arange(p.size, 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.minimum.accumulate(scaled), 1.0)
    return adjusted


def _newcombe(before: Floats, reference_rows: float, now: Floats, rows: float, z: float) -> tuple[Floats, Floats]:
    p, q = before / reference_rows, now / rows
    p_low, p_high = _wilson(before, reference_rows, z)
    q_low, q_high = _wilson(now, rows, z)
    low, high = q - p - np.hypot(q - q_low, p_high - p), q - p + np.hypot(q_high - q, p - p_low)
    return np.maximum(low, -1.0), np.minimum(high, 1.0)


def _wilson(hits: Floats, rows: float, z: float) -> tuple[Floats, Floats]:
    share = hits / rows
    scale = 1.0 + z * z / rows
    middle = (share + z * z / (2.0 * rows)) / scale
    half = z / scale * np.sqrt(np.maximum(share * (1.0 - share) / rows + z * z / (4.0 * rows * rows), 0.0))
    low, high = np.maximum(middle - half, 0.0), np.minimum(middle + half, 1.0)
    return np.where(hits > 0, low, 0.0), np.where(hits < rows, high, 1.0)


def _hypergeometric_tail(hits: int, total: int, rows: int, others: int) -> float:
    """The smaller of P(X >= hits) and P(X <= hits) where `total` hits fall on rows and others by chance."""
    low, high = max(0, total - others), min(total, rows)
    hits = min(max(hits, low), high)
    step = 1 if hits * (rows + others) >= total * rows else -1
    place = hits
    term = math.exp(_log_choose(rows, place) + _log_choose(others, total - place) - _log_choose(rows + others, total))
    tail = 0.0
    while low <= place <= high and term > tail * 1e-15:
        tail += term
        up, down = (rows - place) * (total - place), (place + 1) * (others - total + place + 1)
        if step > 0:
            term *= up / down if down > 0 else 0.0
        else:
            forth = (rows - place + 1) * (total - place + 1)
            term *= place * (others - total + place) / forth if forth > 0 else 0.0
        place += step
    return min(tail, 1.0)


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _away_from_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
