"""A damaged store has a way out: `heal` says what is wrong and mends it, and nobody who is served notices."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from gateway.errors import FailedPrecondition, StoreDamaged
from gateway.routing.store.audit_trail import audit
from gateway.routing.store.feed import Feed
from gateway.routing.store.redis_store import RedisStore
from gateway.routing.store.store_reply import committed_text
from gateway.routing.store.worker_status import FeedState
from tests.routing.live import BY, DEADLINE_S, control_of, document, live, route, share_of, store_of, until, workers
from tests.valkey import Valkey

Damage = Callable[[RedisStore], Awaitable[object]]


def key(name: str) -> str:
    return f"{{gw:default}}:{name}"


def another_type(name: str) -> Damage:
    async def damage(store: RedisStore) -> None:
        await store.link.call("DEL", key(name))
        if name in ("epoch", "rev", "routes", "accepted", "judge"):
            await store.link.call("LPUSH", key(name), "alien")
        else:
            await store.link.call("SET", key(name), "alien")

    return damage


def holds(name: str, value: str | bytes) -> Damage:
    return lambda store: store.link.call("SET", key(name), value)


def without(*names: str) -> Damage:
    return lambda store: store.link.call("DEL", *map(key, names))


def a_route_of(model: str | bytes, text: str | bytes) -> Damage:
    return lambda store: store.link.call("HSET", store.keys.routes, model, text)


SINGLE = (
    *("epoch", "rev", "routes", "log", "accepted", "acks", "workers", "drafts", "audit", "chain"),
    *("hist:fraud", "worker:w0", "rollouts", "rollouts:damaged", "judge", "counts:2"),
)
DAMAGES = [
    *(pytest.param(another_type(name), id=f"type-{name}") for name in SINGLE),
    *(pytest.param(holds("rev", value), id=f"rev-{value!r:.12}") for value in ("x", "-1", "1e9", "9" * 16, b"\xff")),
    *(pytest.param(holds("epoch", value), id=f"epoch-{value!r:.12}") for value in ("x", b"\xff\xfe", "y" * 100)),
    pytest.param(without("rev"), id="no-rev"),
    pytest.param(without("epoch"), id="no-epoch"),
    pytest.param(without("epoch", "rev"), id="no-identity"),
    pytest.param(without("routes"), id="no-routes"),
    pytest.param(a_route_of("fraud", "garbage"), id="garbage-route"),
    pytest.param(a_route_of("stranger", b"garb\xffage"), id="garbage-of-a-stranger"),
    pytest.param(a_route_of(b"\xff", "garbage"), id="a-name-that-is-no-text"),
    pytest.param(a_route_of("stranger", committed_text(route("another"))), id="the-route-of-another"),
    pytest.param(lambda store: store.link.call("HDEL", store.keys.routes, "churn"), id="lost-route"),
    pytest.param(lambda store: store.link.call("FLUSHALL"), id="flushed"),
]


async def changed(store: RedisStore, feeds: list[Feed], share: int) -> None:
    """A change is committed, and every worker follows it."""
    result = await control_of(store, feeds[0]).apply(document(share=share), change=BY, wait_s=DEADLINE_S)
    assert (sorted(result.change.applied.workers), result.change.applied.laggards) == (["w0", "w1"], ())
    assert [share_of(one.snapshot) for one in feeds] == [share, share]


@pytest.mark.parametrize("damage", DAMAGES)
async def test_heal_mends_whatever_is_wrong(valkey: Valkey, tmp_path: Path, damage: Damage) -> None:
    async with store_of(valkey.url) as store, workers(valkey.url, tmp_path, 2) as feeds:
        control = control_of(store, feeds[0])
        await control.apply(document("churn", 5), change=BY, wait_s=DEADLINE_S)
        await changed(store, feeds, 10)
        await damage(store)
        plan = await control.heal(change=BY, dry_run=True)
        assert plan.findings
        healed = await control.heal(change=BY, wait_s=DEADLINE_S)
        assert healed.findings
        assert (sorted(healed.applied.workers), healed.applied.laggards) == (["w0", "w1"], ())
        assert healed.revision > 2
        assert [(share_of(one.snapshot), share_of(one.snapshot, "churn")) for one in feeds] == [(10, 5)] * 2
        await changed(store, feeds, 20)
        await changed(store, feeds, 30)
        back = await control.rollback("fraud", change=BY, wait_s=DEADLINE_S)
        assert (len(back.applied.workers), [share_of(one.snapshot) for one in feeds]) == (2, [20, 20])
        await until(lambda: live(*feeds))
        assert {route.model for route in (await control.list()).routes} == {"churn", "fraud"}
        assert [entry.operation for entry in await audit(store, limit=4)] == ["rollback", "apply", "apply", "restore"]
        with pytest.raises(FailedPrecondition, match="lost nothing that this worker serves by, and is not damaged"):
            await control.heal(change=BY)


async def test_a_damage_that_loses_nothing_keeps_what_this_worker_has_not_got_yet(
    valkey: Valkey, tmp_path: Path
) -> None:
    async with store_of(valkey.url) as store, workers(valkey.url, tmp_path, 1) as [follower]:
        control = control_of(store, follower)
        await control.apply(document(share=10), change=BY, wait_s=DEADLINE_S)
        valkey.pause()
        valkey.resume()
        await store.link.call("DEL", store.keys.acknowledgements)
        await store.link.call("SET", store.keys.acknowledgements, "alien")
        await control_of(store).apply(document("late", 7), change=BY)
        await control.heal(change=BY)
        await until(lambda: share_of(follower.snapshot, "late") == 7)
        assert share_of(follower.snapshot) == 10


@pytest.mark.parametrize(
    "damage",
    [another_type("routes"), holds("rev", "x"), without("rev"), another_type("log"), a_route_of("stranger", "x")],
)
async def test_the_store_can_be_declared_right_whatever_is_wrong(
    valkey: Valkey, tmp_path: Path, damage: Damage
) -> None:
    async with store_of(valkey.url) as store, workers(valkey.url, tmp_path, 2) as feeds:
        control = control_of(store, feeds[0])
        await changed(store, feeds, 10)
        await damage(store)
        healed = await control.heal(change=BY, accept_store=True, wait_s=DEADLINE_S)
        assert (sorted(healed.applied.workers), healed.applied.laggards) == (["w0", "w1"], ())
        assert {one.snapshot.epoch for one in feeds} == {healed.epoch}
        await changed(store, feeds, 20)
        with pytest.raises(FailedPrecondition, match="is not damaged"):
            await control.heal(change=BY)


async def test_a_worker_without_rules_writes_nothing_back(valkey: Valkey) -> None:
    async with store_of(valkey.url) as store:
        await control_of(store).apply(document(), change=BY)
        await store.link.call("SET", store.keys.revision, "x")
        with pytest.raises(FailedPrecondition, match="serves by no rules"):
            await control_of(store).heal(change=BY)
        with pytest.raises(StoreDamaged, match="`gateway heal` mends it"):
            await store.state()
        await control_of(store).heal(change=BY, accept_store=True)
        assert [route.model for route in (await control_of(store).list()).routes] == ["fraud"]


async def test_a_dry_run_and_a_wrong_expectation_change_nothing(valkey: Valkey, tmp_path: Path) -> None:
    async with store_of(valkey.url) as store, workers(valkey.url, tmp_path, 1) as [follower]:
        control = control_of(store, follower)
        await control.apply(document(), change=BY, wait_s=DEADLINE_S)
        await store.link.call("FLUSHALL")
        await until(lambda: follower.state is FeedState.AHEAD)
        plan = await control.heal(change=BY, dry_run=True, expected_revision=0)
        assert (plan.revision, list(plan.findings)) == (2, ["the store is empty"])
        with pytest.raises(FailedPrecondition, match="at revision 0, not 1"):
            await control.heal(change=BY, expected_revision=1)
        assert await store.link.call("EXISTS", store.keys.epoch, store.keys.revision, store.keys.routes) == 0
