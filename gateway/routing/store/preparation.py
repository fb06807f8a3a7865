"""Routes on their way into force: each waits until its versions are loaded, and no model waits for another."""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from typing import Protocol

from gateway.errors import GatewayError
from gateway.routing.decision.snapshot import CompiledRoute, Route
from gateway.routing.store.worker_status import Unapplied

log = logging.getLogger(__name__)

REVISIONS_KEPT = 256


class RouteLoader(Protocol):
    """Loads the versions of routes."""

    async def prepare(self, route: Route) -> None:
        """Loads and warms what the route names. It is cancelled when a newer revision of the model arrives.

        Raises: GatewayError where the route cannot come into force.
        """

    def prepare_at_once(self, route: Route) -> bool:
        """Returns whether there is nothing to load; then all that `prepare` would do has been done."""


class RouteTarget(Protocol):
    """Takes prepared routes."""

    def install(self, compiled: CompiledRoute) -> None:
        """Brings the route into force."""

    def preparation_failed(self) -> None:
        """Learns that `unapplied` has an error more."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    """`compiled` is None where the change was poison: only its error is to be reported."""

    revisions: tuple[int, ...]
    compiled: CompiledRoute | None
    error: str = ""


class Preparations:
    """At most one route per model that is seen and not in force, with a task that prepares it.

    Order: a newer revision of a model cancels the preparation of the older one, so a rollback never waits for the load
           that it undoes; revisions of one model come into force in their order, of different models in any.
    """

    def __init__(self, loader: RouteLoader, target: RouteTarget) -> None:
        self._loader = loader
        self._target = target
        self._waiting: dict[str, _Waiting] = {}
        self._lanes: dict[str, asyncio.Task[None]] = {}
        self._group: asyncio.TaskGroup | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._open: set[int] = set()
        self._oldest: list[int] = []  # a heap of these and of revisions that are in force since

    def oldest(self) -> int | None:
        """The oldest revision that is not in force."""
        while self._oldest and self._oldest[0] not in self._open:
            heappop(self._oldest)
        return self._oldest[0] if self._oldest else None

    def waits(self, model: str) -> bool:
        return model in self._waiting

    @property
    def unapplied(self) -> Mapping[str, Unapplied]:
        return {model: Unapplied(waiting.revisions, waiting.error) for model, waiting in self._waiting.items()}

    def start(self, group: asyncio.TaskGroup) -> None:
        """From now on routes are prepared, by tasks of this group."""
        self._group = group
        for model in self._waiting:
            self._open_lane(model)

    def put(self, compiled: CompiledRoute) -> None:
        """The route comes into force once it is prepared; what waited for this model is superseded."""
        route = compiled.route
        self._supersede(route.model, _Waiting((route.revision,), compiled))
        self._open_lane(route.model)

    def put_at_once(self, compiled: CompiledRoute) -> None:
        """The same, but a route that needs no preparation is in force when this returns."""
        if self._group is not None and self._needs_nothing(compiled.route):
            self.drop(compiled.route.model)
            self._target.install(compiled)
        else:
            self.put(compiled)

    def _needs_nothing(self, route: Route) -> bool:
        try:
            return self._loader.prepare_at_once(route)
        except Exception:
            # As below: not the worker's end. The preparation meets the same fault, and tells it.
            return False

    def refuse(self, model: str, revision: int, error: str) -> None:
        """Reports a revision that cannot come into force, until a newer one of its model does."""
        self._supersede(model, _Waiting((revision,), None, error))

    def drop(self, model: str) -> None:
        """Forgets what waits for the model: its route was deleted, or is in force."""
        waiting = self._waiting.pop(model, None)
        if waiting is not None:
            self._open.difference_update(waiting.revisions)
        self._close_lane(model)
        self._note_rest()

    def retry(self) -> None:
        """Prepares again what failed: versions have changed since."""
        for model, waiting in self._waiting.items():
            if waiting.error and waiting.compiled is not None:
                self._open_lane(model)
        self._note_rest()

    async def prepared(self) -> None:
        """Returns once nothing is being prepared: every route is in force or has failed."""
        await self._idle.wait()

    def _supersede(self, model: str, waiting: _Waiting) -> None:
        earlier = self._waiting.get(model)
        known = earlier.revisions if earlier else ()
        revisions = tuple(sorted({*known, *waiting.revisions}))[-REVISIONS_KEPT:]
        self._open.difference_update(known)
        self._open.update(revisions)
        for revision in waiting.revisions:
            heappush(self._oldest, revision)
        self._close_lane(model)
        self._waiting[model] = replace(waiting, revisions=revisions)
        self._note_rest()

    def _open_lane(self, model: str) -> None:
        waiting = self._waiting[model]
        if self._group is None or model in self._lanes or waiting.compiled is None:
            return
        self._lanes[model] = self._group.create_task(self._bring_into_force(waiting, waiting.compiled))

    def _close_lane(self, model: str) -> None:
        lane = self._lanes.pop(model, None)
        if lane is not None:
            lane.cancel()

    def _note_rest(self) -> None:
        if self._lanes or any(waiting.compiled and not waiting.error for waiting in self._waiting.values()):
            self._idle.clear()
        else:
            self._idle.set()

    async def _bring_into_force(self, waiting: _Waiting, compiled: CompiledRoute) -> None:
        route = compiled.route
        try:
            await self._loader.prepare(route)
        except GatewayError as error:
            failure = str(error)
        except Exception:
            # The task supervisor's place: one route must not take down every worker of every host, again at each start.
            log.exception("preparing a route failed", extra={"model": route.model, "revision": route.revision})
            failure = "internal error while preparing, see the worker's log"
        else:
            failure = ""
        if self._waiting.get(route.model) is not waiting:
            return  # superseded, and cancelled too late to notice
        self._lanes.pop(route.model, None)
        if failure:
            self._waiting[route.model] = replace(waiting, error=failure)
            self._target.preparation_failed()
        else:
            self.drop(route.model)
            self._target.install(compiled)
        self._note_rest()
