"""The store behind Sentinel: real servers, real sentinels, a master that is killed while rules are being committed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.errors import FailedPrecondition, StoreUnavailable
from gateway.routing.control import ApplyResult, Control
from gateway.routing.feed import Feed
from gateway.routing.redis_store import RedisStore
from gateway.routing.worker_status import FeedState
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
)
from tests.routing.servers import Server, free_port, sentinel, stopped

SETTLED_S = 20.0


class Group:
    """A master with two replicas and three sentinels; `url` names the service."""

    def __init__(self, directory: Path) -> None:
        self.master = Server(directory / "server-0", {"appendonly": "yes"}).start()
        follow = {"replicaof": f"127.0.0.1 {self.master.port}", "repl-diskless-sync-delay": "0"}
        self.replicas = [Server(directory / f"server-{n}", follow).start() for n in (1, 2)]
        self.sentinels = [sentinel(directory / f"sentinel-{n}", self.master) for n in range(3)]
        self.all = (self.master, *self.replicas, *self.sentinels)
        self.url = f"redis+sentinel://{','.join(one.address for one in self.sentinels)}/routes"

    async def ready(self) -> None:
        """Every sentinel knows the replicas and the other sentinels: a failover can happen from now on."""
        for one in self.sentinels:
            async with admin_of(one.url) as asked:
                for command in ("REPLICAS", "SENTINELS"):
                    for _ in range(int(SETTLED_S / 0.05)):
                        reply = await asked.call("SENTINEL", command, "routes")
                        if isinstance(reply, list) and len(reply) == 2:
                            break
                        await asyncio.sleep(0.05)
                    else:
                        pytest.fail(f"{command} are not all known")
        async with store_of(self.master.url) as store:
            await until_replicated(store)


async def until_replicated(store: RedisStore) -> None:
    for _ in range(int(SETTLED_S / 0.05)):
        role = await store._link.call("ROLE")
        if isinstance(role, list) and isinstance(role[2], list) and len(role[2]) == 2:
            return
        await asyncio.sleep(0.05)
    pytest.fail("the replicas did not connect")


@asynccontextmanager
async def group(directory: Path) -> AsyncIterator[Group]:
    made = Group(directory)
    async with stopped(*made.all):
        await made.ready()
        yield made


class Watched:
    """A feed, and every revision that it served by, in order."""

    def __init__(self, url: str, directory: Path, name: str) -> None:
        self.revisions: list[int] = []
        self.feed: Feed = feed(url, directory, name, on_swap=lambda snapshot: self.revisions.append(snapshot.revision))


async def committed(control: Control, share: int, key: str) -> ApplyResult:
    """The change, asked for again and again with the same key until the store has it; lost writes are healed."""
    change = replace(BY, idempotency_key=key)
    async with asyncio.timeout(SETTLED_S):
        while True:
            try:
                return await control.apply(document(share=share), change=change)
            except StoreUnavailable:
                await asyncio.sleep(0.02)
            except FailedPrecondition:
                try:
                    await control.heal(change=BY)
                except (FailedPrecondition, StoreUnavailable):
                    await asyncio.sleep(0.02)


async def until_confirmed(control: Control) -> None:
    """Returns after a change of which both replicas said in time that they have it."""
    for number in range(100):
        replicas = (await committed(control, number, f"before-{number}")).change.replicas
        assert replicas.known == 2
        if replicas.confirmed == 2:
            return
    pytest.fail("no change was confirmed by both replicas")


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_a_failover_during_commits_ends_with_every_worker_on_the_same_rules(tmp_path: Path) -> None:
    async with group(tmp_path) as servers, store_of(servers.url) as store:
        watched = [Watched(servers.url, tmp_path, f"w{n}") for n in range(3)]
        feeds = [one.feed for one in watched]
        async with running(*feeds):
            control = control_of(store, feeds[0])
            await until_confirmed(control)
            for number in range(200):
                if number == 80:
                    servers.master.kill()
                result = await committed(control, number % 100, f"change-{number}")
            await until(lambda: live(*feeds) and all(share_of(one.snapshot) == 99 for one in feeds), SETTLED_S)
            assert result.change.revision >= 200
            assert len({one.snapshot.digest for one in feeds}) == 1
            for one in watched:
                assert one.revisions == sorted(one.revisions)
        assert store._link._node.port in [one.port for one in servers.replicas]


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_a_failover_that_lost_commits_keeps_the_newer_rules_until_they_are_healed(tmp_path: Path) -> None:
    async with group(tmp_path) as servers, store_of(servers.url) as store:
        watched = [Watched(servers.url, tmp_path, f"w{n}") for n in range(2)]
        feeds = [one.feed for one in watched]
        async with running(*feeds):
            control = control_of(store, feeds[0])
            await committed(control, 10, "kept")
            nowhere = free_port()
            for replica in servers.replicas:
                async with admin_of(replica.url) as admin:
                    await admin.call("REPLICAOF", "127.0.0.1", nowhere)
            for share in (20, 30):
                lost = await control.apply(document(share=share), change=BY, wait_s=DEADLINE_S)
            assert lost.change.replicas.confirmed == 0
            servers.master.kill()
            await until(lambda: all(one.state is FeedState.AHEAD for one in feeds), SETTLED_S)
            assert [share_of(one.snapshot) for one in feeds] == [30, 30]
            with pytest.raises(FailedPrecondition, match="heal it first"):
                await control.apply(document(share=40), change=BY)
            _, revision = await control.heal(change=BY)
            assert revision > lost.change.revision
            await until(lambda: live(*feeds) and {one.snapshot.revision for one in feeds} == {revision}, SETTLED_S)
            assert [share_of(one.snapshot) for one in feeds] == [30, 30]
            after = await control.apply(document(share=50), change=BY, wait_s=DEADLINE_S)
            assert (after.change.revision, len(after.change.applied.workers)) == (revision + 1, 2)
            for one in watched:
                assert one.revisions == sorted(one.revisions)


async def test_a_server_that_is_no_longer_named_is_left_though_it_answers(tmp_path: Path) -> None:
    old, new = Server(tmp_path / "old", {}).start(), Server(tmp_path / "new", {}).start()
    replica = Server(tmp_path / "replica", {"replicaof": f"127.0.0.1 {new.port}"}).start()
    one = sentinel(tmp_path / "sentinel", old)
    url = f"redis+sentinel://{one.address}/routes"
    async with stopped(old, new, replica, one), admin_of(one.url) as admin, store_of(url) as store:
        await control_of(store).apply(document(share=10), change=BY)
        assert store._link._node.port == old.port
        await admin.call("SENTINEL", "REMOVE", "routes")
        await admin.call("SENTINEL", "MONITOR", "routes", "127.0.0.1", new.port, 1)
        assert (await store.state()).revision == 1  # nothing has failed, and it is not yet time to ask again
        store._link._find_at = 0.0
        assert (await store.state()).revision == 0
        assert store._link._node.port == new.port
        await admin.call("SENTINEL", "REMOVE", "routes")
        await admin.call("SENTINEL", "MONITOR", "routes", "127.0.0.1", replica.port, 1)
        store._link._lost = True
        with pytest.raises(StoreUnavailable, match="read-only replica"):
            await store.state()


async def test_no_sentinel_and_an_unknown_service_are_said_so(tmp_path: Path) -> None:
    dead = f"127.0.0.1:{free_port()}"
    async with store_of(f"redis+sentinel://{dead},{dead}/routes") as store:
        with pytest.raises(StoreUnavailable, match="no sentinel answers"):
            await store.state()
    master = Server(tmp_path / "master", {}).start()
    one = sentinel(tmp_path / "sentinel", master)
    async with stopped(master, one), store_of(f"redis+sentinel://{dead},{one.address}/others") as store:
        with pytest.raises(StoreUnavailable, match="no sentinel knows the service 'others'"):
            await store.state()
