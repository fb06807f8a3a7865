"""A store that is away, slow, full, read-only or damaged: a short reason, nothing half done, all well afterwards."""

import asyncio
import time

import pytest
from redis._parsers import _AsyncRESP2Parser

from gateway.errors import StoreUnavailable
from gateway.routing.store.change import Proposal
from gateway.routing.store.redis_store import VALUE_LIMIT_BYTES, RedisStore
from gateway.routing.store.store_failure import reason
from gateway.routing.store.store_link import Word
from tests.machine_load import as_loaded
from tests.routing.live import BY, admin_of, route, store_of
from tests.valkey import Valkey


async def commit(store: RedisStore, share: int = 10) -> int:
    epoch = (await store.current("fraud")).epoch
    proposal = Proposal("fraud", "apply", route(share=share), None, epoch, BY)
    return (await store.commit(proposal)).revision


async def test_a_dead_server_is_named_at_once_and_used_again_when_it_is_back(valkey: Valkey) -> None:
    async with store_of(valkey.url) as store:
        assert await commit(store) == 1
        valkey.kill()
        for ask in (store.state, lambda: commit(store), store.workers, lambda: store.history("fraud")):
            with pytest.raises(StoreUnavailable, match="not reachable"):
                await ask()
        valkey.start()
        assert await commit(store) == 2


async def test_a_frozen_server_costs_one_timeout_whatever_is_asked_at_once(valkey: Valkey) -> None:
    async with store_of(valkey.url, timeout_s=0.3) as store:
        await commit(store)
        valkey.pause()
        start = time.monotonic()
        results = await asyncio.gather(*(commit(store) for _ in range(60)), return_exceptions=True)
        assert time.monotonic() - start < as_loaded(1.0)
        assert all(isinstance(r, StoreUnavailable) and "within 0.3 s" in str(r) for r in results)
        valkey.resume()
        assert len(await store.history("fraud")) == 1
        assert await commit(store) == 2
        clients = await store._link.call("CLIENT", "LIST")
        assert isinstance(clients, bytes)
        assert clients.count(b"name=gateway-control") <= 16


@pytest.mark.parametrize(
    ("prepare", "reason"),
    [
        (("CONFIG", "SET", "maxmemory", "1"), "out of memory"),
        (("REPLICAOF", "127.0.0.1", "1"), "read-only replica"),
        (("CONFIG", "SET", "min-replicas-to-write", "1"), "too few replicas"),
    ],
)
async def test_a_server_that_takes_no_writes_is_still_read(
    valkey: Valkey, prepare: tuple[str, ...], reason: str
) -> None:
    async with store_of(valkey.url) as store:
        await commit(store)
        before = await store.state()
        await store._link.call(*prepare)
        with pytest.raises(StoreUnavailable, match=reason):
            await commit(store)
        assert await store.state() == before


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("LOADING Redis is loading the dataset in memory", "is loading its data"),
        ("MISCONF Redis is configured to save RDB snapshots", "cannot write its data to disk"),
        ("NOAUTH Authentication required.", "asks for credentials"),
        ("MASTERDOWN Link with MASTER is down", "is a replica without its master"),
        ("CLUSTERDOWN Hash slot not served", "is a cluster that does not serve all keys"),
    ],
)
def test_what_a_server_answers_instead_is_said_in_words(answer: str, said: str) -> None:
    error = _AsyncRESP2Parser(socket_read_size=1).parse_error(answer)  # type: ignore[no-untyped-call]
    assert reason(error, 1.0) == said


async def test_refused_credentials_are_said_without_showing_them(valkey: Valkey) -> None:
    async with admin_of(valkey.url) as admin:
        await admin.call("CONFIG", "SET", "requirepass", "right")
    for url, said in (
        (valkey.url, "asks for credentials"),
        (f"{valkey.url}?password=wrong-secret", "refused the credentials"),
    ):
        async with store_of(url) as store:
            with pytest.raises(StoreUnavailable, match=said) as caught:
                await store.state()
            assert "secret" not in str(caught.value)


async def test_a_user_without_the_right_is_told_so(valkey: Valkey) -> None:
    rules = ("on", ">pw", "~*", "+@read", "+eval_ro", "+evalsha_ro", "+client", "+multi", "+exec")
    async with admin_of(valkey.url) as admin:
        await admin.call("ACL", "SETUSER", "reader", *rules)
    async with store_of(f"{valkey.url}?username=reader&password=pw") as store:
        assert (await store.state()).revision == 0
        with pytest.raises(StoreUnavailable, match="refused permission"):
            await commit(store)


@pytest.mark.parametrize("name", ["epoch", "rev", "routes", "log", "hist:fraud"])
async def test_a_key_of_another_type_is_named_and_nothing_is_half_done(valkey: Valkey, name: str) -> None:
    async with store_of(valkey.url) as store:
        await commit(store)
        key = f"{{gw:default}}:{name}"
        await store._link.call("DEL", key)
        await store._link.call("LPUSH", key, "alien")
        log_length = 0 if name == "log" else await store._link.call("XLEN", store.keys.log)
        with pytest.raises(StoreUnavailable):
            await commit(store, 20)
        with pytest.raises(StoreUnavailable, match="damaged") as caught:
            await store.commit(Proposal("fraud", "apply", route(), None, "", BY))
        assert key in str(caught.value)
        if name != "rev":
            assert await store._link.call("GET", store.keys.revision) == b"1" or name == "epoch"
        if name != "log":
            assert await store._link.call("XLEN", store.keys.log) == log_length


@pytest.mark.parametrize("value", ["", "-1", "1e9", "9" * 16, "\xff\xfe"])
async def test_a_revision_that_is_no_number_stops_commits(valkey: Valkey, value: str) -> None:
    async with store_of(valkey.url) as store:
        await commit(store)
        await store._link.call("SET", store.keys.revision, value)
        with pytest.raises(StoreUnavailable, match="damaged"):
            await commit(store)
        assert len(await store.history("fraud")) == 1


async def test_half_an_identity_is_damage_and_not_a_new_store(valkey: Valkey) -> None:
    async with store_of(valkey.url) as store:
        await commit(store)
        for key in (store.keys.revision, store.keys.epoch):
            value = await store._link.call("GET", key)
            assert isinstance(value, bytes)
            await store._link.call("DEL", key)
            with pytest.raises(StoreUnavailable, match="damaged"):
                await commit(store)
            await store._link.call("SET", key, value)
        assert await commit(store) == 2


@pytest.mark.parametrize("key", ["log", "hist:fraud"])
async def test_an_entry_added_by_hand_does_not_block_the_stream(valkey: Valkey, key: str) -> None:
    async with store_of(valkey.url) as store:
        await commit(store)
        await store._link.call("XADD", f"{{gw:default}}:{key}", "9999-0", "some", "thing")
        assert await commit(store, 20) == 2
        assert (await store.history("fraud"))[0].revision == 2
        words: tuple[Word, ...] = ("KEYS", f"{{gw:default}}:{key}:alien:*")
        aside = await store._link.call(*words)
        assert isinstance(aside, list)
        assert len(aside) == 1


async def test_a_value_that_is_too_large_is_never_read(valkey: Valkey) -> None:
    async with store_of(valkey.url) as store:
        await commit(store)
        await store._link.call("HSET", store.keys.routes, "fraud", b"x" * (VALUE_LIMIT_BYTES + 1))
        with pytest.raises(StoreUnavailable, match="too large"):
            await store.current("fraud")
        state = await store.state()
        assert (state.texts["fraud"], state.sizes["fraud"]) == (None, VALUE_LIMIT_BYTES + 1)


async def test_what_is_no_worker_is_not_listed(valkey: Valkey) -> None:
    async with store_of(valkey.url) as store:
        await store._link.call("ZADD", store.keys.workers, 1, "gone", 2, "garbage", 3, "wrong")
        await store._link.call("HSET", store.keys.worker("garbage"), "id", "garbage", "unapplied", "[")
        await store._link.call("PEXPIRE", store.keys.worker("garbage"), 10_000)
        assert await store.workers() == []


@pytest.mark.parametrize("answer", [b"-MOVED x\r\n", b"-ASK 1 :port\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
async def test_what_speaks_no_resp_is_no_store(answer: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1 << 16):
            writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, store_of(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}") as store:
        for ask in (store.state, lambda: commit(store), store.workers):
            with pytest.raises(StoreUnavailable, match="speaks no RESP"):
                await ask()
