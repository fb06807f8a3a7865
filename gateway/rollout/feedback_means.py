"""The guardrail `reward`: whether feedback says less good of the canary's answers than of the stable arm's.

A unit is a request with feedback, of which the token names arm and revision. It comes late, so totals are compared, by
phase: at each revision the arms have the same share all the time, and a trend in time is no difference of the arms.
"""

import math
from dataclasses import replace
from typing import Final

import msgspec

from gateway.rollout.arm_counts import ArmCounts
from gateway.rollout.guardrail_evidence import (
    Finding,
    GuardrailEvidence,
    GuardrailJudge,
    MeanState,
    Sums,
    Tick,
    Verdict,
)
from gateway.rollout.statistics.mean_difference import (
    LEAST_UNITS,
    MeanEstimate,
    UnitSums,
    below_log_e,
    interval,
    mean_estimate,
    phased_estimate,
)
from gateway.routing.document.analysis import Analysis
from gateway.routing.document.bucket import BUCKETS
from gateway.routing.document.guardrail import Guardrail

_NOTHING: Final[Sums] = (0, 0.0, 0.0)


def _nothing(guardrail: Guardrail, analysis: Analysis) -> GuardrailEvidence:
    return GuardrailEvidence(means=MeanState())


def _after(guardrail: Guardrail, known: GuardrailEvidence, analysis: Analysis, tick: Tick) -> GuardrailEvidence:
    metric = str(guardrail.options["metric"])

    def sums_of(arm: ArmCounts) -> Sums:
        return arm.means.get(metric, _NOTHING)

    if not tick.phases:
        return known
    return msgspec.structs.replace(
        known, means=MeanState(tuple((sums_of(canary), sums_of(stable)) for canary, stable in tick.phases))
    )


def _estimates(guardrail: Guardrail, state: MeanState) -> tuple[tuple[MeanEstimate, MeanEstimate], ...]:
    """Returns both arms' means by phase, as numbers of which more is better."""
    sign = 1.0 if guardrail.options["better"] == "higher" else -1.0
    estimates = []
    for phase in state.phases:
        if min(sums[0] for sums in phase) < LEAST_UNITS:
            continue
        canary, stable = (UnitSums(n, sign * y, yy) for n, y, yy in phase)
        estimates.append(_varied(canary, stable))
    return tuple(estimates)


def _varied(canary: UnitSums, stable: UnitSums) -> tuple[MeanEstimate, MeanEstimate]:
    """Returns both means. Where no arm varies at all but the two differ, a unit of the other's is added to each: that
    none was seen does not prove that there is none.

    No arm is surer than both together would make it: a small one that had fewer rewards than it should has too small a
    variance at the same time, and would differ too often.
    """
    one, other = mean_estimate(canary), mean_estimate(stable)
    if one.variance + other.variance > 0 or one.value == other.value:
        spread = (canary + stable).var_y
        own, others = (replace(arm, variance=max(arm.variance, spread / arm.n)) for arm in (one, other))
        return own, others
    return mean_estimate(canary + UnitSums.of(other.value)), mean_estimate(stable + UnitSums.of(one.value))


def _stable_mean(estimates: tuple[tuple[MeanEstimate, MeanEstimate], ...]) -> float:
    return sum(stable.value * stable.n for _, stable in estimates) / sum(stable.n for _, stable in estimates)


def _tolerated(guardrail: Guardrail, stable_mean: float) -> float:
    """Returns the difference up to which nothing is wrong: never above 0."""
    return -(1 - 1 / guardrail.number("tolerance")) * abs(stable_mean)


# The mixture that the evidence comes from is tuned for some alpha: the usual one, however strictly it is read.
_TUNED_ALPHA: Final = 0.01


def _log_e(guardrail: Guardrail, known: GuardrailEvidence) -> tuple[float, ...]:
    estimates = _estimates(guardrail, known.means or MeanState())
    pooled = phased_estimate(estimates)
    if pooled is None:
        return (-math.inf,)
    return (below_log_e(pooled, _tolerated(guardrail, _stable_mean(estimates)), alpha=_TUNED_ALPHA),)


def _finding(guardrail: Guardrail, known: GuardrailEvidence, analysis: Analysis) -> Finding:
    state = known.means or MeanState()
    canary, stable = (sum(phase[arm][0] for phase in state.phases) for arm in (0, 1))
    estimates = _estimates(guardrail, state)
    pooled = phased_estimate(estimates)
    [log_e] = _log_e(guardrail, known)
    metric = str(guardrail.options["metric"])
    told = f"{metric} of {canary} answers of the canary and {stable} of the stable arm"
    verdict: Verdict = "inconclusive"
    if not canary or not stable:
        verdict = "nodata"
    elif not estimates:
        told += f", {LEAST_UNITS} of each in one step are needed"
    elif pooled is None:
        told += ", all the same"
        verdict = "pass"
    else:
        known_mean, sign = _stable_mean(estimates), 1.0 if guardrail.options["better"] == "higher" else -1.0
        told_range = interval(pooled.value, pooled.variance, pooled.n, analysis.alpha)
        ends = sorted((sign * told_range.low, sign * told_range.high))
        told += f", the canary's mean is {ends[0]:+.3g} to {ends[1]:+.3g} from {sign * known_mean:.3g}"
        if log_e >= -math.log(analysis.alpha):
            verdict = "fail"
        elif told_range.low > -guardrail.number("passWithin") / BUCKETS * abs(known_mean):
            verdict = "pass"
    return Finding(guardrail.kind.name, guardrail.action, verdict, log_e, -math.inf, canary, stable, text=told)


REWARD: Final = GuardrailJudge(_nothing, _after, _log_e, _finding)
