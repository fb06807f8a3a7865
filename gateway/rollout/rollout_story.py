"""A rollout told to people: which event a new state is, and its numbers as plain values."""

import math

import msgspec

from gateway.rollout.evidence import findings, harm_log_e, harmed
from gateway.rollout.guardrail_evidence import Finding
from gateway.rollout.rollout_record import RolloutRecord
from gateway.routing.document.analysis import Analysis
from gateway.telemetry.event_types import EventType

_MOST = 600.0  # nats; beyond it a number is no number any more
_NUMBER_WORDS = 24  # how much of a reason tells holds apart: the numbers in it change with every tick


def rollout_event(before: RolloutRecord | None, after: RolloutRecord) -> EventType | None:
    """Returns the event that the new state is; None where only numbers are new."""
    if before is None or before.id != after.id:
        return EventType.ROLLOUT_BEGUN if after.is_running else None
    if before.state.offline is None and after.state.offline is not None:
        return EventType.ROLLOUT_OFFLINE
    if before.state.phase != after.state.phase:
        return {
            "stopped": EventType.ROLLOUT_STOPPED,
            "watching": EventType.ROLLOUT_PROMOTED,
            "promoted": EventType.ROLLOUT_PROMOTED if before.state.phase != "watching" else None,
        }.get(after.state.phase)
    if before.state.step != after.state.step:
        return EventType.ROLLOUT_STEP
    if after.is_running and not after.left_ms and _cause(before.told) != _cause(after.told):
        return EventType.ROLLOUT_HELD
    return None


def told_rollout(record: RolloutRecord, analysis: Analysis | None = None) -> dict[str, object]:
    """Returns the state with its numbers, of values that JSON can hold."""
    told: dict[str, object] = {
        "rollout": record.id,
        "model": record.model,
        "phase": record.told_phase,
        "step": record.state.step,
        "revision": record.revision,
        "told": record.told,
        "left_ms": record.left_ms,
        "paused_by": record.state.paused_by,
        "approved_by": record.state.approved_by,
        "canary": record.state.evidence.whole[0].completed,
        "stable": record.state.evidence.whole[1].completed,
        "harmed": round(harmed(record.state.evidence), 1),
    }
    if record.state.offline is not None:
        told["offline"] = msgspec.to_builtins(record.state.offline)
    if analysis is not None:
        told["evidence"] = _evidence(harm_log_e(record.state.evidence, analysis))
        told["bound"] = 1 / analysis.alpha
        told["guardrails"] = [_finding(finding) for finding in findings(record.state.evidence, analysis)]
    return told


def _finding(finding: Finding) -> dict[str, object]:
    return {
        "kind": finding.kind,
        "action": finding.action,
        "verdict": finding.verdict,
        "evidence": _evidence(finding.log_e),
        "pass_evidence": _evidence(finding.pass_log_e),
        "canary": finding.canary,
        "stable": finding.stable,
        "canary_events": finding.canary_events,
        "stable_events": finding.stable_events,
        "ratio_low": finding.ratio_low,
        "ratio_high": _finite(finding.ratio_high),
        "text": str(finding),
    }


def _evidence(log_e: float) -> float:
    return round(math.exp(min(log_e, _MOST)), 4)


def _finite(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None


def _cause(told: str) -> str:
    return told.partition(":")[0][:_NUMBER_WORDS].rstrip("0123456789 ")
