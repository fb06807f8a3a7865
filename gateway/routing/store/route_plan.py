"""The plan of a document, before anybody is touched, and the difference of two revisions."""

from dataclasses import dataclass
from time import time

from gateway.errors import UnknownRoute
from gateway.routing.decision.flow import Flow, flows
from gateway.routing.decision.snapshot import Route, propose
from gateway.routing.document.caution import cautions
from gateway.routing.document.difference import Difference, differences
from gateway.routing.document.document import RouteDocument
from gateway.routing.store.history import Revision
from gateway.routing.store.route_control import RouteControl
from gateway.routing.store.worker_status import FeedState, WorkerStatus


@dataclass(frozen=True, slots=True)
class RoutePlan:
    """Holds what a commit of `route` would change of revision `base_revision` (0: the model has no route).

    `laggards` are live workers that would not follow at once, each with why.
    """

    route: Route
    base_revision: int
    unchanged: bool
    differences: tuple[Difference, ...]
    flows: tuple[Flow, ...]
    laggards: tuple[str, ...]
    workers: int
    cautions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RouteComparison:
    """Two revisions of a model; no flows if one of them deleted the route."""

    before: Revision
    after: Revision
    differences: tuple[Difference, ...]
    flows: tuple[Flow, ...]


async def plan(control: RouteControl, document: RouteDocument) -> RoutePlan:
    """Returns what applying the document would come to. Nothing is committed or loaded.

    Raises: StoreUnavailable (who follows cannot be told then).
    """
    try:
        active: Route | None = await control.get(document.model)
    except UnknownRoute:
        active = None
    workers, revision = await control.workers()
    route = propose(document, active)
    same = active is not None and (active.spec, active.status) == (route.spec, route.status)
    return RoutePlan(
        route,
        active.revision if active is not None else 0,
        same,
        differences(active.spec if active is not None else None, document),
        flows(active, route, control.site.newest_version(document.model)),
        tuple(why for worker in workers if (why := _lag(worker, revision))),
        len(workers),
        cautions(document, time()),
    )


async def compare(control: RouteControl, model: str, before: int, after: int = 0) -> RouteComparison:
    """Returns how revision `after` (0: the newest) differs from `before`.

    Raises: NotFound (no such revision of this model); UnknownRoute.
    """
    old = await control.revision(model, before)
    new = await control.revision(model, after) if after else (await control.history(model, 1))[0]
    moves = flows(old.route, new.route) if old.route is not None and new.route is not None else ()
    return RouteComparison(
        old,
        new,
        differences(
            old.route.document if old.route is not None else None, new.route.document if new.route is not None else None
        ),
        moves,
    )


def _lag(worker: WorkerStatus, revision: int) -> str:
    """Returns why the worker would not follow at once; "" if it would."""
    if worker.state != FeedState.LIVE.value:
        return f"{worker.id}: {worker.state}" + (f" ({worker.all_errors()})" if worker.all_errors() else "")
    if worker.revision < revision:
        return f"{worker.id}: at revision {worker.revision} of {revision}" + (
            f" ({worker.all_errors()})" if worker.all_errors() else ""
        )
    return ""
