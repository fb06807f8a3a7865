"""Routes, changes and records as the operators' messages carry them, and what requests say of a change."""

from collections.abc import Iterable, Sequence
from typing import Literal, Protocol

from gateway.access.principal import NOBODY, Principal
from gateway.errors import Code, InvalidArgument
from gateway.pb import control_pb2 as pb
from gateway.records.worker.tail import Row
from gateway.routing.decision.flow import Flow, moved, reversioned
from gateway.routing.decision.route import Route
from gateway.routing.document.caution import fraction_cautions
from gateway.routing.document.document import RouteDocument, parse
from gateway.routing.document.notation import read_json
from gateway.routing.store.audit_chain import AuditEntry, carries_verdict
from gateway.routing.store.change import OWN_SOURCES, SOURCE_LIMIT, Change, ChangeEntry, Replicas
from gateway.routing.store.change_result import ApplyResult, ChangeResult
from gateway.routing.store.history import Revision
from gateway.routing.store.route_control import WAIT_DEFAULT_S
from gateway.routing.store.store_reply import Applied
from gateway.routing.store.worker_status import WorkerStatus

DOCUMENT_LIMIT_BYTES = 1 << 20


class Expecting(Protocol):
    """A request that may carry the revision that its caller saw."""

    expected_revision: int

    def HasField(self, field_name: Literal["expected_revision"]) -> bool: ...


class Waiting(Protocol):
    """A request that may say how long its caller waits."""

    @property
    def wait(self) -> pb.WaitFor: ...

    def HasField(self, field_name: Literal["wait"]) -> bool: ...


def read_document(text: str) -> RouteDocument:
    """Raises: InvalidArgument."""
    return parse(_read(text))


def fractions_of(text: str) -> tuple[str, ...]:
    """The warnings of how a document is written. Raises: InvalidArgument."""
    return fraction_cautions(_read(text))


def _read(text: str) -> object:
    return read_json(text, limit_bytes=DOCUMENT_LIMIT_BYTES)


def named(model: str) -> str:
    """Returns the model's name. Raises: InvalidArgument if it is empty."""
    if not model:
        raise InvalidArgument("model is empty: name the model")
    return model


def principal_of(context: object) -> Principal:
    """Returns who calls; a context that does not say is nobody's."""
    principal = getattr(context, "principal", NOBODY)
    return principal if isinstance(principal, Principal) else NOBODY


def proven(context: object) -> Principal:
    """Returns who calls, found out anew where the context can. Raises: Unauthenticated, PermissionDenied."""
    prove = getattr(context, "prove", None)
    return principal_of(context) if prove is None else prove()


def change_of(change: pb.Change, context: object) -> Change:
    """Returns the change that a caller asks for, in the name that is proven; another one is told as a claim.

    Raises: InvalidArgument.
    """
    principal = principal_of(context)
    proven, source = principal.name, change.source or "api"
    if source in OWN_SOURCES:
        raise InvalidArgument(f"change.source is {source!r}, which only the gateway's own changes have")
    if proven and change.actor not in ("", proven):
        source = f"{source} (claims {change.actor})".encode()[:SOURCE_LIMIT].decode(errors="ignore")
    if change.given_ms_ago < 0:
        raise InvalidArgument(f"change.given_ms_ago is {change.given_ms_ago}, it must not be negative")
    return Change(
        given_ms_ago=change.given_ms_ago,
        actor=proven or change.actor,
        reason=change.reason,
        source=source,
        idempotency_key=change.idempotency_key,
        keyed_by=f"{principal.tenant}\0{principal.name}",
    )


def expected_revision(request: Expecting) -> int | None:
    """Returns the revision that the caller saw, None if it commits whatever is there."""
    return request.expected_revision if request.HasField("expected_revision") else None


def wait_or_default(request: Waiting) -> float | None:
    """Returns how long the caller waits for the workers; the default if it does not say."""
    return wait_seconds(request.wait) if request.HasField("wait") else WAIT_DEFAULT_S


def wait_seconds(wait: pb.WaitFor) -> float | None:
    if not wait.applied:
        return None
    if wait.timeout_ms < 0:
        raise InvalidArgument(f"wait.timeout_ms is {wait.timeout_ms}, it must not be negative")
    return wait.timeout_ms / 1000 if wait.timeout_ms else WAIT_DEFAULT_S


def route_message(route: Route) -> pb.Route:
    return pb.Route(
        model=route.model,
        revision=route.revision,
        document_json=route.spec.to_json(),
        in_force_json=_in_force(route),
        table=[pb.Interval(start=part.start, end=part.end, arm=part.arm) for part in route.table.intervals],
        digest=route.digest,
        committed_at_us=route.committed_at_us,
    )


def change_message(result: ChangeResult, fractions: Sequence[str] = ()) -> pb.ChangeResponse:
    return pb.ChangeResponse(
        model=result.model,
        revision=result.revision,
        previous_revision=result.previous_revision,
        epoch=result.epoch,
        commit_us=result.commit_us,
        applied_us=result.applied_us,
        applied_by=result.applied.workers,
        laggards=laggard_texts(result.applied),
        unchanged=result.unchanged,
        restored_revision=result.restored_revision,
        already=entry_message(result.already.entry) if result.already is not None else None,
        already_ms_ago=result.already.ms_ago if result.already is not None else 0,
        flows=flow_messages(result.flows),
        moved_buckets=moved(result.flows),
        version_buckets=reversioned(result.flows),
        warnings=[*fractions, *result.cautions],
        replicas=None if result.unchanged or not result.commit_us else replicas_message(result.replicas),
    )


def laggard_texts(applied: Applied) -> list[str]:
    """Returns each worker that had not followed, with what it says about that."""
    return [f"{name}: {applied.errors[name]}" if name in applied.errors else name for name in applied.laggards]


def replicas_message(replicas: Replicas) -> pb.Replicas:
    return pb.Replicas(known=replicas.known, confirmed=replicas.confirmed)


def apply_message(result: ApplyResult, fractions: Sequence[str] = ()) -> pb.ApplyResponse:
    return pb.ApplyResponse(
        change=change_message(result.change, fractions),
        route=route_message(result.route),
        moved_buckets=result.moved_buckets,
    )


def revision_message(revision: Revision) -> pb.HistoryEntry:
    """Returns the change with its document, if it has one that can be read."""
    message = entry_message(revision.entry)
    if revision.route is not None:
        message.document_json = revision.route.spec.to_json()
        message.in_force_json = _in_force(revision.route)
    return message


def _in_force(route: Route) -> str:
    """Returns the document in force; "" where it is the one that was applied."""
    return "" if route.applied is None else route.document.to_json()


def entry_message(entry: ChangeEntry) -> pb.HistoryEntry:
    """Returns the change without its document."""
    return pb.HistoryEntry(
        model=entry.model,
        revision=entry.revision,
        previous_revision=entry.previous_revision,
        restored_revision=entry.restored_revision,
        operation=entry.operation,
        actor=entry.actor,
        reason=entry.reason,
        source=entry.source,
        committed_at_us=entry.committed_at_us,
        digest=entry.digest,
    )


def audit_message(entry: AuditEntry) -> pb.HistoryEntry:
    """Returns what the audit trail has recorded, as a change without its document."""
    return pb.HistoryEntry(
        model=entry.model,
        revision=entry.revision,
        previous_revision=entry.previous_revision,
        restored_revision=entry.restored_revision,
        operation=entry.operation,
        actor=entry.actor,
        reason=entry.reason,
        source=entry.source,
        committed_at_us=entry.at_us,
        sequence=entry.sequence,
        detail="a verdict with its evidence" if carries_verdict(entry.detail) else entry.detail,
    )


def chained_message(entry: AuditEntry) -> pb.ChainedEntry:
    """Returns the entry with all that its hash covers."""
    return pb.ChainedEntry(
        sequence=entry.sequence,
        operation=entry.operation,
        model=entry.model,
        revision=entry.revision,
        previous_revision=entry.previous_revision,
        restored_revision=entry.restored_revision,
        document=entry.document,
        actor=entry.actor,
        reason=entry.reason,
        source=entry.source,
        at_us=entry.at_us,
        detail=entry.detail,
        before=entry.before,
        hash=entry.hash,
        unreadable=entry.unreadable,
    )


def flow_messages(flows: Iterable[Flow]) -> list[pb.Flow]:
    return [
        pb.Flow(
            from_arm=flow.from_arm,
            from_version=flow.from_version,
            to_arm=flow.to_arm,
            to_version=flow.to_version,
            size=flow.size,
        )
        for flow in flows
    ]


def worker_message(worker: WorkerStatus) -> pb.Worker:
    return pb.Worker(
        id=worker.id,
        state=worker.state,
        revision=worker.revision,
        digest=worker.digest,
        seen_ms_ago=worker.seen_ms_ago,
        error=worker.all_errors(),
        pid=worker.pid,
        boot=worker.boot,
    )


def row_message(row: Row) -> pb.LogRow:
    return pb.LogRow(
        ts_us=row.ts_us,
        model=row.model,
        version=row.version,
        arm=row.arm,
        revision=row.revision,
        reason=row.reason,
        request_id=row.request_id,
        code=Code(row.code).name,
        queue_us=row.queue_us,
        infer_us=row.infer_us,
        total_us=row.total_us,
        rows=row.rows,
        inputs_json=row.inputs_json,
        outputs_json=row.outputs_json,
        worker=row.worker,
        bucket=row.bucket,
    )
