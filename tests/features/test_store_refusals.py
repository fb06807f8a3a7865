"""A feature store that answers, but not what is asked: in its own words, and asked ever less often."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gateway.features.feature_store import FeatureStore, RowRequest
from tests.routing.test_store_tls import CA, CLIENT, terminator
from tests.valkey import Valkey


@asynccontextmanager
async def answering(refusal: str, *, refused: frozenset[bytes] = frozenset()) -> AsyncIterator[str]:
    """The URL of a server that speaks RESP and refuses these commands, or all of them."""
    told = {b"PING": b"+PONG\r\n"}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readline():
            words = []
            for _ in range(int(head[1:])):
                size = int((await reader.readline())[1:])
                words.append((await reader.readexactly(size + 2))[:-2])
            refuses = not refused or words[0] in refused
            writer.write(f"-{refusal}\r\n".encode() if refuses else told.get(words[0], b"+OK\r\n"))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


@pytest.mark.parametrize(
    ("refusal", "why"),
    [
        ("LOADING Redis is loading the dataset in memory", "is loading its data"),
        ("READONLY You can't write against a read only replica.", "is a read-only replica"),
        ("NOAUTH Authentication required.", "asks for credentials"),
        ("WRONGPASS invalid username-password pair or user is disabled.", "refused the credentials"),
        ("MASTERDOWN Link with MASTER is down", "is a replica without its master"),
        ("BUSY Redis is busy running a script.", "is busy with a script"),
        ("ERR max number of clients reached", "has as many clients as it may have (maxclients)"),
    ],
)
async def test_what_the_store_refuses_is_said_in_words(refusal: str, why: str) -> None:
    async with answering(refusal) as url:
        store = FeatureStore("shop", url)
        await store.looked()
        assert store.trouble == f"the feature store 'shop' {why} (PING)"
        await store.aclose()


async def test_rows_come_over_tls_with_both_sides_proven(valkey: Valkey) -> None:
    async with terminator(valkey.socket_path) as port, asyncio.timeout(20):
        store = FeatureStore("shop", f"rediss://localhost:{port}?{CA}&{CLIENT}")
        told: asyncio.Queue[tuple[object, str]] = asyncio.Queue()
        request = RowRequest(
            b"user:1", (b"visits",), lambda key, reply, why: told.put_nowait((reply, why)), lambda _: True
        )
        store.ask(request)
        assert await told.get() == ([None], "")
        await store.aclose()
        for url, why in (
            (f"rediss://localhost:{port}?{CLIENT}", "shows a TLS certificate that does not verify (PING, over TLS)"),
            (f"redis://localhost:{port}", "if it expects TLS its URL begins with rediss:// (PING)"),
        ):
            store = FeatureStore("shop", url)
            await store.looked()
            assert store.trouble.startswith("the feature store 'shop' ")
            assert store.trouble.endswith(why)
            await store.aclose()


async def test_a_store_that_answers_pings_and_no_look_up_is_asked_ever_less_often() -> None:
    draws: list[float] = []
    told: asyncio.Queue[str] = asyncio.Queue()
    changes: asyncio.Queue[str] = asyncio.Queue()

    def draw() -> float:
        draws.append(0.0)
        return 0.0

    async with answering("CLUSTERDOWN The cluster is down", refused=frozenset({b"HMGET"})) as url, asyncio.timeout(10):
        store = FeatureStore("shop", url, draw=draw)
        await store.looked()
        store.watch(lambda: changes.put_nowait(store.trouble))
        for _ in range(3):
            store.ask(RowRequest(b"user:1", (b"visits",), lambda key, reply, why: told.put_nowait(why), lambda _: True))
            assert "is a cluster that does not serve all keys" in await told.get()
            while await changes.get():
                pass
        assert len(draws) == 2  # the first look is made at once, as that of any outage
        await store.aclose()
