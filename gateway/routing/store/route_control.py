"""The operations of operators, on one worker or many: apply, roll back, delete, look up, wait, heal."""

from dataclasses import replace
from time import monotonic_ns, time

from gateway.errors import StaleRevision, UnknownRoute
from gateway.routing.decision.flow import flows
from gateway.routing.decision.snapshot import Route, propose
from gateway.routing.document.caution import cautions
from gateway.routing.document.document import RouteDocument
from gateway.routing.document.route_status import RouteStatus
from gateway.routing.store.amendment import Amendment
from gateway.routing.store.change import Change, Committed, Operation, Proposal
from gateway.routing.store.change_result import ApplyResult, ChangeResult
from gateway.routing.store.committer import ATTEMPTS, WAIT_LIMIT_S, Committer, contended
from gateway.routing.store.healing import Healed, heal, plan_healing
from gateway.routing.store.redis_store import RedisStore
from gateway.routing.store.route_inquiry import RouteInquiry, RouteSite
from gateway.routing.store.step_back import Steps

WAIT_DEFAULT_S = 10.0


class RouteControl(RouteInquiry):
    """The operations of one environment, over the store and what the answering worker serves by.

    Raises: StoreUnavailable from every change while the store is away; reads of routes answer from the snapshot then.
    """

    def __init__(self, store: RedisStore, site: RouteSite) -> None:
        super().__init__(store, site)
        self._committer = Committer(store, site)
        self._steps = Steps(self, self._committer)

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
        status: RouteStatus | None = None,
    ) -> ApplyResult:
        """The committed document; with `wait_s` once every live worker follows it, or that time has passed.

        Without an expected revision the newest apply wins. A dry run checks and computes all the same, and commits
        nothing. `operation` is the history's word for it; `check` False takes a document that could not serve.
        Without a `status` the rollout of the active route goes on, if it is the document's too (see `kept_status`).
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
            current, active = await self._committer.current(model)
            if expected_revision is not None and expected_revision != current.revision:
                raise StaleRevision(model, expected_revision, current.revision)
            route = propose(document, active, status)
            same = active is not None and (active.spec, active.status) == (route.spec, route.status)
            result = ChangeResult(
                model,
                current.revision,
                current.revision,
                current.epoch,
                unchanged=same,
                cautions=cautions(document, time()),
            )
            if active is not None and same:
                return ApplyResult(
                    await self._committer.waited(result, started_ns, None if dry_run else wait_s), active
                )
            moves = flows(active, route, self._site.newest_version(model))
            if dry_run:
                return ApplyResult(replace(result, flows=moves), route)
            proposal = Proposal(model, operation, route, current.revision, current.epoch, change)
            committed = await self._committer.attempt(proposal, again=expected_revision is None)
            if committed is not None:
                made = _as_committed(route, committed)
                done = await self._committer.done(committed, started_ns, wait_s, moves)
                return ApplyResult(replace(done, cautions=result.cautions), made)
        raise contended(model)

    async def repeat(
        self, model: str, operation: Operation, change: Change, *, wait_s: float | None
    ) -> ApplyResult | None:
        """Returns what the change's idempotency key stands for already; None if for nothing.

        Raises: InvalidArgument if it was used for something else.
        """
        started_ns = monotonic_ns()
        first = await self._committer.repeated(model, operation, change)
        if first is None:
            return None
        return ApplyResult(await self._committer.done(first, started_ns, wait_s), await self.get(model, first.revision))

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
        """A new revision with the document and the table of an earlier one: see `step_back`."""
        return await self._steps.rollback(
            model,
            change=change,
            to_revision=to_revision,
            expected_revision=expected_revision,
            wait_s=wait_s,
            dry_run=dry_run,
        )

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
        first = await self._committer.repeated(model, "delete", change)
        if first is not None:
            return await self._committer.done(first, started_ns, wait_s)
        for _ in range(ATTEMPTS):
            current, active = await self._committer.current(model)
            if expected_revision is not None and expected_revision != current.revision:
                raise StaleRevision(model, expected_revision, current.revision)
            if not current.text:
                raise UnknownRoute(model)
            moves = flows(active, None, self._site.newest_version(model))
            if dry_run:
                return ChangeResult(model, current.revision, current.revision, current.epoch, flows=moves)
            proposal = Proposal(model, "delete", None, current.revision, current.epoch, change)
            committed = await self._committer.attempt(proposal, again=expected_revision is None)
            if committed is not None:
                return await self._committer.done(committed, started_ns, wait_s, moves)
        raise contended(model)

    async def step(
        self, model: str, amendment: Amendment, left: int | None, change: Change, *, wait_s: float | None
    ) -> ApplyResult | int:
        """Returns what somebody else made of a relative amendment just before, or the revision that it is to leave.

        Raises: UnknownRoute; StaleRevision if another change came between.
        """
        return await self._steps.step(model, amendment, left, change, wait_s=wait_s)

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


def _as_committed(route: Route, committed: Committed) -> Route:
    return replace(
        route,
        revision=committed.revision,
        previous_revision=committed.previous_revision,
        committed_at_us=committed.committed_at_us,
    )
