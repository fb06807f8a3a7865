"""The feed in fair weather: each change in force on every worker, prepared first, acknowledged, remembered."""

import asyncio
from pathlib import Path

import pytest

from gateway.errors import VersionNotReady
from gateway.routing.decision.snapshot import Route
from gateway.routing.store.worker_status import FeedState
from tests.machine_load import as_loaded
from tests.routing.live import (
    BY,
    DEADLINE_S,
    control_of,
    document,
    feed,
    live,
    running,
    share_of,
    store_of,
    until,
    workers,
)
from tests.valkey import Valkey


async def test_a_commit_is_in_force_on_every_worker_that_is_named(valkey: Valkey, tmp_path: Path) -> None:
    async with store_of(valkey.url) as store, workers(valkey.url, tmp_path, 4) as feeds:
        control = control_of(store, feeds[0])
        for share in (10, 50, 20):
            result = await control.apply(document(share=share), change=BY, wait_s=DEADLINE_S)
            assert result.change.applied.workers == ("w0", "w1", "w2", "w3")
            assert result.change.applied.laggards == ()
            assert [share_of(one.snapshot) for one in feeds] == [share] * 4
        assert {one.snapshot.revision for one in feeds} == {3}
        assert len({one.snapshot.digest for one in feeds}) == 1
        listed, revision = await control.workers()
        assert [(w.id, w.state, w.revision) for w in listed] == [(f"w{n}", "LIVE", 3) for n in range(4)]
        assert revision == 3
        await control.delete("fraud", change=BY, wait_s=DEADLINE_S)
        assert [dict(one.snapshot.routes) for one in feeds] == [{}] * 4


async def test_how_long_a_change_took_is_told(valkey: Valkey, tmp_path: Path) -> None:
    took_s: list[float] = []
    follower = feed(valkey.url, tmp_path, on_applied=took_s.append)
    async with store_of(valkey.url) as store:
        await control_of(store).apply(document(), change=BY)
        async with running(follower):
            await follower.prepared()
            assert took_s == []  # committed before this worker lived
            await control_of(store, follower).apply(document(share=20), change=BY, wait_s=DEADLINE_S)
            assert len(took_s) == 1
            assert 0 <= took_s[0] < DEADLINE_S


async def test_a_route_comes_into_force_when_it_is_prepared_and_not_before(valkey: Valkey, tmp_path: Path) -> None:
    loaded = asyncio.Event()
    asked = asyncio.Event()

    async def prepare(route: Route) -> None:
        if "slow" in route.document.versions():
            asked.set()
            await loaded.wait()

    follower = feed(valkey.url, tmp_path, prepare=prepare)
    async with store_of(valkey.url) as store, running(follower):
        control = control_of(store, follower)
        await control.apply(document(), change=BY, wait_s=DEADLINE_S)
        slow = await control.apply(document(share=50, versions=("1", "slow")), change=BY)
        await asked.wait()
        # Another model does not wait for it, and what is acknowledged stays true.
        other = await control.apply(document("other", 30), change=BY, wait_s=DEADLINE_S)
        assert other.change.applied.workers == ("w0",)
        assert (share_of(follower.snapshot), share_of(follower.snapshot, "other")) == (10, 30)
        assert (follower.snapshot.revision, follower.status().revision, follower.status().head) == (1, 1, 3)
        late = await store.wait_applied(slow.change.revision, 0.05, epoch=slow.change.epoch)
        assert (late.workers, late.laggards, dict(late.errors)) == ((), ("w0",), {})
        loaded.set()
        applied = await store.wait_applied(slow.change.revision, DEADLINE_S, epoch=slow.change.epoch)
        assert applied.workers == ("w0",)
        assert (share_of(follower.snapshot), follower.snapshot.revision) == (50, 3)


async def test_a_rollback_does_not_wait_for_the_load_that_it_undoes(valkey: Valkey, tmp_path: Path) -> None:
    cancelled: list[int] = []

    async def prepare(route: Route) -> None:
        if "slow" in route.document.versions():
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(route.revision)
                raise

    follower = feed(valkey.url, tmp_path, prepare=prepare)
    async with store_of(valkey.url) as store, running(follower):
        control = control_of(store, follower)
        await control.apply(document(), change=BY, wait_s=DEADLINE_S)
        await control.apply(document(share=50, versions=("1", "slow")), change=BY)
        await until(lambda: 2 in follower.status().unapplied.get("fraud", _NOTHING).revisions)
        result = await control.rollback("fraud", change=BY, wait_s=DEADLINE_S)
        assert (result.applied.workers, result.restored_revision) == (("w0",), 1)
        assert cancelled == [2]
        assert (share_of(follower.snapshot), follower.status().unapplied) == (10, {})


async def test_a_route_that_needs_nothing_is_in_force_at_once_and_undoes_what_waits(
    valkey: Valkey, tmp_path: Path
) -> None:
    prepared: list[int] = []

    async def prepare(route: Route) -> None:
        prepared.append(route.revision)
        if "slow" in route.document.versions():
            await asyncio.Event().wait()

    follower = feed(
        valkey.url, tmp_path, prepare=prepare, at_once=lambda route: "slow" not in route.document.versions()
    )
    async with store_of(valkey.url) as store, running(follower):
        control = control_of(store, follower)
        await control.apply(document(), change=BY, wait_s=DEADLINE_S)
        slow = await control.apply(document(share=50, versions=("1", "slow")), change=BY)
        await until(lambda: slow.change.revision in prepared)
        result = await control.apply(document(share=20), change=BY, wait_s=DEADLINE_S)
        assert result.change.applied.workers == ("w0",)
        assert (share_of(follower.snapshot), follower.status().unapplied) == (20, {})
        assert prepared == [1, slow.change.revision]  # the first one is read with the whole state


async def test_a_worker_that_gives_way_swaps_first_and_acknowledges_later(valkey: Valkey, tmp_path: Path) -> None:
    follower = feed(valkey.url, tmp_path, at_once=lambda _route: True, defer_s=0.5)
    async with store_of(valkey.url) as store, running(follower):
        while not await store.workers():
            pass
        control = control_of(store, follower)
        first = await control.apply(document(), change=BY, wait_s=DEADLINE_S)
        await control.apply(document(share=20), change=BY)
        await until(lambda: share_of(follower.snapshot) == 20)
        assert (await store.workers())[0].revision == first.change.revision
        last = await control.apply(document(share=30), change=BY, wait_s=DEADLINE_S)
        assert last.change.applied.workers == ("w0",)
        assert share_of(follower.snapshot) == 30


async def test_what_cannot_be_prepared_is_said_and_tried_again_when_versions_change(
    valkey: Valkey, tmp_path: Path
) -> None:
    broken = True

    async def prepare(route: Route) -> None:
        if broken and "2" in route.document.versions():
            raise VersionNotReady(route.model, "2", "bad digest")

    follower = feed(valkey.url, tmp_path, prepare=prepare)
    async with store_of(valkey.url) as store, running(follower):
        control = control_of(store, follower)
        await control.apply(document(versions=("1", "3")), change=BY, wait_s=DEADLINE_S)
        result = await control.apply(document(share=70), change=BY, wait_s=DEADLINE_S)
        assert result.change.applied.laggards == ("w0",)
        assert "bad digest" in result.change.applied.errors["w0"]
        assert share_of(follower.snapshot) == 10
        assert "bad digest" in (await store.workers())[0].all_errors()
        broken = False
        follower.retry_pending()
        applied = await store.wait_applied(result.change.revision, DEADLINE_S, epoch=result.change.epoch)
        assert (applied.workers, share_of(follower.snapshot)) == (("w0",), 70)


async def test_a_preparation_that_breaks_does_not_take_the_worker_down(valkey: Valkey, tmp_path: Path) -> None:
    def look(route: Route) -> bool:
        if route.revision == 2:
            raise ZeroDivisionError("a bug")
        return False

    async def prepare(route: Route) -> None:
        look(route)

    follower = feed(valkey.url, tmp_path, prepare=prepare, at_once=look)
    async with store_of(valkey.url) as store, running(follower):
        control = control_of(store, follower)
        await control.apply(document(), change=BY, wait_s=DEADLINE_S)
        result = await control.apply(document(share=20), change=BY, wait_s=DEADLINE_S)
        assert "internal error" in result.change.applied.errors["w0"]
        assert "a bug" not in result.change.applied.errors["w0"]
        await control.apply(document(share=30), change=BY, wait_s=DEADLINE_S)
        assert share_of(follower.snapshot) == 30


async def test_a_worker_that_leaves_is_not_waited_for(valkey: Valkey, tmp_path: Path) -> None:
    leaver = feed(valkey.url, tmp_path, "leaver")
    async with store_of(valkey.url) as store, workers(valkey.url, tmp_path, 1) as [stayer]:
        async with running(leaver):
            result = await control_of(store, stayer).apply(document(), change=BY, wait_s=DEADLINE_S)
            assert result.change.applied.workers == ("leaver", "w0")
            await leaver.leave()
        assert [worker.id for worker in await store.workers()] == ["w0"]
        result = await control_of(store, stayer).apply(document(share=20), change=BY, wait_s=DEADLINE_S)
        assert (result.change.applied.workers, result.change.applied.laggards) == (("w0",), ())
        assert leaver.state is FeedState.DRAINING


async def test_a_worker_that_died_is_a_laggard(valkey: Valkey, tmp_path: Path) -> None:
    async with store_of(valkey.url) as store, workers(valkey.url, tmp_path, 2) as feeds:
        async with running(feed(valkey.url, tmp_path, "dead")):
            result = await control_of(store, feeds[0]).apply(document(), change=BY, wait_s=DEADLINE_S)
            assert len(result.change.applied.workers) == 3
        result = await control_of(store, feeds[0]).apply(document(share=20), change=BY, wait_s=0.3)
        assert (result.change.applied.workers, result.change.applied.laggards) == (("w0", "w1"), ("dead",))
        await store._link.call("PEXPIRE", store.keys.worker("dead"), 1)
        result = await control_of(store, feeds[0]).apply(document(share=30), change=BY, wait_s=DEADLINE_S)
        assert (result.change.applied.workers, result.change.applied.laggards) == (("w0", "w1"), ())


async def test_a_worker_that_starts_late_reads_everything_at_once(valkey: Valkey, tmp_path: Path) -> None:
    async with store_of(valkey.url) as store:
        control = control_of(store)
        for number in range(20):
            await control.apply(document(f"m{number}", number), change=BY)
        await store._link.call("XTRIM", store.keys.log, "MAXLEN", 2)
        late = feed(valkey.url, tmp_path)
        await late.boot()
        assert (late.state, late.snapshot.revision) == (FeedState.LIVE, 0)  # seen, but nothing is loaded yet
        assert [share_of(late.snapshot, f"m{n}") for n in range(20)] == list(range(20))
        async with running(late):
            await late.prepared()
            assert late.snapshot.revision == 20


async def test_a_trimmed_log_is_no_gap_in_knowledge(valkey: Valkey, tmp_path: Path) -> None:
    async with store_of(valkey.url, timeout_s=10.0) as store, workers(valkey.url, tmp_path, 1) as [follower]:
        control = control_of(store, follower)
        first = await control.apply(document("gone"), change=BY, wait_s=DEADLINE_S)
        valkey.pause()  # so that the commits and the trim reach the server before the feed can read on
        commits = [asyncio.create_task(control.apply(document(f"m{n}", n), change=BY)) for n in range(5)]
        await asyncio.sleep(0)
        valkey.resume()
        await asyncio.gather(*commits)
        await control.delete("gone", change=BY)
        await store._link.call("XTRIM", store.keys.log, "MAXLEN", 0)
        applied = await store.wait_applied(7, DEADLINE_S, epoch=first.change.epoch)
        assert applied.workers == ("w0",)
        assert sorted(follower.snapshot.routes) == [f"m{n}" for n in range(5)]
        assert live(follower)


@pytest.mark.parametrize("moment_ms", range(0, 30, 3))
async def test_a_feed_ends_when_it_is_cancelled(valkey: Valkey, tmp_path: Path, moment_ms: int) -> None:
    async with store_of(valkey.url) as store:
        follower = feed(valkey.url, tmp_path)
        await follower.boot()
        task = asyncio.create_task(follower.run())
        end = asyncio.get_running_loop().time() + moment_ms / 1000
        share = 0
        while asyncio.get_running_loop().time() < end:
            await control_of(store, follower).apply(document(share=share), change=BY)
            share = (share + 1) % 100
        task.cancel()
        done, _pending = await asyncio.wait([task], timeout=as_loaded(1.0))
        assert done == {task}
        assert task.cancelled()
        await follower.aclose()  # for the task that was cancelled before it began


class _Nothing:
    revisions: tuple[int, ...] = ()


_NOTHING = _Nothing()
