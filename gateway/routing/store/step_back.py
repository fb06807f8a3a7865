"""Verbs that go one step from what is active: rollbacks, and what somebody else made of the same verb just before."""

from dataclasses import replace
from time import monotonic_ns, time

from gateway.errors import FailedPrecondition, GatewayError, StaleRevision, UnknownRoute
from gateway.routing.decision.flow import flows
from gateway.routing.document.caution import cautions
from gateway.routing.document.document import RouteDocument
from gateway.routing.store.amendment import Amendment
from gateway.routing.store.change import Change, ChangeEntry, Proposal
from gateway.routing.store.change_result import ApplyResult, ChangeResult
from gateway.routing.store.committer import ATTEMPTS, Committer, contended
from gateway.routing.store.history import readable, route_of, step_before
from gateway.routing.store.relative import DoneAlready, unseen
from gateway.routing.store.route_inquiry import HISTORY_LIMIT, RouteInquiry
from gateway.routing.store.store_reply import Current


class Steps:
    """Carries out relative verbs over the operations of one environment."""

    def __init__(self, reader: RouteInquiry, committer: Committer) -> None:
        self._reader = reader
        self._store, self._site = reader.store, reader.site
        self._committer = committer

    async def rollback(
        self,
        model: str,
        *,
        change: Change,
        to_revision: int,
        expected_revision: int | None,
        wait_s: float | None,
        dry_run: bool,
    ) -> ChangeResult:
        """A new revision with the document and the table of an earlier one: see `history` for which.

        It leaves the expected revision, or the one that is active when the call comes; see `relative` for what becomes
        of a second one at the same time.
        Raises: FailedPrecondition (nothing to roll back to; the target deleted the route; a version of it is not
                ready); NotFound (no such revision of this model); StaleRevision (another change came between).
        """
        started_ns = monotonic_ns()
        first = await self._committer.repeated(model, "rollback", change)
        if first is not None:
            return await self._committer.done(first, started_ns, wait_s)
        left = expected_revision
        for _ in range(ATTEMPTS):
            current, active = await self._committer.current(model)
            if not to_revision:
                already = await self._rolled_back_already(model, current, left, change)
                if already is not None:
                    return await self._committer.waited(already, started_ns, None if dry_run else wait_s)
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
            same = active is not None and (active.document, active.table) == (old.document, old.table)
            if (same or dry_run) and (await self._store.current(model)).revision != current.revision:
                continue  # a change came before the history was read: the step before it is not the one that was left
            if same:
                result = replace(result, unchanged=True)
                return await self._committer.waited(result, started_ns, None if dry_run else wait_s)
            if dry_run:
                return result
            proposal = Proposal(model, "rollback", old, current.revision, current.epoch, change, target.origin)
            committed = await self._committer.attempt(proposal, again=True)
            if committed is not None:
                done = await self._committer.done(committed, started_ns, wait_s, result.flows)
                return replace(done, cautions=result.cautions)
        raise contended(model)

    async def step(
        self, model: str, amendment: Amendment, left: int | None, change: Change, *, wait_s: float | None
    ) -> ApplyResult | int:
        """Returns what somebody else made of a relative amendment just before, or the revision that it is to leave.

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
        begins = entries[0].operation in ("retry", "resume")  # not what is asked for, though the document is the same
        same = not begins and before is not None and _makes(amendment, before.document, after.document)
        already = await self._already(entries[0], left, change, same=same)
        if already is None:
            return current.revision if left is None else left
        result = ChangeResult(model, after.revision, after.revision, current.epoch, unchanged=True, already=already)
        return ApplyResult(await self._committer.waited(result, started_ns, wait_s), after)

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
            return await self._reader.entry(model, to_revision)
        entries = await self._store.history(model, HISTORY_LIMIT)
        if not entries:
            raise UnknownRoute(model)
        target = step_before(entries)
        if target is None:
            raise FailedPrecondition(f"model {model!r} has nothing to roll back to before revision {entries[0].origin}")
        return target


def _makes(amendment: Amendment, before: RouteDocument, after: RouteDocument) -> bool:
    try:
        return amendment.edit(before) == after
    except GatewayError:
        return False
