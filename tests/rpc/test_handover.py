"""Servers that share a port: one stops, and nobody who connects meanwhile is lost."""

import asyncio
import threading

import grpc
import pytest

from gateway.rpc.server import Server, ServerOptions
from tests.rpc.service import Behaviour, register
from tests.rpc.serving import TRANSPORTS, make, path

CLIENTS = 8
ROUNDS = 2


class Clients:
    """Threads that make calls one after the other, with a new connection for each; `failures` says what went wrong."""

    def __init__(self, port: int) -> None:
        self.failures: list[str] = []
        self._port = port
        self._over = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._made = asyncio.Semaphore(0)
        self._threads = [asyncio.ensure_future(asyncio.to_thread(self._run)) for _ in range(CLIENTS)]

    async def made(self, calls: int) -> None:
        """So many more calls have ended."""
        for _ in range(calls):
            await self._made.acquire()

    async def end(self) -> None:
        self._over.set()
        await asyncio.gather(*self._threads)

    def _run(self) -> None:
        while not self._over.is_set():
            options = [("grpc.use_local_subchannel_pool", 1)]
            with grpc.insecure_channel(f"127.0.0.1:{self._port}", options=options) as channel:
                try:
                    assert channel.unary_unary(path("EchoNow"), None, None)(b"hello", timeout=10) == b"hello"
                except grpc.RpcError as error:
                    assert isinstance(error, grpc.Call)  # noqa: PT017
                    self.failures.append(f"{error.code().name}: {error.details()}")
            self._loop.call_soon_threadsafe(self._made.release)


async def started(transport: str, port: int) -> Server:
    server = make(transport, ServerOptions(port=port))
    register(Behaviour(), server)
    await server.start()
    return server


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_who_connects_for_each_call_does_not_notice_a_server_that_stops(transport: str) -> None:
    """Otherwise connections are reset that the kernel has accepted, and the stopping server not yet."""
    stays = await started(transport, 0)
    clients = Clients(stays.port)
    try:
        for _ in range(ROUNDS):
            leaves = await started(transport, stays.port)
            await clients.made(4 * CLIENTS)
            await leaves.stop(5)
    finally:
        await clients.end()
        await stays.stop(0)
    assert clients.failures == []
