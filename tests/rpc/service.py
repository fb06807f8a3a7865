"""A service whose methods behave in every way that a transport has to carry; messages are plain bytes."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, NamedTuple

import grpc

from gateway.errors import InvalidArgument, Overloaded, ResourceExhausted, Unavailable, UnknownModel
from gateway.rpc.handler import AnnouncedCall, CallbackContext, RpcHandler, announced_to, by_callback
from gateway.rpc.server import Server
from gateway.serving.arrivals import Arrival
from tests.machine_load import as_loaded

NAME = "testing.Behaviour"
TRAILERS = (("x-version", "2"), ("x-arm", "canary"), ("x-blob-bin", b"\x00\xff\x10"))

OVERLOAD = "all is full: 100 % of 3"

DETAILS = "grpc-status-details-bin"


class RichStatus(NamedTuple):
    """What grpc.Status holds."""

    code: grpc.StatusCode
    details: str
    trailing_metadata: tuple[tuple[str, bytes], ...]


def text(message: bytes) -> str:
    """A request decoder that refuses what is not UTF-8, as protobuf does."""
    return message.decode()


class Behaviour:
    """Counts what happened under `events`; `changed` wakes whoever waits for a count."""

    def __init__(self) -> None:
        self.events: Counter[str] = Counter()
        self.changed = asyncio.Condition()
        self.held: list[CallbackContext] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def note(self, event: str) -> None:
        self.events[event] += 1
        task = asyncio.ensure_future(self._notify())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _notify(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    async def until(self, event: str, count: int = 1, *, limit_s: float = 10.0) -> None:
        async with asyncio.timeout(as_loaded(limit_s)), self.changed:
            await self.changed.wait_for(lambda: self.events[event] >= count)

    async def echo(self, request: bytes, context: Any) -> bytes:
        self.note("echo")
        return request

    @by_callback
    def echo_now(self, message: bytes | memoryview, context: CallbackContext) -> None:
        context.set_trailing_metadata(TRAILERS, ("x-size", b"%d" % context.message_size))
        context.answer(bytes(message))

    def announced(self, context: CallbackContext, size_bytes: int, lead: bytes) -> AnnouncedCall:
        self.note(f"{size_bytes} {lead[:4]!r}")
        if lead.startswith(b"stop"):
            raise ResourceExhausted("no room for that", retry_after_ms=70)
        if lead.startswith(b"hers"):
            raise UnknownModel("hers")
        return Arrival(0, waits=lead.startswith(b"wait"))

    @announced_to("announced", subject=lambda lead: lead[:4])
    @by_callback
    def echo_announced(self, message: bytes | memoryview, context: CallbackContext) -> None:
        if bytes(message).endswith(b"denied"):
            context.fail(UnknownModel("hers"))
        else:
            context.answer(bytes(message))

    @by_callback
    def echo_later(self, message: bytes | memoryview, context: CallbackContext) -> None:
        asyncio.get_running_loop().call_soon(context.answer, bytes(message))

    @by_callback
    def see(self, message: bytes | memoryview, context: CallbackContext) -> None:
        value = context.metadata_value(bytes(message).decode())
        remaining_s = context.time_remaining()
        context.answer(f"{value}|{context.deadline_ns > 0}|{remaining_s is not None}|{context.peer()}".encode())

    @by_callback
    def hold(self, message: bytes | memoryview, context: CallbackContext) -> None:
        self.held.append(context)
        context.on_cancel(lambda: self.note("hold cancelled"))
        self.note("hold")

    @by_callback
    def refuse(self, message: bytes | memoryview, context: CallbackContext) -> None:
        context.set_trailing_metadata((("x-why", "because"),))
        context.fail(Unavailable("snowman \u2603, percent %, line\nbreak"))

    @by_callback
    def overload(self, message: bytes | memoryview, context: CallbackContext) -> None:
        context.set_trailing_metadata((("x-why", "load"),), ("x-id", bytes(message)))
        context.fail(Overloaded(OVERLOAD, retry_after_ms=int(bytes(message))))

    @by_callback
    def explode(self, message: bytes | memoryview, context: CallbackContext) -> None:
        if message == b"gateway":
            raise InvalidArgument("field 'x' is 3, at most 2")
        raise RuntimeError("secret")

    async def fail(self, request: bytes, context: Any) -> bytes:
        if request == b"gateway":
            raise InvalidArgument("field 'x' is 3, at most 2")
        if request == b"abort":
            await context.abort(grpc.StatusCode.OUT_OF_RANGE, "aborted", (("x-why", "abort"),))
        if request == b"rich":
            await context.abort_with_status(RichStatus(grpc.StatusCode.ABORTED, "rich", ((DETAILS, b"\x08\x0a"),)))
        if request == b"code":
            context.set_code(grpc.StatusCode.ALREADY_EXISTS)
            context.set_details("set")
            return b""
        if request == b"timeout":
            raise TimeoutError("secret")
        if request == b"none":
            return None  # type: ignore[return-value]
        raise RuntimeError("secret")

    async def metadata(self, request: bytes, context: Any) -> bytes:
        await context.send_initial_metadata((("x-initial", "1"), ("x-initial-bin", b"\x00\x01\xfe")))
        seen = [(key, value) for key, value in context.invocation_metadata() if key.startswith("x-")]
        context.set_trailing_metadata((*seen, ("x-peer", context.peer())))
        return repr(seen).encode()

    async def identity(self, request: bytes, context: Any) -> bytes:
        identities = sorted(bytes(identity) for identity in context.peer_identities() or ())
        kinds = [bytes(kind) for kind in context.auth_context().get("transport_security_type", ())]
        return b"|".join([*kinds, *identities])

    async def packed(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        """Answers in gzip, the second message plain, and tells when the call is over."""
        context.add_done_callback(lambda _: self.note("packed done"))
        context.set_compression(grpc.Compression.Gzip)
        yield b"packed " * 1000
        context.disable_next_message_compression()
        yield b"plain " * 1000

    async def parse(self, request: str, context: Any) -> str:
        self.note("parse")
        return request.upper()

    async def sleep(self, request: bytes, context: Any) -> bytes:
        self.note("sleep")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.note("sleep cancelled")
            raise
        return b""

    async def count(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        """`number size`: so many messages of that size; then waits if the number is negative."""
        number, size = (int(part) for part in request.split())
        try:
            for _ in range(abs(number)):
                yield b"c" * size
                self.note("counted")
            if number < 0:
                await asyncio.Event().wait()
        finally:
            self.note("count over")

    async def count_by_write(self, request: bytes, context: Any) -> None:
        for number in range(int(request)):
            await context.write(b"%d" % number)

    async def broken_stream(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        yield b"one"
        raise InvalidArgument("the second is missing") if request == b"gateway" else RuntimeError("secret")

    async def total(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        size = 0
        try:
            async for request in requests:
                size += len(request)
                self.note("added")
        except asyncio.CancelledError:
            self.note("total cancelled")
            raise
        finally:
            self.note("total over")
        return b"%d" % size

    async def first(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        """Answers after the first message, while the client still sends."""
        async for request in requests:
            return request
        raise InvalidArgument("no message")

    async def chat(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        try:
            async for request in requests:
                yield request
        finally:
            self.note("chat over")

    async def chat_by_read(self, requests: AsyncIterator[bytes], context: Any) -> None:
        while (request := await context.read()) is not grpc.aio.EOF:  # type: ignore[attr-defined]
            await context.write(request)

    async def shout(self, requests: AsyncIterator[str], context: Any) -> AsyncIterator[str]:
        async for request in requests:
            yield request.upper()

    async def drop(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        """Never reads: the client's window must fill up and hold it."""
        self.note("drop")
        await asyncio.Event().wait()
        yield b""

    def unwritten(self, request: bytes, context: Any) -> bytes:
        """As a generated servicer's method that nobody overrode."""
        context.set_code(grpc.StatusCode.UNIMPLEMENTED)
        context.set_details("Method not implemented!")
        raise NotImplementedError("Method not implemented!")


def handlers(behaviour: Behaviour) -> Mapping[str, RpcHandler]:
    """The method handlers by name: Echo, EchoNow, ..."""
    uu: Callable[..., RpcHandler] = grpc.unary_unary_rpc_method_handler
    us: Callable[..., RpcHandler] = grpc.unary_stream_rpc_method_handler
    su: Callable[..., RpcHandler] = grpc.stream_unary_rpc_method_handler
    ss: Callable[..., RpcHandler] = grpc.stream_stream_rpc_method_handler
    return {
        "Echo": uu(behaviour.echo),
        "EchoNow": uu(behaviour.echo_now),
        "EchoAnnounced": uu(behaviour.echo_announced),
        "EchoLater": uu(behaviour.echo_later),
        "See": uu(behaviour.see),
        "Hold": uu(behaviour.hold),
        "Refuse": uu(behaviour.refuse),
        "Overload": uu(behaviour.overload),
        "Explode": uu(behaviour.explode),
        "Fail": uu(behaviour.fail),
        "Metadata": uu(behaviour.metadata),
        "Identity": uu(behaviour.identity),
        "Parse": uu(behaviour.parse, request_deserializer=text, response_serializer=str.encode),
        "Sleep": uu(behaviour.sleep),
        "Unwritten": uu(behaviour.unwritten),
        "Packed": us(behaviour.packed),
        "Count": us(behaviour.count),
        "CountByWrite": us(behaviour.count_by_write),
        "BrokenStream": us(behaviour.broken_stream),
        "Total": su(behaviour.total),
        "First": su(behaviour.first),
        "Chat": ss(behaviour.chat),
        "ChatByRead": ss(behaviour.chat_by_read),
        "Shout": ss(behaviour.shout, request_deserializer=text, response_serializer=str.encode),
        "Drop": ss(behaviour.drop),
    }


def register(behaviour: Behaviour, server: Server) -> None:
    """Adds the service in both ways that generated code uses."""
    made = handlers(behaviour)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(NAME, dict(made)),))
    server.add_registered_method_handlers(NAME, made)
