"""The store in a cluster: real nodes, keys that move from one to the other while rules are being committed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.errors import StoreUnavailable
from gateway.routing.store.redis_store import RedisStore
from gateway.routing.store.store_link import Link
from gateway.routing.store.worker_status import FeedState
from tests.routing.live import (
    BY,
    DEADLINE_S,
    admin_of,
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
from tests.routing.servers import Server, free_port, stopped

LAST_SLOT = 16383


def node(directory: Path) -> Server:
    return Server(directory, {"cluster-enabled": "yes", "cluster-port": str(free_port())}).start()


async def cluster_ok(admin: Link, nodes: int) -> None:
    for _ in range(int(DEADLINE_S / 0.02)):
        about = await admin.call("CLUSTER", "INFO")
        if isinstance(about, bytes) and b"cluster_state:ok" in about and f"known_nodes:{nodes}\r".encode() in about:
            return
        await asyncio.sleep(0.02)
    pytest.fail("the cluster did not form")


@asynccontextmanager
async def pair(directory: Path) -> AsyncIterator[tuple[Server, Server]]:
    """Two nodes; the first has every slot."""
    first, second = node(directory / "first"), node(directory / "second")
    async with stopped(first, second), admin_of(first.url) as admin, admin_of(second.url) as other:
        await admin.call("CLUSTER", "ADDSLOTSRANGE", 0, LAST_SLOT)
        bus = next(line.split()[1] for line in second._config.read_text().splitlines() if "cluster-port" in line)
        await admin.call("CLUSTER", "MEET", "127.0.0.1", second.port, bus)
        await asyncio.gather(cluster_ok(admin, 2), cluster_ok(other, 2))
        yield first, second


async def move_all_slots(source: Server, target: Server) -> None:
    """Every slot in one step each; skips where the server cannot do that."""
    async with admin_of(source.url) as admin, admin_of(target.url) as other:
        name = await other.call("CLUSTER", "MYID")
        assert isinstance(name, bytes)
        try:
            await admin.call("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", 0, LAST_SLOT, "NODE", name)
        except StoreUnavailable as error:
            pytest.skip(f"this server cannot move slots at once: {error}")


async def node_of(store: RedisStore, port: int) -> None:
    for _ in range(int(DEADLINE_S / 0.02)):
        await store.state()
        if store._link._node.port == port:
            return
        await asyncio.sleep(0.02)
    pytest.fail("the keys did not arrive")


async def test_one_node_with_all_slots_serves_like_a_single_server(tmp_path: Path) -> None:
    alone = node(tmp_path / "alone")
    async with stopped(alone), admin_of(alone.url) as admin:
        async with store_of(alone.url) as store:
            with pytest.raises(StoreUnavailable, match="cluster that does not serve"):
                await store.state()
        await admin.call("CLUSTER", "ADDSLOTSRANGE", 0, LAST_SLOT)
        await cluster_ok(admin, 1)
        for url in (alone.url, f"redis+cluster://{alone.address}"):
            async with store_of(url) as store, workers(url, tmp_path, 2) as feeds:
                control = control_of(store, feeds[0])
                for share in range(30):
                    result = await control.apply(document(share=share), change=BY, wait_s=DEADLINE_S)
                    assert len(result.change.applied.workers) == 2
                await control.rollback("fraud", change=BY, wait_s=DEADLINE_S)
                assert [share_of(one.snapshot) for one in feeds] == [28, 28]
                assert len({one.snapshot.digest for one in feeds}) == 1


async def test_keys_that_move_are_followed_and_nothing_is_missed(tmp_path: Path) -> None:
    async with pair(tmp_path) as (first, second):
        url = f"redis+cluster://{second.address},{first.address}"
        async with store_of(url) as store, workers(url, tmp_path, 2) as feeds:
            control = control_of(store, feeds[0])
            for share in range(10):
                await control.apply(document(share=share), change=BY, wait_s=DEADLINE_S)
            assert store._link._node.port == first.port
            await move_all_slots(first, second)
            for share in range(50):
                try:
                    await control.apply(document(share=share), change=BY)
                except StoreUnavailable:
                    await asyncio.sleep(0.05)
            await node_of(store, second.port)
            result = await control.apply(document(share=77), change=BY, wait_s=DEADLINE_S)
            assert len(result.change.applied.workers) == 2
            await until(lambda: live(*feeds))
            assert [share_of(one.snapshot) for one in feeds] == [77, 77]
            assert len({one.snapshot.digest for one in feeds}) == 1


async def test_a_node_that_is_gone_leads_to_the_others(tmp_path: Path) -> None:
    async with pair(tmp_path) as (first, second):
        dead = f"127.0.0.1:{free_port()}"
        url = f"redis+cluster://{dead},{second.address},{dead}"
        follower = feed(url, tmp_path)
        async with store_of(url) as store, running(follower):
            await until(lambda: follower.state is FeedState.LIVE)
            await control_of(store).apply(document(), change=BY, wait_s=DEADLINE_S)
            assert share_of(follower.snapshot) == 10
            assert store._link._node.port == first.port


async def test_keys_that_are_being_moved_one_by_one_are_a_named_reason(tmp_path: Path) -> None:
    async with (
        pair(tmp_path) as (first, second),
        admin_of(first.url) as admin,
        admin_of(second.url) as other,
        store_of(first.url) as store,
    ):
        control = control_of(store)
        await control.apply(document(), change=BY)
        slot = await admin.call("CLUSTER", "KEYSLOT", "{gw:default}:log")
        source, target = await admin.call("CLUSTER", "MYID"), await other.call("CLUSTER", "MYID")
        assert isinstance(slot, int)
        assert isinstance(source, bytes)
        assert isinstance(target, bytes)
        await other.call("CLUSTER", "SETSLOT", slot, "IMPORTING", source)
        await admin.call("CLUSTER", "SETSLOT", slot, "MIGRATING", target)
        await admin.call("MIGRATE", "127.0.0.1", second.port, "{gw:default}:rev", 0, 5000)
        with pytest.raises(StoreUnavailable, match="moving the gateway's keys"):
            await control.apply(document(share=20), change=BY)
