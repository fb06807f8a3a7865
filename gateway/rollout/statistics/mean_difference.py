"""The difference of two arms' means of a metric, from sums that add up, with intervals that hold at every look.

A unit is what was drawn for an arm: a key where there is one. For a ratio of two numbers of a unit (reward per
request of a user), the delta method gives the variance; with a number that was known before the assignment, or the
shadow's answer to the same request, CUPED takes its share of the variance away.

Sources: asymptotic confidence sequences, Waudby-Smith et al., arXiv 2103.06476, in the form that GrowthBook uses
(equations 9 and 161); the delta method, Deng, Knoblich and Lu, KDD 2018; CUPED, Deng et al., WSDM 2013.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from gateway.errors import InvalidArgument

LEAST_UNITS: Final = 100  # of each arm, before the normal approximation is used
_TUNED_FOR: Final = 5000.0  # units of both arms at which the interval is narrowest


@dataclass(frozen=True, slots=True)
class UnitSums:
    """Sums over the units of one arm; those of several workers, hosts or hours add up.

    `y` is the metric, `x` what goes with it: the denominator of a ratio, or a covariate. Without one leave `x` at 0.
    """

    n: int = 0
    y: float = 0.0
    yy: float = 0.0
    x: float = 0.0
    xx: float = 0.0
    xy: float = 0.0

    def __add__(self, other: "UnitSums") -> "UnitSums":
        return UnitSums(
            self.n + other.n,
            self.y + other.y,
            self.yy + other.yy,
            self.x + other.x,
            self.xx + other.xx,
            self.xy + other.xy,
        )

    @staticmethod
    def of(y: float, x: float = 0.0) -> "UnitSums":
        """Returns the sums over one unit."""
        return UnitSums(1, y, y * y, x, x * x, x * y)

    @property
    def mean(self) -> float:
        """Returns the mean of the metric. Raises: ZeroDivisionError (no unit)."""
        return self.y / self.n

    @property
    def var_y(self) -> float:
        return _moment(self.n, self.yy, self.y, self.y)

    @property
    def var_x(self) -> float:
        return _moment(self.n, self.xx, self.x, self.x)

    @property
    def cov(self) -> float:
        return _moment(self.n, self.xy, self.x, self.y)


@dataclass(frozen=True, slots=True)
class MeanEstimate:
    """A number with its standard error, from `n` units."""

    value: float
    variance: float
    n: int


@dataclass(frozen=True, slots=True)
class MeanDifference:
    """Canary minus stable, or another estimate, with the interval that holds at every look."""

    value: float
    low: float
    high: float
    n: int


def mean_estimate(sums: UnitSums) -> MeanEstimate:
    """Returns the mean of the metric over units."""
    return MeanEstimate(sums.mean, sums.var_y / sums.n, sums.n)


def ratio_estimate(sums: UnitSums) -> MeanEstimate:
    """Returns sum(y) / sum(x) over units, its variance by the delta method.

    Raises: InvalidArgument (the denominator is 0 in sum).
    """
    if not sums.x:
        raise InvalidArgument("a ratio metric whose denominators sum to 0 has no value")
    ratio, mean_x = sums.y / sums.x, sums.x / sums.n
    variance = (sums.var_y - 2 * ratio * sums.cov + ratio * ratio * sums.var_x) / (mean_x * mean_x * sums.n)
    return MeanEstimate(ratio, max(0.0, variance), sums.n)


def adjusted_estimates(canary: UnitSums, stable: UnitSums) -> tuple[MeanEstimate, MeanEstimate]:
    """Returns both arms' means with the covariate's part taken off, canary first: CUPED.

    The coefficient and the covariate's mean are those of both arms together, so the difference keeps its expectation.
    `x` must not depend on the arm.
    """
    both = canary + stable
    spread = canary.var_x * canary.n + stable.var_x * stable.n
    theta = (canary.cov * canary.n + stable.cov * stable.n) / spread if spread > 0 else 0.0
    centre = both.x / both.n if both.n else 0.0

    def adjusted(sums: UnitSums) -> MeanEstimate:
        variance = sums.var_y - 2 * theta * sums.cov + theta * theta * sums.var_x
        return MeanEstimate(sums.mean - theta * (sums.x / sums.n - centre), max(0.0, variance) / sums.n, sums.n)

    return adjusted(canary), adjusted(stable)


def difference(canary: MeanEstimate, stable: MeanEstimate, *, alpha: float = 0.05) -> MeanDifference | None:
    """Returns the canary's estimate minus the stable one; None while an arm has fewer than `LEAST_UNITS` units."""
    if min(canary.n, stable.n) < LEAST_UNITS:
        return None
    return interval(canary.value - stable.value, canary.variance + stable.variance, canary.n + stable.n, alpha)


def interval(value: float, variance: float, n: int, alpha: float) -> MeanDifference:
    """Returns an estimate from `n` units with the interval around it that holds at every look."""
    half = math.sqrt(variance) * _factor(n, alpha)
    return MeanDifference(value, value - half, value + half, n)


def units_needed(now: MeanDifference, half_width: float, *, alpha: float = 0.05) -> float:
    """Returns how many units there must be until the interval is so narrow, if their spread stays as it is.

    Raises: ValueError (no width above 0).
    """
    if not half_width > 0:
        raise ValueError(f"half of an interval's width is above 0, not {half_width}")
    spread = (now.high - now.low) / 2 / _factor(now.n, alpha) * math.sqrt(now.n)
    n = float(now.n)
    while spread / math.sqrt(n) * _factor(n, alpha) > half_width:
        n *= 1.02
    return n


def _factor(n: float, alpha: float) -> float:
    """Returns by how many standard errors an interval is wider than its middle."""
    scaled = n * _rho2(alpha)
    return math.sqrt(2 * (scaled + 1) / scaled * math.log(math.sqrt(scaled + 1) / alpha))


def phase_weights(sizes: Sequence[tuple[int, int]]) -> tuple[float, ...]:
    """Returns by what the differences of phases are added up, from the units of both arms in each: n m / (n + m).

    Sizes and not variances: a phase in which nothing has happened yet would look certain. Sums up to 1.
    Source: Mantel and Haenszel 1959.
    """
    harmonic = [one * other / (one + other) for one, other in sizes]
    total = sum(harmonic)
    return tuple(one / total for one in harmonic)


def phased_estimate(phases: Sequence[tuple[MeanEstimate, MeanEstimate]]) -> MeanEstimate | None:
    """Returns the difference over phases of different weights, each compared within itself, then added by their sizes.

    Pooling the arms over phases instead shows a difference where there is none, as soon as the metric has a trend in
    time (Simpson's paradox). Phases in which an arm has too few units are left out; None where no phase is left, or
    nothing varies. Each phase is (canary, stable).
    """
    usable = [(canary, stable) for canary, stable in phases if min(canary.n, stable.n) >= LEAST_UNITS]
    if not usable:
        return None
    weights = phase_weights([(canary.n, stable.n) for canary, stable in usable])
    pairs = list(zip(weights, usable, strict=True))
    value = sum(weight * (canary.value - stable.value) for weight, (canary, stable) in pairs)
    variance = sum(weight * weight * (canary.variance + stable.variance) for weight, (canary, stable) in pairs)
    n = sum(canary.n + stable.n for canary, stable in usable)
    return MeanEstimate(value, variance, n) if variance > 0 else None


def below_log_e(pooled: MeanEstimate, bound: float, *, alpha: float) -> float:
    """Returns the logarithm of the evidence that the difference is below `bound`; -inf where it is seen above it.

    It is ln(1 / alpha) where the upper end of the interval at `alpha` comes down to the bound: the mixture that the
    interval is made from.
    """
    if pooled.value >= bound:
        return -math.inf
    scaled = pooled.n * _rho2(alpha)
    z2 = (pooled.value - bound) ** 2 / pooled.variance
    return z2 / 2 * scaled / (scaled + 1) - math.log(scaled + 1) / 2


def _rho2(alpha: float) -> float:
    return (-2 * math.log(alpha) + math.log(1 - 2 * math.log(alpha))) / _TUNED_FOR


def _moment(n: int, ab: float, a: float, b: float) -> float:
    """Returns the covariance of two numbers from their sums, with n - 1; 0 for fewer than two units."""
    return (ab - a * b / n) / (n - 1) if n > 1 else 0.0
