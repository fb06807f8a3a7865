"""Plans: what a document would do, and what revisions did: plan, diff, show a revision."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from gateway.api.readiness import unready
from gateway.api.route_messages import (
    flow_messages,
    fractions_of,
    named,
    read_document,
    revision_message,
    route_message,
)
from gateway.errors import FailedPrecondition, InvalidArgument
from gateway.pb import control_pb2 as pb
from gateway.routing.decision.flow import moved, reversioned
from gateway.routing.document.difference import Difference
from gateway.routing.document.document import RouteDocument
from gateway.routing.store.route_control import RouteControl
from gateway.routing.store.route_plan import compare, plan
from gateway.serving.catalog import Catalog
from gateway.serving.registry import VersionStatus
from gateway.serving.route_versions import check_versions


class Fleet(Protocol):
    """Asks the workers of this host."""

    async def versions(self, model: str) -> Mapping[str, Sequence[VersionStatus]]:
        """Returns what each worker that answered says of the model's versions (of all models, if ""), by worker id."""


class Plans:
    """Serves Plan, Diff and ShowRevision."""

    def __init__(self, control: RouteControl, catalog: Catalog, fleet: Fleet) -> None:
        self._control = control
        self._catalog = catalog
        self._fleet = fleet

    async def plan(self, request: pb.PlanRequest, context: object) -> pb.PlanResponse:
        document = read_document(request.document_json)
        planned = await plan(self._control, document)
        elsewhere = await self._fleet.versions(document.model)
        return pb.PlanResponse(
            model=document.model,
            base_revision=planned.base_revision,
            unchanged=planned.unchanged,
            differences=_difference_messages(planned.differences),
            flows=flow_messages(planned.flows),
            moved_buckets=moved(planned.flows),
            version_buckets=reversioned(planned.flows),
            versions=unready(self._catalog, document, elsewhere),
            obstacles=self._obstacles(document),
            laggards=planned.laggards,
            workers=planned.workers,
            warnings=[*fractions_of(request.document_json), *planned.cautions],
        )

    async def show_revision(self, request: pb.ShowRevisionRequest, context: object) -> pb.ShowRevisionResponse:
        if request.revision <= 0:
            raise InvalidArgument(f"revision is {request.revision}, it must be greater than 0")
        revision = await self._control.revision(named(request.model), request.revision)
        route = route_message(revision.route) if revision.route is not None else None
        return pb.ShowRevisionResponse(entry=revision_message(revision), route=route)

    async def diff(self, request: pb.DiffRequest, context: object) -> pb.DiffResponse:
        if request.from_revision <= 0:
            raise InvalidArgument(f"from_revision is {request.from_revision}, it must be greater than 0")
        if request.to_revision < 0:
            raise InvalidArgument(f"to_revision is {request.to_revision}, it must not be negative")
        comparison = await compare(self._control, named(request.model), request.from_revision, request.to_revision)
        return pb.DiffResponse(
            from_revision=comparison.before.entry.revision,
            to_revision=comparison.after.entry.revision,
            differences=_difference_messages(comparison.differences),
            flows=flow_messages(comparison.flows),
            moved_buckets=moved(comparison.flows),
            version_buckets=reversioned(comparison.flows),
        )

    def _obstacles(self, document: RouteDocument) -> list[str]:
        try:
            check_versions(self._catalog, document)
        except FailedPrecondition as error:
            return [str(error)]
        return []


def _difference_messages(differences: Iterable[Difference]) -> list[pb.Difference]:
    return [pb.Difference(path=one.path, before_json=one.before, after_json=one.after) for one in differences]
