"""The operators' service: every method translates, asks routing, catalog or log, and translates back."""

import platform
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import gateway
from gateway.errors import Code, FailedPrecondition, InvalidArgument, Unavailable
from gateway.pb import control_pb2 as pb
from gateway.pb.control_pb2_grpc import ControlServicer
from gateway.records.tail import Row, tail
from gateway.routing.change import Change
from gateway.routing.control import WAIT_DEFAULT_S, ChangeResult, Control
from gateway.routing.document import RouteDocument, parse
from gateway.routing.history import Revision
from gateway.routing.notation import read_json
from gateway.routing.route import Route
from gateway.serving.catalog import Catalog
from gateway.serving.registry import VersionStatus
from gateway.serving.session import ort_version
from gateway.serving.version import State

MAX_TAILS = 16
MAX_BACKLOG = 10_000
DOCUMENT_LIMIT_BYTES = 1 << 20


class Fleet(Protocol):
    """The workers of this host."""

    async def versions(self, model: str) -> Mapping[str, Sequence[VersionStatus]]:
        """What each worker that answered says of the model's versions (of all models, if ""), by worker id."""


class ControlService(ControlServicer):
    """`gateway.v1.Control` as one worker serves it."""

    def __init__(
        self, control: Control, catalog: Catalog, fleet: Fleet, *, log_dir: Path, worker: str, transport: str
    ) -> None:
        self._control = control
        self._catalog = catalog
        self._fleet = fleet
        self._log_dir = log_dir
        self._worker = worker
        self._transport = transport
        self._tails = 0

    # ---- routes ----

    async def Apply(self, request: pb.ApplyRequest, context: object) -> pb.ApplyResponse:
        document = parse(read_json(request.document_json, limit_bytes=DOCUMENT_LIMIT_BYTES))
        result = await self._control.apply(
            document,
            change=_change(request.change),
            expected_revision=_expected(request),
            wait_s=_wait_s(request.wait),
            dry_run=request.dry_run,
        )
        return pb.ApplyResponse(
            change=_change_response(result.change), route=_route(result.route), moved_buckets=result.moved_buckets
        )

    async def GetRoute(self, request: pb.GetRouteRequest, context: object) -> pb.Route:
        return _route(await self._control.get(_named(request.model), request.revision))

    async def ListRoutes(self, request: pb.ListRoutesRequest, context: object) -> pb.ListRoutesResponse:
        listed = await self._control.list()
        return pb.ListRoutesResponse(
            routes=[_route(route) for route in listed.routes],
            epoch=listed.epoch,
            revision=listed.revision,
            stale=listed.stale,
        )

    async def DeleteRoute(self, request: pb.DeleteRouteRequest, context: object) -> pb.ChangeResponse:
        result = await self._control.delete(
            _named(request.model),
            change=_change(request.change),
            expected_revision=_expected(request),
            wait_s=_wait_s(request.wait),
        )
        return _change_response(result)

    async def History(self, request: pb.HistoryRequest, context: object) -> pb.HistoryResponse:
        revisions = await self._control.history(_named(request.model), request.limit)
        return pb.HistoryResponse(entries=[_entry(revision) for revision in revisions])

    async def Rollback(self, request: pb.RollbackRequest, context: object) -> pb.ChangeResponse:
        wait_s = _wait_s(request.wait) if request.HasField("wait") else WAIT_DEFAULT_S
        result = await self._control.rollback(
            _named(request.model), change=_change(request.change), to_revision=request.to_revision, wait_s=wait_s
        )
        return _change_response(result)

    async def Workers(self, request: pb.WorkersRequest, context: object) -> pb.WorkersResponse:
        workers, revision = await self._control.workers()
        return pb.WorkersResponse(
            revision=revision,
            workers=[
                pb.Worker(
                    id=worker.id,
                    state=worker.state,
                    revision=worker.revision,
                    digest=worker.digest,
                    seen_ms_ago=worker.seen_ms_ago,
                    error=worker.all_errors(),
                    pid=worker.pid,
                    boot=worker.boot,
                )
                for worker in workers
            ],
        )

    # ---- models ----

    async def Models(self, request: pb.ModelsRequest, context: object) -> pb.ModelsResponse:
        own = self._catalog.states(request.model or None)
        elsewhere = await self._fleet.versions(request.model)
        return pb.ModelsResponse(versions=[self._version(status, elsewhere) for status in own])

    def _version(self, status: VersionStatus, elsewhere: Mapping[str, Sequence[VersionStatus]]) -> pb.ModelVersionState:
        others = {
            worker: other
            for worker, versions in elsewhere.items()
            for other in versions
            if (other.model, other.version) == (status.model, status.version)
        }
        return pb.ModelVersionState(
            model=status.model,
            version=status.version,
            state=status.state.value,
            reason=status.reason,
            digest=status.digest,
            in_flight=status.in_flight + sum(other.in_flight for other in others.values()),
            max_batch_size=status.max_batch_size,
            newest_ready=status.state is State.AVAILABLE and self._catalog.newest(status.model).name == status.version,
            workers={worker: other.state.value for worker, other in others.items() if other.state is not status.state},
        )

    # ---- log ----

    async def TailLog(self, request: pb.TailLogRequest, context: object) -> AsyncIterator[pb.LogRow]:
        if not 0 <= request.backlog <= MAX_BACKLOG:
            raise InvalidArgument(f"backlog is {request.backlog}, allowed: 0 to {MAX_BACKLOG}")
        if self._tails >= MAX_TAILS:
            raise Unavailable(f"{self._tails} readers follow the log of this worker, the limit is {MAX_TAILS}")
        self._tails += 1
        try:
            rows = tail(self._log_dir, model=request.model or None, backlog=request.backlog, follow=request.follow)
            async for row in rows:
                yield _log_row(row)
        finally:
            self._tails -= 1

    # ---- server ----

    async def ServerVersion(self, request: pb.ServerVersionRequest, context: object) -> pb.ServerVersionResponse:
        return pb.ServerVersionResponse(
            version=gateway.__version__,
            worker=self._worker,
            python=platform.python_version(),
            onnxruntime=ort_version(),
            transport=self._transport,
        )


def check_versions(catalog: Catalog, document: RouteDocument) -> None:
    """Every version that the route names could serve now, and all of them take and give the same tensors.

    Raises: FailedPrecondition naming the version that could not, or the two that differ.
    """
    known = {status.version: status for status in catalog.states(document.model)}
    seen = {}
    for name in sorted(document.versions()):
        status = known.get(name)
        if status is None:
            raise FailedPrecondition(
                f"model {document.model!r} has no version {name!r}; its versions are {sorted(known) or 'none'}"
            )
        if status.state is not State.AVAILABLE:
            reason = f": {status.reason}" if status.reason else ""
            raise FailedPrecondition(f"model {document.model!r} version {name!r} is {status.state.value}{reason}")
        version = catalog.version(document.model, name)
        seen[name] = (
            [(spec.name, spec.datatype, spec.shape) for spec in version.inputs],
            [(spec.name, spec.datatype) for spec in version.outputs],
        )
    first = next(iter(seen), "")
    for name, contract in seen.items():
        if contract != seen[first]:
            raise FailedPrecondition(
                f"versions {first!r} and {name!r} of model {document.model!r} differ in inputs or outputs: "
                "one route cannot offer both to the same clients"
            )


def _named(model: str) -> str:
    if not model:
        raise InvalidArgument("model is empty: name the model")
    return model


def _change(change: pb.Change) -> Change:
    return Change(
        actor=change.actor,
        reason=change.reason,
        source=change.source or "api",
        idempotency_key=change.idempotency_key,
    )


def _expected(request: pb.ApplyRequest | pb.DeleteRouteRequest) -> int | None:
    return request.expected_revision if request.HasField("expected_revision") else None


def _wait_s(wait: pb.WaitFor) -> float | None:
    if not wait.applied:
        return None
    if wait.timeout_ms < 0:
        raise InvalidArgument(f"wait.timeout_ms is {wait.timeout_ms}, it must not be negative")
    return wait.timeout_ms / 1000 if wait.timeout_ms else WAIT_DEFAULT_S


def _route(route: Route) -> pb.Route:
    return pb.Route(
        model=route.model,
        revision=route.revision,
        document_json=route.document.to_json(),
        table=[pb.Interval(start=part.start, end=part.end, arm=part.arm) for part in route.table.intervals],
        digest=route.digest,
        committed_at_us=route.committed_at_us,
    )


def _change_response(result: ChangeResult) -> pb.ChangeResponse:
    laggards = [
        f"{worker}: {result.applied.errors[worker]}" if worker in result.applied.errors else worker
        for worker in result.applied.laggards
    ]
    return pb.ChangeResponse(
        model=result.model,
        revision=result.revision,
        previous_revision=result.previous_revision,
        epoch=result.epoch,
        commit_us=result.commit_us,
        applied_us=result.applied_us,
        applied_by=result.applied.workers,
        laggards=laggards,
        unchanged=result.unchanged,
        restored_revision=result.restored_revision,
    )


def _entry(revision: Revision) -> pb.HistoryEntry:
    entry = revision.entry
    return pb.HistoryEntry(
        revision=entry.revision,
        previous_revision=entry.previous_revision,
        operation=entry.operation,
        actor=entry.actor,
        reason=entry.reason,
        source=entry.source,
        committed_at_us=entry.committed_at_us,
        digest=entry.digest,
        document_json=revision.route.document.to_json() if revision.route is not None else "",
    )


def _log_row(row: Row) -> pb.LogRow:
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
    )
