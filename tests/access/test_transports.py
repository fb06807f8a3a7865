"""The head of a call decides on both transports: who is refused sends no body; handlers know who was let in."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest

from gateway.access.principal import ANONYMOUS, NOBODY, Principal
from gateway.errors import PermissionDenied, Unauthenticated
from gateway.rpc.grpcio import GrpcioServer
from gateway.rpc.handler import CallbackContext, by_callback
from gateway.rpc.ngh2_server import Ngh2Server
from gateway.rpc.server import Server, ServerOptions
from gateway.rpc.server_certificate import TlsFiles
from tests.rpc.raw import RawClient, message, request_headers
from tests.rpc.serving import CERTIFICATES, MUTUAL_TLS, TLS, TRANSPORTS


class Gate:
    """Lets in who sends `let-me-in`, or shows a certificate; keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[bytes, bytes | None, tuple[str, ...]]] = []
        self.shut = False

    def authorize(self, path: bytes, authorization: bytes | None, names: tuple[str, ...]) -> Principal:
        self.asked.append((path, authorization, names))
        if self.shut:
            raise Unauthenticated("not any more")
        if path.endswith(b"/Open"):
            return NOBODY
        if authorization == b"let-me-in":
            return Principal("token-bearer", "acme", "token")
        if authorization is not None:
            raise PermissionDenied("wrong role")
        if names:
            return Principal(names[0], "", "certificate")
        raise Unauthenticated("who are you?")


class Service:
    """Answers with the caller's name, in every kind of call."""

    def __init__(self) -> None:
        self.calls = 0
        self.news: asyncio.Queue[bytes] = asyncio.Queue()

    def _name(self, context: Any) -> bytes:
        self.calls += 1
        principal: Principal = context.principal
        return f"{principal.name}|{principal.tenant}|{principal.method}".encode()

    @by_callback
    def now(self, raw: bytes | memoryview, context: CallbackContext) -> None:
        context.answer(self._name(context))

    async def unary(self, request: bytes, context: Any) -> bytes:
        return self._name(context)

    async def server_stream(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        yield self._name(context)

    async def follow(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        while True:
            yield await self.news.get()

    async def client_stream(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        async for _ in requests:
            pass
        return self._name(context)

    async def both(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for _ in requests:
            yield self._name(context)


@asynccontextmanager
async def served(
    transport: str, gate: Gate | None, options: ServerOptions | None = None
) -> AsyncIterator[tuple[Server, Service]]:
    service = Service()
    make = GrpcioServer if transport == "grpcio" else Ngh2Server
    server: Server = make(options or ServerOptions(reuse_port=False), gate)
    server.add_registered_method_handlers(
        "test.Names",
        {
            "Now": grpc.unary_unary_rpc_method_handler(service.now),
            "Open": grpc.unary_unary_rpc_method_handler(service.unary),
            "Unary": grpc.unary_unary_rpc_method_handler(service.unary),
            "ServerStream": grpc.unary_stream_rpc_method_handler(service.server_stream),
            "Follow": grpc.unary_stream_rpc_method_handler(service.follow),
            "ClientStream": grpc.stream_unary_rpc_method_handler(service.client_stream),
            "Both": grpc.stream_stream_rpc_method_handler(service.both),
        },
    )
    await server.start()
    try:
        yield server, service
    finally:
        await server.stop(0)


@asynccontextmanager
async def reached(
    transport: str, gate: Gate | None, tls: TlsFiles | None = None, certificate: str | None = None
) -> AsyncIterator[tuple[grpc.aio.Channel, Service]]:
    async with served(transport, gate, ServerOptions(reuse_port=False, tls=tls)) as (server, service):
        address = f"localhost:{server.port}"
        secure = grpc.aio.secure_channel(address, shown(certificate)) if tls else grpc.aio.insecure_channel(address)
        async with secure as channel:
            yield channel, service


async def said(channel: grpc.aio.Channel, name: str, metadata: Any = (), body: bytes = b"x") -> bytes:
    """The answer of a method of whatever kind."""
    path = f"/test.Names/{name}"
    if name in ("ServerStream", "Both"):
        call: Any = (
            channel.unary_stream(path, None, None)(body, metadata=metadata, timeout=5)
            if name == "ServerStream"
            else channel.stream_stream(path, None, None)(iter((body,)), metadata=metadata, timeout=5)
        )
        return b"".join([part async for part in call])
    if name == "ClientStream":
        return bytes(await channel.stream_unary(path, None, None)(iter((body,)), metadata=metadata, timeout=5))
    return bytes(await channel.unary_unary(path, None, None)(body, metadata=metadata, timeout=5))


KINDS = ("Now", "Unary", "ServerStream", "ClientStream", "Both")


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_handler_of_each_kind_knows_who_calls(transport: str) -> None:
    gate = Gate()
    async with served(transport, gate) as (server, _), grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        for kind in KINDS:
            assert await said(channel, kind, (("authorization", "let-me-in"),)) == b"token-bearer|acme|token"
        assert await said(channel, "Open") == b"||anonymous"
    assert {names for _, _, names in gate.asked} == {()}


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("kind", ["Now", "Unary", "ServerStream"])
async def test_who_is_refused_is_told_why_and_no_handler_runs(transport: str, kind: str) -> None:
    async with reached(transport, Gate()) as (channel, service):
        for metadata, code, text in (
            ((), grpc.StatusCode.UNAUTHENTICATED, "who are you?"),
            ((("authorization", "other"),), grpc.StatusCode.PERMISSION_DENIED, "wrong role"),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await said(channel, kind, metadata)
            assert (caught.value.code(), caught.value.details()) == (code, text)
        assert service.calls == 0
        assert await said(channel, kind, (("authorization", "let-me-in"),)) == b"token-bearer|acme|token"


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("path", ["/test.Names/Unary", "/test.Names/Now", "/test.Names/Both"])
async def test_a_refusal_comes_before_the_body(transport: str, path: str) -> None:
    async with served(transport, Gate()) as (server, _), RawClient(server.port) as client:
        stream = await client.request(request_headers(path), message(b"x" * 1000)[:20], end=False)
        fields, _ = await client.answer(stream)
        assert fields[b"grpc-status"] == b"16"


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_without_an_authorizer_everybody_is_anonymous(transport: str) -> None:
    async with reached(transport, None) as (channel, _):
        for kind in KINDS:
            assert await said(channel, kind) == f"||{ANONYMOUS.method}".encode()


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_stream_ends_with_the_next_message_once_its_caller_may_no_longer(transport: str) -> None:
    gate, metadata = Gate(), (("authorization", "let-me-in"),)
    async with reached(transport, gate) as (channel, service):
        both = channel.stream_stream("/test.Names/Both", None, None)(None, metadata=metadata, timeout=10)
        adding = channel.stream_unary("/test.Names/ClientStream", None, None)(None, metadata=metadata, timeout=10)
        following = channel.unary_stream("/test.Names/Follow", None, None)(b"", metadata=metadata, timeout=10)
        await both.write(b"x")
        assert await both.read() == b"token-bearer|acme|token"
        await adding.write(b"x")
        service.news.put_nowait(b"news")
        assert await following.read() == b"news"
        calls, gate.shut = service.calls, True
        await both.write(b"x")
        await adding.write(b"x")
        service.news.put_nowait(b"more news")
        for call in (both, adding, following):
            assert (await call.code(), await call.details()) == (grpc.StatusCode.UNAUTHENTICATED, "not any more")
        assert service.calls == calls


def shown(name: str | None) -> grpc.ChannelCredentials:
    authority = (CERTIFICATES / "ca.pem").read_bytes()
    if name is None:
        return grpc.ssl_channel_credentials(authority)
    key, chain = ((CERTIFICATES / f"{name}.{kind}").read_bytes() for kind in ("key", "pem"))
    return grpc.ssl_channel_credentials(authority, key, chain)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_certificate_proves_a_name(transport: str) -> None:
    gate = Gate()
    async with reached(transport, gate, MUTUAL_TLS, "client") as (channel, _):
        for kind in KINDS:
            large = b"x" * 1_000_000
            assert await said(channel, kind, body=large) == b"spiffe://example/batch||certificate"
        assert await said(channel, "Now", (("authorization", "let-me-in"),)) == b"token-bearer|acme|token"
    assert gate.asked[0][2] == ("spiffe://example/batch", "batch.example")


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_without_client_certificates_there_is_no_name(transport: str) -> None:
    async with reached(transport, Gate(), TLS) as (channel, _):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await said(channel, "Now")
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_unary_call_without_a_message_is_refused_behind_a_certificate_too(transport: str) -> None:
    async with reached(transport, Gate(), MUTUAL_TLS, "client") as (channel, service):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.stream_unary("/test.Names/Unary", None, None)(iter(()), timeout=5)
        assert caught.value.code() not in (grpc.StatusCode.OK, grpc.StatusCode.DEADLINE_EXCEEDED)
        assert service.calls == 0


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_several_credentials_are_none(transport: str) -> None:
    async with reached(transport, Gate()) as (channel, _):
        for pair in (("let-me-in", "other"), ("other", "let-me-in"), ("let-me-in", "let-me-in")):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await said(channel, "Now", tuple(("authorization", value) for value in pair))
            assert caught.value.code() in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
        assert await said(channel, "Now", (("authorization", "let-me-in"),)) == b"token-bearer|acme|token"
