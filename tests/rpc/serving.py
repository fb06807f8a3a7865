"""Both transports, started for a test."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import grpc

from gateway.rpc.grpcio import GrpcioServer
from gateway.rpc.ngh2_server import Ngh2Server
from gateway.rpc.server import Server, ServerOptions
from gateway.rpc.server_certificate import TlsFiles
from tests.rpc.service import NAME, Behaviour, register

TRANSPORTS = ("grpcio", "ngh2")
CERTIFICATES = Path(__file__).parent / "certificates"
TLS = TlsFiles(CERTIFICATES / "server.pem", CERTIFICATES / "server.key")
MUTUAL_TLS = TlsFiles(TLS.certificate, TLS.key, CERTIFICATES / "ca.pem")
UNLIMITED = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))


class Served(NamedTuple):
    """A running server with its behaviour and a channel of grpcio's asyncio client to it."""

    server: Server
    behaviour: Behaviour
    channel: grpc.aio.Channel

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server.port}"

    def unary(self, method: str) -> "grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]":
        return self.channel.unary_unary(path(method), None, None)

    def server_stream(self, method: str) -> "grpc.aio.UnaryStreamMultiCallable[bytes, bytes]":
        return self.channel.unary_stream(path(method), None, None)

    def client_stream(self, method: str) -> "grpc.aio.StreamUnaryMultiCallable[bytes, bytes]":
        return self.channel.stream_unary(path(method), None, None)

    def both_streams(self, method: str) -> "grpc.aio.StreamStreamMultiCallable[bytes, bytes]":
        return self.channel.stream_stream(path(method), None, None)


def path(method: str) -> str:
    return f"/{NAME}/{method}"


def make(transport: str, options: ServerOptions) -> Server:
    return GrpcioServer(options) if transport == "grpcio" else Ngh2Server(options)


@asynccontextmanager
async def serving(transport: str, options: ServerOptions | None = None) -> AsyncIterator[Served]:
    """A server of the test service, and a channel; nothing is left of either."""
    server = make(transport, options or ServerOptions(reuse_port=False))
    behaviour = Behaviour()
    register(behaviour, server)
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", options=UNLIMITED) as channel:
            yield Served(server, behaviour, channel)
    finally:
        await server.stop(0)


async def refused(call: object) -> grpc.aio.AioRpcError:
    """The error of a call that has to fail."""
    try:
        await call  # type: ignore[misc]
    except grpc.aio.AioRpcError as error:
        return error
    raise AssertionError("the call succeeded")
