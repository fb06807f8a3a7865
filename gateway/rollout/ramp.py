"""The next step of a canary: what its plan and the evidence ask for at this moment. Pure.

The judge may hold or stop; only the plan's own schedule, or a person, moves on. Whatever a person set by hand (a
share, a kill switch, a pause) is left as it is.
"""

from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from gateway.rollout.capacity import WARN_SHARE, CapacityForecast
from gateway.rollout.evidence import CanaryEvidence, findings, gate_findings, harmed, is_harm, verdict_of
from gateway.rollout.offline_verdict import OfflineVerdict
from gateway.routing.document.analysis import Analysis
from gateway.routing.document.bucket import BUCKETS
from gateway.routing.document.guardrail import Action
from gateway.routing.document.quantity import duration_text, percent_text
from gateway.routing.document.strategy import Canary

Phase = Literal["ramping", "watching", "promoted", "stopped"]
ASK_AGAIN_MS: Final = 30_000  # after an answer that settles nothing
OVER: Final = frozenset[Phase]({"promoted", "stopped"})


class RampState(msgspec.Struct, frozen=True):
    """Where a rollout is. Units: milliseconds since the Unix epoch, by the store's clock.

    `step_since_ms` is when its step began; `approved_by` who has approved the end of that step, "" for nobody;
    `paused_by` who has paused it; `offline` what the replay of its first step has said;
    `capacity` what the next step would make of the load, None where nobody knows, `is_early` that it will be
    known in a moment.
    """

    phase: Phase
    step: int
    step_since_ms: int
    evidence: CanaryEvidence
    approved_by: str = ""
    paused_by: str = ""
    offline: OfflineVerdict | None = None
    capacity: CapacityForecast | None = None
    is_early: bool = False


@dataclass(frozen=True, slots=True)
class Hold:
    """Nothing changes. `left_ms` is how long at least, where that is known."""

    reason: str
    left_ms: int = 0


@dataclass(frozen=True, slots=True)
class Ask:
    """Nothing changes until somebody else has answered: those of the guardrails at these places are asked."""

    guardrails: tuple[int, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Advance:
    """The canary goes to that step."""

    step: int
    reason: str


@dataclass(frozen=True, slots=True)
class Promote:
    """The canary's version becomes the stable one."""

    reason: str


@dataclass(frozen=True, slots=True)
class Stop:
    """The canary's share becomes 0; while it is watched, the stable version is what it was."""

    reason: str


@dataclass(frozen=True, slots=True)
class Finish:
    """The rollout is over: what was promoted stays."""

    reason: str


Step = Hold | Ask | Advance | Promote | Stop | Finish


def standing(state: RampState, plan: Canary, passed_ms: int, *, killed: bool) -> RampState:
    """Returns the state after `passed_ms` in which a person held the ramp: its step is not shorter for that.

    While the kill switch was on nothing was compared, so an approval from before it does not count.
    """
    if state.phase != "ramping" or not (killed or state.paused_by or plan.weight is not None):
        return state
    approved_by = "" if killed else state.approved_by
    return msgspec.structs.replace(
        state, step_since_ms=state.step_since_ms + max(0, passed_ms), approved_by=approved_by
    )


def not_ahead(state: RampState, now_ms: int) -> RampState:
    """Returns the state as of `now_ms`: a step that began later began now, for the store's clock was set back."""
    return msgspec.structs.replace(state, step_since_ms=min(state.step_since_ms, now_ms))


def next_step(
    plan: Canary,
    state: RampState,
    now_ms: int,
    *,
    killed: bool = False,
    watched: str = "",
    is_watched: bool = True,
) -> Step:
    """Returns what is to be done now; most of the time to hold, with the reason.

    `killed`: the route's kill switch is on. `watched`: while it is watched after the promotion, why the new version
    is harmful, "" where it is not; `is_watched` whether there was anything to tell it by.
    Order: one step at most comes of one call, however long nobody called.
    """
    if state.phase in OVER:
        return Hold(f"the rollout is over: {state.phase}")
    if killed:
        return Hold("the kill switch is on")
    if state.phase == "watching":
        return _watched(plan, state, now_ms, watched, is_watched)
    if plan.weight is not None:
        what = "it is halted" if plan.previews else f"the share of {percent_text(plan.weight)} was set by hand"
        return Hold(f"{what}; promote or resume goes on")
    failed = _failure(plan.analysis, state.evidence)
    if failed and plan.analysis is not None and plan.analysis.on_fail == "rollback":
        return Stop(failed)
    if failed:
        return Hold(failed)
    if state.paused_by:
        return Hold(f"paused by {state.paused_by}")
    return _ramping(plan, state, now_ms)


def _ramping(plan: Canary, state: RampState, now_ms: int) -> Step:
    step, gate = plan.steps[state.step], plan.steps[state.step].gate
    if step.offline is not None:
        return _offline(plan, state, now_ms)
    if gate.hold_ms is None:
        return Hold("the step has no end of its own; promote goes on")
    since_ms = now_ms - state.step_since_ms
    kept = _harm_told(plan.analysis, state.evidence, "hold")
    if kept:
        return _held(plan.analysis, f"held: {kept}", since_ms - gate.hold_ms)
    if since_ms < gate.hold_ms:
        left_ms = gate.hold_ms - since_ms
        return Hold(f"{duration_text(_seconds(left_ms))} of {duration_text(gate.hold_ms)} are left", left_ms)
    waited_ms = since_ms - gate.hold_ms
    least = min(arm.completed for arm in state.evidence.step)
    if least < gate.min_events:
        text = f"{least} of the {gate.min_events} requests that both arms must have completed in this step"
        return _held(plan.analysis, text, waited_ms)
    if plan.analysis is not None and (step.weight > 0 or _judges_mirror(plan.analysis)):
        compares, answers = step.weight < BUCKETS, step.weight > 0
        verdict = verdict_of(state.evidence, plan.analysis, compares=compares, answers=answers, timed=not plan.previews)
        told = "; ".join(map(str, findings(state.evidence, plan.analysis))) or "no guardrail judges it"
        if verdict == "nodata":
            if plan.analysis.on_no_data == "rollback":
                return Stop(f"no data: {told}")
            return _held(plan.analysis, f"no data: {told}", waited_ms)
        if verdict == "inconclusive" and plan.analysis.on_inconclusive != "advance":
            if plan.analysis.on_inconclusive == "rollback":
                return Stop(f"inconclusive: {told}")
            return _held(plan.analysis, f"inconclusive: {told}", waited_ms)
    if plan.analysis is not None:
        kept_by = _gated(plan.analysis, state, now_ms, waited_ms)
        if kept_by is not None:
            return kept_by
    overload = _overload(plan, state.capacity)
    if state.is_early:
        overload = "the load of the workers is measured"
    if overload:
        return _held(plan.analysis, overload, waited_ms)
    if gate.approval and not state.approved_by:
        return Hold(f"waits for the approval of one of {', '.join(gate.approval)}")
    reason = f"step {state.step + 1} of {len(plan.steps)} ({percent_text(step.weight)}) is over"
    if plan.previews:
        reason = "the preview is ready"
    if gate.approval:
        reason += f", approved by {state.approved_by}"
    if plan.analysis is not None:
        reason += "".join(f"; {finding}" for finding in findings(state.evidence, plan.analysis))
    if state.capacity is not None:
        warned = state.capacity.highest > WARN_SHARE * _most_load(plan)
        reason += f"; {state.capacity}" + (": little is left" if warned else "")
    if plan.by_hand:
        return Hold(f"waits for gateway promote: {reason}")
    return Promote(reason) if state.step + 1 >= len(plan.steps) else Advance(state.step + 1, reason)


def _offline(plan: Canary, state: RampState, now_ms: int) -> Step:
    """Returns what follows from the replay of logged requests; the step ends with its verdict alone."""
    analysis, replayed = plan.analysis or Analysis(), state.offline
    if replayed is None:
        return Hold("logged requests are replayed")
    told = f"offline: {replayed.verdict}: {replayed.reason}"
    waited_ms = now_ms - state.step_since_ms
    if replayed.verdict == "fail":
        return Stop(told) if analysis.on_fail == "rollback" else Hold(told)
    if replayed.verdict == "nodata":
        return Stop(told) if analysis.on_no_data == "rollback" else _held(analysis, told, waited_ms)
    if replayed.verdict == "hold" and analysis.on_inconclusive != "advance":
        return Stop(told) if analysis.on_inconclusive == "rollback" else _held(analysis, told, waited_ms)
    approvers = plan.steps[state.step].gate.approval
    if approvers and not state.approved_by:
        return Hold(f"waits for the approval of one of {', '.join(approvers)}; {told}")
    return Advance(state.step + 1, told + (f", approved by {state.approved_by}" if approvers else ""))


def _gated(analysis: Analysis, state: RampState, now_ms: int, waited_ms: int) -> Step | None:
    """Returns what those who are asked at the end of a step make of it; None where they let it go on."""
    gates = gate_findings(state.evidence, analysis)
    failed = [finding for _, finding, _ in gates if finding.verdict == "fail" and finding.action != "warn"]
    if any(finding.action == "fail" for finding in failed) and analysis.on_fail == "rollback":
        return Stop("failed: " + "; ".join(map(str, failed)))
    if failed:
        return _held(analysis, "held: " + "; ".join(map(str, failed)), waited_ms)
    held: Step | None = None
    due = [place for place, _, gate in gates if not gate.asked_ms]
    for verdict, then, text in (
        ("nodata", analysis.on_no_data, "no data"),
        ("inconclusive", analysis.on_inconclusive, "inconclusive"),
    ):
        unsettled = [
            (place, finding, gate)
            for place, finding, gate in gates
            if gate.asked_ms and finding.verdict == verdict and finding.action != "warn"
        ]
        told = f"{text}: {'; '.join(str(finding) for _, finding, _ in unsettled)}"
        if unsettled and then == "rollback":
            return Stop(told)
        if unsettled and then == "hold":
            due += [place for place, _, gate in unsettled if now_ms - gate.asked_ms >= ASK_AGAIN_MS]
            held = held or _held(analysis, told, waited_ms)
    if isinstance(held, Stop) or not due:
        return held
    return Ask(tuple(due), held.reason if isinstance(held, Hold) else "waits for the answer to a webhook")


def _most_load(plan: Canary) -> float:
    return (plan.analysis or Analysis()).max_load / BUCKETS


def _overload(plan: Canary, forecast: CapacityForecast | None) -> str:
    """Returns why the CPUs do not suffice for the next weight or the way back; "" where they do, or nobody knows."""
    most = _most_load(plan)
    if forecast is None or most >= 1 or forecast.highest <= most:
        return ""
    return f"{forecast}: {most:.0%} is the most that maxLoad allows"


def _held(analysis: Analysis | None, text: str, waited_ms: int) -> Step:
    """Holds, or stops where it has held for longer than the document allows."""
    if analysis is not None and analysis.max_hold_ms and waited_ms >= analysis.max_hold_ms:
        return Stop(f"held for {duration_text(analysis.max_hold_ms)}, the most that maxHold allows: {text}")
    return Hold(text)


def _failure(analysis: Analysis | None, evidence: CanaryEvidence) -> str:
    """Returns why the canary is harmful; "" where nothing shows that it is."""
    if analysis is None:
        return ""
    told = _harm_told(analysis, evidence, "fail")
    if told:
        return f"failed: {told}"
    excess = harmed(evidence)
    if analysis.max_harmed and excess >= analysis.max_harmed:
        return f"failed: {excess:.0f} more errors than its share, the harm budget is {analysis.max_harmed}"
    return ""


def _harm_told(analysis: Analysis | None, evidence: CanaryEvidence, action: Action) -> str:
    """Returns what guardrails with that action say where they have found harm; "" where they have not."""
    if analysis is None or not is_harm(evidence, analysis, action):
        return ""
    told = findings(evidence, analysis)
    return "; ".join(str(finding) for finding in told if finding.action == action and finding.log_e > 0)


def _judges_mirror(analysis: Analysis) -> bool:
    """Returns whether something is judged that needs no request that the canary answers."""
    return any(
        not guardrail.kind.compares and guardrail.action != "warn" for guardrail in analysis.effective_guardrails
    )


def _watched(plan: Canary, state: RampState, now_ms: int, harmful: str, is_watched: bool) -> Step:
    after = plan.after_promote
    watch_ms = after.watch_ms if after is not None else 0
    if harmful:
        on_fail = after.on_fail if after is not None else "rollback"
        return Stop(harmful) if on_fail == "rollback" else Hold(harmful)
    left_ms = watch_ms - (now_ms - state.step_since_ms)
    if left_ms > 0:
        return Hold(f"watched for {duration_text(_seconds(left_ms))} more", left_ms)
    if not watch_ms:
        return Finish("promoted")
    return Finish("the watch is over" if is_watched else "the watch is over: nothing was known or came to judge it by")


def _seconds(length_ms: int) -> int:
    """Returns the length in whole seconds, as milliseconds, rounded up: what people read."""
    return -(-length_ms // 1000) * 1000
