"""A bandit told to people: which event a new state is, and its numbers as plain values."""

from gateway.rollout.bandit_record import BanditRecord
from gateway.rollout.bandit_weights import USUAL_CAUSES
from gateway.routing.document.bucket import BUCKETS
from gateway.telemetry.event_types import EventType


def bandit_event(before: BanditRecord | None, after: BanditRecord) -> EventType | None:
    """Returns the event that the new state is; None where only numbers are new."""
    if before is None or before.id != after.id:
        return EventType.ROLLOUT_BEGUN if after.is_running else None
    if before.phase != after.phase:
        return EventType.ROLLOUT_STOPPED
    if _weights(before) != _weights(after):
        return EventType.ROLLOUT_REWEIGHED
    cause = _cause(after.told)
    if after.is_running and not after.left_ms and cause not in USUAL_CAUSES and _cause(before.told) != cause:
        return EventType.ROLLOUT_HELD
    return None


def told_bandit(record: BanditRecord) -> dict[str, object]:
    """Returns the state with its numbers, of values that JSON can hold."""
    return {
        "rollout": record.id,
        "model": record.model,
        "phase": record.phase,
        "revision": record.revision,
        "told": record.told,
        "left_ms": record.left_ms,
        "paused_by": record.paused_by,
        "percent": {arm: weight / BUCKETS * 100 for arm, weight in _weights(record).items()},
        "rewards": record.evidence.rewards,
        "out": record.out,
    }


def _weights(record: BanditRecord) -> dict[str, int]:
    return record.evidence.phases[-1].weights


def _cause(told: str) -> str:
    return told.partition(":")[0]
