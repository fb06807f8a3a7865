"""The reads of operators: routes, their changes, workers; routes are the snapshot's while the store is away."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.errors import InvalidArgument, NotFound, StoreUnavailable, UnknownRoute
from gateway.routing.decision.snapshot import Route, Snapshot
from gateway.routing.document.document import RouteDocument
from gateway.routing.store.change import ChangeEntry
from gateway.routing.store.history import Revision, readable, route_of
from gateway.routing.store.redis_store import RedisStore
from gateway.routing.store.store_reply import loss
from gateway.routing.store.worker_status import WorkerStatus

HISTORY_DEFAULT = 20
HISTORY_LIMIT = 200


@dataclass(frozen=True, slots=True)
class RouteList:
    """Every active route; `stale` if the store was away and these are the ones this worker serves by."""

    routes: tuple[Route, ...]
    epoch: str
    revision: int
    stale: bool


class RouteSite(Protocol):
    """The answering worker, as far as it concerns changes of routes."""

    @property
    def snapshot(self) -> Snapshot:
        """Returns what it serves by."""

    async def check(self, document: RouteDocument) -> None:
        """Refuses what could not serve (a version that is not ready), before anything is committed.

        Raises: GatewayError.
        """

    def newest_version(self, model: str) -> str:
        """The version that answers for a model without a route; "" if none does."""


class RouteInquiry:
    """Reads over the store and what the answering worker serves by.

    Raises: StoreUnavailable while the store is away, but for routes, which then answer from the snapshot.
    """

    def __init__(self, store: RedisStore, site: RouteSite) -> None:
        self._store = store
        self._site = site

    @property
    def site(self) -> RouteSite:
        """The worker that answers."""
        return self._site

    @property
    def store(self) -> RedisStore:
        """Returns what is operated on."""
        return self._store

    async def get(self, model: str, revision: int = 0) -> Route:
        """The active route, or the one that a revision committed.

        Raises: UnknownRoute; NotFound (no such revision); FailedPrecondition (that revision deleted the route).
        """
        if revision:
            return route_of(await self.entry(model, revision))
        try:
            current = await self._store.current(model)
            if current.text:
                return Route.from_json(current.text)
            raise UnknownRoute(model)
        except (StoreUnavailable, InvalidArgument):
            served = self._site.snapshot.routes.get(model)
            if served is None:
                raise
            return served.route

    async def list(self) -> RouteList:
        """Every active route by model name; a route that cannot be read is shown as it is served."""
        snapshot = self._site.snapshot
        served = {model: compiled.route for model, compiled in snapshot.routes.items()}
        try:
            store = await self._store.state()
        except StoreUnavailable:
            return RouteList(_by_model(served.values()), snapshot.epoch, snapshot.revision, stale=True)
        if loss(snapshot.epoch, snapshot.revision, store):
            return RouteList(_by_model(served.values()), snapshot.epoch, snapshot.revision, stale=True)
        routes = [readable(text) or served.get(model) for model, text in store.texts.items()]
        return RouteList(_by_model(r for r in routes if r is not None), store.epoch, store.revision, stale=False)

    async def history(self, model: str, limit: int = 0) -> Sequence[Revision]:
        """The model's changes, newest first; 20 unless told. Raises: UnknownRoute if there are none."""
        if not 0 <= limit <= HISTORY_LIMIT:
            raise InvalidArgument(f"limit: {limit} is not 1 to {HISTORY_LIMIT} (0: {HISTORY_DEFAULT})")
        entries = await self._store.history(model, limit or HISTORY_DEFAULT)
        if not entries:
            raise UnknownRoute(model)
        return [Revision(entry, readable(entry.route_text)) for entry in entries]

    async def revision(self, model: str, revision: int) -> Revision:
        """One change of the model. Raises: NotFound."""
        entry = await self.entry(model, revision)
        return Revision(entry, readable(entry.route_text))

    async def workers(self) -> tuple[Sequence[WorkerStatus], int]:
        """Every live worker, and the revision that they should be at."""
        return await self._store.workers(), (await self._store.state()).revision

    async def entry(self, model: str, revision: int) -> ChangeEntry:
        """The change that made a revision of the model. Raises: NotFound."""
        entry = await self._store.entry(model, revision)
        if entry is None:
            raise NotFound(f"model {model!r} has no revision {revision} in its history")
        return entry


def _by_model(routes: Iterable[Route]) -> tuple[Route, ...]:
    return tuple(sorted(routes, key=lambda route: route.model))
