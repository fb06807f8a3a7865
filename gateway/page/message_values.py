"""Messages of the control service as values for programs: what commands and pages print (pure)."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from math import isfinite

import msgspec

from gateway.pb import control_pb2

Value = str | int | float | bool | None | Sequence["Value"] | Mapping[str, "Value"]


def moment(microseconds: int) -> str:
    """Returns a point in time since the epoch as ISO 8601 in UTC, to the millisecond."""
    if not microseconds:
        return ""
    return datetime.fromtimestamp(microseconds / 1e6, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def version_value(version: control_pb2.ModelVersionState) -> Value:
    """Returns a version's state for machines."""
    return {
        "model": version.model,
        "version": version.version,
        "state": version.state,
        "reason": version.reason,
        "digest": version.digest,
        "newest_ready": version.newest_ready,
        "max_batch_size": version.max_batch_size,
        "merging": version.merging,
        "weights": version.weights,
        "in_flight": version.in_flight,
        "workers": dict(version.workers),
        "source": version.source,
        "size_bytes": version.size_bytes,
        "run_us": version.run_us,
        "trial_memory_bytes": version.trial_memory_bytes,
        "routed": version.routed,
        "signature": version.signature,
        "publisher": version.publisher,
        "published_at": version.published_at,
        "lineage": dict(version.lineage),
    }


def worker_value(worker: control_pb2.Worker) -> Value:
    """Returns a worker for machines."""
    return {
        "id": worker.id,
        "state": worker.state,
        "revision": worker.revision,
        "digest": worker.digest,
        "seen_ms_ago": worker.seen_ms_ago,
        "pid": worker.pid,
        "boot": worker.boot,
        "error": worker.error,
    }


def entry_value(entry: control_pb2.HistoryEntry) -> dict[str, Value]:
    """Returns the change for machines, without its document."""
    return {
        "model": entry.model,
        "revision": entry.revision,
        "previous_revision": entry.previous_revision,
        "restored_revision": entry.restored_revision,
        "operation": entry.operation,
        "actor": entry.actor,
        "source": entry.source,
        "reason": entry.reason,
        "committed_at": moment(entry.committed_at_us),
        "digest": entry.digest,
        "sequence": entry.sequence,
        "detail": entry.detail,
    }


def document_value(entry: control_pb2.HistoryEntry) -> Mapping[str, Value]:
    """Returns the document that the change made active, None of a deletion; and what its rollout had made of it."""
    return {
        "document": msgspec.json.decode(entry.document_json) if entry.document_json else None,
        "in_force": msgspec.json.decode(entry.in_force_json) if entry.in_force_json else None,
    }


def cost_value(cost: control_pb2.ArmCost, price: float) -> dict[str, Value]:
    """Returns what an arm costs for machines; in money where an hour of a CPU has a price."""
    value: dict[str, Value] = {"arm": cost.arm, "cpu_seconds_per_1000": cost.cpu_seconds_per_1000}
    return value | ({"price_per_1000": cost.cpu_seconds_per_1000 / 3600 * price} if price else {})


def _capacity_value(capacity: control_pb2.RolloutCapacity) -> dict[str, Value]:
    return {
        "cores": capacity.cores,
        "now": capacity.now,
        "at_next": capacity.at_next,
        "after_rollback": capacity.after_rollback,
        "next_percent": capacity.next_percent,
        "assumed": capacity.assumed,
    }


def rollout_value(state: control_pb2.RolloutState, price: float = 0.0) -> dict[str, Value]:
    """Returns a rollout for machines. `price` is that of an hour of a CPU, 0 where none is known."""
    return {
        "model": state.model,
        "id": state.id,
        "phase": state.phase,
        "step": state.step + 1,
        "steps": state.steps,
        "revision": state.revision,
        "stable_version": state.stable_version,
        "canary_version": state.canary_version,
        "told": state.told,
        "left_s": state.left_ms / 1000,
        "paused_by": state.paused_by,
        "approved_by": state.approved_by,
        "approvers": list(state.approvers),
        "evidence": state.evidence,
        "bound": state.bound,
        "harmed": state.harmed,
        "started_at": moment(state.started_at_us),
        "judged_at": moment(state.judged_at_us),
        "guardrails": [_finding_value(finding) for finding in state.findings],
        "capacity": _capacity_value(state.capacity) if state.HasField("capacity") else None,
        "costs": [cost_value(cost, price) for cost in state.costs],
        "strategy": state.strategy,
        "arms": [_bandit_arm_value(arm) for arm in state.arms],
    }


def _bandit_arm_value(arm: control_pb2.BanditArm) -> dict[str, Value]:
    return {
        "arm": arm.arm,
        "version": arm.version,
        "percent": arm.percent,
        "rewards": arm.rewards,
        "counted": arm.counted,
        "mean": arm.mean if isfinite(arm.mean) else None,
        "out": arm.out,
    }


def _finding_value(finding: control_pb2.RolloutFinding) -> dict[str, Value]:
    return {
        "kind": finding.kind,
        "action": finding.action,
        "verdict": finding.verdict,
        "evidence": finding.evidence,
        "pass_evidence": finding.pass_evidence,
        "canary": finding.canary,
        "stable": finding.stable,
        "canary_events": finding.canary_events,
        "stable_events": finding.stable_events,
        "ratio_low": finding.ratio_low,
        "ratio_high": finding.ratio_high,
    }


def row_value(row: control_pb2.LogRow) -> dict[str, Value]:
    """Returns a logged prediction for machines."""
    return {
        "ts": moment(row.ts_us),
        "model": row.model,
        "version": row.version,
        "arm": row.arm,
        "revision": row.revision,
        "reason": row.reason,
        "bucket": row.bucket,
        "request_id": row.request_id,
        "code": row.code,
        "queue_us": row.queue_us,
        "infer_us": row.infer_us,
        "total_us": row.total_us,
        "rows": row.rows,
        "inputs": msgspec.json.decode(row.inputs_json or "null"),
        "outputs": msgspec.json.decode(row.outputs_json or "null"),
        "worker": row.worker,
    }
