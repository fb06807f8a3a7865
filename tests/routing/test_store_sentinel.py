"""The store behind Sentinel: real servers, real sentinels, a master that is killed while rules are being committed."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from gateway.errors import FailedPrecondition, StoreUnavailable
from gateway.routing.store.audit_trail import audit
from gateway.routing.store.change_result import ApplyResult
from gateway.routing.store.feed import Feed
from gateway.routing.store.route_control import RouteControl
from gateway.routing.store.store_link import Link
from gateway.routing.store.worker_status import FeedState
from tests.machine_load import as_loaded
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
from tests.routing.servers import PATIENT_MS, Server, free_port, sentinel, stopped

SETTLED_S = 20.0
DOWN_MS = 2000  # less than two pings, and sentinels take a server for dead that has just become the master


class Group:
    """A master with two replicas and three sentinels; `url` names the service.

    The sentinels are patient: a host that is busy fails over without any reason, and only `fail_over` shall.
    """

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
                    await holds(partial(_has_two, asked, command), f"{command} are not all known")
        await self._replicated()

    async def cut_off(self, *replicas: Server) -> None:
        """The replicas get nothing any more; they go on answering."""
        nowhere = free_port()
        for replica in replicas:
            async with admin_of(replica.url) as admin:
                await admin.call("REPLICAOF", "127.0.0.1", nowhere)

    def replica(self) -> Server:
        """The one that is left after a failover."""
        [left] = self.replicas
        return left

    async def fail_over(self, *, calm: bool = True) -> None:
        """The master is dead; with `calm` another one has its place, and everybody follows it."""
        await self._down_after(DOWN_MS)
        self.master.kill()
        if calm:
            await holds(self._agreed, "the sentinels did not agree on another master")
            await self._down_after(PATIENT_MS)
            await self._replicated()

    async def _agreed(self) -> bool:
        seen = set()
        for one in self.sentinels:
            async with admin_of(one.url) as asked:
                reply = await asked.call("SENTINEL", "MASTER", "routes")
                words = [word.decode() for word in reply if isinstance(word, bytes)] if isinstance(reply, list) else []
                about = dict(zip(words[::2], words[1::2], strict=True))
                seen.add((about["port"], about["flags"]))
        leading = [one for one in self.replicas if seen == {(str(one.port), "master")}]
        if leading:
            [self.master] = leading
            self.replicas.remove(self.master)
        return bool(leading)

    async def _down_after(self, patience_ms: int) -> None:
        for one in self.sentinels:
            async with admin_of(one.url) as admin:
                await admin.call("SENTINEL", "SET", "routes", "down-after-milliseconds", patience_ms)

    async def _replicated(self) -> None:
        """Every replica has all that its master has, and gets what comes."""
        for replica in self.replicas:
            async with admin_of(replica.url) as asked:
                await holds(partial(_follows, asked, self.master), "a replica did not connect")


async def _has_two(asked: Link, command: str) -> bool:
    reply = await asked.call("SENTINEL", command, "routes")
    return isinstance(reply, list) and len(reply) == 2


async def _follows(asked: Link, master: Server) -> bool:
    try:
        role = await asked.call("ROLE")
    except StoreUnavailable:  # a sentinel that turns a replica to another master closes its connections
        return False
    return isinstance(role, list) and role[0] == b"slave" and (role[2], role[3]) == (master.port, b"connected")


async def holds(true: Callable[[], Awaitable[bool]], complaint: str) -> None:
    """Returns as soon as the condition holds; fails with the complaint at the deadline."""
    end = time.monotonic() + as_loaded(SETTLED_S)
    while not await true():
        if time.monotonic() > end:
            pytest.fail(complaint)
        await asyncio.sleep(0.02)


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


async def committed(control: RouteControl, share: int, key: str) -> ApplyResult:
    """The change, asked for again and again with the same key until the store has it; lost writes are healed."""
    change = replace(BY, idempotency_key=key)
    async with asyncio.timeout(as_loaded(SETTLED_S)):
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


async def until_confirmed(control: RouteControl) -> None:
    """Returns after a change of which both replicas said in time that they have it."""
    for number in range(100):
        replicas = (await committed(control, number, f"before-{number}")).change.replicas
        assert replicas.known == 2
        if replicas.confirmed == 2:
            return
    pytest.fail("no change was confirmed by both replicas")


async def commits_are_lost(servers: Group, control: RouteControl, feeds: Sequence[Feed]) -> int:
    """The newest revision: every feed serves by it, and the server that has become the master does not have it."""
    await until_confirmed(control)
    await servers.cut_off(*servers.replicas)
    for share in (70, 30):
        lost = await control.apply(document(share=share), change=BY, wait_s=DEADLINE_S)
    assert lost.change.replicas.confirmed == 0
    await servers.fail_over()
    await until(lambda: all(one.state is FeedState.AHEAD for one in feeds), SETTLED_S)
    assert {share_of(one.snapshot) for one in feeds} == {30}
    return lost.change.revision


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
                    await servers.fail_over(calm=False)
                result = await committed(control, number % 100, f"change-{number}")
            await until(lambda: live(*feeds) and all(share_of(one.snapshot) == 99 for one in feeds), SETTLED_S)
            assert result.change.revision >= 200
            assert len({one.snapshot.digest for one in feeds}) == 1
            for one in watched:
                assert one.revisions == sorted(one.revisions)
        assert store._link._node.port in [one.port for one in servers.all[1:3]]


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_a_failover_that_lost_commits_keeps_the_newer_rules_until_they_are_healed(tmp_path: Path) -> None:
    async with group(tmp_path) as servers, store_of(servers.url) as store:
        watched = [Watched(servers.url, tmp_path, f"w{n}") for n in range(2)]
        feeds = [one.feed for one in watched]
        async with running(*feeds):
            control = control_of(store, feeds[0])
            lost = await commits_are_lost(servers, control, feeds)
            with pytest.raises(FailedPrecondition, match="heal it first"):
                await control.apply(document(share=40), change=BY)
            healed = await control.heal(change=BY, wait_s=SETTLED_S)
            assert healed.revision > lost
            assert (len(healed.applied.workers), healed.applied.laggards) == (2, ())
            assert live(*feeds)
            assert [(share_of(one.snapshot), one.snapshot.revision) for one in feeds] == [(30, healed.revision)] * 2
            after = await control.apply(document(share=50), change=BY, wait_s=DEADLINE_S)
            assert (after.change.revision, len(after.change.applied.workers)) == (healed.revision + 1, 2)
            for one in watched:
                assert one.revisions == sorted(one.revisions)


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_a_healing_that_a_second_failover_lost_is_done_again(tmp_path: Path) -> None:
    async with group(tmp_path) as servers, store_of(servers.url) as store:
        one, other = (feed(servers.url, tmp_path, name) for name in ("w0", "w1"))
        async with running(one):
            control = control_of(store, one)
            async with running(other):
                lost = await commits_are_lost(servers, control, [one, other])
            await servers.cut_off(servers.replica())
            # The worker that has just died is waited for, so the call is still there when the healing is lost.
            healing = asyncio.create_task(control.heal(change=BY, wait_s=2 * SETTLED_S))
            await until(lambda: one.snapshot.revision > lost, SETTLED_S)
            first = one.snapshot.revision
            await servers.fail_over()
            async with running(feed(servers.url, tmp_path, "w1")):
                healed = await healing
            assert healed.revision > first
            assert (healed.applied.workers, healed.applied.laggards) == (("w0", "w1"), ())
            state = await store.state()
            assert (state.epoch, state.revision) == (healed.epoch, healed.revision)
            assert [entry.operation for entry in (await audit(store, limit=1))] == ["restore"]
            assert share_of(one.snapshot) == 30


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
        with pytest.raises(StoreUnavailable, match="no sentinel answers: a sentinel is not reachable: conn"):
            await store.state()
    master = Server(tmp_path / "master", {}).start()
    one = sentinel(tmp_path / "sentinel", master)
    async with stopped(master, one), store_of(f"redis+sentinel://{dead},{one.address}/others") as store:
        with pytest.raises(StoreUnavailable, match="no sentinel knows the service 'others'"):
            await store.state()
        wrong = f"redis+sentinel://{one.address}/routes?sentinel_username=x&sentinel_password=y"
        async with store_of(wrong) as unknown:
            with pytest.raises(StoreUnavailable, match="no sentinel answers: a sentinel refused the credentials"):
                await unknown.state()
