"""The feed in bad weather: the store dies, freezes, forgets, lies; rules stay in force and nothing is missed."""

import asyncio
import time
from pathlib import Path

import pytest

from gateway.errors import FailedPrecondition, StoreUnavailable
from gateway.routing.decision.snapshot import Route
from gateway.routing.store.change import Change
from gateway.routing.store.redis_store import VALUE_LIMIT_BYTES
from gateway.routing.store.route_control import RouteControl
from gateway.routing.store.store_reply import StoreState, loss
from gateway.routing.store.worker_status import FeedState
from tests.machine_load import as_loaded
from tests.routing.live import (
    BY,
    DEADLINE_S,
    control_of,
    document,
    feed,
    kill_feeds,
    live,
    running,
    share_of,
    store_of,
    until,
    workers,
)
from tests.valkey import Valkey

ROUTES, LOG = "{gw:default}:routes", "{gw:default}:log"


@pytest.mark.parametrize("commits", [200, pytest.param(1000, marks=[pytest.mark.long, pytest.mark.timeout(600)])])
async def test_connections_killed_during_many_commits_miss_nothing(
    valkey: Valkey, tmp_path: Path, commits: int
) -> None:
    async with store_of(valkey.url) as store, workers(valkey.url, tmp_path, 4) as feeds:
        control = control_of(store)
        killed = 0
        for number in range(commits):
            result = await control.apply(document(f"m{number % 7}", number % 100), change=BY)
            if number % 20 == 10:
                killed += await kill_feeds(valkey.url)
        assert killed >= commits // 10
        applied = await store.wait_applied(commits, DEADLINE_S, epoch=result.change.epoch)
        assert len(applied.workers) == 4
        assert {one.snapshot.revision for one in feeds} == {commits}
        assert len({one.snapshot.digest for one in feeds}) == 1
        last = range(commits - 7, commits)
        assert [share_of(feeds[0].snapshot, f"m{n % 7}") for n in last] == [n % 100 for n in last]


async def test_a_server_killed_during_commits_loses_none_that_was_answered(valkey: Valkey, tmp_path: Path) -> None:
    async with store_of(valkey.url) as store, workers(valkey.url, tmp_path, 2) as feeds:
        control = control_of(store, feeds[0])
        await control.apply(document(share=1), change=BY, wait_s=DEADLINE_S)
        for round_number in range(3):
            answered = await control.apply(document(share=20 + round_number), change=BY)
            valkey.kill()
            with pytest.raises(StoreUnavailable):
                await control.apply(document(share=99), change=BY)
            await until(lambda: all(one.state is FeedState.STALE for one in feeds))
            valkey.start()
            epoch, revision = answered.change.epoch, answered.change.revision
            await until(lambda: live(*feeds))
            applied = await store.wait_applied(revision, DEADLINE_S, epoch=epoch)
            assert len(applied.workers) == 2
            assert [share_of(one.snapshot) for one in feeds] == [20 + round_number] * 2


async def test_a_frozen_server_is_noticed_and_serving_goes_on(valkey: Valkey, tmp_path: Path) -> None:
    async with store_of(valkey.url) as store, workers(valkey.url, tmp_path, 1) as [follower]:
        control = control_of(store, follower)
        await control.apply(document(), change=BY, wait_s=DEADLINE_S)
        assert follower.stale_seconds() == 0
        valkey.pause()
        start = time.monotonic()
        await until(lambda: follower.state is FeedState.STALE)
        assert time.monotonic() - start < as_loaded(3.0)
        assert follower.stale_seconds() > 0
        assert share_of(follower.snapshot) == 10
        shown = await control.list()
        assert (shown.stale, [route.model for route in shown.routes]) == (True, ["fraud"])
        valkey.resume()
        await until(lambda: live(follower))
        await control.apply(document(share=20), change=BY, wait_s=DEADLINE_S)
        assert (share_of(follower.snapshot), follower.stale_seconds()) == (20, 0)


async def test_an_emptied_store_is_not_the_order_to_delete_everything(valkey: Valkey, tmp_path: Path) -> None:
    async with store_of(valkey.url) as store, workers(valkey.url, tmp_path, 2) as feeds:
        control = control_of(store, feeds[0])
        for model in ("fraud", "churn"):
            before = await control.apply(document(model), change=BY, wait_s=DEADLINE_S)
        await store._link.call("FLUSHALL")
        await until(lambda: all(one.state is FeedState.AHEAD for one in feeds))
        assert [sorted(one.snapshot.routes) for one in feeds] == [["churn", "fraud"]] * 2
        assert "empty" in feeds[0].status().all_errors()
        for change in (control.apply(document(share=33), change=BY), control.rollback("fraud", change=BY)):
            with pytest.raises(FailedPrecondition, match="the store is empty; heal it first"):
                await change
        healed = await control.heal(change=BY, wait_s=DEADLINE_S)
        assert (healed.epoch, healed.revision, len(healed.applied.workers)) == (before.change.epoch, 3, 2)
        result = await control.apply(document(share=33), change=BY, wait_s=DEADLINE_S)
        assert (result.change.epoch, result.change.revision) == (before.change.epoch, 4)
        assert len(result.change.applied.workers) == 2
        assert [sorted(one.snapshot.routes) for one in feeds] == [["churn", "fraud"]] * 2
        assert live(*feeds)
        assert (await control.rollback("fraud", change=BY)).restored_revision == 1


async def test_lost_writes_keep_the_newer_rules_until_an_operator_heals_it(valkey: Valkey, tmp_path: Path) -> None:
    async with store_of(valkey.url) as store, workers(valkey.url, tmp_path, 2) as feeds:
        control = control_of(store, feeds[0])
        await control.apply(document(share=10), change=BY, wait_s=DEADLINE_S)
        old = await store._link.call("HGET", ROUTES, "fraud")
        await control.apply(document(share=20), change=BY, wait_s=DEADLINE_S)
        assert isinstance(old, bytes)

        async def lose() -> None:  # as a failover to a replica that had not got the last commit
            await store._link.call("HSET", ROUTES, "fraud", old)
            await store._link.call("DECR", store.keys.revision)
            await store._link.call("DEL", LOG)
            await until(lambda: all(one.state is FeedState.AHEAD for one in feeds))

        await lose()
        assert [share_of(one.snapshot) for one in feeds] == [20, 20]
        with pytest.raises(FailedPrecondition, match="at revision 1, this worker at 2"):
            await control.apply(document(share=30), change=BY)
        healed = await control.heal(change=BY, wait_s=DEADLINE_S)
        assert (healed.revision, len(healed.applied.workers), healed.applied.laggards) == (3, 2, ())
        assert live(*feeds)
        assert [(share_of(one.snapshot), one.snapshot.revision) for one in feeds] == [(20, 3)] * 2
        with pytest.raises(FailedPrecondition, match="lost nothing"):
            await control.heal(change=BY)

        await store._link.call("DECR", store.keys.revision)
        await lose()
        accepted = await control.heal(change=BY, accept_store=True)  # for nobody is waited
        assert accepted.applied.workers == ()
        await until(lambda: [share_of(one.snapshot) for one in feeds] == [10, 10])
        assert {one.snapshot.epoch for one in feeds} == {accepted.epoch}
        await control.apply(document(share=40), change=BY, wait_s=DEADLINE_S)
        assert [share_of(one.snapshot) for one in feeds] == [40, 40]


@pytest.mark.parametrize(
    "poison",
    [b"", b"garbage", b"{}", b"[" * 5000, b'{"revision":2,', b"\xff\xfe\x00", b"x" * (VALUE_LIMIT_BYTES + 1), b"null"],
    ids=["empty", "words", "object", "deep", "cut", "bytes", "huge", "null"],
)
async def test_poison_keeps_the_old_route_of_its_model_and_no_other(
    valkey: Valkey, tmp_path: Path, poison: bytes
) -> None:
    async with store_of(valkey.url) as store, workers(valkey.url, tmp_path, 1) as [follower]:
        control = control_of(store, follower)
        await control.apply(document(share=10), change=BY, wait_s=DEADLINE_S)
        await control.apply(document("other", 10), change=BY, wait_s=DEADLINE_S)
        # A commit by somebody who writes what no gateway would: one revision further, both in the log and the routes.
        await store._link.call("HSET", ROUTES, "fraud", poison)
        await store._link.call("INCR", store.keys.revision)
        fields = (
            "model",
            "fraud",
            "op",
            "apply",
            "route",
            poison,
            "prev",
            "1",
            "digest",
            "",
            "actor",
            "",
            "reason",
            "",
        )
        await store._link.call("XADD", LOG, "3-0", *fields, "source", "", "at", "1", "restored", "0")
        await until(lambda: follower.status().head == 3)
        [status] = [follower.status()]
        assert status.revision < 3
        assert list(status.unapplied) == ["fraud"]
        assert status.unapplied["fraud"].error
        assert (share_of(follower.snapshot), follower.state) == (10, FeedState.LIVE)
        result = await control.apply(document("other", 50), change=BY, wait_s=DEADLINE_S)
        assert (result.change.applied.workers, share_of(follower.snapshot, "other")) == (("w0",), 50)
        if len(poison) < VALUE_LIMIT_BYTES:
            await control.apply(document(share=60), change=BY, wait_s=DEADLINE_S)
            assert (share_of(follower.snapshot), follower.status().unapplied) == (60, {})


@pytest.mark.parametrize("entry_id", ["2-0", "2-7", "999-0", "99999999999999-1"])
async def test_an_entry_that_nobody_committed_is_passed_over(valkey: Valkey, tmp_path: Path, entry_id: str) -> None:
    async with store_of(valkey.url) as store, workers(valkey.url, tmp_path, 1) as [follower]:
        control = control_of(store, follower)
        await control.apply(document(), change=BY, wait_s=DEADLINE_S)
        await store._link.call("XADD", LOG, entry_id, "some", "thing")
        for share in (20, 30):
            result = await control.apply(document(share=share), change=BY, wait_s=DEADLINE_S)
            assert (result.change.applied.workers, share_of(follower.snapshot)) == (("w0",), share)
        assert follower.state is FeedState.LIVE


@pytest.mark.parametrize("name", ["log", "routes", "epoch", "rev", "acks", "workers", "worker:w0"])
async def test_a_key_of_another_type_stops_the_following_and_not_the_serving(
    valkey: Valkey, tmp_path: Path, name: str
) -> None:
    async with store_of(valkey.url) as store, workers(valkey.url, tmp_path, 1) as [follower]:
        await control_of(store, follower).apply(document(), change=BY, wait_s=DEADLINE_S)
        key = f"{{gw:default}}:{name}"
        await store._link.call("RENAME", key, "{gw:default}:kept")
        await store._link.call("LPUSH", key, "alien")
        if name == "routes":
            await kill_feeds(valkey.url)  # only the comparison looks there
        if name in ("log", "routes", "epoch", "rev"):
            await until(lambda: follower.state is FeedState.STALE)
        assert share_of(follower.snapshot) == 10
        await store._link.call("RENAME", "{gw:default}:kept", key)
        await until(lambda: live(follower))
        await control_of(store, follower).apply(document(share=20), change=BY, wait_s=DEADLINE_S)
        assert share_of(follower.snapshot) == 20


async def test_a_route_that_vanishes_without_a_commit_is_kept_and_reported(valkey: Valkey, tmp_path: Path) -> None:
    async with store_of(valkey.url) as store:
        await control_of(store).apply(document("a"), change=BY)
        await control_of(store).apply(document("b"), change=BY)
        follower = feed(valkey.url, tmp_path)
        async with running(follower):
            await store._link.call("HDEL", ROUTES, "a")
            await kill_feeds(valkey.url)  # what was missed is looked for when a connection comes back
            await until(lambda: "lost the routes of a" in follower.status().error)
            assert (sorted(follower.snapshot.routes), follower.state) == (["a", "b"], FeedState.LIVE)


async def test_a_worker_starts_from_disk_when_the_store_is_away(valkey: Valkey, tmp_path: Path) -> None:
    async with store_of(valkey.url) as store:
        async with workers(valkey.url, tmp_path, 1) as [first]:
            await control_of(store, first).apply(document(), change=BY, wait_s=DEADLINE_S)
            await first.leave()
        valkey.pause()
        frozen = feed(valkey.url, tmp_path)
        start = time.monotonic()
        await frozen.boot(timeout_s=0.2)
        assert time.monotonic() - start < as_loaded(1.0)
        assert (frozen.state, frozen.snapshot.epoch, share_of(frozen.snapshot)) == (
            FeedState.STALE,
            first.snapshot.epoch,
            10,
        )
        await frozen.aclose()
        valkey.kill()
        reborn = feed(valkey.url, tmp_path)
        async with running(reborn):
            assert (reborn.state, share_of(reborn.snapshot)) == (FeedState.STALE, 10)
            valkey.start()
            await until(lambda: live(reborn))
            await control_of(store, reborn).apply(document(share=20), change=BY, wait_s=DEADLINE_S)
            assert share_of(reborn.snapshot) == 20


async def test_a_slot_without_rules_starts_by_those_of_a_sibling(valkey: Valkey, tmp_path: Path) -> None:
    async with store_of(valkey.url) as store:
        sibling = feed(valkey.url, tmp_path, file="worker-0")
        async with running(sibling):
            await control_of(store, sibling).apply(document(), change=BY, wait_s=DEADLINE_S)
            await sibling.leave()
    valkey.kill()
    new = feed(valkey.url, tmp_path, "w5", file="worker-5")
    await new.boot(timeout_s=0.2)
    assert (new.state, new.rules_known, share_of(new.snapshot)) == (FeedState.STALE, True, 10)
    await new.aclose()


async def test_a_worker_with_nothing_starts_and_learns_later(valkey: Valkey, tmp_path: Path) -> None:
    valkey.kill()
    follower = feed(valkey.url, tmp_path)
    async with running(follower):
        assert (follower.state, dict(follower.snapshot.routes)) == (FeedState.STALE, {})
        assert not follower.rules_known
        valkey.start()
        await until(lambda: live(follower))
        assert follower.rules_known
        async with store_of(valkey.url) as store:
            await control_of(store, follower).apply(document(), change=BY, wait_s=DEADLINE_S)
        assert share_of(follower.snapshot) == 10


async def test_a_wait_that_loses_the_store_still_tells_what_was_committed(valkey: Valkey, tmp_path: Path) -> None:
    async with store_of(valkey.url) as store, workers(valkey.url, tmp_path, 1) as [follower]:
        control = control_of(store, follower)
        await control.apply(document(), change=BY, wait_s=DEADLINE_S)
        async with running(feed(valkey.url, tmp_path, "dead")):
            await until_listed(control_of(store, follower), 2)
        call = asyncio.create_task(control.apply(document(share=20), change=Change(), wait_s=DEADLINE_S))
        await until(lambda: share_of(follower.snapshot) == 20)
        await store.state()  # the server has answered the commit before this
        valkey.kill()
        result = await call
        assert (result.change.revision, result.change.applied.laggards) == (2, ("unknown",))
        assert "not reachable" in result.change.applied.errors["unknown"]


async def until_listed(control: RouteControl, count: int) -> None:
    end = time.monotonic() + DEADLINE_S
    while len((await control.workers())[0]) < count:
        assert time.monotonic() < end


@pytest.mark.parametrize(
    ("epoch", "head", "store", "lost"),
    [
        ("", 0, StoreState("", 0, ""), False),
        ("", 0, StoreState("e", 9, ""), False),
        ("e", 5, StoreState("e", 5, ""), False),
        ("e", 5, StoreState("e", 6, ""), False),
        ("e", 5, StoreState("e", 4, ""), True),
        ("e", 5, StoreState("e", 4, "e"), True),
        ("e", 5, StoreState("", 0, ""), True),
        ("e", 5, StoreState("", 0, "e"), True),
        ("e", 5, StoreState("f", 9, ""), True),
        ("e", 5, StoreState("f", 9, "e"), True),
        ("e", 5, StoreState("f", 1, "f"), False),
    ],
)
def test_what_counts_as_a_loss(epoch: str, head: int, store: StoreState, lost: bool) -> None:
    assert bool(loss(epoch, head, store)) == lost


async def test_rules_that_were_not_known_are_in_force_with_the_first_reading(valkey: Valkey, tmp_path: Path) -> None:
    """Until a version is loaded its route answers that it is loading, which another version must not hide."""
    async with store_of(valkey.url) as store:
        await control_of(store).apply(document(), change=BY)
    valkey.kill()
    follower = feed(valkey.url, tmp_path, prepare=never)
    async with running(follower):
        valkey.start()
        await follower.known()
        assert share_of(follower.snapshot) == 10


async def never(_route: Route) -> None:
    """Prepares for ever."""
    await asyncio.Event().wait()


async def test_that_there_are_no_rules_is_kept_on_disk_too(valkey: Valkey, tmp_path: Path) -> None:
    async with workers(valkey.url, tmp_path, 1) as [first]:
        await first.leave()
    valkey.kill()
    again = feed(valkey.url, tmp_path)
    async with running(again):
        assert (again.state, again.rules_known, dict(again.snapshot.routes)) == (FeedState.STALE, True, {})
        valkey.start()
        await until(lambda: live(again))


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("redis://127.0.0.1:1", "is not reachable: connection refused"),
        ("redis://no-such-host.invalid:6379", "is not reachable: unknown host name"),
        ("unix:///nowhere/valkey.sock", "is not reachable: no socket at its path"),
        ("{url}?username=nobody&password=wrong", "refused the credentials"),
    ],
)
async def test_a_start_without_the_store_says_why(valkey: Valkey, tmp_path: Path, url: str, reason: str) -> None:
    follower = feed(url.format(url=valkey.url), tmp_path)
    await follower.boot(timeout_s=5.0)
    assert reason in follower.error
    await follower.aclose()
