"""How a rollout follows the route: what a change of the rules, by the judge or by a person, makes of its state. Pure.

Everything that moves is a commit, so a judge that takes over knows from the history alone what its predecessor did: the
state in the store adds the evidence, and nothing that could contradict the route.
"""

from typing import Final

import msgspec

from gateway.rollout.evidence import new_step
from gateway.rollout.post_promotion import begin_watch, unmeasured_watch
from gateway.rollout.rollout_record import UNJUDGED, RolloutRecord, begun, plan_of
from gateway.routing.decision.snapshot import Route
from gateway.routing.document.document import RouteDocument
from gateway.routing.document.strategy import Canary, ramp_of
from gateway.routing.store.change import JUDGE_SOURCE, ChangeEntry

# A document that comes back is a person's decision: its canary is judged, and goes on when somebody says so.
BROUGHT_BACK: Final = frozenset({"rollback", "restore", "accept"})
_PASSED: Final = frozenset({"watching", "promoted"})
_BEGINS: Final = frozenset({"apply", "approve", "retry", "promote"})


def canary_of(document: RouteDocument) -> Canary | None:
    """Returns the canary that moves by itself; None where the route has none."""
    return ramp_of(document.strategy)


def followed(
    record: RolloutRecord | None,
    route: Route,
    entry: ChangeEntry | None,
    now_ms: int,
    new_id: str,
    *,
    is_lost: bool = False,
) -> RolloutRecord | None:
    """Returns the state of the model's rollout under the route that is in force now; None where there is none.

    `entry` is the change that made the route, None where it is not kept; `is_lost` that the state could not be read.
    A rollout whose state or history is lost begins anew and is held: somebody may have paused it.
    The sequence stays: the caller counts.
    """
    canary = canary_of(route.document)
    if canary is None:
        if record is None or not record.is_running or record.revision == route.revision:
            return record
        return _over(record, route, f"the route has no canary that moves by itself any more{_by(entry)}")
    if record is not None and record.revision == route.revision:
        return record
    operation = entry.operation if entry is not None else "apply"
    who = entry.actor if entry is not None else ""
    if record is not None and operation == "abort":
        told = entry.reason if entry is not None and entry.reason else f"aborted{_by(entry)}"
        versions = route.document.version_of(canary.stable), route.document.version_of(canary.canary)
        record = msgspec.structs.replace(record, plan=plan_of(route.document), versions=versions)
        return _over(record, route, told)
    if record is None or record.plan != plan_of(route.document):
        if record is not None and record.state.phase == "ramping" and _is_promotion(record, route.document):
            return _promoted(record, route, now_ms)
        if record is not None and record.state.phase == "stopped" and _is_promotion(record, route.document):
            return _promoted_all_the_same(record, route, entry)
        if route.status.promoted:
            return _promoted_already(record, route, entry, now_ms, new_id)
        new = begun(new_id, route.document, route.revision, now_ms, record.sequence if record is not None else 0, who)
        if record is None and (is_lost or entry is None or entry.source == JUDGE_SOURCE):
            return _with_hold(new, "nobody (the state of the rollout was lost)")
        if operation in BROUGHT_BACK:
            return _held_by(new, entry)
        halts = canary.previews and canary.weight is not None
        if not halts:
            return new
        taken_back = record is not None and record.state.phase in _PASSED and new.versions == record.versions[::-1]
        over = _over(new, route, f"{operation}{_by(entry)}: it is halted")
        return msgspec.structs.replace(over, proven=taken_back)
    if operation == "retry" or (not record.is_running and operation in _BEGINS and canary.weight is None):
        who = record.begun_by if operation == "retry" else who  # two people are meant to look, however it began
        return begun(new_id, route.document, route.revision, now_ms, record.sequence, who)
    record = msgspec.structs.replace(record, revision=route.revision, totals={})
    if operation in BROUGHT_BACK and record.is_running:
        record = _held_by(record, entry)
    if canary.step == record.state.step:
        return record
    state = msgspec.structs.replace(
        record.state,
        step=canary.step,
        step_since_ms=now_ms,
        approved_by="",
        evidence=new_step(record.state.evidence, canary.analysis or UNJUDGED),
    )
    return msgspec.structs.replace(record, state=state)


def _is_promotion(record: RolloutRecord, document: RouteDocument) -> bool:
    """Returns whether the canary's version has become the stable one, by the judge or by hand."""
    canary = canary_of(document)
    if canary is None:
        return False
    return [document.version_of(canary.canary), document.version_of(canary.stable)] == list(record.versions)


def _promoted(record: RolloutRecord, route: Route, now_ms: int) -> RolloutRecord:
    """Returns the rollout in its watch: the version that was stable stays named, so it stays loaded."""
    canary = canary_of(route.document)
    state = msgspec.structs.replace(record.state, phase="watching", step_since_ms=now_ms, approved_by="", paused_by="")
    analysis = canary.analysis if canary is not None else None
    return msgspec.structs.replace(
        record,
        plan=plan_of(route.document),
        versions=record.versions[::-1],
        revision=route.revision,
        totals={},
        state=state,
        watch=begin_watch(record.state.evidence, analysis) if analysis is not None else None,
        told="promoted",
    )


def _promoted_all_the_same(record: RolloutRecord, route: Route, entry: ChangeEntry | None) -> RolloutRecord:
    """Returns the rollout that somebody promoted after it was stopped: nothing is watched that would undo it."""
    state = msgspec.structs.replace(record.state, phase="promoted", paused_by="", approved_by="")
    return msgspec.structs.replace(
        record,
        plan=plan_of(route.document),
        versions=record.versions[::-1],
        revision=route.revision,
        totals={},
        state=state,
        watch=None,
        told=f"promoted{_by(entry)} though it was stopped: {record.told}",
        left_ms=0,
    )


def _promoted_already(
    record: RolloutRecord | None, route: Route, entry: ChangeEntry | None, now_ms: int, new_id: str
) -> RolloutRecord:
    """Returns the rollout of a route whose versions were promoted before: it goes on under another plan.

    Where its state was lost, the version is watched on; what the old one showed is lost as well.
    """
    document = route.document
    plan, new = plan_of(document), begun(new_id, document, route.revision, now_ms, 0)
    if record is not None and record.versions == new.versions and record.state.phase != "ramping":
        return msgspec.structs.replace(record, plan=plan, revision=route.revision, totals={})
    canary = canary_of(document)
    analysis = canary.analysis if canary is not None else None
    since_ms = route.committed_at_us // 1000 if entry is not None and entry.operation == "promote" else now_ms
    return msgspec.structs.replace(
        new,
        sequence=record.sequence if record is not None else 0,
        state=msgspec.structs.replace(new.state, phase="watching", step_since_ms=since_ms),
        watch=unmeasured_watch(analysis) if analysis is not None else None,
        told="promoted; the state of the rollout was lost",
    )


def _held_by(record: RolloutRecord, entry: ChangeEntry | None) -> RolloutRecord:
    """Returns the rollout that stays where a rollback has put it, until somebody resumes it."""
    who = f"{entry.actor or 'somebody'} ({entry.operation})" if entry is not None else "somebody (rollback)"
    return _with_hold(record, who)


def _with_hold(record: RolloutRecord, who: str) -> RolloutRecord:
    return msgspec.structs.replace(record, state=msgspec.structs.replace(record.state, paused_by=who, approved_by=""))


def _over(record: RolloutRecord, route: Route, told: str) -> RolloutRecord:
    state = msgspec.structs.replace(record.state, phase="stopped", paused_by="")
    return msgspec.structs.replace(record, revision=route.revision, totals={}, state=state, told=told, left_ms=0)


def _by(entry: ChangeEntry | None) -> str:
    return f" by {entry.actor}" if entry is not None and entry.actor else ""
