"""A verdict of the audit trail, judged again for `gateway audit verify --verdict`."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.cli.exits import Exit, Failure
from gateway.page.message_values import Value
from gateway.routing.store.audit_chain import AuditEntry

if TYPE_CHECKING:
    from gateway.rollout.recorded_weights import RecordedWeights

VERDICT_COLUMNS = ("GUARDRAIL", "VERDICT", "CANARY", "STABLE", "OF HARM", "OF HARMLESSNESS")
_MOST = 600.0  # nats; beyond it a number is no number any more


@dataclass(frozen=True, slots=True)
class RejudgedEntry:
    """What is shown of it: as a value for programs, as lines, and what is wrong."""

    value: Value
    rows: Sequence[Sequence[Value]]
    notes: Sequence[str]
    faults: Sequence[str]


def rejudge(entries: Sequence[AuditEntry], sequence: int) -> RejudgedEntry:
    """Returns the entry with that number, judged again.

    Raises: Failure (there is none with a verdict).
    """
    from gateway.rollout.recorded_verdict import judged_again, verdict_in  # brings numpy with it
    from gateway.rollout.recorded_weights import weights_again, weights_in

    entry = next((entry for entry in entries if entry.sequence == sequence), None)
    if entry is None:
        first, last = (entries[0].sequence, entries[-1].sequence) if entries else (0, 0)
        raise Failure(Exit.USAGE, f"--verdict {sequence}: the trail has entries {first} to {last}")
    moved = weights_in(entry.detail)
    if moved is not None:
        return _rejudged_weights(entry, moved, weights_again(moved, entry.reason))
    verdict = verdict_in(entry.detail)
    if verdict is None:
        raise Failure(Exit.USAGE, f"--verdict {sequence}: the entry ({entry.operation}) has no verdict of the judge")
    faults = [f"entry {sequence}: {fault}" for fault in judged_again(verdict, entry.reason).faults]
    made = [other for other in entries if (other.revision, other.model) == (verdict.revision, entry.model)]
    if made and made[0].document != verdict.document:
        faults.append(
            f"entry {sequence}: document: {verdict.document[:12]} was judged, entry {made[0].sequence} recorded "
            f"{made[0].document[:12]} of revision {verdict.revision}"
        )
    rows: list[list[Value]] = [
        [
            *(one.kind, one.verdict, f"{one.canary_events} of {one.canary}", f"{one.stable_events} of {one.stable}"),
            *(f"{_evidence(number):.4g}" if abs(number) < 1e300 else "" for number in (one.log_e, one.pass_log_e)),
        ]
        for one in verdict.findings
    ]
    evidence = "none" if verdict.log_e is None else f"{_evidence(verdict.log_e):.4g}"
    notes = [
        f"entry {sequence}: {verdict.act} of {entry.model} at step {verdict.step + 1}, revision {verdict.revision}",
        f"evidence of harm {evidence}, {_evidence(verdict.bound):.4g} proves it; {verdict.harmed:.4g} harmed",
        ""
        if made
        else f"the change that made revision {verdict.revision} is not in the trail: its document is not checked",
        "" if faults else "judged again from the counters and the evidence: the same",
    ]
    value: Mapping[str, Value] = {
        "entry": sequence,
        "act": verdict.act,
        "revision": verdict.revision,
        "document": verdict.document,
        "document_checked": bool(made),
        "step": verdict.step + 1,
        "evidence": None if verdict.log_e is None else _evidence(verdict.log_e),
        "bound": _evidence(verdict.bound),
        "harmed": verdict.harmed,
        "guardrails": [
            {name: getattr(one, name) for name in one.__struct_fields__ if name != "text"} for one in verdict.findings
        ],
        "wrong": faults,
    }
    return RejudgedEntry(value, rows, [note for note in notes if note], faults)


def _evidence(log_e: float) -> float:
    """Returns the evidence as it is shown everywhere: an e-value, not its logarithm, by which it is recorded."""
    return math.exp(min(log_e, _MOST))


def _rejudged_weights(entry: AuditEntry, moved: "RecordedWeights", wrong: Sequence[str]) -> RejudgedEntry:
    """Returns a bandit's change of weights, decided again."""
    faults = [f"entry {entry.sequence}: {fault}" for fault in wrong]
    rows: list[list[Value]] = [
        [arm, "", weight, f"{moved.rewards.get(arm, 0)} rewards", "", ""] for arm, weight in moved.weights.items()
    ]
    notes = [
        f"entry {entry.sequence}: weights of {entry.model} after revision {moved.revision}: {entry.reason}",
        "" if faults else "decided again from the rewards and the same draws: the same",
    ]
    value: Mapping[str, Value] = {
        "entry": entry.sequence,
        "act": "weights",
        "revision": moved.revision,
        "document": moved.document,
        "weights": dict(moved.weights),
        "rewards": dict(moved.rewards),
        "wrong": faults,
    }
    return RejudgedEntry(value, rows, [note for note in notes if note], faults)
