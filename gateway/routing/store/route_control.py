"""What an operator asks for, on one worker or many: apply, roll back, delete, look up, wait, heal."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from time import monotonic_ns, time
from typing import Protocol

from gateway.errors import (
    FailedPrecondition,
    GatewayError,
    InvalidArgument,
    NotFound,
    StaleRevision,
    StoreUnavailable,
    Unavailable,
    UnknownRoute,
)
from gateway.routing.decision.flow import Flow, flows, moved
from gateway.routing.decision.snapshot import Route, Snapshot, propose
from gateway.routing.document.caution import cautions
from gateway.routing.document.document import RouteDocument
from gateway.routing.store.amendment import Amendment
from gateway.routing.store.change import Change, ChangeEntry, Committed, Operation, Proposal, Replicas, StoreReplaced
from gateway.routing.store.healing import Healed, heal, plan_healing
from gateway.routing.store.history import Revision, readable, route_of, step_before
from gateway.routing.store.redis_store import RedisStore
from gateway.routing.store.relative import DoneAlready, unseen
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
    nothing was committed; `already` says by whom, where a relative verb lost against its like. `flows` tells who moves,
    unless the change is repeated or unchanged; `cautions` what of the document is seldom meant.
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
    flows: tuple[Flow, ...] = ()
    already: DoneAlready | None = None
    cautions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ApplyResult:
    """A change with the route that it made."""

    change: ChangeResult
    route: Route

    @property
    def moved_buckets(self) -> int:
        """How many of 1 000 000 answer from another arm than before; without a route before, from another version."""
        return moved(self.change.flows)


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
        """What it serves by."""

    async def check(self, document: RouteDocument) -> None:
        """Refuses what could not serve (a version that is not ready), before anything is committed.

        Raises: GatewayError.
        """

    def newest_version(self, model: str) -> str:
        """The version that answers for a model without a route; "" if none does."""


class RouteControl:
    """The operations of one environment, over the store and what the answering worker serves by.

    Raises: StoreUnavailable from every change while the store is away; reads of routes answer from the snapshot then.
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
            await self._site.check(document)
        for _ in range(ATTEMPTS):
            current, active = await self._current(model)
            if expected_revision is not None and expected_revision != current.revision:
                raise StaleRevision(model, expected_revision, current.revision)
            same = active is not None and active.document == document
            result = ChangeResult(
                model,
                current.revision,
                current.revision,
                current.epoch,
                unchanged=same,
                cautions=cautions(document, time()),
            )
            if active is not None and same:
                return ApplyResult(await self._waited(result, started_ns, None if dry_run else wait_s), active)
            route = propose(document, active)
            moves = flows(active, route, self._site.newest_version(model))
            if dry_run:
                return ApplyResult(replace(result, flows=moves), route)
            proposal = Proposal(model, operation, route, current.revision, current.epoch, change)
            committed = await self._attempt(proposal, again=expected_revision is None)
            if committed is not None:
                made = _as_committed(route, committed)
                done = await self._done(committed, started_ns, wait_s, moves)
                return ApplyResult(replace(done, cautions=result.cautions), made)
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
        return ApplyResult(await self._done(first, started_ns, wait_s), await self.get(model, first.revision))

    async def rollback(
        self,
        model: str,
        *,
        change: Change,
        to_revision: int = 0,
        expected_revision: int | None = None,
        wait_s: float | None = WAIT_DEFAULT_S,
        dry_run: bool = False,
    ) -> ChangeResult:
        """A new revision with the document and the table of an earlier one: see `history` for which.

        It leaves the expected revision, or the one that is active when the call comes; see `relative` for what becomes
        of a second one at the same time.
        Raises: FailedPrecondition (nothing to roll back to; the target deleted the route; a version of it is not
                ready); NotFound (no such revision of this model); StaleRevision (another change came between).
        """
        started_ns = monotonic_ns()
        first = await self._repeated(model, "rollback", change)
        if first is not None:
            return await self._done(first, started_ns, wait_s)
        left = expected_revision
        for _ in range(ATTEMPTS):
            current, active = await self._current(model)
            if not to_revision:
                already = await self._rolled_back_already(model, current, left, change)
                if already is not None:
                    return await self._waited(already, started_ns, None if dry_run else wait_s)
                left = current.revision if left is None else left
            if left is not None and left != current.revision:
                raise StaleRevision(model, left, current.revision)
            target = await self._target(model, to_revision)
            old = route_of(target)
            await self._site.check(old.document)
            result = ChangeResult(
                model,
                current.revision,
                current.revision,
                current.epoch,
                restored_revision=target.origin,
                flows=flows(active, old, self._site.newest_version(model)),
                cautions=cautions(old.document, time()),
            )
            if active is not None and (active.document, active.table) == (old.document, old.table):
                result = replace(result, unchanged=True)
                return await self._waited(result, started_ns, None if dry_run else wait_s)
            if dry_run:
                return result
            proposal = Proposal(model, "rollback", old, current.revision, current.epoch, change, target.origin)
            committed = await self._attempt(proposal, again=True)
            if committed is not None:
                done = await self._done(committed, started_ns, wait_s, result.flows)
                return replace(done, cautions=result.cautions)
        raise _contended(model)

    async def delete(
        self,
        model: str,
        *,
        change: Change,
        expected_revision: int | None = None,
        wait_s: float | None = None,
        dry_run: bool = False,
    ) -> ChangeResult:
        """The model without a route: its newest ready version answers from now on. A rollback brings the route back.

        Raises: UnknownRoute; StaleRevision.
        """
        started_ns = monotonic_ns()
        first = await self._repeated(model, "delete", change)
        if first is not None:
            return await self._done(first, started_ns, wait_s)
        for _ in range(ATTEMPTS):
            current, active = await self._current(model)
            if expected_revision is not None and expected_revision != current.revision:
                raise StaleRevision(model, expected_revision, current.revision)
            if not current.text:
                raise UnknownRoute(model)
            moves = flows(active, None, self._site.newest_version(model))
            if dry_run:
                return ChangeResult(model, current.revision, current.revision, current.epoch, flows=moves)
            proposal = Proposal(model, "delete", None, current.revision, current.epoch, change)
            committed = await self._attempt(proposal, again=expected_revision is None)
            if committed is not None:
                return await self._done(committed, started_ns, wait_s, moves)
        raise _contended(model)

    async def step(
        self, model: str, amendment: Amendment, left: int | None, change: Change, *, wait_s: float | None
    ) -> ApplyResult | int:
        """What somebody else made of a relative amendment just before, or the revision that it is to leave.

        Raises: UnknownRoute; StaleRevision if another change came between.
        """
        started_ns = monotonic_ns()
        current = await self._store.current(model)
        entries = await self._store.history(model, 2)
        after = readable(entries[0].route_text) if entries else None
        if not current.text:
            raise UnknownRoute(model)
        if after is None:  # the history is lost: nobody can tell who did what
            return current.revision if left is None else left
        before = readable(entries[1].route_text) if len(entries) > 1 else None
        same = before is not None and _makes(amendment, before.document, after.document)
        already = await self._already(entries[0], left, change, same=same)
        if already is None:
            return current.revision if left is None else left
        result = ChangeResult(model, after.revision, after.revision, current.epoch, unchanged=True, already=already)
        return ApplyResult(await self._waited(result, started_ns, wait_s), after)

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
        entry = await self._entry(model, revision)
        return Revision(entry, readable(entry.route_text))

    async def workers(self) -> tuple[Sequence[WorkerStatus], int]:
        """Every live worker, and the revision that they should be at."""
        return await self._store.workers(), (await self._store.state()).revision

    async def heal(
        self,
        *,
        change: Change,
        accept_store: bool = False,
        wait_s: float = 0.0,
        expected_revision: int | None = None,
        dry_run: bool = False,
    ) -> Healed:
        """A store that lost writes or is damaged, healed by what this worker serves by or by declaring the store right,
        once every live worker follows it, or at the timeout: see `healing`.

        Raises: what `plan_healing` raises.
        """
        if dry_run:
            healing, examination = await plan_healing(
                self._store, self._site.snapshot, accept_store=accept_store, expected_revision=expected_revision
            )
            return Healed(healing.epoch, healing.revision, findings=examination.findings)
        return await heal(
            self._store,
            lambda: self._site.snapshot,
            change,
            accept_store=accept_store,
            wait_s=min(wait_s, WAIT_LIMIT_S),
            expected_revision=expected_revision,
        )

    async def _current(self, model: str) -> tuple[Current, Route | None]:
        """What a proposal builds on.

        Raises: FailedPrecondition if the store lost what is served: nobody knows what else it lost.
        """
        snapshot = self._site.snapshot  # before the store is read: meanwhile this worker may follow a newer revision
        current = await self._store.current(model)
        lost = loss(snapshot.epoch, snapshot.revision, current.store)
        if lost:
            raise FailedPrecondition(f"the routing store is not what is served by: {lost}; heal it first")
        return current, readable(current.text)

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

    async def _rolled_back_already(
        self, model: str, current: Current, left: int | None, change: Change
    ) -> ChangeResult | None:
        entries = await self._store.history(model, HISTORY_LIMIT)
        if not entries:
            raise UnknownRoute(model)
        newest = entries[0]
        target = step_before(entries[1:]) if len(entries) > 1 else None
        same = newest.operation == "rollback" and target is not None and target.origin == newest.origin
        already = await self._already(newest, left, change, same=same)
        if already is None:
            return None
        result = ChangeResult(model, newest.revision, newest.previous_revision, current.epoch, unchanged=True)
        return replace(result, restored_revision=newest.restored_revision, already=already)

    async def _already(
        self, newest: ChangeEntry, left: int | None, change: Change, *, same: bool
    ) -> DoneAlready | None:
        """The newest change as the answer to a relative verb; None if the verb is to be carried out.

        Raises: StaleRevision if the newest change is another one, which the caller has not seen.
        """
        age_ms = max(0, await self._store.now_us() - newest.committed_at_us) // 1000
        if not unseen(newest, left, age_ms=age_ms, given_ms_ago=change.given_ms_ago, same=same):
            return None
        if not same or (left is not None and newest.previous_revision != left):
            raise StaleRevision(newest.model, newest.previous_revision if left is None else left, newest.revision)
        return DoneAlready(newest, age_ms)

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

    async def _done(
        self, committed: Committed, started_ns: int, wait_s: float | None, moves: tuple[Flow, ...] = ()
    ) -> ChangeResult:
        result = ChangeResult(
            model=committed.model,
            revision=committed.revision,
            previous_revision=committed.previous_revision,
            epoch=committed.epoch,
            commit_us=(monotonic_ns() - started_ns) // 1000,
            restored_revision=committed.restored_revision,
            replicas=committed.replicas,
            flows=moves,
        )
        return await self._waited(result, started_ns, wait_s)

    async def _waited(self, result: ChangeResult, started_ns: int, wait_s: float | None) -> ChangeResult:
        """The result with who follows it. What was committed stays committed if the store goes away meanwhile."""
        if wait_s is None or not result.revision:
            return result
        try:
            applied = await self._store.wait_applied(
                result.revision, min(wait_s, WAIT_LIMIT_S), epoch=result.epoch, somebody=self._site.snapshot.epoch != ""
            )
        except StoreUnavailable as error:
            applied = Applied(laggards=("unknown",), errors={"unknown": str(error)})
        return replace(result, applied=applied, applied_us=(monotonic_ns() - started_ns) // 1000)


def _makes(amendment: Amendment, before: RouteDocument, after: RouteDocument) -> bool:
    try:
        return amendment.edit(before) == after
    except GatewayError:
        return False


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
