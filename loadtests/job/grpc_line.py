"""Connections over which calls go by gRPC, unary or by streams: HTTP/2 by ngh2, thousands of calls a second.

A call that cannot be sent at once waits, and its time runs; nothing is repeated.
"""

import asyncio
import socket
import ssl
from collections import deque
from time import monotonic
from typing import Any, Final, cast
from urllib.parse import unquote

import ngh2
from google.protobuf.message import DecodeError

from gateway.pb import inference_pb2 as pb
from loadtests.job.call_book import NO_ANSWER, Call, CallBook
from loadtests.job.request_body import framed
from loadtests.job.scenario_plan import TrafficPlan

_SERVICE: Final = b"/inference.GRPCInferenceService/"
_CHUNK_BYTES: Final = 1 << 16
_WINDOW_BYTES: Final = 1 << 24
_AGAIN_S: Final = 0.1  # between two tries to connect
_CONNECT_S: Final = 10.0
_CODES: Final = (
    *("OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS"),
    *("PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED"),
    *("INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"),
)


class _Exchange:
    """A stream of HTTP/2: the calls that wait for an answer on it, and what has come of the next message."""

    __slots__ = ("bytes", "calls", "streams")

    def __init__(self, *, streams: bool) -> None:
        self.streams = streams
        self.calls: deque[Call] = deque()
        self.bytes = bytearray()

    def messages(self, data: bytes) -> list[bytes]:
        """Returns the messages that are whole now."""
        self.bytes += data
        made = []
        while len(self.bytes) >= 5:
            end = 5 + int.from_bytes(self.bytes[1:5], "big")
            if len(self.bytes) < end:
                break
            made.append(bytes(self.bytes[5:end]))
            del self.bytes[:end]
        return made


class _H2Line(asyncio.Protocol):
    """One connection, from its opening to its end."""

    def __init__(
        self, plan: TrafficPlan, book: CallBook, authority: bytes, scheme: bytes, authorization: bytes
    ) -> None:
        self._book = book
        self._plan = plan
        self._h2 = ngh2.Connection(ngh2.Role.CLIENT, ngh2.Configuration(auto_window_update=True))
        self._exchanges: dict[int, _Exchange] = {}
        self._open_stream = 0
        self._paused = False
        self._transport: asyncio.Transport | None = None
        self.usable = True
        streams = plan.protocol == "grpc-stream"
        method = b"ModelStreamInfer" if streams else b"ModelInfer"
        timeout = () if streams else ((b"grpc-timeout", b"%dm" % max(1, int(plan.deadline_s * 1000))),)
        bearer = ((b"authorization", authorization),) if authorization else ()
        self._streams = streams
        self._fields = (
            (b":method", b"POST"), (b":scheme", scheme), (b":path", _SERVICE + method), (b":authority", authority),
            (b"te", b"trailers"), (b"content-type", b"application/grpc"), (b"user-agent", b"loadtests"),
            *timeout, *bearer, *((name.lower().encode(), value.encode()) for name, value in plan.headers.items()),
        )  # fmt: skip

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=_CHUNK_BYTES)
        self._transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._h2.initiate_connection({ngh2.Setting.INITIAL_WINDOW_SIZE: _WINDOW_BYTES})
        self._h2.set_local_window_size(_WINDOW_BYTES)
        self.flush()

    def send(self, call: Call) -> None:
        """The call is on its way, or in the line's own queue."""
        call.sent_s = monotonic()
        message = framed(call.message.grpc, call.request_id)
        try:
            if not self._streams:
                stream_id = self._h2.send_request((*self._fields, *call.metadata))
                self._h2.send_data(stream_id, message, end_stream=True)
                exchange = self._exchanges[stream_id] = _Exchange(streams=False)
            else:
                if self._open_stream not in self._exchanges:
                    self._open_stream = self._h2.send_request((*self._fields, *call.metadata))
                    self._exchanges[self._open_stream] = _Exchange(streams=True)
                self._h2.send_data(self._open_stream, message)
                exchange = self._exchanges[self._open_stream]
        except ngh2.NGH2Error as error:
            self.usable = False
            self._book.fail(call, f"UNAVAILABLE: {error}", call.sent_s)
            return
        exchange.calls.append(call)

    def flush(self) -> None:
        transport = self._transport
        while transport is not None and not self._paused and not transport.is_closing():
            if not (data := self._h2.data_to_send(_CHUNK_BYTES)):
                break
            transport.write(data)

    def data_received(self, data: bytes) -> None:
        now_s = monotonic()
        try:
            self._h2.receive_data(data)
        except ngh2.NGH2Error:
            self.close()
            return
        for event in cast(list[Any], self._h2.events()):
            kind = type(event)
            if kind is ngh2.DataReceived:
                self._received(event.stream_id, event.data, now_s)
            elif kind is ngh2.ResponseReceived or kind is ngh2.TrailersReceived:
                self._headers(event.stream_id, dict(event.headers), now_s)
            elif kind is ngh2.StreamClosed:
                if (exchange := self._exchanges.pop(event.stream_id, None)) is not None:
                    for call in exchange.calls:
                        over = now_s >= call.sent_s + call.plan.deadline_s
                        self._book.fail(call, NO_ANSWER if over else "UNAVAILABLE: the stream was reset", now_s)
            elif kind is ngh2.GoAwayReceived:
                self.usable = False
        self.flush()
        if not self.usable and not self._exchanges:
            self.close()

    def _received(self, stream_id: int, data: bytes, now_s: float) -> None:
        exchange = self._exchanges.get(stream_id)
        if exchange is None:
            return
        for message in exchange.messages(data):
            if exchange.streams:
                self._streamed(exchange, message, now_s)
            elif exchange.calls:  # its status is still to come, but its time is over here
                self._book.answer(exchange.calls[0], message, now_s)

    def _streamed(self, exchange: _Exchange, message: bytes, now_s: float) -> None:
        """An answer on a stream is that to the request with its id; an error without one is to the oldest request."""
        try:
            said = pb.ModelStreamInferResponse.FromString(message)
        except DecodeError:
            self._fail_all(exchange, "WRONG: an answer on the stream is no ModelStreamInferResponse", now_s)
            self.close()
            return
        request_id = said.infer_response.id.encode()
        call = next((one for one in exchange.calls if one.request_id == request_id), None)
        if call is None and said.error_message and not request_id and exchange.calls:
            call = exchange.calls[0]
        if call is None:
            return  # more answers to one request: a decoupled model
        exchange.calls.remove(call)
        if said.error_message:
            self._book.fail(call, f"ERROR: {said.error_message}", now_s)
        else:
            self._book.answer(call, said.infer_response, now_s)

    def _headers(self, stream_id: int, headers: dict[bytes, bytes], now_s: float) -> None:
        exchange = self._exchanges.get(stream_id)
        status = headers.get(b"grpc-status")
        if exchange is None:
            return
        if status is None:
            if headers.get(b":status", b"200") != b"200":
                self._fail_all(exchange, f"HTTP {headers[b':status'].decode()}", now_s)
            return
        if status == b"0" and not any(not call.over for call in exchange.calls):
            return
        code = int(status) if status.isdigit() else 2
        name = _CODES[code] if code < len(_CODES) else str(code)
        text = unquote(headers.get(b"grpc-message", b"").decode("latin-1"))
        self._fail_all(
            exchange, f"{name}: {text}" if code else "WRONG: the status is OK, and there is no answer", now_s
        )

    def _fail_all(self, exchange: _Exchange, text: str, now_s: float) -> None:
        for call in exchange.calls:
            self._book.fail(call, text, now_s)
        exchange.calls.clear()

    def expire(self, now_s: float) -> None:
        """Gives up calls that nobody answered long after their deadline."""
        for stream_id, exchange in list(self._exchanges.items()):
            for call in [call for call in exchange.calls if not call.over and call.is_late(now_s)]:
                self._book.fail(call, NO_ANSWER, now_s)
                exchange.calls.remove(call)
                if not exchange.streams:
                    del self._exchanges[stream_id]
                    self._h2.reset_stream(stream_id)

    def connection_lost(self, exc: Exception | None) -> None:
        self.usable = False
        now_s = monotonic()
        for exchange in self._exchanges.values():
            self._fail_all(exchange, "UNAVAILABLE: the connection was lost", now_s)
        self._exchanges.clear()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self.flush()

    def close(self) -> None:
        self.usable = False
        if self._transport is not None:
            self._transport.close()


class GrpcPool:
    """The connections of one traffic. Each call goes to the next of them; one that was lost is opened again."""

    def __init__(
        self,
        plan: TrafficPlan,
        book: CallBook,
        address: tuple[str, int],
        tls: ssl.SSLContext | None,
        name: str,
        token: str,
    ) -> None:
        self._plan = plan
        self._book = book
        self._address = address
        self._tls = tls
        self._name = name or address[0]
        self._token = token.encode()
        self._lines: list[_H2Line | None] = [None] * plan.connections
        self._waiting: list[deque[Call]] = [deque() for _ in range(plan.connections)]
        self._opening: dict[int, asyncio.Task[None]] = {}
        self._tried_s = [float("-inf")] * plan.connections
        self._next = 0

    async def open(self) -> None:
        """Every connection is there. Raises: OSError (nobody listens, or TLS failed)."""
        for slot in range(len(self._lines)):
            self._lines[slot] = await self._connected()

    def send(self, call: Call) -> None:
        slot = self._next = (self._next + 1) % len(self._lines)
        line = self._lines[slot]
        if line is not None and line.usable:
            line.send(call)
            return
        self._waiting[slot].append(call)
        self._reopen(slot)

    def flush(self) -> None:
        for line in self._lines:
            if line is not None:
                line.flush()

    def expire(self, now_s: float) -> None:
        for line in self._lines:
            if line is not None:
                line.expire(now_s)
        for slot, waiting in enumerate(self._waiting):
            while waiting and waiting[0].is_late(now_s):
                self._book.fail(waiting.popleft(), "UNAVAILABLE: no connection", now_s)
            if waiting:
                self._reopen(slot)

    async def close(self) -> None:
        for task in self._opening.values():
            task.cancel()
        await asyncio.gather(*self._opening.values(), return_exceptions=True)
        for line in self._lines:
            if line is not None:
                line.close()

    def _reopen(self, slot: int) -> None:
        if slot not in self._opening and monotonic() > self._tried_s[slot] + _AGAIN_S:
            self._tried_s[slot] = monotonic()
            self._opening[slot] = asyncio.create_task(self._open_again(slot))

    async def _open_again(self, slot: int) -> None:
        try:
            line = await self._connected()
        except OSError as error:
            now_s = monotonic()
            for call in self._waiting[slot]:
                self._book.fail(call, f"UNAVAILABLE: cannot connect: {error.strerror or error}", now_s)
            self._waiting[slot].clear()
            return
        finally:
            del self._opening[slot]
        self._lines[slot] = line
        while self._waiting[slot]:
            line.send(self._waiting[slot].popleft())
        line.flush()

    async def _connected(self) -> _H2Line:
        host, port = self._address
        authority = f"{host}:{port}".encode()
        scheme = b"https" if self._tls is not None else b"http"
        async with asyncio.timeout(_CONNECT_S):
            _, line = await asyncio.get_running_loop().create_connection(
                lambda: _H2Line(self._plan, self._book, authority, scheme, self._token),
                host,
                port,
                ssl=self._tls,
                server_hostname=self._name if self._tls is not None else None,
            )
        return line
