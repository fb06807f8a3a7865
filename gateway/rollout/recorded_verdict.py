"""A verdict as the audit trail has it, and the same judged again from what is recorded. Pure.

The entry of a step, a promotion, a stop or a way back carries what the judge knew then: the plan, the counters and the
evidence, bit by bit, and beside them in words what it made of these. Who has the trail can judge again, with the same
functions and without a server.
"""

import base64
import math
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec
import numpy as np

from gateway.errors import InvalidArgument
from gateway.rollout.evidence import findings, harm_log_e, harmed
from gateway.rollout.guardrail_evidence import Finding, MetricEvidence
from gateway.rollout.post_promotion import PromotionWatch, watched_harm
from gateway.rollout.ramp import Advance, Promote, RampState, Step, Stop, next_step
from gateway.rollout.rollout_record import UNJUDGED, RolloutRecord
from gateway.rollout.statistics.harm_test import FIRST_MASS, RESTART_SHARE, RESTART_TICKS
from gateway.routing.document.field import Field
from gateway.routing.document.strategy import Canary, parse_strategy
from gateway.routing.store.audit_chain import carries_verdict

FORM: Final = 1
STATE_BYTES: Final = 8 << 20  # of a state, inflated
REASON_BYTES: Final = 1000
ACTS: Final = {Advance: "advance", Promote: "promote", Stop: "stop"}
_CLOSE: Final = 1e-9  # another machine's logarithms may differ in the last bits


class VerdictState(msgspec.Struct, frozen=True):
    """All that the judge decided by: the plan as in the document, the state, the watch, and when it was.

    `previews` is whether it is a blue-green rollout, whose plan is told as a canary's, and `by_hand` who flips it.
    Units: milliseconds since the Unix epoch, by the store's clock.
    """

    plan: dict[str, Any]
    state: RampState
    watch: PromotionWatch | None
    now_ms: int
    previews: bool = False
    by_hand: bool = False


class RecordedVerdict(msgspec.Struct, frozen=True):
    """What an audit entry carries of a verdict. `document` is the SHA-256 of the route that was judged, at `revision`,
    as the trail has it of the change that made it; `log_e` and `bound` are the evidence of harm and what it takes;
    `state` is a VerdictState: MessagePack, deflated, in base64."""

    form: int
    rollout: str
    act: str
    revision: int
    document: str
    phase: str
    step: int
    log_e: float | None
    bound: float
    harmed: float
    findings: tuple[Finding, ...]
    state: str


@dataclass(frozen=True, slots=True)
class Rejudged:
    """A verdict that was judged again: the evidence as it was recorded, and what is wrong with it."""

    recorded: RecordedVerdict
    faults: tuple[str, ...]


def recorded(record: RolloutRecord, canary: Canary, step: Step, now_ms: int, document: str) -> str:
    """Returns what the audit entry of this step carries: a RecordedVerdict as JSON."""
    state = VerdictState(
        canary.to_value(), record.state, record.watch, now_ms, previews=canary.previews, by_hand=canary.by_hand
    )
    analysis = canary.analysis or UNJUDGED
    evidence = record.state.evidence
    log_e = harm_log_e(evidence, analysis)
    made = RecordedVerdict(
        FORM,
        record.id,
        ACTS[type(step)],
        record.revision,
        document,
        record.state.phase,
        record.state.step,
        log_e if math.isfinite(log_e) else None,
        -math.log(analysis.alpha),
        harmed(evidence),
        tuple(_plain(finding) for finding in findings(evidence, analysis)),
        base64.b64encode(zlib.compress(msgspec.msgpack.encode(state), 9)).decode(),
    )
    return msgspec.json.encode(made).decode()


def verdict_in(detail: str) -> RecordedVerdict | None:
    """Returns the verdict that an audit entry's detail is; None where it is none."""
    if not carries_verdict(detail):
        return None
    try:
        return msgspec.json.decode(detail, type=RecordedVerdict)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def judged_again(verdict: RecordedVerdict, reason: str) -> Rejudged:
    """Returns the verdict, judged again; `reason` is the audit entry's. Each number that is another one is named."""
    try:
        state = _state(verdict.state)
        canary = replace(_canary(state.plan), previews=state.previews, by_hand=state.by_hand)
        return Rejudged(verdict, tuple(_faults(verdict, reason, state, canary)))
    except (ValueError, TypeError, zlib.error, msgspec.MsgspecError, InvalidArgument, RecursionError) as error:
        return Rejudged(verdict, (f"state: what was recorded cannot be read: {error}",))


def _faults(verdict: RecordedVerdict, reason: str, held: VerdictState, canary: Canary) -> Iterator[str]:
    state, analysis = held.state, canary.analysis or UNJUDGED
    evidence = state.evidence
    yield from _differing("phase", verdict.phase, state.phase)
    yield from _differing("step", verdict.step, state.step)
    yield from _differing("bound", verdict.bound, -math.log(analysis.alpha))
    yield from _differing("harmed", verdict.harmed, harmed(evidence))
    if len(evidence.guardrails) != len(analysis.effective_guardrails):
        yield f"guardrails: the plan has {len(analysis.effective_guardrails)}, the evidence {len(evidence.guardrails)}"
        return
    log_e = harm_log_e(evidence, analysis)
    yield from _differing("evidence of harm", verdict.log_e, log_e if math.isfinite(log_e) else None)
    told, again = verdict.findings, [_plain(one) for one in findings(evidence, analysis)]
    yield from _differing("guardrails", len(told), len(again))
    for one, other in zip(told, again, strict=False):
        for name in Finding.__struct_fields__:
            yield from _differing(f"{other.kind}: {name}", getattr(one, name), getattr(other, name))
    for guardrail, known in zip(analysis.effective_guardrails, evidence.guardrails, strict=True):
        for metric in known.metrics:
            yield from (f"{guardrail.kind.name}: {fault}" for fault in _metric_faults(metric))
        if guardrail.kind.name == "errors":
            metric, (own, stable) = known.metrics[0], evidence.whole
            pairs = {"canary": own.completed, "stable": stable.completed}
            pairs |= {"canary_events": own.errors, "stable_events": stable.errors}
            for name, counted in pairs.items():
                yield from _differing(f"errors: {name} and what the arm counted", getattr(metric, name), counted)
    yield from _decision_faults(verdict, reason, held, canary)


def _metric_faults(metric: MetricEvidence) -> Iterator[str]:
    """Yields what of a metric cannot be: the stake that no start has taken follows from the ticks alone, and the
    counters bound the evidence that they have given."""
    if min(metric.canary, metric.stable, metric.canary_events, metric.stable_events) < 0:
        yield "a counter is negative"
    if metric.canary_events > metric.canary or metric.stable_events > metric.stable:
        yield "a counter has more events than requests"
    unspent = math.log1p(-FIRST_MASS) + metric.ticks // RESTART_TICKS * math.log1p(-RESTART_SHARE)
    yield from _differing("stake after these ticks", metric.unspent, unspent)
    if not metric.canary_events + metric.stable_events and any(metric.harmless + metric.ratios):
        yield "evidence without an event"


def _decision_faults(verdict: RecordedVerdict, reason: str, held: VerdictState, canary: Canary) -> Iterator[str]:
    """Yields where the same evidence leads to something else than what was done and told."""
    harmful = ""
    if held.watch is not None and canary.analysis is not None:
        harmful = watched_harm(held.watch, canary.analysis)
    seen = held.watch is not None and any(metric.requests for metric in held.watch.metrics)
    step = next_step(canary, held.state, held.now_ms, watched=harmful, is_watched=seen)
    yield from _differing("what follows", verdict.act, ACTS.get(type(step), "hold"))
    yield from _differing("reason", reason, shortened(step.reason))


def shortened(reason: str) -> str:
    """Returns as much of a reason as an entry holds."""
    return reason.encode()[:REASON_BYTES].decode(errors="ignore")


def _differing(name: str, told: object, again: object) -> Iterator[str]:
    if isinstance(told, float) and isinstance(again, float | int):
        if told == again or math.isclose(told, again, rel_tol=_CLOSE, abs_tol=_CLOSE):
            return
    elif told == again:
        return
    yield f"{name}: {_shown(told)} is recorded, it is {_shown(again)}"


def _shown(value: object) -> str:
    return repr(value) if isinstance(value, str) else f"{value:.10g}" if isinstance(value, float) else str(value)


def _plain(finding: Finding) -> Finding:
    """Returns the finding with numbers that JSON can hold: the largest one for infinity."""
    numbers = {}
    for name in Finding.__struct_fields__:
        value = getattr(finding, name)
        if isinstance(value, float) and not math.isfinite(value):
            numbers[name] = math.copysign(float(np.finfo(np.float64).max), value)
    return msgspec.structs.replace(finding, **numbers)


def _state(text: str) -> VerdictState:
    inflater = zlib.decompressobj()
    content = inflater.decompress(base64.b64decode(text, validate=True), STATE_BYTES)
    if inflater.unconsumed_tail:
        raise ValueError(f"it has more than {STATE_BYTES} bytes")
    return msgspec.msgpack.decode(content, type=VerdictState)


def _canary(plan: dict[str, Any]) -> Canary:
    arms: Iterable[str] = [str(plan.get(role)) for role in ("stable", "canary")]
    strategy = parse_strategy(Field({"canary": plan}, "plan"), dict.fromkeys(arms))
    if not isinstance(strategy, Canary):
        raise TypeError("the plan is no canary")
    return strategy
