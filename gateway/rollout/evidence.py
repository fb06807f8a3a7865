"""What the judge knows about a canary: evidence for each guardrail, as values that a successor goes on from.

The state is plain numbers, so that it is kept in the store between ticks, and shown to people as it was judged.
"""

import math

import msgspec

from gateway.rollout.arm_counts import NOTHING, ArmCounts
from gateway.rollout.guardrail_evidence import Finding, GateState, GuardrailEvidence, Tick, Verdict, mean_log_e
from gateway.rollout.guardrail_judges import JUDGES
from gateway.rollout.statistics.detectability import excess_events
from gateway.routing.document.analysis import Analysis
from gateway.routing.document.guardrail import Action


class CanaryEvidence(msgspec.Struct, frozen=True):
    """All that is known in a rollout. `step` has what both arms did since its step began."""

    guardrails: tuple[GuardrailEvidence, ...]
    step: tuple[ArmCounts, ArmCounts] = (NOTHING, NOTHING)  # canary, stable
    whole: tuple[ArmCounts, ArmCounts] = (NOTHING, NOTHING)


def no_evidence(analysis: Analysis) -> CanaryEvidence:
    """Returns what is known before the first tick."""
    return CanaryEvidence(
        tuple(JUDGES[guardrail.kind.name].nothing(guardrail, analysis) for guardrail in analysis.effective_guardrails)
    )


def after_tick(
    evidence: CanaryEvidence,
    analysis: Analysis,
    canary: ArmCounts,
    stable: ArmCounts,
    phases: tuple[tuple[ArmCounts, ArmCounts], ...] = (),
) -> CanaryEvidence:
    """Returns what is known after one tick more, in which the arms did that; `phases` as `Tick` has them."""
    tick = Tick(canary, stable, evidence.step[1], phases)
    guardrails = tuple(
        JUDGES[guardrail.kind.name].after(guardrail, known, analysis, tick)
        for guardrail, known in zip(analysis.effective_guardrails, evidence.guardrails, strict=True)
    )
    canary, stable = canary.without_predictions(), stable.without_predictions()
    step, whole = ((ours[0] + canary, ours[1] + stable) for ours in (evidence.step, evidence.whole))
    return CanaryEvidence(guardrails, step, whole)


def new_step(evidence: CanaryEvidence, analysis: Analysis) -> CanaryEvidence:
    """Returns the same evidence at the beginning of another step: quantiles are frozen anew, what is proven stays."""
    guardrails = tuple(
        JUDGES[guardrail.kind.name].new_step(known)
        for guardrail, known in zip(analysis.effective_guardrails, evidence.guardrails, strict=True)
    )
    return CanaryEvidence(guardrails, whole=evidence.whole)


def findings(evidence: CanaryEvidence, analysis: Analysis) -> tuple[Finding, ...]:
    """Returns what each judged guardrail says now, in the order of the document."""
    return tuple(
        JUDGES[guardrail.kind.name].finding(guardrail, known, analysis)
        for guardrail, known in zip(analysis.effective_guardrails, evidence.guardrails, strict=True)
    )


def harm_log_e(evidence: CanaryEvidence, analysis: Analysis, action: Action = "fail") -> float:
    """Returns the evidence of all guardrails with that action, as one number; -inf where there is none.

    The canary harms from ln(1 / alpha) on. It is the mean of their e-values, which holds under any dependence.
    """
    log_e = [
        one
        for guardrail, known in zip(analysis.effective_guardrails, evidence.guardrails, strict=True)
        if guardrail.action == action
        for one in JUDGES[guardrail.kind.name].log_e(guardrail, known)
    ]
    return mean_log_e(tuple(log_e))


def is_harm(evidence: CanaryEvidence, analysis: Analysis, action: Action = "fail") -> bool:
    """Returns whether guardrails with that action have found harm."""
    return harm_log_e(evidence, analysis, action) >= -math.log(analysis.alpha)


def harmed(evidence: CanaryEvidence) -> float:
    """Returns how many more errors the canary had than its share of all of them."""
    canary, stable = evidence.whole
    return excess_events(canary.completed, stable.completed, canary.errors, stable.errors)


def verdict_of(
    evidence: CanaryEvidence,
    analysis: Analysis,
    *,
    compares: bool = True,
    answers: bool = True,
    timed: bool = True,
) -> Verdict:
    """Returns what all guardrails that may keep a rollout back say together: nothing known is `nodata`, never a pass.

    Whoever is asked at the end of a step is not among them (`gate_findings`).

    A step that `compares` nothing, because one arm has everything, is judged by what the steps before it have shown;
    one in which the canary `answers` nothing, by what it mirrors. Where its answers are not `timed`, because it gives
    them when there is nothing else to do, its latency is no question.
    """
    if is_harm(evidence, analysis) or is_harm(evidence, analysis, "hold"):
        return "fail"
    told = [
        finding
        for guardrail, finding in zip(analysis.effective_guardrails, findings(evidence, analysis), strict=True)
        if finding.action != "warn"
        and (answers or not guardrail.kind.compares)
        and (timed or guardrail.kind.name != "latency")
        and not guardrail.kind.asked
    ]
    if compares and answers and not (evidence.step[0].completed and evidence.step[1].completed):
        return "nodata"
    if not told:  # no guardrail judges it, unless it is somebody who is asked
        asked = any(one.kind.asked and one.action != "warn" for one in analysis.effective_guardrails)
        return "pass" if asked else "inconclusive"
    if any(finding.verdict == "nodata" for finding in told):
        return "nodata"
    return "pass" if all(finding.verdict == "pass" for finding in told) else "inconclusive"


def gate_findings(evidence: CanaryEvidence, analysis: Analysis) -> tuple[tuple[int, Finding, GateState], ...]:
    """Returns what those who are asked at the end of a step have said, each with its place among the guardrails."""
    told = zip(analysis.effective_guardrails, evidence.guardrails, findings(evidence, analysis), strict=True)
    return tuple(
        (index, finding, known.gate or GateState())
        for index, (guardrail, known, finding) in enumerate(told)
        if guardrail.kind.asked
    )


def with_answer(evidence: CanaryEvidence, index: int, answer: GateState) -> CanaryEvidence:
    """Returns the evidence with what was answered to the guardrail at that place."""
    guardrails = list(evidence.guardrails)
    guardrails[index] = msgspec.structs.replace(guardrails[index], gate=answer)
    return msgspec.structs.replace(evidence, guardrails=tuple(guardrails))
