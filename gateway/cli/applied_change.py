"""A change of a route: the request of the command line, and the printed outcome."""

import getpass
import uuid
from collections.abc import Iterable, Sequence

from gateway.cli.command_time import given_s_ago
from gateway.cli.exits import Exit, Failure
from gateway.cli.flows import flows_value
from gateway.cli.printing import Format, counted, say, show
from gateway.cli.route_summary import in_force
from gateway.cli.tls import CONNECTING, Connecting
from gateway.page.message_values import Value, moment
from gateway.page.route_words import shares_value
from gateway.pb import control_pb2

COLUMNS = ("MODEL", "REVISION", "RESULT", "KEYS MOVED", "APPLIED AFTER")


def change_by_me(reason: str) -> control_pb2.Change:
    """Returns the change in the name of this shell's user, at this time. The key makes sure that it is done once.

    Who proves a name by a token or a certificate claims no other one beside it.
    """
    way = CONNECTING.get(Connecting())
    proven = way.credential.token or way.tls.certificate
    return control_pb2.Change(
        actor="" if proven else getpass.getuser(),
        reason=reason,
        source="cli",
        idempotency_key=uuid.uuid4().hex,
        given_ms_ago=int(1000 * given_s_ago()),
    )


def change_value(change: control_pb2.ChangeResponse) -> dict[str, Value]:
    """Returns the change for machines."""
    return {
        "model": change.model,
        "revision": change.revision,
        "previous_revision": change.previous_revision,
        "epoch": change.epoch,
        "restored_revision": change.restored_revision,
        "unchanged": change.unchanged,
        "commit_ms": change.commit_us / 1000,
        "applied_ms": change.applied_us / 1000,
        "applied_by": list(change.applied_by),
        "laggards": list(change.laggards),
        "replicas": replicas_value(change.replicas) if change.HasField("replicas") else None,
        "already": already_value(change) if change.HasField("already") else None,
        "already_ms_ago": change.already_ms_ago,
        "flows": flows_value(change.flows),
        "moved_percent": change.moved_buckets / 10_000,
        "version_percent": change.version_buckets / 10_000,
        "warnings": list(change.warnings),
    }


def already_value(change: control_pb2.ChangeResponse) -> dict[str, Value]:
    """Returns, for machines, whose earlier change already did what was asked for."""
    by = change.already
    return {"actor": by.actor, "operation": by.operation, "revision": by.revision}


def already_text(change: control_pb2.ChangeResponse) -> str:
    """Returns the same for people, with the option that goes one step further."""
    by = change.already
    when = f"{change.already_ms_ago} ms ago" if change.already_ms_ago < 10_000 else moment(by.committed_at_us)
    return (
        f"{change.model}: already done ({by.operation}) by {by.actor or 'nobody named'}, {when}: "
        f"revision {change.revision} is active; to go on from it, say --expect-revision {change.revision}"
    )


def outcome_text(change: control_pb2.ChangeResponse, dry_run: bool) -> str:
    """Returns the outcome in a word or two."""
    if change.HasField("already"):
        return f"already by {change.already.actor or 'nobody named'}"
    if change.unchanged:
        return "unchanged"
    return "would be committed" if dry_run else "committed"


def replicas_value(replicas: control_pb2.Replicas) -> dict[str, Value]:
    return {"known": replicas.known, "confirmed": replicas.confirmed}


def kept_by(replicas: control_pb2.Replicas) -> str:
    """Returns how many of the store's replicas have the change, "" if the store has no replicas."""
    return f"on {replicas.confirmed} of {replicas.known} replicas" if replicas.known else ""


def took(change: control_pb2.ChangeResponse) -> str:
    """Returns how long the workers took to follow, if any were waited for, and how many replicas have the change."""
    workers = counted(len(change.applied_by), "worker")
    after = f"{change.applied_us / 1000:.1f} ms by {workers}" if change.applied_us else ""
    return ", ".join(part for part in (after, kept_by(change.replicas)) if part)


def warn(warnings: Iterable[str], model: str) -> None:
    """Prints warnings: what is allowed but seldom meant."""
    for sentence in warnings:
        say(f"gateway: warning: {model}: {sentence}")


def complain(laggards: Sequence[str]) -> None:
    """Raises: Failure if not everybody followed in time."""
    if laggards:
        raise Failure(Exit.TIMED_OUT, f"committed, but these workers had not followed in time: {', '.join(laggards)}")


def wait_for(timeout_s: float, *, applied: bool = True) -> control_pb2.WaitFor:
    return control_pb2.WaitFor(applied=applied, timeout_ms=int(timeout_s * 1000))


def applied_value(answer: control_pb2.ApplyResponse) -> dict[str, Value]:
    """Returns a committed document for machines."""
    return change_value(answer.change) | {"shares": shares_value(answer.route)}


def applied_row(answer: control_pb2.ApplyResponse, *, dry_run: bool) -> list[Value]:
    """Returns the same for people, under COLUMNS."""
    change, moved = answer.change, f"{answer.moved_buckets / 10_000:g} %"
    return [change.model, change.revision or "", outcome_text(change, dry_run), moved, took(change)]


def show_applied(answers: Sequence[control_pb2.ApplyResponse], form: Format, *, dry_run: bool) -> None:
    """Prints the outcome of each document. Raises: Failure if not everybody followed in time."""
    show(
        [applied_value(answer) for answer in answers],
        form,
        columns=COLUMNS,
        rows=[applied_row(answer, dry_run=dry_run) for answer in answers],
        note=[in_force(answer.route, dry_run=dry_run) for answer in answers],
    )
    for answer in answers:
        warn(answer.change.warnings, answer.change.model)
        if answer.change.HasField("already"):
            say(f"gateway: {already_text(answer.change)}")
    complain([laggard for answer in answers for laggard in answer.change.laggards])
