"""The active routes: read, committed, deleted, rolled back."""

from gateway.api.rollouts import Rollouts
from gateway.api.route_messages import (
    apply_message,
    change_message,
    change_of,
    expected_revision,
    fractions_of,
    named,
    read_document,
    revision_message,
    route_message,
    wait_or_default,
    wait_seconds,
)
from gateway.pb import control_pb2 as pb
from gateway.routing.store.route_control import RouteControl


class ActiveRoutes:
    """Serves Apply, GetRoute, ListRoutes, DeleteRoute, History and Rollback."""

    def __init__(self, control: RouteControl, rollouts: Rollouts) -> None:
        self._control = control
        self._rollouts = rollouts

    async def apply(self, request: pb.ApplyRequest, context: object) -> pb.ApplyResponse:
        document = read_document(request.document_json)
        await self._rollouts.admit(document, override=request.override)
        result = await self._control.apply(
            document,
            change=change_of(request.change, context),
            expected_revision=expected_revision(request),
            wait_s=wait_seconds(request.wait),
            dry_run=request.dry_run,
        )
        return apply_message(result, fractions_of(request.document_json))

    async def get(self, request: pb.GetRouteRequest, context: object) -> pb.Route:
        return route_message(await self._control.get(named(request.model), request.revision))

    async def list(self, request: pb.ListRoutesRequest, context: object) -> pb.ListRoutesResponse:
        listed = await self._control.list()
        return pb.ListRoutesResponse(
            routes=[route_message(route) for route in listed.routes],
            epoch=listed.epoch,
            revision=listed.revision,
            stale=listed.stale,
        )

    async def delete(self, request: pb.DeleteRouteRequest, context: object) -> pb.ChangeResponse:
        model = named(request.model)
        await self._rollouts.admit_deletion(model, override=request.override)
        result = await self._control.delete(
            model,
            change=change_of(request.change, context),
            expected_revision=expected_revision(request),
            wait_s=wait_seconds(request.wait),
            dry_run=request.dry_run,
        )
        return change_message(result)

    async def history(self, request: pb.HistoryRequest, context: object) -> pb.HistoryResponse:
        revisions = await self._control.history(named(request.model), request.limit)
        return pb.HistoryResponse(entries=[revision_message(revision) for revision in revisions])

    async def rollback(self, request: pb.RollbackRequest, context: object) -> pb.ChangeResponse:
        result = await self._control.rollback(
            named(request.model),
            change=change_of(request.change, context),
            to_revision=request.to_revision,
            expected_revision=expected_revision(request),
            wait_s=wait_or_default(request),
            dry_run=request.dry_run,
        )
        return change_message(result)
