"""The operators' service: every method translates, asks routing, catalog or log, and translates back."""

import asyncio
import platform
from collections.abc import AsyncIterator
from pathlib import Path

import gateway
from gateway.api.amendments import Amendments
from gateway.api.drafts import Drafting
from gateway.api.drain import Drain
from gateway.api.explanations import Explanations
from gateway.api.feedback_intake import Desk, Feedback
from gateway.api.observations import Observations
from gateway.api.plans import Fleet, Plans
from gateway.api.readiness import check_versions, version_message
from gateway.api.route_messages import (
    apply_message,
    change_message,
    change_of,
    expected_revision,
    named,
    read_document,
    revision_message,
    route_message,
    row_message,
    wait_or_default,
    wait_seconds,
    worker_message,
)
from gateway.errors import InvalidArgument, Unavailable
from gateway.pb import control_pb2 as pb
from gateway.records.worker.tail import tail
from gateway.routing.store.editor import Editor
from gateway.routing.store.review import Review
from gateway.routing.store.route_control import Control
from gateway.serving.catalog import Catalog
from gateway.serving.session import ort_version

__all__ = ["ControlService", "Fleet", "check_versions"]

MAX_TAILS = 16
MAX_BACKLOG = 10_000


class ControlService(Amendments, Plans, Explanations, Observations, Drafting, Feedback):
    """`gateway.v1.Control` as one worker serves it: what is here, and what its parts serve."""

    def __init__(
        self,
        control: Control,
        catalog: Catalog,
        fleet: Fleet,
        *,
        desk: Desk,
        log_dir: Path,
        worker: str,
        transport: str,
    ) -> None:
        self._control = control
        self._editor = Editor(control)
        self._review = Review(control)
        self._catalog = catalog
        self._fleet = fleet
        self._desk = desk
        self._log_dir = log_dir
        self._worker = worker
        self._transport = transport
        self._tails = 0
        self._watchers = 0
        self._drain = Drain()
        self._searching = asyncio.Lock()

    def drain(self) -> None:
        """Streams that would go on for ever end now: their callers go on with another worker."""
        self._drain.begin()

    # ---- routes ----

    async def Apply(self, request: pb.ApplyRequest, context: object) -> pb.ApplyResponse:
        document = read_document(request.document_json)
        result = await self._control.apply(
            document,
            change=change_of(request.change),
            expected_revision=expected_revision(request),
            wait_s=wait_seconds(request.wait),
            dry_run=request.dry_run,
        )
        return apply_message(result)

    async def GetRoute(self, request: pb.GetRouteRequest, context: object) -> pb.Route:
        return route_message(await self._control.get(named(request.model), request.revision))

    async def ListRoutes(self, request: pb.ListRoutesRequest, context: object) -> pb.ListRoutesResponse:
        listed = await self._control.list()
        return pb.ListRoutesResponse(
            routes=[route_message(route) for route in listed.routes],
            epoch=listed.epoch,
            revision=listed.revision,
            stale=listed.stale,
        )

    async def DeleteRoute(self, request: pb.DeleteRouteRequest, context: object) -> pb.ChangeResponse:
        result = await self._control.delete(
            named(request.model),
            change=change_of(request.change),
            expected_revision=expected_revision(request),
            wait_s=wait_seconds(request.wait),
        )
        return change_message(result)

    async def History(self, request: pb.HistoryRequest, context: object) -> pb.HistoryResponse:
        revisions = await self._control.history(named(request.model), request.limit)
        return pb.HistoryResponse(entries=[revision_message(revision) for revision in revisions])

    async def Rollback(self, request: pb.RollbackRequest, context: object) -> pb.ChangeResponse:
        result = await self._control.rollback(
            named(request.model),
            change=change_of(request.change),
            to_revision=request.to_revision,
            wait_s=wait_or_default(request),
        )
        return change_message(result)

    async def Workers(self, request: pb.WorkersRequest, context: object) -> pb.WorkersResponse:
        workers, revision = await self._control.workers()
        return pb.WorkersResponse(
            revision=revision,
            workers=[worker_message(worker) for worker in workers],
        )

    # ---- models ----

    async def Models(self, request: pb.ModelsRequest, context: object) -> pb.ModelsResponse:
        own = self._catalog.states(request.model or None)
        elsewhere = await self._fleet.versions(request.model)
        return pb.ModelsResponse(versions=[version_message(self._catalog, status, elsewhere) for status in own])

    # ---- log ----

    async def TailLog(self, request: pb.TailLogRequest, context: object) -> AsyncIterator[pb.LogRow]:
        if not 0 <= request.backlog <= MAX_BACKLOG:
            raise InvalidArgument(f"backlog is {request.backlog}, allowed: 0 to {MAX_BACKLOG}")
        if self._tails >= MAX_TAILS:
            raise Unavailable(f"{self._tails} readers follow the log of this worker, the limit is {MAX_TAILS}")
        self._tails += 1
        try:
            rows = tail(self._log_dir, model=request.model or None, backlog=request.backlog, follow=request.follow)
            async for row in self._drain.through(rows):
                yield row_message(row)
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
