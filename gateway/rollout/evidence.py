"""What the judge knows about a canary: evidence for each guardrail, as values that a successor goes on from.

The state is plain numbers, so that it is kept in the store between ticks, and shown to people as it was judged.
"""

import math
from typing import Final, Literal

import msgspec
import numpy as np

from gateway.rollout.arm_counts import NOTHING, ROWS_BINS, ArmCounts, quantile_bound
from gateway.rollout.statistics.detectability import excess_events
from gateway.rollout.statistics.harm_test import HarmEvidence, combined_log_e
from gateway.rollout.statistics.harmless_test import PASS_LOG_E, HarmlessEvidence
from gateway.rollout.statistics.rate_limit import RateLimitEvidence
from gateway.rollout.statistics.ratio_interval import RatioInterval
from gateway.routing.document.analysis import Analysis
from gateway.routing.document.bucket import BUCKETS
from gateway.routing.document.guardrail import Guardrail

Verdict = Literal["fail", "pass", "inconclusive", "nodata"]
REFERENCE_REQUESTS: Final = 200  # of the stable arm, before its quantile is frozen
REFERENCE_RUNS: Final = 50
_NO_BOUND: Final = -1


class MetricEvidence(msgspec.Struct, frozen=True):
    """One metric: requests compared and events among them since the rollout began, and what they prove."""

    canary: int = 0
    stable: int = 0
    canary_events: int = 0
    stable_events: int = 0
    harm: tuple[float, ...] = ()
    unspent: float = 0.0
    ticks: int = 0
    harmless: tuple[float, ...] = ()
    below: tuple[float, ...] = ()
    ratios: tuple[float, ...] = ()


class GuardrailEvidence(msgspec.Struct, frozen=True):
    """One guardrail, by the metrics that it looks at: of latency the whole request and the runs by their rows.

    `bound` and `run_bounds` are the stable arm's quantile, frozen for the step; -1 while it is not known.
    """

    metrics: tuple[MetricEvidence, ...]
    bound: int = _NO_BOUND
    run_bounds: tuple[int, ...] = ()


class CanaryEvidence(msgspec.Struct, frozen=True):
    """All that is known in a rollout. `step` has what both arms did since its step began."""

    guardrails: tuple[GuardrailEvidence, ...]
    step: tuple[ArmCounts, ArmCounts] = (NOTHING, NOTHING)  # canary, stable
    whole: tuple[ArmCounts, ArmCounts] = (NOTHING, NOTHING)


class Finding(msgspec.Struct, frozen=True):
    """What a guardrail says now, with the numbers that it says it by."""

    kind: str
    action: str
    verdict: Verdict
    log_e: float
    pass_log_e: float
    canary: int
    stable: int
    canary_events: int
    stable_events: int
    ratio_low: float
    ratio_high: float

    def __str__(self) -> str:
        rates = f"canary {self.canary_events} of {self.canary}, stable {self.stable_events} of {self.stable}"
        if not self.canary or not self.stable:
            return f"{self.kind}: nothing to compare ({rates})"
        high = f"{self.ratio_high:.3g}" if math.isfinite(self.ratio_high) else "any number of"
        return (
            f"{self.kind}: {rates}, {self.ratio_low:.3g} to {high} times the stable arm's rate, "
            f"evidence of harm {math.exp(min(self.log_e, 600)):.3g}"
        )


def no_evidence(analysis: Analysis) -> CanaryEvidence:
    """Returns what is known before the first tick."""
    return CanaryEvidence(tuple(_nothing(guardrail, analysis) for guardrail in _judged(analysis)))


def after_tick(evidence: CanaryEvidence, analysis: Analysis, canary: ArmCounts, stable: ArmCounts) -> CanaryEvidence:
    """Returns what is known after one tick more, in which the arms did that."""
    guardrails = tuple(
        _after(guardrail, known, analysis, canary, stable, evidence.step[1])
        for guardrail, known in zip(_judged(analysis), evidence.guardrails, strict=True)
    )
    step, whole = ((ours[0] + canary, ours[1] + stable) for ours in (evidence.step, evidence.whole))
    return CanaryEvidence(guardrails, step, whole)


def new_step(evidence: CanaryEvidence) -> CanaryEvidence:
    """Returns the same evidence at the beginning of another step: quantiles are frozen anew, what is proven stays."""
    guardrails = tuple(
        msgspec.structs.replace(known, bound=_NO_BOUND, run_bounds=(_NO_BOUND,) * len(known.run_bounds))
        for known in evidence.guardrails
    )
    return CanaryEvidence(guardrails, whole=evidence.whole)


def findings(evidence: CanaryEvidence, analysis: Analysis) -> tuple[Finding, ...]:
    """Returns what each judged guardrail says now, in the order of the document."""
    return tuple(
        _finding(guardrail, known, analysis)
        for guardrail, known in zip(_judged(analysis), evidence.guardrails, strict=True)
    )


def harm_log_e(evidence: CanaryEvidence, analysis: Analysis) -> float:
    """Returns the evidence of all guardrails that may stop a rollout, as one number; -inf where there is none.

    The canary harms from ln(1 / alpha) on. It is the mean of their e-values, which holds under any dependence.
    """
    failing = [
        _harm(guardrail, metric)
        for guardrail, known in zip(_judged(analysis), evidence.guardrails, strict=True)
        if guardrail.action == "fail"
        for metric in known.metrics
    ]
    return combined_log_e(tuple(failing)) if failing else -math.inf


def harmed(evidence: CanaryEvidence) -> float:
    """Returns how many more errors the canary had than its share of all of them."""
    canary, stable = evidence.whole
    return excess_events(canary.completed, stable.completed, canary.errors, stable.errors)


def verdict_of(evidence: CanaryEvidence, analysis: Analysis, *, compares: bool = True) -> Verdict:
    """Returns what all guardrails that may stop a rollout say together: nothing known is `nodata`, never a pass.

    A step that `compares` nothing, because one arm has everything, is judged by what the steps before it have shown.
    """
    if harm_log_e(evidence, analysis) >= -math.log(analysis.alpha):
        return "fail"
    told = [finding for finding in findings(evidence, analysis) if finding.action == "fail"]
    if compares and not (evidence.step[0].completed and evidence.step[1].completed):
        return "nodata"
    if not told:
        return "inconclusive"  # no guardrail judges it
    if any(finding.verdict == "nodata" for finding in told):
        return "nodata"
    return "pass" if all(finding.verdict == "pass" for finding in told) else "inconclusive"


def _judged(analysis: Analysis) -> tuple[Guardrail, ...]:
    return tuple(guardrail for guardrail in analysis.effective_guardrails if guardrail.kind.judged)


def _nothing(guardrail: Guardrail, analysis: Analysis) -> GuardrailEvidence:
    if guardrail.kind.name == "latency":
        return GuardrailEvidence((_no_metric(guardrail, analysis),) * 2, run_bounds=(_NO_BOUND,) * len(ROWS_BINS))
    return GuardrailEvidence((_no_metric(guardrail, analysis),))


def _no_metric(guardrail: Guardrail, analysis: Analysis) -> MetricEvidence:
    harm = HarmEvidence.none(guardrail.number("tolerance"))
    return MetricEvidence(
        harm=_plain(harm.log_mass),
        unspent=harm.log_unspent,
        harmless=_plain(HarmlessEvidence.none(_margin(guardrail, analysis)).log_ratios),
        below=_plain(RateLimitEvidence.none(_pass_below(guardrail), below=True).log_ratios),
        ratios=_plain(RatioInterval.none().log_ratios),
    )


def _after(
    guardrail: Guardrail,
    known: GuardrailEvidence,
    analysis: Analysis,
    canary: ArmCounts,
    stable: ArmCounts,
    stable_before: ArmCounts,
) -> GuardrailEvidence:
    """Order: a quantile that is frozen in this tick judges the next one, since it must be known beforehand."""
    if guardrail.kind.name == "errors":
        counts = ([canary.completed], [stable.completed], [canary.errors], [stable.errors])
        return msgspec.structs.replace(known, metrics=(_counted(guardrail, known.metrics[0], analysis, *counts),))
    whole, runs = known.metrics
    if known.bound != _NO_BOUND:
        slow = [canary.slower_than(known.bound)], [stable.slower_than(known.bound)]
        whole = _counted(guardrail, whole, analysis, [sum(canary.latency)], [sum(stable.latency)], *slow)
    strata = [
        (sum(ours), sum(theirs), sum(ours[bound + 1 :]), sum(theirs[bound + 1 :]))
        for ours, theirs, bound in zip(_bins(canary), _bins(stable), known.run_bounds, strict=True)
        if bound != _NO_BOUND
    ]
    if strata:
        columns = [list(column) for column in zip(*strata, strict=True)]
        runs = _counted(guardrail, runs, analysis, *columns)
    seen, quantile = stable_before + stable, guardrail.number("quantile")
    bound = known.bound
    if bound == _NO_BOUND and sum(seen.latency) >= REFERENCE_REQUESTS:
        bound = quantile_bound(seen.latency, quantile)
    run_bounds = tuple(
        quantile_bound(histogram, quantile) if old == _NO_BOUND and sum(histogram) >= REFERENCE_RUNS else old
        for old, histogram in zip(known.run_bounds, _bins(seen), strict=True)
    )
    return GuardrailEvidence((whole, runs), bound, run_bounds)


def _bins(counts: ArmCounts) -> tuple[tuple[int, ...], ...]:
    return counts.runs + ((),) * (len(ROWS_BINS) - len(counts.runs))


def _counted(
    guardrail: Guardrail,
    metric: MetricEvidence,
    analysis: Analysis,
    canary: list[int],
    stable: list[int],
    canary_events: list[int],
    stable_events: list[int],
) -> MetricEvidence:
    counts = canary, stable, canary_events, stable_events
    harm = _harm(guardrail, metric).after(*counts)
    harmless = HarmlessEvidence(_margin(guardrail, analysis), np.array(metric.harmless)).after(*counts)
    below = RateLimitEvidence(_pass_below(guardrail), np.array(metric.below), below=True)
    below = below.after(sum(canary), sum(canary_events))
    return MetricEvidence(
        metric.canary + sum(canary),
        metric.stable + sum(stable),
        metric.canary_events + sum(canary_events),
        metric.stable_events + sum(stable_events),
        _plain(harm.log_mass),
        harm.log_unspent,
        harm.ticks,
        _plain(harmless.log_ratios),
        _plain(below.log_ratios),
        _plain(RatioInterval(np.array(metric.ratios)).after(*counts).log_ratios),
    )


def _harm(guardrail: Guardrail, metric: MetricEvidence) -> HarmEvidence:
    return HarmEvidence(guardrail.number("tolerance"), np.array(metric.harm), metric.unspent, metric.ticks)


def _finding(guardrail: Guardrail, known: GuardrailEvidence, analysis: Analysis) -> Finding:
    shown = max(known.metrics, key=lambda metric: float(_harm(guardrail, metric).log_e))
    first = known.metrics[0]
    log_e = combined_log_e(tuple(_harm(guardrail, metric) for metric in known.metrics))
    passed = max(
        float(HarmlessEvidence(_margin(guardrail, analysis), np.array(first.harmless)).log_e),
        float(RateLimitEvidence(_pass_below(guardrail), np.array(first.below), below=True).log_e),
    )
    low, high = RatioInterval(np.array(shown.ratios)).bounds()
    verdict: Verdict = "inconclusive"
    if log_e >= -math.log(analysis.alpha):
        verdict = "fail"
    elif not first.canary or not first.stable:
        verdict = "nodata"
    elif passed >= PASS_LOG_E:
        verdict = "pass"
    return Finding(
        guardrail.kind.name,
        guardrail.action,
        verdict,
        log_e,
        passed,
        shown.canary,
        shown.stable,
        shown.canary_events,
        shown.stable_events,
        float(low),
        float(high),
    )


def _margin(guardrail: Guardrail, analysis: Analysis) -> float:
    """Returns the ratio that the canary must be proven to stay below: never nearer than what is tolerated."""
    return max(analysis.pass_margin, 1.25 * guardrail.number("tolerance"))


def _pass_below(guardrail: Guardrail) -> float:
    return guardrail.number("passBelow") / BUCKETS


def _plain(values: "np.ndarray[tuple[int, ...], np.dtype[np.float64]]") -> tuple[float, ...]:
    return tuple(values.tolist())
