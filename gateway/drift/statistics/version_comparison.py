"""Two versions or arms against each other: on the same rows (a mirror), or each on its own share of the traffic."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import bdtr

from gateway.drift.statistics.distance import Floats
from gateway.drift.statistics.significance import chi2_tail

Flags = npt.NDArray[np.bool_]
MISMATCH_P = 0.001


@dataclass(frozen=True, slots=True)
class SplitTest:
    """Tells whether requests came to the arms in the shares that were meant.

    A `mismatch` (p below 0.001) makes every other comparison of the arms doubtful: rows are lost or moved for a reason
    that may well have to do with the answer.
    """

    observed: Mapping[str, int]
    expected: Mapping[str, float]
    chi2: float
    p: float

    @property
    def mismatch(self) -> bool:
        return self.p < MISMATCH_P


@dataclass(frozen=True, slots=True)
class McNemar:
    """Tells which of two versions is right more often on the same labelled rows; `p` is exact and two-sided."""

    only_a: int
    only_b: int
    both: int
    neither: int
    p: float

    @property
    def rows(self) -> int:
        return self.only_a + self.only_b + self.both + self.neither


@dataclass(frozen=True, slots=True)
class PairedLoss:
    """The mean of loss(B) - loss(A) over the same rows with a 95 % bootstrap interval; below zero B is better."""

    mean: float
    low: float
    high: float
    rows: int


@dataclass(frozen=True, slots=True)
class RewardGap:
    """Mean rewards of A and B, and their difference (B less A) with its 95 % interval."""

    mean_a: float
    mean_b: float
    low: float
    high: float
    rows_a: int
    rows_b: int


def reward_gap(a: tuple[int, float, float], b: tuple[int, float, float]) -> RewardGap | None:
    """The difference of two means, each given as (rows, mean, standard deviation); None with fewer than two rows.

    Source: Welch's standard error; for the hundreds of rewards that a decision needs, t is normal.
    """
    if min(a[0], b[0]) < 2:
        return None
    half = 1.959964 * float(np.sqrt(a[2] ** 2 / a[0] + b[2] ** 2 / b[0]))
    gap = b[1] - a[1]
    return RewardGap(a[1], b[1], gap - half, gap + half, a[0], b[0])


def split_test(observed: Mapping[str, int], shares: Mapping[str, float]) -> SplitTest:
    """The χ² test of the counts of requests against the shares that the route meant.

    Units: `shares` in any unit, of which only the ratios count.
    Raises: ValueError (arms differ, a share is not above 0, nothing was observed).
    """
    if set(observed) != set(shares) or len(shares) < 2:
        raise ValueError(
            f"arms are {sorted(observed)} and shares are of {sorted(shares)}, expected the same, two or more"
        )
    if min(shares.values()) <= 0:
        raise ValueError(f"shares are {dict(shares)}, expected each above 0")
    total = sum(observed.values())
    if total <= 0:
        raise ValueError("no request was observed, expected at least one")
    scale = total / sum(shares.values())
    expected = {arm: share * scale for arm, share in shares.items()}
    statistic = sum((observed[arm] - expected[arm]) ** 2 / expected[arm] for arm in shares)
    return SplitTest(dict(observed), expected, statistic, chi2_tail(statistic, len(shares) - 1))


def mcnemar(right_a: Flags, right_b: Flags) -> McNemar:
    """The exact test on the rows where just one of the two is right. Shapes: [rows] each."""
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    both, neither = int((right_a & right_b).sum()), int((~right_a & ~right_b).sum())
    discordant = only_a + only_b
    p = min(2.0 * float(bdtr(min(only_a, only_b), discordant, 0.5)), 1.0) if discordant else 1.0
    return McNemar(only_a, only_b, both, neither, p)


def paired_loss(loss_a: Floats, loss_b: Floats, *, rng: np.random.Generator, draws: int = 400) -> PairedLoss:
    """The mean difference of losses on the same rows. Shapes: [rows] each, at least one. Raises: ValueError."""
    if len(loss_a) != len(loss_b) or not len(loss_a):
        raise ValueError(f"{len(loss_a)} and {len(loss_b)} losses, expected as many of both, at least one")
    gaps = np.sort(loss_b - loss_a)
    # Neighbours in order are joined: the spread within a group is next to nothing of the whole.
    edges = np.linspace(0, len(gaps), min(len(gaps), 1000) + 1).astype(np.int64)
    sizes = np.diff(edges)
    means = np.add.reduceat(gaps, edges[:-1]) / sizes
    drawn = rng.multinomial(len(gaps), sizes / len(gaps), size=draws) @ means / len(gaps)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return PairedLoss(float(gaps.mean()), float(low), float(high), len(gaps))


def spearman(first: Floats, second: Floats) -> float:
    """The rank correlation of two scores of the same rows, equal scores sharing a rank; NaN where one never varies."""
    ranks = [_ranks(values) for values in (first, second)]
    centred = [values - values.mean() for values in ranks]
    scale = float(np.sqrt((centred[0] ** 2).sum() * (centred[1] ** 2).sum()))
    return float((centred[0] * centred[1]).sum()) / scale if scale > 0 else float("nan")


def _ranks(values: Floats) -> Floats:
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[places], np.float64)
