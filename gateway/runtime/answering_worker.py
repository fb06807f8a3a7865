"""This worker as the operations on routes see it: what it serves by, and what its host could serve."""

from typing import Final

from gateway.errors import FailedPrecondition, NotFound, Unavailable
from gateway.routing.decision.snapshot import Snapshot
from gateway.routing.document.document import RouteDocument
from gateway.routing.store.feed import Feed
from gateway.runtime.host import LOAD_LIMIT_S, HostFleet
from gateway.serving.catalog import Catalog
from gateway.serving.route_versions import check_versions

_LOADED_PATIENCE_S: Final = 0.25


class AnsweringWorker:
    """The `RouteSite` of a worker."""

    def __init__(self, catalog: Catalog, feed: Feed, fleet: HostFleet) -> None:
        self._catalog = catalog
        self._feed = feed
        self._fleet = fleet

    @property
    def snapshot(self) -> Snapshot:
        return self._feed.snapshot

    async def check(self, document: RouteDocument) -> None:
        """Refuses a route that could not serve; its versions are loaded in every worker before it is committed.

        What is loaded here is loaded elsewhere, as a rule: then a worker that hangs delays no rollback.
        """
        try:
            check_versions(self._catalog, document)
            patience_s = _LOADED_PATIENCE_S
        except FailedPrecondition:
            patience_s = LOAD_LIMIT_S
        await self._fleet.prepare(document, timeout_s=patience_s)
        check_versions(self._catalog, document)

    def newest_version(self, model: str) -> str:
        try:
            return self._catalog.newest(model).name
        except (NotFound, FailedPrecondition, Unavailable):
            return ""
