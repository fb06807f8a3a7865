"""Networks between workers and the store: whatever they do, nothing is missed, mixed up or half done."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from gateway.errors import StoreUnavailable
from gateway.routing.store.feed import Feed
from gateway.routing.store.redis_store import RedisStore
from gateway.routing.store.worker_status import FeedState
from tests.machine_load import as_loaded
from tests.routing.fault_proxy import FAULTS, Fault, FaultProxy
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
from tests.valkey import Valkey

RESUMED_S = 2.0  # P14: how soon after the network is well again every worker is where the store is


@pytest_asyncio.fixture
async def proxy(valkey: Valkey) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(valkey.socket_path).running() as made:
        yield made


async def committed(store: RedisStore, shares: range) -> None:
    for share in shares:
        await control_of(store).apply(document(share=share), change=BY)


def agrees(follower: Feed, direct: Feed) -> bool:
    return follower.snapshot.digest == direct.snapshot.digest and live(follower, direct)


def own_tasks() -> int:
    """How many tasks run beside those of the proxy."""
    return sum("FaultProxy" not in repr(task.get_coro()) for task in asyncio.all_tasks())


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_feed_misses_nothing_whatever_becomes_of_its_connection(
    fault: Fault, proxy: FaultProxy, valkey: Valkey, tmp_path: Path
) -> None:
    follower, direct = feed(proxy.url, tmp_path, "through"), feed(valkey.url, tmp_path, "direct")
    async with store_of(valkey.url) as store, running(follower, direct):
        await committed(store, range(10))
        await until(lambda: agrees(follower, direct))
        before = follower.snapshot
        proxy.put(fault)
        await committed(store, range(10, 30))
        await until(lambda: share_of(direct.snapshot) == 29)
        assert follower.snapshot.routes  # what it had, or newer: never nothing
        assert follower.snapshot.revision >= before.revision
        proxy.put("none")
        mended_at = time.monotonic()
        await until(lambda: agrees(follower, direct))
        assert time.monotonic() - mended_at < as_loaded(RESUMED_S + 1.5)
        assert share_of(follower.snapshot) == 29


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault != "delay"])
async def test_a_change_over_a_broken_network_is_unavailable_and_done_once_at_most(
    fault: Fault, proxy: FaultProxy, valkey: Valkey
) -> None:
    async with store_of(proxy.url, timeout_s=0.3) as store, store_of(valkey.url) as sound:
        await committed(sound, range(1))
        await control_of(store).list()
        proxy.put(fault)
        started = time.monotonic()
        with pytest.raises(StoreUnavailable):
            await control_of(store).apply(document(share=50), change=BY)
        assert time.monotonic() - started < as_loaded(1.5)
        proxy.put("none")
        await control_of(store).apply(document(share=60), change=BY)
        shares = [entry.revision for entry in await sound.history("fraud")]
        assert shares == list(range(len(shares), 0, -1))
        assert len(shares) <= 3


async def read_until_it_fails(store: RedisStore) -> None:
    while True:
        await store.state()


@pytest.mark.parametrize("words", [("CLIENT", "PAUSE", "700", "ALL"), ("DEBUG", "SLEEP", "0.7")])
async def test_a_server_that_stands_still_for_a_moment_costs_that_moment(
    words: tuple[str, ...], valkey: Valkey, tmp_path: Path
) -> None:
    follower = feed(valkey.url, tmp_path)
    async with store_of(valkey.url, timeout_s=0.2) as store, admin_of(valkey.url) as admin, running(follower):
        await control_of(store, follower).apply(document(share=10), change=BY, wait_s=DEADLINE_S)
        standing = asyncio.create_task(admin.call(*words))
        await asyncio.sleep(0)
        with pytest.raises(StoreUnavailable, match=r"did not answer within 0\.2 s"):
            await read_until_it_fails(store)
        assert share_of(follower.snapshot) == 10
        await standing
        while True:
            try:
                await control_of(store, follower).apply(document(share=20), change=BY, wait_s=DEADLINE_S)
                break
            except StoreUnavailable:
                continue
        assert share_of(follower.snapshot) == 20


async def test_answers_that_come_late_belong_to_those_who_asked(proxy: FaultProxy, valkey: Valkey) -> None:
    """A reply that arrives after its caller was cancelled must not become the next caller's (CVE-2023-28858)."""
    async with store_of(valkey.url) as sound:
        for number in range(8):
            await control_of(sound).apply(document(f"m{number}"), change=BY)
    async with store_of(proxy.url, timeout_s=3.0) as store:
        proxy.put("delay")

        async def read(number: int, patience_s: float) -> None:
            try:
                async with asyncio.timeout(patience_s):
                    current = await store.current(f"m{number}")
            except TimeoutError:
                return
            assert f'"model":"m{number}"' in current.text

        # Cancelled while the command, the first or the second answer is under way.
        for patience_s in (0.02, 0.08, 0.13, 5.0):
            await asyncio.gather(*(read(number, patience_s) for number in range(8)))


async def test_a_store_that_stands_still_is_not_asked_by_ever_more_connections(
    proxy: FaultProxy, valkey: Valkey, tmp_path: Path
) -> None:
    follower = feed(proxy.url, tmp_path)
    async with store_of(valkey.url) as sound, store_of(proxy.url, timeout_s=0.1) as store, running(follower):
        await control_of(sound, follower).apply(document(), change=BY, wait_s=DEADLINE_S)
        proxy.put("stall")
        before, tasks = proxy.connections, own_tasks()
        for _ in range(20):
            with pytest.raises(StoreUnavailable):
                await store.state()
        await until(lambda: follower.state is FeedState.STALE)
        assert share_of(follower.snapshot) == 10
        assert follower.stale_seconds() > 0
        assert proxy.connections - before <= 2 * 20 + 8  # each try has one, and closes it
        assert own_tasks() <= tasks + 2
        proxy.put("none")
        await until(lambda: live(follower))
