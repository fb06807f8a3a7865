"""The difference of two arms over phases of different weights, with intervals that hold at every look.

1. A unit is a key in a phase, with the mean of what its requests did: a key counts once, however many requests it has.
2. Arms are compared within a phase, and phases are then added by their sizes, n_b n_a / (n_b + n_a). Pooling the arms
   over phases instead shows a difference where there is none, as soon as the metric has a trend in time (Simpson).
   The sizes do not depend on the metric, so no phase gains weight because its numbers look certain.
3. A key that is there in several phases is one cluster: its deviations are added before they are squared.
4. Into the variance of each arm of a phase goes one unit at the lowest and one at the highest value that the metric can
   have, or that was seen: no arm is certain because nothing has happened in it yet. Nor is it surer than units of both
   arms together would make it: a small arm, such as a holdout, that had fewer events than it should has too small a
   variance at the same time, and would differ too often.

Sources: asymptotic confidence sequences as in `mean_difference`; clusters by their influence, Liang and Zeger 1986; the
two units, Agresti and Caffo 2000; weights as in `mean_difference`.
"""

import math
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from gateway.rollout.statistics.mean_difference import (
    LEAST_UNITS,
    MeanDifference,
    interval,
    phase_weights,
)

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
NOT_KNOWN: Final = float("nan")


@dataclass(frozen=True, slots=True, eq=False)
class PhasedUnits:
    """Units of two arms. Shapes: [units] each; `phases` count from 0, `keys` are the same number in every phase.

    `low` and `high` bound the metric; NaN where only what was seen does.
    """

    phases: Ints
    keys: Ints
    treated: Flags
    values: Floats
    low: float = NOT_KNOWN
    high: float = NOT_KNOWN

    def of(self, chosen: Flags) -> "PhasedUnits":
        """Returns the chosen ones. The bounds stay those of all, so that a part is not surer than the whole."""
        low, high = self.bounds
        return PhasedUnits(self.phases[chosen], self.keys[chosen], self.treated[chosen], self.values[chosen], low, high)

    @property
    def bounds(self) -> tuple[float, float]:
        """Returns the lowest and the highest value that a unit can have, as far as that is known."""
        seen = (float(self.values.min()), float(self.values.max())) if len(self.values) else (NOT_KNOWN, NOT_KNOWN)
        low = seen[0] if math.isnan(self.low) else self.low
        return low, seen[1] if math.isnan(self.high) else self.high


@dataclass(frozen=True, slots=True)
class ArmMean:
    """The mean over the keys of one arm. `mean` is NaN where there is no key."""

    keys: int
    mean: float


@dataclass(frozen=True, slots=True)
class PhaseDifference:
    """What one phase says. `difference` is None where it says nothing yet."""

    treated: ArmMean
    control: ArmMean
    difference: MeanDifference | None


@dataclass(frozen=True, slots=True)
class PhasedDifference:
    """What the phases say, and all of them together: the treated arm less the control arm.

    The means of the whole are those of the usable phases by the same weights as the difference.
    """

    phases: tuple[PhaseDifference, ...]
    treated: ArmMean
    control: ArmMean
    combined: MeanDifference | None


@dataclass(frozen=True, slots=True, eq=False)
class _Side:
    """One arm of a phase. `extra` is what goes into the variance of its mean beside what its own units say."""

    chosen: Ints
    n: int
    mean: float
    variance: float
    extra: float


def phased_difference(units: PhasedUnits, phases: int, *, alpha: float = 0.05) -> PhasedDifference:
    """Returns the differences by phase, and combined. Raises: ValueError (a phase beyond `phases`)."""
    if len(units.phases) and not 0 <= units.phases.min() <= units.phases.max() < phases:
        raise ValueError(f"phases {units.phases.min()} to {units.phases.max()}, expected 0 to {phases - 1}")
    bounds = units.bounds
    sides = [_sides(units, phase, bounds) for phase in range(phases)]
    told = []
    for treated, control in sides:
        difference = None
        if _usable(treated, control, bounds):
            variance = treated.variance + treated.extra + control.variance + control.extra
            difference = interval(treated.mean - control.mean, variance, treated.n + control.n, alpha)
        told.append(PhaseDifference(ArmMean(treated.n, treated.mean), ArmMean(control.n, control.mean), difference))
    usable = [(one, other) for one, other in sides if _usable(one, other, bounds)]
    return PhasedDifference(tuple(told), *_combined(units, usable, alpha))


def _usable(treated: _Side, control: _Side, bounds: tuple[float, float]) -> bool:
    return min(treated.n, control.n) >= LEAST_UNITS and bounds[1] > bounds[0]


def _sides(units: PhasedUnits, phase: int, bounds: tuple[float, float]) -> tuple[_Side, _Side]:
    """Returns the treated and the control arm of a phase."""
    both = [_side(units, phase, treated=treated, bounds=bounds) for treated in (True, False)]
    values = units.values[units.phases == phase]
    spread = float(np.concatenate([values, bounds]).var(ddof=1)) if len(values) else 0.0
    treated, control = (
        replace(one, extra=max(one.extra, spread / one.n - one.variance)) if one.n > 1 else one for one in both
    )
    return treated, control


def _side(units: PhasedUnits, phase: int, *, treated: bool, bounds: tuple[float, float]) -> _Side:
    chosen = np.flatnonzero((units.phases == phase) & (units.treated == treated))
    n = len(chosen)
    if n < 2:
        return _Side(chosen, n, float(units.values[chosen[0]]) if n else NOT_KNOWN, 0.0, 0.0)
    values = units.values[chosen]
    variance = float(values.var(ddof=1)) / n
    widened = float(np.concatenate([values, bounds]).var(ddof=1)) / n
    return _Side(chosen, n, float(values.mean()), variance, max(0.0, widened - variance))


def _combined(
    units: PhasedUnits, usable: list[tuple[_Side, _Side]], alpha: float
) -> tuple[ArmMean, ArmMean, MeanDifference | None]:
    """Returns the means of both arms, and their difference; None where no phase says anything."""
    if not usable:
        return _whole(units, treated=True), _whole(units, treated=False), None
    weights = np.array(phase_weights([(treated.n, control.n) for treated, control in usable]))
    influences, extra = np.zeros(len(units.values)), 0.0
    for weight, (treated, control) in zip(weights, usable, strict=True):
        for sign, side in ((1.0, treated), (-1.0, control)):
            spread = math.sqrt(side.n / (side.n - 1))
            influences[side.chosen] = sign * weight * spread * (units.values[side.chosen] - side.mean) / side.n
            extra += weight * weight * side.extra
    compared = np.concatenate([side.chosen for pair in usable for side in pair])
    _, clusters = np.unique(units.keys[compared], return_inverse=True)
    by_key = np.bincount(clusters, influences[compared])
    means = [float(weights @ [pair[place].mean for pair in usable]) for place in (0, 1)]
    keys = [len(np.unique(units.keys[np.concatenate([pair[place].chosen for pair in usable])])) for place in (0, 1)]
    variance = float(by_key @ by_key) + extra
    difference = interval(means[0] - means[1], variance, len(by_key), alpha)
    return ArmMean(keys[0], means[0]), ArmMean(keys[1], means[1]), difference


def _whole(units: PhasedUnits, *, treated: bool) -> ArmMean:
    """Returns the mean of an arm over all phases, where no phase says anything."""
    chosen = units.treated == treated
    values = units.values[chosen]
    return ArmMean(len(np.unique(units.keys[chosen])), float(values.mean()) if len(values) else NOT_KNOWN)
