"""Servers that share a port: one stops, and nobody who has a connection or makes one meanwhile loses a call."""

import asyncio
import json
import socket
import sys
import threading
from collections.abc import AsyncIterator

import grpc
import pytest

from gateway.rpc.grpcio import GrpcioServer
from gateway.rpc.handshake_filter import SETTLE_S, turn_away, waiting
from gateway.rpc.server import Server, ServerOptions
from tests.rpc.service import Behaviour, register
from tests.rpc.serving import TRANSPORTS, make, path

# As the published service config has it: a call waits for a connection, and one that nobody has taken is repeated. What
# is CANCELLED is not.
PATIENT = json.dumps(
    {
        "methodConfig": [
            {
                "name": [{}],
                "waitForReady": True,
                "retryPolicy": {
                    "maxAttempts": 4,
                    "initialBackoff": "0.05s",
                    "maxBackoff": "1s",
                    "backoffMultiplier": 3,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ]
    }
)
CLIENTS = 8
# More than a connection takes at once, so that calls are cut in the middle, and than a client repeats by default.
LARGE = b"x" * 3_000_000
OPTIONS = [
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.service_config", PATIENT),
    ("grpc.per_rpc_retry_buffer_size", 2 * len(LARGE)),
]
ROUNDS = 2
MOVES = 4


class Clients:
    """Threads that make calls one after the other, with a new connection for each if `connect_per_call`.

    `failures` says what went wrong.
    """

    def __init__(self, port: int, *, connect_per_call: bool, sent: bytes = b"hello") -> None:
        self._sent = sent
        self.failures: list[str] = []
        self._port = port
        self._connect_per_call = connect_per_call
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
            with grpc.insecure_channel(f"127.0.0.1:{self._port}", options=OPTIONS) as channel:
                while not self._over.is_set():
                    self._call(channel)
                    if self._connect_per_call:
                        break

    def _call(self, channel: grpc.Channel) -> None:
        try:
            assert channel.unary_unary(path("EchoNow"), None, None)(self._sent, timeout=20) == self._sent
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
    clients = Clients(stays.port, connect_per_call=True)
    try:
        for _ in range(ROUNDS):
            leaves = await started(transport, stays.port)
            await clients.made(4 * CLIENTS)
            await leaves.stop(5)
    finally:
        await clients.end()
        await stays.stop(0)
    assert clients.failures == []


@pytest.mark.parametrize("sent", [b"hello", LARGE], ids=["small", "large"])
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_who_keeps_a_connection_does_not_notice_a_server_that_stops(transport: str, sent: bytes) -> None:
    """Otherwise grpcio ends with CANCELLED what comes between the beginning of its stop and the client's knowledge."""
    leaves = await started(transport, 0)
    clients = Clients(leaves.port, connect_per_call=False, sent=sent)
    try:
        for _ in range(MOVES):
            await clients.made(4 * CLIENTS)
            comes = await started(transport, leaves.port)
            await leaves.stop(5)
            leaves = comes
    finally:
        await clients.end()
        await leaves.stop(0)
    assert clients.failures == []


@pytest.mark.skipif(sys.platform != "linux", reason="nothing is turned away elsewhere")
async def test_who_waits_to_be_accepted_is_not_missed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        turning = asyncio.create_task(turn_away([listening]))
        with socket.create_connection(("127.0.0.1", port)):
            done, _ = await asyncio.wait([turning], timeout=2 * SETTLE_S)
            assert (len(done), waiting(listening)) == (0, 1)
            accepted, _ = listening.accept()
            await turning
            accepted.close()


async def _watched(request: bytes, context: object) -> AsyncIterator[bytes]:
    yield b"serving"
    await asyncio.Event().wait()


async def test_a_watched_health_holds_up_no_stop_of_grpcio() -> None:
    server = GrpcioServer(ServerOptions())
    watch = grpc.unary_stream_rpc_method_handler(_watched)
    server.add_registered_method_handlers("grpc.health.v1.Health", {"Watch": watch})
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        watching = channel.unary_stream("/grpc.health.v1.Health/Watch", None, None)(b"")
        assert await watching.read() == b"serving"
        async with asyncio.timeout(30):
            await server.stop(3600)
        assert await watching.code() is grpc.StatusCode.UNAVAILABLE
