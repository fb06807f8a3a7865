"""Clients that abuse HTTP/2: the connection ends or the work is bounded, and everybody else is served."""

import asyncio
import resource
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

import grpc
import ngh2
import pytest

from gateway.rpc.server import ServerOptions
from tests.rpc.raw import (
    CONTINUATION,
    DATA,
    HEADERS,
    PING,
    PREFACE,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    RawClient,
    message,
    raw_frame,
    request_headers,
)
from tests.rpc.service import Behaviour, register
from tests.rpc.serving import TLS, Served, make, path, serving
from tests.rpc.test_lifetime import credentials

CALM = ngh2.ErrorCode.ENHANCE_YOUR_CALM
COUNT = 20_000
# The body of a HEADERS frame for POST /testing.Behaviour/Hold, written without compression.
BLOCK = b"".join(
    b"\x00" + bytes((len(name),)) + name + bytes((len(value),)) + value for name, value in request_headers("Hold")
)


def resets() -> bytes:
    return b"".join(
        raw_frame(HEADERS, stream_id, BLOCK, flags=4) + raw_frame(RST_STREAM, stream_id, (8).to_bytes(4, "big"))
        for stream_id in range(1, 2 * COUNT, 2)
    )


FLOODS: dict[str, Callable[[], bytes]] = {
    "rapid reset": resets,
    "settings": lambda: raw_frame(SETTINGS) * COUNT,
    "ping": lambda: raw_frame(PING, 0, b"12345678") * COUNT,
    "continuation": lambda: raw_frame(HEADERS, 1, BLOCK) + raw_frame(CONTINUATION, 1, b"\x00\x01x\x01y") * COUNT,
    "empty data": lambda: raw_frame(HEADERS, 1, BLOCK, flags=4) + raw_frame(DATA, 1) * COUNT,
    "window update of nothing": lambda: raw_frame(WINDOW_UPDATE, 0, bytes(4)) * COUNT,
    "priority of itself": lambda: raw_frame(PRIORITY, 1, (1).to_bytes(4, "big") + b"\0") * COUNT,
    "garbage": lambda: b"\xff" * 100_000,
    "oversized frame": lambda: raw_frame(DATA, 1, b"x" * 100_000),
}


@pytest.fixture
async def bystander(fast: Served) -> AsyncIterator[Served]:
    """The server, with a check afterwards that other connections are served and nothing is left over."""
    yield fast
    assert await fast.unary("EchoNow")(b"alive", timeout=5) == b"alive"


@pytest.mark.parametrize("name", FLOODS)
async def test_a_flood_ends_its_connection(bystander: Served, name: str) -> None:
    flood = FLOODS[name]()
    async with RawClient(bystander.server.port) as client:
        await client.until(lambda self: self.events)
        began, memory = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        await client.send_raw(flood)
        await client.until_closed()
        spent_s = time.process_time() - began
    assert spent_s < 3.0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 64 * 1024
    assert bystander.server.counts()["broken"] == 1
    assert bystander.behaviour.events["hold"] == bystander.behaviour.events["hold cancelled"]


async def test_pings_that_are_too_frequent_are_told_so(bystander: Served) -> None:
    async with RawClient(bystander.server.port) as client:
        await client.until(lambda self: self.events)
        for _ in range(4):
            client.h2.ping(b"12345678")
            await client.send()
        await client.until(lambda self: self.went_away() is not None)
        assert client.went_away() == CALM
        assert any(getattr(event, "debug_data", b"") == b"too_many_pings" for event in client.events)


async def test_pings_beside_calls_are_welcome(bystander: Served) -> None:
    async with RawClient(bystander.server.port) as client:
        for _ in range(10):
            client.h2.ping(b"12345678")
            fields, _ = await client.answer(await client.request(request_headers("EchoNow"), message(b"x")))
            assert fields[b"grpc-status"] == b"0"
        assert client.went_away() is None


@pytest.mark.parametrize(
    "hello", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\0" * 100]
)
async def test_other_protocols_are_shut_out(bystander: Served, hello: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", bystander.server.port)
    writer.write(hello)
    async with asyncio.timeout(5):
        try:
            await reader.read()
        except ConnectionError:
            pass
    writer.close()


@pytest.mark.parametrize("hello", [b"", PREFACE[:10], PREFACE])
async def test_a_silent_client_is_closed_after_the_handshake_time(hello: bytes) -> None:
    options = ServerOptions(reuse_port=False, handshake_timeout_s=0.2)
    async with serving("ngh2", options) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.server.port)
        writer.write(hello)
        async with asyncio.timeout(5):
            try:
                while await reader.read(1024):
                    pass
            except ConnectionError:
                pass
        writer.close()


async def test_connections_beyond_the_limit_are_closed_and_room_returns() -> None:
    async with serving("ngh2", ServerOptions(reuse_port=False, max_connections=3)) as served:
        async with RawClient(served.server.port) as first:
            await first.until(lambda self: self.events)
            async with RawClient(served.server.port) as second, RawClient(served.server.port) as third:
                await second.until(lambda self: self.events)
                await third.until(lambda self: self.events)
                async with RawClient(served.server.port) as fourth:
                    await fourth.until_closed()
                fields, _ = await third.answer(await third.request(request_headers("EchoNow"), message(b"x")))
                assert fields[b"grpc-status"] == b"0"
        assert await served.unary("EchoNow")(b"room", timeout=10, wait_for_ready=True) == b"room"


@pytest.mark.parametrize(
    ("transport", "limit"),
    [
        ("ngh2", {"max_connections": 3}),
        ("ngh2", {"max_connections_per_address": 3}),
        ("grpcio", {"max_connections": 3}),
    ],
)
async def test_half_open_handshakes_are_connections(transport: str, limit: dict[str, int]) -> None:
    options = ServerOptions(reuse_port=False, tls=TLS, handshake_timeout_s=1.0, **limit)  # type: ignore[arg-type]
    server = make(transport, options)
    register(Behaviour(), server)
    await server.start()
    try:
        silent = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(3)]
        hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
        silent[0][1].write(hello)  # a part of one
        async with asyncio.timeout(5):
            with suppress(ConnectionError):
                reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
                assert await reader.read() == b""  # at once
                writer.close()
            if transport == "ngh2":
                assert (server.counts()["open"], server.counts()["refused"]) == (3, 1)
            for reader, writer in silent:  # the time is over
                with suppress(ConnectionError):
                    await reader.read()
                writer.close()
        async with grpc.aio.secure_channel(f"localhost:{server.port}", credentials(None)) as channel:
            answer = await channel.unary_unary(path("EchoNow"), None, None)(b"x", timeout=10, wait_for_ready=True)
            assert answer == b"x"
            if transport == "ngh2":
                assert server.counts() == {"open": 1, "accepted": 1, "refused": 1, "broken": 3, "calls": 0}
    finally:
        await server.stop(0)


async def test_streams_beyond_the_limit_are_refused() -> None:
    async with serving("ngh2", ServerOptions(reuse_port=False, max_concurrent_streams=5)) as served:
        async with RawClient(served.server.port) as client:
            await client.until(lambda self: self.events)
            block = raw_frame(HEADERS, 1, BLOCK, flags=4)
            streams = [block[:5] + number.to_bytes(4, "big") + block[9:] for number in range(1, 21, 2)]
            bodies = [raw_frame(DATA, number, message(b"x"), flags=1) for number in range(1, 21, 2)]
            await client.send_raw(b"".join(part for pair in zip(streams, bodies, strict=True) for part in pair))
            await served.behaviour.until("hold", 5)
        await served.behaviour.until("hold cancelled", 5)
        assert served.behaviour.events["hold"] == 5
        assert await served.unary("EchoNow")(b"next", timeout=5) == b"next"


async def test_messages_on_their_way_share_a_byte_budget() -> None:
    options = ServerOptions(reuse_port=False, max_inflight_bytes=1_000_000)
    async with serving("ngh2", options) as served, RawClient(served.server.port) as client:
        prefix = b"\0" + (600_000).to_bytes(4, "big")
        held = await client.request(request_headers("EchoNow"), prefix, end=False)
        refused = await client.request(request_headers("EchoNow"), prefix, end=False)
        fields, _ = await client.answer(refused)
        assert fields[b"grpc-status"] == b"8"
        client.h2.reset_stream(held, 8)
        await client.send()
        assert await served.unary("EchoNow")(b"x" * 900_000, timeout=5) == b"x" * 900_000
        assert await served.unary("Echo")(b"x" * 900_000, timeout=5) == b"x" * 900_000
        chat = served.both_streams("Chat")(iter([b"x" * 300_000] * 5), timeout=10)
        assert [len(body) async for body in chat] == [300_000] * 5


async def test_many_refused_bodies_leave_the_connection_window_whole(fast: Served) -> None:
    """Bytes of streams that were refused or reset count for the connection's window, and must be given back."""
    async with RawClient(fast.server.port) as client:
        for _ in range(60):
            bad = await client.request(request_headers("EchoNow"), b"\x07" + b"x" * 1_000_000, end=False)
            fields, _ = await client.answer(bad)
            assert fields[b"grpc-status"] == b"13"
        fields, body = await client.answer(await client.request(request_headers("EchoNow"), message(b"y" * 100_000)))
        assert fields[b"grpc-status"] == b"0"
        assert len(body) == 100_005


async def test_a_flood_that_reads_nothing_is_cut_off() -> None:
    """GOAWAY cannot be written to such a client, and what it goes on to send must not be worked on for ever."""
    async with serving("ngh2") as served:
        client = RawClient(served.server.port)
        async with client:
            await client.until(lambda self: self.events)
            await client.request(request_headers("Count"), message(b"-2000 65536"))
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]
            await served.behaviour.until("counted")
            async with asyncio.timeout(10):
                while not client.closed and not client.writer.is_closing():
                    await client.send_raw(raw_frame(PING, 0, b"12345678") * 1000)
            await served.behaviour.until("count over")
