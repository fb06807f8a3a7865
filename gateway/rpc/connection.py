"""One HTTP/2 connection of the ngh2 transport: bytes in, calls, bytes out."""

import asyncio
import ssl
from time import monotonic_ns
from typing import Any, Final, cast

import ngh2
from ngh2 import (
    DataReceived,
    PingReceived,
    RequestReceived,
    SettingsReceived,
    StreamClosed,
    TrailersReceived,
    WindowUpdated,
)

from gateway.access.principal import ANONYMOUS
from gateway.errors import GatewayError
from gateway.rpc.authorizer import CallCredential
from gateway.rpc.callback_call import CallbackCall
from gateway.rpc.deadline import parse_timeout
from gateway.rpc.http_front import HttpFront
from gateway.rpc.lifetime import Lifetime
from gateway.rpc.metadata import Fields
from gateway.rpc.method import Method
from gateway.rpc.output import REFUSED, Output
from gateway.rpc.peer_identity import auth_context, certificate_names
from gateway.rpc.request_head import Rejection, check_head, refusal
from gateway.rpc.server import MAX_FIELDS
from gateway.rpc.server_call import ANSWERED, GONE, OPEN, ServerCall
from gateway.rpc.server_state import ServerState
from gateway.rpc.task_call import TaskCall

_CALLED_BY_THE_LOOP: Final = (
    *("connection_made", "get_buffer", "buffer_updated", "eof_received", "connection_lost"),
    *("pause_writing", "resume_writing"),
)


class ConnectionProtocol(asyncio.BufferedProtocol):
    """Gives the event loop the methods of a connection: mypyc compiles a class better that has no foreign base."""

    def __init__(self, server: ServerState) -> None:
        connection = Connection(server)
        for name in _CALLED_BY_THE_LOOP:
            setattr(self, name, getattr(connection, name))


class Connection:
    """Feeds what it reads to ngh2, and what ngh2 reports to the calls, which answer through `output`."""

    __slots__ = ("calls", "h2", "lifetime", "max_metadata_bytes", "names", "output", "server")

    def __init__(self, server: ServerState) -> None:
        self.server = server
        self.h2 = ngh2.Connection(ngh2.Role.SERVER, server.configuration)
        self.calls: dict[int, ServerCall] = {}
        self.names: tuple[str, ...] = ()  # of the client's certificate
        self.max_metadata_bytes = server.options.max_metadata_bytes
        self.output = Output(
            self.h2,
            server.loop,
            self._on_events,
            self._on_error,
            budget=server.unsent,
            max_send_bytes=server.options.max_send_bytes,
        )
        self.lifetime = Lifetime(server, self.output, self.calls)

    # asyncio's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        ssl_object: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
        proven = auth_context(ssl_object)
        self.names = certificate_names(proven)
        self.output.open(cast(asyncio.Transport, transport), proven)
        if not self.server.add(self.lifetime) or (
            ssl_object is not None and ssl_object.selected_alpn_protocol() != "h2"
        ):
            self.lifetime.abort()
            return
        self.h2.initiate_connection(self.server.settings)
        self.h2.set_local_window_size(self.server.window_bytes)
        self.lifetime.begin()
        self.output.schedule()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.server.buffer

    def buffer_updated(self, nbytes: int) -> None:
        output = self.output
        received_ns = output.received_ns = monotonic_ns()
        if output.closed:
            return
        if not self.calls:
            self.server.busy_poll.read(received_ns)
        output.reading = True
        try:
            self.h2.receive_data(self.server.buffer[:nbytes])
            events = self.h2.events()
            self._handle(events)
        except ngh2.NGH2Error as error:
            output.reading = False
            if output.flush_after_read:
                output.flush_after_read = output.flushing = False
            self.lifetime.fail(error)
            return
        finally:
            output.reading = False
        if output.flush_after_read:
            output.flush_after_read = False
            output.flush()
        elif output.refusals & REFUSED:
            if self._hurries(events):
                output.flush()
            else:
                self.server.held_refusals.take(output, received_ns)
        else:
            output.schedule_if_wanted()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.lifetime.mark_ended()
        self.output.release()
        self.server.remove(self.lifetime)
        calls = list(self.calls.values())
        self.calls.clear()
        self.server.open_calls -= len(calls)
        for call in calls:
            if call.slot is not None:
                del call.slot[call]
            if call.quota_pass is not None:
                call.quota_pass.release()
            call.closed()

    def pause_writing(self) -> None:
        self.output.pause()

    def resume_writing(self) -> None:
        self.output.resume()

    # ngh2's side.

    def _on_events(self, events: list[Any]) -> None:
        self._handle(events)
        if not self.calls:
            self.server.busy_poll.wrote(monotonic_ns())

    def _hurries(self, events: list[Any]) -> bool:
        """Returns whether the peer waits for what answers these: pings, settings, a part of a message that goes on."""
        for event in events:
            kind = type(event)
            if kind is DataReceived:
                if not event.end_stream:
                    call = self.calls.get(event.stream_id)
                    if call is not None and call.state == OPEN:
                        return True
            elif kind is PingReceived or kind is SettingsReceived:
                return True
        return False

    def _on_error(self, error: ngh2.NGH2Error) -> None:
        self.lifetime.fail(error)

    def _handle(self, events: list[Any]) -> None:
        calls = self.calls
        for event in events:
            kind = type(event)
            if kind is DataReceived:
                stream_id, data = event.stream_id, event.data
                call = calls.get(stream_id)
                if call is not None and call.state == OPEN:
                    call.receive(data, event.end_stream)
                else:
                    self._discard(stream_id, data, event.end_stream)
                if not data and not event.end_stream:
                    self.lifetime.count_glitch()
            elif kind is RequestReceived:
                self._begin(event.stream_id, event.headers, event.end_stream)
            elif kind is StreamClosed:
                call = calls.pop(event.stream_id, None)
                if call is not None:
                    self.server.open_calls -= 1
                    slot = call.slot
                    if slot is not None:
                        del slot[call]
                    if call.quota_pass is not None:
                        call.quota_pass.release()
                    if call.state == ANSWERED and call.assembler is None and not call.held_bytes:
                        call.state = GONE
                    else:
                        call.closed()
                self.output.forget(event.stream_id)
            elif kind is TrailersReceived:
                call = calls.get(event.stream_id)
                if call is not None and call.state == OPEN:
                    call.half_close()
                else:
                    self.output.half_open.discard(event.stream_id)
            elif kind is not WindowUpdated:
                self.lifetime.control(event)

    def _begin(self, stream_id: int, headers: tuple[tuple[bytes, bytes], ...], end_stream: bool) -> None:
        server, output = self.server, self.output
        if output.crowded_ns:
            output.relax()
        fields: dict[bytes, bytes] = {}
        size_bytes = 0
        for name, value in headers:
            fields[name] = value
            size_bytes += len(name) + len(value)
        method = server.paths.get(fields.get(b":path", b""))
        encoding = b""
        if (
            method is None
            or fields.get(b"content-type") != b"application/grpc"
            or fields.get(b":method") != b"POST"
            or b"grpc-encoding" in fields
            or size_bytes > self.max_metadata_bytes
            or len(fields) != len(headers)
            or len(headers) > MAX_FIELDS
            or output.congested
            or server.open_calls >= server.max_calls
        ):
            if server.front is not None and fields.get(b"content-type", b"")[:16] != b"application/grpc":
                self._begin_http(server.front, stream_id, headers, end_stream)
                return
            head = check_head(server, fields, headers, congested=output.congested)
            if isinstance(head, Rejection):
                self.lifetime.count_glitch(len(headers) // MAX_FIELDS)
                self._reject(stream_id, head, end_stream)
                return
            method, encoding = head
        principal, credential = ANONYMOUS, None
        if server.authorizer is not None:
            # Of several a proxy may have checked another one: together they are no credential.
            given = [value for name, value in headers if name == b"authorization"]
            authorization = b", ".join(given) if given else None
            try:
                principal = server.authorizer.authorize(fields[b":path"], authorization, self.names)
            except GatewayError as error:
                self._reject(stream_id, refusal(error, method.path), end_stream)
                return
            if method.request_streaming or method.response_streaming:
                credential = CallCredential(server.authorizer, fields[b":path"], authorization, self.names)
        quota_pass = None
        if server.quotas is not None and method.by_callback:
            try:
                quota_pass = server.quotas.enter(principal.name, principal.tenant)
            except GatewayError as error:
                self._reject(stream_id, refusal(error, method.path), end_stream)
                return
        timeout = fields.get(b"grpc-timeout")
        call: ServerCall
        if method.by_callback:
            call = CallbackCall(server, output, stream_id, method, headers)
        else:
            call = TaskCall(server, output, stream_id, method, headers)
            call.credential = credential
        call.fields = fields
        call.principal = principal
        call.quota_pass = quota_pass
        call.encoding = encoding
        self.calls[stream_id] = call
        server.open_calls += 1
        self.lifetime.active_ns = output.received_ns
        if timeout is not None or not (method.request_streaming or method.response_streaming):
            call.deadline_ns = output.received_ns + self._timeout_ns(timeout, method)
            server.wheel.add(call)
        if isinstance(call, TaskCall):
            call.begin()
        if end_stream:
            call.half_close()

    def _begin_http(self, front: HttpFront, stream_id: int, headers: Fields, end_stream: bool) -> None:
        """Begins a request that is not gRPC."""
        call = front.open(self.server, self.output, stream_id, headers, self.names, ended=end_stream)
        self.calls[stream_id] = call
        self.server.open_calls += 1
        self.lifetime.active_ns = self.output.received_ns
        if end_stream:
            call.half_close()

    def _timeout_ns(self, value: bytes | None, method: Method) -> int:
        if value is not None:
            try:
                return parse_timeout(value)
            except ValueError:
                pass  # as if there were none
        return self.server.default_deadline_ns if method.by_callback else self.server.default_task_deadline_ns

    def _reject(self, stream_id: int, rejection: Rejection, end_stream: bool) -> None:
        try:
            self.h2.send_response(stream_id, rejection.fields, end_stream=True)
        except ngh2.NGH2Error:
            return  # the client has reset the stream in the same read
        if not end_stream:
            self.output.half_open.add(stream_id)
        self.output.schedule_if_wanted()

    def _discard(self, stream_id: int, data: bytes, end_stream: bool) -> None:
        """Acknowledges the data of a call that is answered already."""
        if data:
            self.output.acknowledge(len(data), stream_id)
        if end_stream:
            self.output.half_open.discard(stream_id)


def go_on_as_http2(server: ServerState, data: bytes, transport: asyncio.BaseTransport) -> None:
    """Serves a connection of which `data` was read before it was known to be one of HTTP/2."""
    protocol = ConnectionProtocol(server)
    transport.set_protocol(protocol)
    protocol.connection_made(transport)
    for position in range(0, len(data), len(server.buffer)):
        part = data[position : position + len(server.buffer)]
        server.buffer[: len(part)] = part
        protocol.buffer_updated(len(part))
