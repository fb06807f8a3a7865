"""The ngh2 transport on uvloop, as workers run it: grpcio's synchronous client in another thread."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
import pytest
import uvloop

from gateway.rpc.ngh2_server import Ngh2Server
from gateway.rpc.server import ServerOptions
from gateway.rpc.server_certificate import TlsFiles
from tests.rpc.service import Behaviour, register
from tests.rpc.serving import MUTUAL_TLS, UNLIMITED, path
from tests.rpc.test_lifetime import credentials


@contextmanager
def uvloop_server(tls: TlsFiles | None) -> Iterator[int]:
    """The port of a server on a uvloop of its own thread."""
    started = threading.Event()
    port = 0
    stopping: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def serve() -> None:
        nonlocal port
        server = Ngh2Server(ServerOptions(reuse_port=False, tls=tls))
        register(Behaviour(), server)
        await server.start()
        port = server.port
        stop = asyncio.Event()
        stopping.append((asyncio.get_running_loop(), stop))
        started.set()
        await stop.wait()
        await server.stop(1)

    thread = threading.Thread(target=uvloop.run, args=(serve(),))
    thread.start()
    assert started.wait(10)
    yield port
    loop, stop = stopping[0]
    loop.call_soon_threadsafe(stop.set)
    thread.join(10)
    assert not thread.is_alive()


@pytest.mark.parametrize("tls", [None, MUTUAL_TLS], ids=["plain", "mutual tls"])
def test_calls_of_every_kind(tls: TlsFiles | None) -> None:
    with uvloop_server(tls) as port:
        target = f"localhost:{port}"
        channel = (
            grpc.secure_channel(target, credentials("client"), UNLIMITED)
            if tls
            else grpc.insecure_channel(target, UNLIMITED)
        )
        with channel:
            echo = channel.unary_unary(path("EchoNow"), None, None)
            for size in (0, 10, 100_000, 8_000_000):
                assert echo(b"x" * size, timeout=20) == b"x" * size
            futures = [echo.future(b"%d" % number, timeout=20) for number in range(500)]
            assert [future.result() for future in futures] == [b"%d" % number for number in range(500)]
            counted = channel.unary_stream(path("Count"), None, None)(b"50 100000", timeout=20)
            assert [len(answer) for answer in counted] == [100_000] * 50
            chat = channel.stream_stream(path("Chat"), None, None)(iter([b"y" * 300_000] * 20), timeout=20)
            assert [len(answer) for answer in chat] == [300_000] * 20
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary(path("Hold"), None, None)(b"", timeout=0.1)
            assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
