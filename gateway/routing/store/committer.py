"""Commits: read what is there, commit on top of it, tell where somebody was faster, wait for the workers."""

from dataclasses import replace
from time import monotonic_ns

from gateway.errors import FailedPrecondition, InvalidArgument, StaleRevision, StoreUnavailable, Unavailable
from gateway.routing.decision.flow import Flow
from gateway.routing.decision.snapshot import Route
from gateway.routing.store.change import Change, Committed, Operation, Proposal, StoreReplaced
from gateway.routing.store.change_result import ChangeResult
from gateway.routing.store.history import readable
from gateway.routing.store.redis_store import RedisStore
from gateway.routing.store.route_inquiry import RouteSite
from gateway.routing.store.store_reply import Applied, Current, loss

ATTEMPTS = 64
WAIT_LIMIT_S = 600.0


class Committer:
    """Makes one change after another over a store, for the answering worker."""

    def __init__(self, store: RedisStore, site: RouteSite) -> None:
        self._store = store
        self._site = site

    async def current(self, model: str) -> tuple[Current, Route | None]:
        """Returns what a proposal builds on.

        Raises: FailedPrecondition if the store lost what is served: nobody knows what else it lost.
        """
        snapshot = self._site.snapshot  # before the store is read: meanwhile this worker may follow a newer revision
        current = await self._store.current(model)
        lost = loss(snapshot.epoch, snapshot.revision, current.store)
        if lost:
            raise FailedPrecondition(f"the routing store is not what is served by: {lost}; heal it first: gateway heal")
        return current, readable(current.text)

    async def attempt(self, proposal: Proposal, *, again: bool) -> Committed | None:
        """The commit, or None if the store had changed and it is worth reading it again."""
        try:
            return await self._store.commit(proposal)
        except StaleRevision:
            if not again:
                raise
        except StoreReplaced:
            pass
        return None

    async def repeated(self, model: str, operation: Operation, change: Change) -> Committed | None:
        """Returns what the idempotency key stands for already. Raises: InvalidArgument if that is something else."""
        if not change.idempotency_key:
            return None
        first = await self._store.remembered(change.remembered_as)
        if first is not None and (first.model, first.operation) != (model, operation):
            raise InvalidArgument(
                f"change.idempotency_key: {change.idempotency_key!r} was used for {first.operation} of {first.model!r}"
            )
        return first

    async def done(
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
        return await self.waited(result, started_ns, wait_s)

    async def waited(self, result: ChangeResult, started_ns: int, wait_s: float | None) -> ChangeResult:
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


def contended(model: str) -> Unavailable:
    return Unavailable(f"the route of model {model!r} changed {ATTEMPTS} times while this change was tried: try again")
