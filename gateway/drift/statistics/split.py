"""Tells whether requests fall evenly on the buckets of a split, so that each arm gets the share that its route names.

A route gives an arm a share of the buckets, and the hash of a key names the bucket: as long as all buckets are hit
alike, shares of requests are the shares of the route, whatever those are. Where the requests of an arm are lost, or are
not logged, its buckets are hit less. Requests of one key share a bucket, so buckets differ by more than chance:
wide ranges of buckets are held against how much narrow ones within them differ.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from gateway.drift.statistics.bins import NumericBins
from gateway.drift.statistics.distance import Counts
from gateway.drift.statistics.reference_profile import FeatureKind, FeatureProfile
from gateway.drift.statistics.significance import chi2_tail
from gateway.drift.statistics.verdict import DriftState

BUCKETS: Final = 1_000_000
NARROW: Final = 200
_WIDE: Final = 20
LEAST_REQUESTS: Final = 2000
WARN: Final = 0.02  # share of requests that are not where they should be
CRIT: Final = 0.05
ALPHA: Final = 0.001
NOTHING: Final = np.zeros(NARROW + 6)  # the cells of a window without requests


@dataclass(frozen=True, slots=True)
class SplitVerdict:
    """`mismatch`: the share of requests that would have to fall elsewhere for all ranges to be hit alike."""

    state: DriftState
    mismatch: float
    p: float
    requests: int


def bucket_feature() -> FeatureProfile:
    """The bucket as a feature with even bins."""
    width = BUCKETS // NARROW
    bins = NumericBins(tuple(float(edge) for edge in range(width, BUCKETS, width)), (), 0.0, BUCKETS - 1.0)
    zeros, mean = (0,) * len(bins.cells), (BUCKETS - 1) / 2.0
    return FeatureProfile(
        "bucket", "bucket", FeatureKind.INTEGER, bins, zeros, 0, 0, mean, BUCKETS / math.sqrt(12), 0.0, BUCKETS
    )


def narrow_counts(counts: Counts) -> npt.NDArray[np.float64]:
    """The requests in each narrow range, of the counts of the feature's cells. Shapes: [200]."""
    return np.asarray(counts[1 : NARROW + 1], np.float64)


def confirm_split(windows: Sequence[SplitVerdict], confirmations: int) -> SplitVerdict:
    """Returns the verdict of the newest window. An alarm counts only if the windows before it share it.

    Order: oldest first, at least one.
    """
    newest, last = windows[-1], windows[-confirmations:]
    if newest.state <= DriftState.OK:
        return newest
    if len(last) < confirmations:
        return replace(newest, state=DriftState.INSUFFICIENT)
    return replace(newest, state=max(DriftState.OK, min(window.state for window in last)))


def judge_split(narrow: npt.NDArray[np.float64]) -> SplitVerdict:
    """Returns what one window says, without confirmation by others. Shapes: [200] requests in each range of buckets.

    An analysis of variance between 20 wide ranges and within them; with so many narrow ones its F is close to χ²
    over its degrees of freedom.
    """
    requests = float(narrow.sum())
    if requests < LEAST_REQUESTS:
        return SplitVerdict(DriftState.INSUFFICIENT, 0.0, 1.0, round(requests))
    wide = narrow.reshape(_WIDE, -1)
    per_wide = wide.shape[1]
    within = float(((wide - wide.mean(axis=1, keepdims=True)) ** 2).sum()) / (_WIDE * (per_wide - 1))
    between = per_wide * float(wide.mean(axis=1).var(ddof=1))
    sums = wide.sum(axis=1)
    mismatch = float(np.abs(sums / requests - 1.0 / _WIDE).sum() / 2.0)
    # Even perfect hashing leaves the variance of counting.
    noise = max(within, requests / NARROW)
    p = chi2_tail((_WIDE - 1) * between / noise, _WIDE - 1)
    # What the noise alone moves, of which the mismatch is cleared.
    mismatch = max(mismatch - math.sqrt(_WIDE * per_wide * noise / (2.0 * math.pi)) * math.sqrt(_WIDE) / requests, 0.0)
    state = DriftState.OK
    if p < ALPHA and mismatch > WARN:
        state = DriftState.CRIT if mismatch > CRIT else DriftState.WARN
    return SplitVerdict(state, mismatch, p, round(requests))
