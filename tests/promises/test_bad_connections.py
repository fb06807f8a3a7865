"""Clients that break the protocol, say nothing or come in numbers: their connections end, and others are served."""

import asyncio
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import grpc
import pytest

from gateway.rpc.server import ServerOptions
from tests.promises.good_calls import answered
from tests.rpc.raw import (
    CONTINUATION,
    DATA,
    HEADERS,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    RawClient,
    message,
    raw_frame,
    request_headers,
)
from tests.rpc.serving import TLS, TRANSPORTS, make, serving
from tests.rpc.test_lifetime import credentials


def block(method: str) -> bytes:
    return b"".join(
        b"\x00" + bytes((len(name),)) + name + bytes((len(value),)) + value for name, value in request_headers(method)
    )


COUNT = 20_000


HELLO = PREFACE + raw_frame(SETTINGS)


CLIENT_HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(300)


def resets() -> bytes:
    return b"".join(
        raw_frame(HEADERS, number, block("Hold"), flags=4) + raw_frame(RST_STREAM, number, (8).to_bytes(4, "big"))
        for number in range(1, 2 * COUNT, 2)
    )


CLOSED: dict[str, Callable[[], bytes]] = {
    "93 HTTP/1.1": lambda: b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "93 HTTP/1.1 upgrade": lambda: b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
    "93 TLS hello to a plain port": lambda: CLIENT_HELLO,
    "93 SSH": lambda: b"SSH-2.0-OpenSSH_9.6\r\n",
    "93 zeros": lambda: bytes(4096),
    "93 oversized frame": lambda: HELLO + raw_frame(DATA, 1, b"x" * 100_000),
    "93 frame of 16 MiB": lambda: HELLO + b"\xff\xff\xff\x00\x00\x00\x00\x00\x01" + bytes(100_000),
    "98 ping flood": lambda: HELLO + raw_frame(PING, 0, b"12345678") * COUNT,
}


BOUNDED: dict[str, Callable[[], bytes]] = {
    "99 CONTINUATION flood": lambda: (
        HELLO + raw_frame(HEADERS, 1, block("Hold")) + raw_frame(CONTINUATION, 1, b"\x00\x01x\x01y") * COUNT
    ),
    "99 SETTINGS flood": lambda: HELLO + raw_frame(SETTINGS) * COUNT,
    "99 empty DATA flood": lambda: HELLO + raw_frame(HEADERS, 1, block("Hold"), flags=4) + raw_frame(DATA, 1) * COUNT,
    "99 WINDOW_UPDATE flood": lambda: HELLO + raw_frame(WINDOW_UPDATE, 0, (1).to_bytes(4, "big")) * COUNT,
    "99 frames of no known kind": lambda: HELLO + raw_frame(0xEE, 0, b"x") * COUNT,
    "100 rapid reset": lambda: HELLO + resets(),
}


async def throw(port: int, data: bytes, *, wait: bool) -> None:
    """Sends bytes on a connection of their own; with `wait` the server closes it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(10):
            with suppress(ConnectionError):
                writer.write(data)
                reading = asyncio.ensure_future(reader.read())
                with suppress(ConnectionError):
                    await writer.drain()
                if wait:
                    await reading
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


@pytest.mark.parametrize("name", [*CLOSED, *BOUNDED])
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_who_breaks_the_protocol_is_alone(transport: str, name: str) -> None:
    async with serving(transport) as served, RawClient(served.server.port) as bystander:
        assert await answered(bystander)
        await throw(served.server.port, (CLOSED | BOUNDED)[name](), wait=name in CLOSED)
        assert await answered(bystander)
        async with RawClient(served.server.port) as client:
            assert await answered(client)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_93_plain_text_to_a_tls_port_is_closed(transport: str) -> None:
    server = make(transport, ServerOptions(reuse_port=False, tls=TLS, handshake_timeout_s=1.0))
    await server.start()
    try:
        for data in (HELLO, b"GET / HTTP/1.1\r\n\r\n", bytes(4096)):
            await throw(server.port, data, wait=True)
    finally:
        await server.stop(0)


QUICK: dict[str, tuple[ServerOptions, bytes, bool]] = {
    "95 nothing is sent": (ServerOptions(reuse_port=False, handshake_timeout_s=0.3), b"", False),
    "95 half a preface": (ServerOptions(reuse_port=False, handshake_timeout_s=0.3), PREFACE[:10], False),
    "96 the peer has vanished": (
        ServerOptions(reuse_port=False, keepalive_time_s=0.2, keepalive_timeout_s=0.2),
        HELLO,
        False,
    ),
    "97 it answers pings and nothing else": (
        ServerOptions(reuse_port=False, max_connection_age_s=0.3, age_grace_s=0.2, keepalive_time_s=0.1),
        b"",
        True,
    ),
}


@pytest.mark.parametrize("name", QUICK)
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_who_says_nothing_is_closed_in_time(transport: str, name: str) -> None:
    options, hello, answers = QUICK[name]
    async with serving(transport, options) as served:
        if answers:
            async with RawClient(served.server.port) as client:
                await client.request(request_headers("Total"), message(b"x")[:-1], end=False)
                await client.until_closed(limit_s=5)
        else:
            await throw(served.server.port, hello, wait=True)
        async with RawClient(served.server.port) as client:
            assert await answered(client)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_102_connections_are_capped_and_room_returns(transport: str) -> None:
    async with serving(transport, ServerOptions(reuse_port=False, max_connections=5)) as served:
        kept = [await asyncio.open_connection("127.0.0.1", served.server.port) for _ in range(5)]
        for _, writer in kept:
            writer.write(HELLO)
        for reader, _ in kept:
            assert await asyncio.wait_for(reader.read(9), 5)
        for _ in range(20):
            await throw(served.server.port, HELLO, wait=True)
        for _, writer in kept:
            writer.close()
        assert await served.unary("EchoNow")(b"room", timeout=10, wait_for_ready=True) == b"room"


POOR_SERVER = """
import asyncio, resource, sys
import uvloop
from gateway.rpc.server import ServerOptions
from tests.rpc.service import Behaviour, register
from tests.rpc.serving import TLS, make

async def main():
    server = make(sys.argv[1], ServerOptions(reuse_port=False, tls=TLS if sys.argv[2] else None, handshake_timeout_s=2))
    register(Behaviour(), server)
    await server.start()
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    print(server.port, flush=True)
    await asyncio.Event().wait()

uvloop.run(main())
"""


@pytest.mark.parametrize(("transport", "tls"), [("ngh2", ""), ("ngh2", "tls"), ("grpcio", "")])
async def test_102_a_server_without_descriptors_serves_who_is_there(transport: str, tls: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", POOR_SERVER, transport, tls, stdout=-1, stderr=-3, cwd=Path(__file__).parents[2]
    )
    assert process.stdout is not None
    writers: list[asyncio.StreamWriter] = []
    try:
        port = int(await process.stdout.readline())
        made = credentials(None) if tls else None
        target = f"localhost:{port}"
        async with grpc.aio.secure_channel(target, made) if made else grpc.aio.insecure_channel(target) as channel:
            call = channel.unary_unary("/testing.Behaviour/EchoNow", None, None)
            assert await call(b"before", timeout=10, wait_for_ready=True) == b"before"
            for _ in range(100):  # the kernel takes those that the server cannot
                writers.append((await asyncio.open_connection("127.0.0.1", port))[1])
            for _ in range(50):
                assert await call(b"meanwhile", timeout=10) == b"meanwhile"
        for writer in writers:
            writer.close()
        async with grpc.aio.secure_channel(target, made) if made else grpc.aio.insecure_channel(target) as channel:
            call = channel.unary_unary("/testing.Behaviour/EchoNow", None, None)
            assert await call(b"after", timeout=15, wait_for_ready=True) == b"after"
        assert process.returncode is None
    finally:
        for writer in writers:
            writer.close()
        process.kill()
        await process.wait()
