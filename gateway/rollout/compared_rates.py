"""Guardrails that compare a rate of events between the arms: errors, unsound answers, slow requests and runs."""

import math
from typing import Final

import msgspec
import numpy as np

from gateway.rollout.arm_counts import ROWS_BINS, ArmCounts, quantile_bound
from gateway.rollout.guardrail_evidence import (
    NO_BOUND,
    Finding,
    GuardrailEvidence,
    GuardrailJudge,
    MetricEvidence,
    Tick,
    Verdict,
    mean_log_e,
    plain,
)
from gateway.rollout.statistics.harm_test import HarmEvidence
from gateway.rollout.statistics.harmless_test import PASS_LOG_E, HarmlessEvidence
from gateway.rollout.statistics.rate_limit import RateLimitEvidence
from gateway.rollout.statistics.ratio_interval import RatioInterval
from gateway.routing.document.analysis import Analysis
from gateway.routing.document.bucket import BUCKETS
from gateway.routing.document.guardrail import Guardrail

REFERENCE_REQUESTS: Final = 200  # of the stable arm, before its quantile is frozen
REFERENCE_RUNS: Final = 50


def events_of(kind: str, arm: ArmCounts, bound: int = NO_BOUND) -> tuple[int, int]:
    """Returns the requests that a guardrail of that kind looks at, and the events among them.

    A request is slow beyond the latency bound with the index `bound`.
    """
    if kind == "latency":
        return sum(arm.latency), arm.slower_than(bound)
    return arm.completed, arm.unsound if kind == "outputs" else arm.errors


def _no_rate(guardrail: Guardrail, analysis: Analysis) -> GuardrailEvidence:
    return GuardrailEvidence((_no_metric(guardrail, analysis),))


def _no_latency(guardrail: Guardrail, analysis: Analysis) -> GuardrailEvidence:
    return GuardrailEvidence((_no_metric(guardrail, analysis),) * 2, run_bounds=(NO_BOUND,) * len(ROWS_BINS))


def _no_metric(guardrail: Guardrail, analysis: Analysis) -> MetricEvidence:
    harm = HarmEvidence.none(guardrail.number("tolerance"))
    return MetricEvidence(
        harm=plain(harm.log_mass),
        unspent=harm.log_unspent,
        harmless=plain(HarmlessEvidence.none(_margin(guardrail, analysis)).log_ratios),
        below=plain(RateLimitEvidence.none(_pass_below(guardrail), below=True).log_ratios),
        ratios=plain(RatioInterval.none().log_ratios),
    )


def _after_rate(guardrail: Guardrail, known: GuardrailEvidence, analysis: Analysis, tick: Tick) -> GuardrailEvidence:
    canary, stable = (events_of(guardrail.kind.name, arm) for arm in (tick.canary, tick.stable))
    counts = [canary[0]], [stable[0]], [canary[1]], [stable[1]]
    return msgspec.structs.replace(known, metrics=(_counted(guardrail, known.metrics[0], analysis, *counts),))


def _after_latency(guardrail: Guardrail, known: GuardrailEvidence, analysis: Analysis, tick: Tick) -> GuardrailEvidence:
    """Order: a quantile that is frozen in this tick judges the next one, since it must be known beforehand."""
    canary, stable = tick.canary, tick.stable
    whole, runs = known.metrics
    if known.bound != NO_BOUND:
        slow = [canary.slower_than(known.bound)], [stable.slower_than(known.bound)]
        whole = _counted(guardrail, whole, analysis, [sum(canary.latency)], [sum(stable.latency)], *slow)
    strata = [
        (sum(ours), sum(theirs), sum(ours[bound + 1 :]), sum(theirs[bound + 1 :]))
        for ours, theirs, bound in zip(_bins(canary), _bins(stable), known.run_bounds, strict=True)
        if bound != NO_BOUND
    ]
    if strata:
        columns = [list(column) for column in zip(*strata, strict=True)]
        runs = _counted(guardrail, runs, analysis, *columns)
    seen, quantile = tick.stable_before + stable, guardrail.number("quantile")
    bound = known.bound
    if bound == NO_BOUND and sum(seen.latency) >= REFERENCE_REQUESTS:
        bound = quantile_bound(seen.latency, quantile)
    run_bounds = tuple(
        quantile_bound(histogram, quantile) if old == NO_BOUND and sum(histogram) >= REFERENCE_RUNS else old
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
        plain(harm.log_mass),
        harm.log_unspent,
        harm.ticks,
        plain(harmless.log_ratios),
        plain(below.log_ratios),
        plain(RatioInterval(np.array(metric.ratios)).after(*counts).log_ratios),
    )


def _harm(guardrail: Guardrail, metric: MetricEvidence) -> HarmEvidence:
    return HarmEvidence(guardrail.number("tolerance"), np.array(metric.harm), metric.unspent, metric.ticks)


def _finding(guardrail: Guardrail, known: GuardrailEvidence, analysis: Analysis) -> Finding:
    shown = max(known.metrics, key=lambda metric: float(_harm(guardrail, metric).log_e))
    first = known.metrics[0]
    log_e = mean_log_e(_log_e(guardrail, known))
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


def _log_e(guardrail: Guardrail, known: GuardrailEvidence) -> tuple[float, ...]:
    return tuple(float(_harm(guardrail, metric).log_e) for metric in known.metrics)


def _without_bounds(known: GuardrailEvidence) -> GuardrailEvidence:
    return msgspec.structs.replace(known, bound=NO_BOUND, run_bounds=(NO_BOUND,) * len(known.run_bounds))


def _margin(guardrail: Guardrail, analysis: Analysis) -> float:
    """Returns the ratio that the canary must be proven to stay below: never nearer than what is tolerated."""
    return max(analysis.pass_margin, 1.25 * guardrail.number("tolerance"))


def _pass_below(guardrail: Guardrail) -> float:
    return guardrail.number("passBelow") / BUCKETS


RATE: Final = GuardrailJudge(_no_rate, _after_rate, _log_e, _finding)
LATENCY: Final = GuardrailJudge(_no_latency, _after_latency, _log_e, _finding, _without_bounds)
