"""What people do to a rollout that is no change of the route: pause, go on, approve. Pure: state in, state out."""

from dataclasses import replace

import msgspec

from gateway.errors import FailedPrecondition, PermissionDenied
from gateway.rollout.ramp import Promote, next_step
from gateway.rollout.rollout_events import canary_of
from gateway.rollout.rollout_record import RolloutRecord, plan_of
from gateway.routing.document.document import RouteDocument
from gateway.routing.document.strategy import Canary


def paused(record: RolloutRecord, who: str) -> RolloutRecord:
    """Returns the rollout that stays at its step; what is harmful is stopped all the same.

    Raises: FailedPrecondition (it is over, or watched after its promotion).
    """
    _running(record)
    if record.state.phase != "ramping":
        raise FailedPrecondition(f"model {record.model!r}: its version has everything already; abort takes it back")
    return _with(record, paused_by=who or "somebody")


def resumed(record: RolloutRecord) -> RolloutRecord:
    """Returns the rollout that goes on. Raises: FailedPrecondition (it is over)."""
    _running(record)
    return _with(record, paused_by="")


def aborted(record: RolloutRecord, who: str, reason: str) -> RolloutRecord:
    """Returns the rollout that is over, though its canary had no share already. Raises: FailedPrecondition."""
    _running(record)
    state = msgspec.structs.replace(record.state, phase="stopped", paused_by="")
    return msgspec.structs.replace(record, state=state, told=reason or f"aborted by {who or 'somebody'}", left_ms=0)


def approved(record: RolloutRecord, canary: Canary, step: int, who: str) -> RolloutRecord:
    """Returns the rollout whose step may end.

    Raises: FailedPrecondition (it is over, at another step, or needs no approval); PermissionDenied (the step does not
            name the caller, or the caller began the rollout: two people are meant to look).
    """
    _running(record)
    if record.state.phase != "ramping":
        raise FailedPrecondition(
            f"model {record.model!r}: no step is left to approve, its version has everything already"
        )
    if step != record.state.step:
        raise FailedPrecondition(
            f"model {record.model!r}: it is at step {record.state.step + 1}, and step {step + 1} was to be approved"
        )
    approvers = canary.steps[step].gate.approval
    if not approvers:
        raise FailedPrecondition(f"model {record.model!r}: step {step + 1} needs no approval")
    if who not in approvers:
        raise PermissionDenied(
            f"model {record.model!r}: step {step + 1} is approved by one of {', '.join(approvers)}, not by {who!r}"
        )
    if who == record.begun_by:
        raise PermissionDenied(f"model {record.model!r}: {who!r} began the rollout; somebody else has to approve it")
    return _with(record, approved_by=who)


def skipped(record: RolloutRecord | None, canary: Canary, now_ms: int) -> str:
    """Returns what a flip by hand would skip of all that stands before a preview's promotion; "" where nothing is left.

    `record` is None where nobody has judged it yet.
    """
    if record is None:
        return "nothing is known of the preview yet"
    if record.state.phase == "stopped" and not record.proven:
        return f"it was stopped: {record.told}"
    if record.state.phase != "ramping":
        return ""  # it had everything already
    step = next_step(replace(canary, by_hand=False), record.state, now_ms)
    return "" if isinstance(step, Promote) else step.reason


def check_goes_on(record: RolloutRecord | None, applied: RouteDocument, document: RouteDocument) -> None:
    """Returns if the document may be applied after the one that was applied before: what is running goes on under it.

    Raises: FailedPrecondition (another plan would end the rollout).
    """
    if record is None or not record.is_running:
        return
    if canary_of(document) is None or canary_of(applied) is None or plan_of(document) != plan_of(applied):
        raise ends(record, "this document")


def ends(record: RolloutRecord, what: str) -> FailedPrecondition:
    """Returns the refusal of `what` because it would end the rollout, which is running."""
    at = record.told_phase
    if at == "ramping":
        at = f"{at}, step {record.state.step + 1}"
    return FailedPrecondition(
        f"model {record.model!r}: a rollout of version {record.versions[1]} is running ({at}), and {what} "
        "would end it: abort it first (gateway rollout abort), wait for its end, or give --override"
    )


def _running(record: RolloutRecord) -> None:
    if not record.is_running:
        raise FailedPrecondition(f"model {record.model!r}: its rollout is over ({record.state.phase}: {record.told})")


def _with(record: RolloutRecord, **fields: str) -> RolloutRecord:
    return msgspec.structs.replace(record, state=msgspec.structs.replace(record.state, **fields))
