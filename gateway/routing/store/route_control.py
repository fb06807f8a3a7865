"""What an operator asks for, on one worker or many: apply, roll back, delete, look up, wait, heal."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from time import monotonic_ns

from gateway.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    StaleRevision,
    StoreUnavailable,
    Unavailable,
    UnknownRoute,
)
from gateway.routing.decision.flow import flows, moved
from gateway.routing.decision.snapshot import Route, Snapshot, propose
from gateway.routing.document.document import RouteDocument
from gateway.routing.store.change import Change, ChangeEntry, Committed, Operation, Proposal, Replicas, StoreReplaced
from gateway.routing.store.healing import Healed, heal, heal_once
from gateway.routing.store.history import Revision, readable, route_of, step_before
from gateway.routing.store.redis_store import RedisStore
from gateway.routing.store.store_reply import Applied, Current, loss
from gateway.routing.store.worker_status import WorkerStatus

ATTEMPTS = 64
HISTORY_DEFAULT = 20
HISTORY_LIMIT = 200
WAIT_DEFAULT_S = 10.0
WAIT_LIMIT_S = 600.0


@dataclass(frozen=True, slots=True)
class ChangeResult:
    """What a change came to.

    `applied` is empty if it was not waited for, `applied_us` 0. `unchanged`: the document was active already and
    nothing was committed.
    """

    model: str
    revision: int
    previous_revision: int
    epoch: str
    commit_us: int = 0
    applied_us: int = 0
    applied: Applied = field(default_factory=Applied)
    unchanged: bool = False
    restored_revision: int = 0
    replicas: Replicas = field(default_factory=Replicas)


@dataclass(frozen=True, slots=True)
class ApplyResult:
    """A change with the route that it made. Units: `moved_buckets` of 1 000 000 answer from another arm than before."""

    change: ChangeResult
    route: Route
    moved_buckets: int


@dataclass(frozen=True, slots=True)
class RouteList:
    """Every active route; `stale` if the store was away and these are the ones this worker serves by."""

    routes: tuple[Route, ...]
    epoch: str
    revision: int
    stale: bool


class RouteControl:
    """The operations of one environment, over the store and what the answering worker serves by.

    `check(document)` refuses what could not serve (a version that is not ready), before anything is committed.
    Raises: StoreUnavailable from every change while the store is away; reads of routes answer from the snapshot then.
    """

    def __init__(
        self,
        store: RedisStore,
        snapshot: Callable[[], Snapshot],
        check: Callable[[RouteDocument], Awaitable[None]],
    ) -> None:
        self._store = store
        self._snapshot = snapshot
        self._check = check

    @property
    def store(self) -> RedisStore:
        """What is operated on."""
        return self._store

    async def apply(
        self,
        document: RouteDocument,
        *,
        change: Change,
        expected_revision: int | None = None,
        wait_s: float | None = None,
        dry_run: bool = False,
        operation: Operation = "apply",
        check: bool = True,
    ) -> ApplyResult:
        """The committed document; with `wait_s` once every live worker follows it, or that time has passed.

        Without an expected revision the newest apply wins. A dry run checks and computes all the same, and commits
        nothing. `operation` is the history's word for it; `check` False takes a document that could not serve.
        Raises: StaleRevision; what `check` raises; FailedPrecondition (the store lost what is served, see `heal`).
        """
        started_ns = monotonic_ns()
        model = document.model
        first = await self.repeat(model, operation, change, wait_s=wait_s)
        if first is not None:
            return first
        if check:
            await self._check(document)
        for _ in range(ATTEMPTS):
            current, active = await self._current(model)
            if expected_revision is not None and expected_revision != current.revision:
                raise StaleRevision(model, expected_revision, current.revision)
            same = active is not None and active.document == document
            result = ChangeResult(model, current.revision, current.revision, current.epoch, unchanged=same)
            if active is not None and same:
                return ApplyResult(await self._waited(result, started_ns, None if dry_run else wait_s), active, 0)
            route = propose(document, active)
            moves = moved(flows(active, route))
            if dry_run:
                return ApplyResult(result, route, moves)
            proposal = Proposal(model, operation, route, current.revision, current.epoch, change)
            committed = await self._attempt(proposal, again=expected_revision is None)
            if committed is not None:
                made = _as_committed(route, committed)
                return ApplyResult(await self._done(committed, started_ns, wait_s), made, moves)
        raise _contended(model)

    async def repeat(
        self, model: str, operation: Operation, change: Change, *, wait_s: float | None
    ) -> ApplyResult | None:
        """What the change's idempotency key stands for already; None if for nothing.

        Raises: InvalidArgument if it was used for something else.
        """
        started_ns = monotonic_ns()
        first = await self._repeated(model, operation, change)
        if first is None:
            return None
        return ApplyResult(await self._done(first, started_ns, wait_s), await self.get(model, first.revision), 0)

    async def rollback(
        self, model: str, *, change: Change, to_revision: int = 0, wait_s: float | None = WAIT_DEFAULT_S
    ) -> ChangeResult:
        """A new revision with the document and the table of an earlier one: see the module for which.

        A revision that is asked for by number wins over every concurrent change.
        Raises: FailedPrecondition (nothing to roll back to; the target deleted the route; a version of it is not
                ready); NotFound (no such revision of this model).
        """
        started_ns = monotonic_ns()
        first = await self._repeated(model, "rollback", change)
        if first is not None:
            return await self._done(first, started_ns, wait_s)
        for _ in range(ATTEMPTS):
            current, active = await self._current(model)
            target = await self._target(model, to_revision)
            old = route_of(target)
            await self._check(old.document)
            if active is not None and (active.document, active.table) == (old.document, old.table):
                result = ChangeResult(model, current.revision, current.revision, current.epoch, unchanged=True)
                return await self._waited(replace(result, restored_revision=target.origin), started_ns, wait_s)
            expected = None if to_revision else current.revision
            proposal = Proposal(model, "rollback", old, expected, current.epoch, change, target.origin)
            committed = await self._attempt(proposal, again=True)
            if committed is not None:
                return await self._done(committed, started_ns, wait_s)
        raise _contended(model)

    async def delete(
        self, model: str, *, change: Change, expected_revision: int | None = None, wait_s: float | None = None
    ) -> ChangeResult:
        """The model without a route: its newest ready version answers from now on. A rollback brings the route back.

        Raises: UnknownRoute; StaleRevision.
        """
        started_ns = monotonic_ns()
        first = await self._repeated(model, "delete", change)
        if first is not None:
            return await self._done(first, started_ns, wait_s)
        for _ in range(ATTEMPTS):
            current, _active = await self._current(model)
            if expected_revision is not None and expected_revision != current.revision:
                raise StaleRevision(model, expected_revision, current.revision)
            if not current.text:
                raise UnknownRoute(model)
            proposal = Proposal(model, "delete", None, current.revision, current.epoch, change)
            committed = await self._attempt(proposal, again=expected_revision is None)
            if committed is not None:
                return await self._done(committed, started_ns, wait_s)
        raise _contended(model)

    async def get(self, model: str, revision: int = 0) -> Route:
        """The active route, or the one that a revision committed.

        Raises: UnknownRoute; NotFound (no such revision); FailedPrecondition (that revision deleted the route).
        """
        if revision:
            return route_of(await self._entry(model, revision))
        try:
            current = await self._store.current(model)
            if current.text:
                return Route.from_json(current.text)
            raise UnknownRoute(model)
        except (StoreUnavailable, InvalidArgument):
            served = self._snapshot().routes.get(model)
            if served is None:
                raise
            return served.route

    async def list(self) -> RouteList:
        """Every active route by model name; a route that cannot be read is shown as it is served."""
        snapshot = self._snapshot()
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
        entry = await self._entry(model, revision)
        return Revision(entry, readable(entry.route_text))

    async def workers(self) -> tuple[Sequence[WorkerStatus], int]:
        """Every live worker, and the revision that they should be at."""
        return await self._store.workers(), (await self._store.state()).revision

    async def heal(self, *, change: Change, accept_store: bool = False, wait_s: float = 0.0) -> Healed:
        """A store that lost writes, healed by writing back what this worker serves or by declaring the store right,
        once every live worker follows it, or at the timeout: see `healing.heal`.

        Raises: FailedPrecondition (the store lost nothing; another worker knows more than this one).
        """
        wait_s = min(wait_s, WAIT_LIMIT_S)
        return await heal(self._store, self._snapshot, change, accept_store=accept_store, wait_s=wait_s)

    async def _current(self, model: str) -> tuple[Current, Route | None]:
        """What a proposal builds on. An empty store gets the served rules back first: nobody else's are lost by it.

        Raises: FailedPrecondition if the store lost what is served and holds something else.
        """
        for _ in range(2):
            snapshot = self._snapshot()  # before the store is read: meanwhile this worker may follow a newer revision
            current = await self._store.current(model)
            lost = loss(snapshot.epoch, snapshot.revision, current.store)
            if not lost:
                return current, readable(current.text)
            if current.store.epoch:
                break
            why = Change(actor="gateway", reason="the store was empty", source="gateway")
            try:
                await heal_once(self._store, snapshot, await self._store.state(), why)
            except StoreReplaced:
                continue
        raise FailedPrecondition(f"the routing store is not what is served by: {lost}; heal it first")

    async def _attempt(self, proposal: Proposal, *, again: bool) -> Committed | None:
        """The commit, or None if the store had changed and it is worth reading it again."""
        try:
            return await self._store.commit(proposal)
        except StaleRevision:
            if not again:
                raise
        except StoreReplaced:
            pass
        return None

    async def _repeated(self, model: str, operation: Operation, change: Change) -> Committed | None:
        """What the change's idempotency key stands for already. Raises: InvalidArgument if that is something else."""
        if not change.idempotency_key:
            return None
        first = await self._store.remembered(change.idempotency_key)
        if first is not None and (first.model, first.operation) != (model, operation):
            raise InvalidArgument(
                f"change.idempotency_key: {change.idempotency_key!r} was used for {first.operation} of {first.model!r}"
            )
        return first

    async def _entry(self, model: str, revision: int) -> ChangeEntry:
        entry = await self._store.entry(model, revision)
        if entry is None:
            raise NotFound(f"model {model!r} has no revision {revision} in its history")
        return entry

    async def _target(self, model: str, to_revision: int) -> ChangeEntry:
        if to_revision:
            return await self._entry(model, to_revision)
        entries = await self._store.history(model, HISTORY_LIMIT)
        if not entries:
            raise UnknownRoute(model)
        target = step_before(entries)
        if target is None:
            raise FailedPrecondition(f"model {model!r} has nothing to roll back to before revision {entries[0].origin}")
        return target

    async def _done(self, committed: Committed, started_ns: int, wait_s: float | None) -> ChangeResult:
        result = ChangeResult(
            model=committed.model,
            revision=committed.revision,
            previous_revision=committed.previous_revision,
            epoch=committed.epoch,
            commit_us=(monotonic_ns() - started_ns) // 1000,
            restored_revision=committed.restored_revision,
            replicas=committed.replicas,
        )
        return await self._waited(result, started_ns, wait_s)

    async def _waited(self, result: ChangeResult, started_ns: int, wait_s: float | None) -> ChangeResult:
        """The result with who follows it. What was committed stays committed if the store goes away meanwhile."""
        if wait_s is None or not result.revision:
            return result
        try:
            applied = await self._store.wait_applied(result.revision, min(wait_s, WAIT_LIMIT_S), epoch=result.epoch)
        except StoreUnavailable as error:
            applied = Applied(laggards=("unknown",), errors={"unknown": str(error)})
        return replace(result, applied=applied, applied_us=(monotonic_ns() - started_ns) // 1000)


def _as_committed(route: Route, committed: Committed) -> Route:
    return replace(
        route,
        revision=committed.revision,
        previous_revision=committed.previous_revision,
        committed_at_us=committed.committed_at_us,
    )


def _by_model(routes: Iterable[Route]) -> tuple[Route, ...]:
    return tuple(sorted(routes, key=lambda route: route.model))


def _contended(model: str) -> Unavailable:
    return Unavailable(f"the route of model {model!r} changed {ATTEMPTS} times while this change was tried: try again")
