"""The operations: what an operator asks for is what is committed, once, and the answer says what came of it."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    StaleRevision,
    StoreUnavailable,
    UnknownRoute,
    VersionNotReady,
)
from gateway.routing.decision.snapshot import Route, Snapshot, propose
from gateway.routing.document.document import RouteDocument
from gateway.routing.store.change import Change, ChangeEntry
from gateway.routing.store.history import route_of, step_before
from gateway.routing.store.route_control import RouteControl
from gateway.routing.store.store_reply import committed_text
from tests.routing.live import BY, DEADLINE_S, Site, control_of, document, share_of, store_of, workers
from tests.routing.overtaken import Overtaken
from tests.valkey import Valkey


async def shares(control: RouteControl, *wanted: int) -> None:
    for share in wanted:
        await control.apply(document(share=share), change=BY)


async def active_share(control: RouteControl) -> int:
    return share_of(Snapshot.of("", 0, [await control.get("fraud")]))


async def test_apply_commits_moves_the_least_and_says_so(valkey: Valkey) -> None:
    async with store_of(valkey.url) as store:
        control = control_of(store)
        first = await control.apply(document(share=10), change=BY, expected_revision=0)
        assert (first.change.revision, first.change.previous_revision, first.moved_buckets) == (1, 0, 1_000_000)
        second = await control.apply(document(share=25), change=BY, expected_revision=1)
        assert (second.change.revision, second.change.previous_revision, second.moved_buckets) == (2, 1, 150_000)
        assert second.route == await control.get("fraud")
        assert second.change.commit_us > 0
        assert (second.change.applied_us, second.change.applied.workers) == (0, ())


async def test_the_active_document_again_commits_nothing(valkey: Valkey) -> None:
    async with store_of(valkey.url) as store:
        control = control_of(store)
        await shares(control, 10)
        again = await control.apply(document(share=10), change=BY, wait_s=1.0)
        assert (again.change.unchanged, again.change.revision, again.moved_buckets) == (True, 1, 0)
        assert (await store.state()).revision == 1


async def test_a_dry_run_computes_all_and_commits_nothing(valkey: Valkey) -> None:
    async with store_of(valkey.url) as store:
        control = control_of(store)
        await shares(control, 10)
        before = await store.state()
        plan = await control.apply(document(share=40), change=BY, dry_run=True)
        assert (plan.moved_buckets, plan.route.document) == (300_000, document(share=40))
        with pytest.raises(StaleRevision):
            await control.apply(document(share=40), change=BY, expected_revision=9, dry_run=True)
        assert await store.state() == before


async def test_what_is_not_ready_is_refused_before_anything_is_committed(valkey: Valkey) -> None:
    async def check(asked: RouteDocument) -> None:
        if "2" in asked.versions():
            raise VersionNotReady(asked.model, "2", "loading failed")

    async with store_of(valkey.url) as store:
        control = RouteControl(store, Site(check_document=check))
        for dry_run in (False, True):
            with pytest.raises(VersionNotReady):
                await control.apply(document(), change=BY, dry_run=dry_run)
        assert (await store.state()).revision == 0
        await control_of(store).apply(document(), change=BY)
        await control.apply(document(versions=("1", "3")), change=BY)
        with pytest.raises(VersionNotReady):
            await control.rollback("fraud", change=BY)
        assert (await store.state()).revision == 2


async def test_fifty_applies_at_once_all_come_to_be_and_one_of_fifty_that_expect_the_same(valkey: Valkey) -> None:
    async with store_of(valkey.url) as store:
        control = control_of(store)
        results = await asyncio.gather(*(control.apply(document(share=n), change=BY) for n in range(1, 51)))
        assert sorted(result.change.revision for result in results) == list(range(1, 51))
        racers = [control.apply(document(share=n), change=BY, expected_revision=50) for n in range(51, 100)]
        outcomes = await asyncio.gather(*racers, return_exceptions=True)
        assert sum(isinstance(outcome, StaleRevision) for outcome in outcomes) == len(outcomes) - 1


async def test_the_same_key_answers_the_same_and_for_another_change_it_is_refused(valkey: Valkey) -> None:
    change = Change(actor="tester", idempotency_key="k")
    async with store_of(valkey.url) as store:
        control = control_of(store)
        first = await control.apply(document(share=10), change=change, expected_revision=0)
        await control.apply(document(share=50), change=BY)
        again = await control.apply(document(share=10), change=change, expected_revision=0)
        assert (again.change.revision, again.change.unchanged, again.route) == (1, False, first.route)
        with pytest.raises(InvalidArgument, match="was used for apply of 'fraud'"):
            await control.delete("fraud", change=change)
        back = Change(idempotency_key="back")
        rolled = [await control.rollback("fraud", change=back, wait_s=None) for _ in range(3)]
        assert {(result.revision, result.restored_revision) for result in rolled} == {(3, 1)}


async def test_rollbacks_go_back_step_by_step_and_never_forth(valkey: Valkey) -> None:
    async with store_of(valkey.url) as store:
        control = control_of(store)
        await shares(control, 10, 20, 30)
        tables = [(await control.get("fraud", revision)).table for revision in (1, 2, 3)]
        for revision, restored in ((4, 2), (5, 1)):
            result = await control.rollback("fraud", change=BY, expected_revision=revision - 1, wait_s=None)
            assert (result.revision, result.restored_revision) == (revision, restored)
            assert (await control.get("fraud")).table == tables[restored - 1]
        with pytest.raises(FailedPrecondition, match="nothing to roll back to"):
            await control.rollback("fraud", change=BY, expected_revision=5)
        forth = await control.rollback("fraud", change=BY, to_revision=3, wait_s=None)
        assert (forth.restored_revision, (await control.get("fraud")).table) == (3, tables[2])
        await shares(control, 77)
        await control.rollback("fraud", change=BY, wait_s=None)
        assert await active_share(control) == 30
        assert [r.entry.operation for r in await control.history("fraud")][:3] == ["rollback", "apply", "rollback"]


async def test_a_deleted_route_can_be_brought_back(valkey: Valkey) -> None:
    async with store_of(valkey.url) as store:
        control = control_of(store)
        await shares(control, 10, 20)
        with pytest.raises(StaleRevision):
            await control.delete("fraud", change=BY, expected_revision=1)
        deleted = await control.delete("fraud", change=BY, expected_revision=2)
        assert (deleted.revision, deleted.previous_revision) == (3, 2)
        for ask in (control.get("fraud"), control.delete("fraud", change=BY), control.delete("none", change=BY)):
            with pytest.raises(UnknownRoute):
                await ask
        with pytest.raises(FailedPrecondition, match="deleted the route"):
            await control.rollback("fraud", change=BY, to_revision=3)
        back = await control.rollback("fraud", change=BY, wait_s=None)
        assert (back.restored_revision, await active_share(control)) == (2, 20)
        newest = (await control.history("fraud"))[0]
        assert (newest.entry.revision, newest.route) == (4, await control.get("fraud"))


@pytest.mark.parametrize("answer", range(1, 9))
async def test_a_rollback_that_a_change_overtakes_never_says_that_there_was_nothing_to_do(
    valkey: Valkey, answer: int
) -> None:
    async with store_of(valkey.url) as store:
        others = control_of(store)
        await shares(others, 10, 20)
        overtaken = Overtaken(valkey.url, answer, lambda: shares(others, 30))
        try:
            done = await control_of(overtaken).rollback("fraud", change=BY)
            assert not done.unchanged
        except StaleRevision:
            assert await active_share(others) == 30
        finally:
            await overtaken.aclose()


async def test_what_cannot_be_rolled_back_to(valkey: Valkey) -> None:
    async with store_of(valkey.url) as store:
        control = control_of(store)
        with pytest.raises(UnknownRoute):
            await control.rollback("fraud", change=BY)
        await shares(control, 10)
        with pytest.raises(FailedPrecondition, match="nothing to roll back to"):
            await control.rollback("fraud", change=BY)
        with pytest.raises(NotFound, match="no revision 7"):
            await control.rollback("fraud", change=BY, to_revision=7)
        same = await control.rollback("fraud", change=BY, to_revision=1, wait_s=None)
        assert (same.unchanged, same.revision) == (True, 1)


async def test_a_step_that_the_history_has_lost_is_known_by_the_rollback_to_it(valkey: Valkey) -> None:
    async with store_of(valkey.url) as store:
        control = control_of(store)
        await shares(control, 10, 20)
        back = await control.rollback("fraud", change=BY, wait_s=None)
        await shares(control, 30)
        entries = [revision.entry for revision in await control.history("fraud", 10)]
        whole, cut = step_before(entries), step_before(entries[:-1])
        assert whole is not None
        assert cut is not None
        assert (whole.revision, cut.revision, cut.origin) == (back.restored_revision, back.revision, whole.revision)
        assert route_of(cut).document == route_of(whole).document
        assert step_before([entries[1], entries[2]]) is None


async def test_racing_rollbacks_and_applies_leave_a_history_that_adds_up(valkey: Valkey) -> None:
    async with store_of(valkey.url) as store:
        control = control_of(store)
        await shares(control, 10, 20, 30)
        changes = [control.apply(document(share=40 + n), change=BY) for n in range(10)]
        backs = [control.rollback("fraud", change=BY, wait_s=None) for _ in range(10)]
        outcomes = await asyncio.gather(*changes, *backs, return_exceptions=True)
        assert all(not isinstance(o, BaseException) or isinstance(o, StaleRevision) for o in outcomes)
        entries = [revision.entry for revision in await control.history("fraud", 200)]
        assert [entry.revision for entry in entries] == list(range(len(entries), 0, -1))
        assert [entry.previous_revision for entry in entries] == [entry.revision - 1 for entry in entries]


async def test_reads_answer_from_the_snapshot_while_the_store_is_away(valkey: Valkey, tmp_path: Path) -> None:
    async with store_of(valkey.url) as store, workers(valkey.url, tmp_path, 1) as [follower]:
        control = control_of(store, follower)
        await control.apply(document(), change=BY, wait_s=DEADLINE_S)
        listed = await control.list()
        assert (listed.stale, listed.revision, [r.model for r in listed.routes]) == (False, 1, ["fraud"])
        fresh = await control.get("fraud")
        valkey.kill()
        stale = await control.list()
        assert (stale.stale, stale.routes, stale.epoch) == (True, listed.routes, listed.epoch)
        assert await control.get("fraud") == fresh
        with pytest.raises(StoreUnavailable):
            await control.get("other")
        for write in (
            control.apply(document(share=90), change=BY),
            control.rollback("fraud", change=BY),
            control.delete("fraud", change=BY),
        ):
            with pytest.raises(StoreUnavailable):
                await write


async def test_changes_of_many_models_at_once_are_not_taken_for_a_loss(valkey: Valkey, tmp_path: Path) -> None:
    async with store_of(valkey.url) as store, workers(valkey.url, tmp_path, 1) as [follower]:
        control = control_of(store, follower)
        for share in range(8):
            changes = (control.apply(document(f"m{n}", share), change=BY) for n in range(25))
            results = await asyncio.gather(*changes)
            assert len({result.change.revision for result in results}) == 25


@pytest.mark.parametrize("limit", [-1, 201])
async def test_a_history_limit_out_of_range_is_refused(valkey: Valkey, limit: int) -> None:
    async with store_of(valkey.url) as store:
        with pytest.raises(InvalidArgument, match="limit"):
            await control_of(store).history("fraud", limit)
        with pytest.raises(UnknownRoute):
            await control_of(store).history("fraud")


async def test_a_damaged_route_can_be_written_over(valkey: Valkey) -> None:
    async with store_of(valkey.url) as store:
        control = control_of(store)
        await shares(control, 10)
        await store._link.call("HSET", store.keys.routes, "fraud", b"\xff garbage")
        result = await control.apply(document(share=20), change=BY)
        assert (result.change.revision, await active_share(control)) == (2, 20)


class Undo:
    """What an editor does: a stack of documents, of which a deletion is one, and undo drops the top."""

    def __init__(self) -> None:
        self.stack: list[int | None] = []

    def apply(self, share: int) -> bool:
        if self.stack and self.stack[-1] == share:
            return False
        if self.stack and self.stack[-1] is None:
            self.stack = []  # a route that is made anew after its deletion starts a new past
        self.stack.append(share)
        return True

    def delete(self) -> bool:
        if not self.stack or self.stack[-1] is None:
            return False
        self.stack.append(None)
        return True

    def rollback(self) -> bool:
        if len(self.stack) < 2:
            return False
        self.stack.pop()
        return True


def _entry(entries: Sequence[ChangeEntry], operation: str, share: int | None, restored: int = 0) -> ChangeEntry:
    """The entry that commit.lua would add to these (newest first)."""
    revision = entries[0].revision + 1 if entries else 1
    previous = entries[0].revision if entries and entries[0].route_text else 0
    text = ""
    if share is not None:
        made = propose(document(share=share), None)
        text = committed_text(Route("fraud", revision, made.document, made.table, 1, previous))
    return ChangeEntry(revision, "fraud", operation, text, previous, "", "", "", "", 1, restored)  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.integers(0, 3), st.sampled_from(["delete", "rollback"])), max_size=14))
@example([])
@example([0])
@example([1] * 14)
@example(["rollback"] * 14)
@example(["delete"] * 14)
def test_a_rollback_is_undo(steps: list[int | str]) -> None:
    undo, entries = Undo(), list[ChangeEntry]()
    for step in steps:
        if isinstance(step, int):
            if undo.apply(step):
                entries.insert(0, _entry(entries, "apply", step))
        elif step == "delete":
            if undo.delete():
                entries.insert(0, _entry(entries, "delete", None))
        elif entries:
            target = step_before(entries)
            assert (target is not None) == undo.rollback()
            if target is not None:
                assert isinstance(undo.stack[-1], int)
                entries.insert(0, _entry(entries, "rollback", undo.stack[-1], target.origin))
                restored = Route.from_json(target.route_text)
                assert restored.document == document(share=undo.stack[-1])
