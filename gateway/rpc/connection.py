"""One HTTP/2 connection of the ngh2 transport: bytes in, calls, bytes out."""

import asyncio
import ssl
from time import monotonic_ns
from typing import TYPE_CHECKING, Any, Final, cast

import ngh2
from ngh2 import DataReceived, RequestReceived, StreamClosed, TrailersReceived, WindowUpdated

from gateway.rpc.callback_call import CallbackCall
from gateway.rpc.deadline import parse_timeout
from gateway.rpc.lifetime import Lifetime
from gateway.rpc.method import Method
from gateway.rpc.peer_identity import auth_context
from gateway.rpc.request_head import Rejection, admit
from gateway.rpc.server_call import ANSWERED, GONE, OPEN, Call
from gateway.rpc.task_call import TaskCall

if TYPE_CHECKING:
    from gateway.rpc.server_state import Host

_WRITE_BYTES = 64 * 1024  # ngh2 takes five times as long for 256 KiB at once as for four times this
_QUEUED_BYTES = 256 * 1024  # in the socket's buffer before ngh2 is asked for no more
_CALLED_BY_THE_LOOP: Final = (
    *("connection_made", "get_buffer", "buffer_updated", "eof_received", "connection_lost"),
    *("pause_writing", "resume_writing"),
)


class Wire(asyncio.BufferedProtocol):
    """What the event loop has of a connection: its methods. mypyc compiles classes without a foreign base better."""

    def __init__(self, host: "Host") -> None:
        connection = Connection(host)
        for name in _CALLED_BY_THE_LOOP:
            setattr(self, name, getattr(connection, name))


class Connection:
    """Feeds what it reads to ngh2, what ngh2 says to the calls, and writes once in a turn of the loop.

    Order: calls hand their frames to `h2` and ask for `schedule`; all of them leave with the one write of the flush.
           While the socket does not take more, nothing is taken from ngh2: what waits stays where it is bounded.
    """

    __slots__ = (
        "answered",
        "auth_context",
        "backlogged",
        "calls",
        "congested",
        "flushing",
        "h2",
        "half_open",
        "host",
        "lifetime",
        "max_metadata_bytes",
        "max_receive_bytes",
        "max_send_bytes",
        "paused",
        "peer",
        "prompt",
        "reading",
        "received_ns",
        "transport",
        "writers",
    )

    def __init__(self, host: "Host") -> None:
        self.host = host
        self.h2 = ngh2.Connection(ngh2.Role.SERVER, host.configuration)
        self.transport: asyncio.Transport = cast(asyncio.Transport, None)
        self.calls: dict[int, Call] = {}
        self.half_open: set[int] = set()  # answered, but the client has not ended its side
        self.writers: dict[int, TaskCall] = {}  # waiting until their stream's queue is short
        self.flushing = False
        self.reading = False
        self.prompt = False  # a call was answered while its bytes were read
        self.paused = False
        self.answered = False  # something was sent for a call since the last ping
        self.backlogged = False  # large answers were queued
        self.congested = False
        self.received_ns = 0
        self.max_metadata_bytes = host.options.max_metadata_bytes
        self.max_receive_bytes = host.options.max_receive_bytes
        self.max_send_bytes = host.options.max_send_bytes
        self.peer = ""
        self.auth_context = auth_context(None)
        self.lifetime = Lifetime(self)

    # asyncio's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        ssl_object: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
        if not self.host.add(self) or (ssl_object is not None and ssl_object.selected_alpn_protocol() != "h2"):
            self.lifetime.abort()
            return
        self.peer = _peer(transport.get_extra_info("peername"))
        self.auth_context = auth_context(ssl_object)
        self.transport.set_write_buffer_limits(high=_QUEUED_BYTES)
        self.h2.initiate_connection(self.host.settings)
        self.h2.set_local_window_size(self.host.window_bytes)
        self.lifetime.begin()
        self.schedule()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.host.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.received_ns = monotonic_ns()
        if self.lifetime.ended:
            return
        if not self.calls:
            self.host.busy_poll.read(self.received_ns)
        self.reading = True
        try:
            self.h2.receive_data(self.host.buffer[:nbytes])
            self._handle(self.h2.events())
        except ngh2.NGH2Error as error:
            self.reading = False
            if self.prompt:
                self.prompt = self.flushing = False
            self.lifetime.fail(error)
            return
        finally:
            self.reading = False
        if self.prompt:
            self.prompt = False
            self.flush()
        else:
            self.schedule_if_wanted()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.lifetime.over()
        self.host.remove(self)
        self._lose_calls()

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        if not self.flushing:
            self.schedule()

    # ngh2's side.

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
                    self.lifetime.oddity()
            elif kind is RequestReceived:
                self._begin(event.stream_id, event.headers, event.end_stream)
            elif kind is StreamClosed:
                call = calls.pop(event.stream_id, None)
                if call is not None:
                    slot = call.slot
                    if slot is not None:
                        del slot[call]
                    if call.state == ANSWERED and call.assembler is None and not call.held_bytes:
                        call.state = GONE
                    else:
                        call.closed()
                if self.half_open:
                    self.half_open.discard(event.stream_id)
            elif kind is TrailersReceived:
                call = calls.get(event.stream_id)
                if call is not None and call.state == OPEN:
                    call.half_close()
                else:
                    self.half_open.discard(event.stream_id)
            elif kind is not WindowUpdated:
                self.lifetime.control(event)

    def _begin(self, stream_id: int, headers: tuple[tuple[bytes, bytes], ...], end_stream: bool) -> None:
        fields = dict(headers)
        method = self.host.paths.get(fields.get(b":path", b""))
        gzip = False
        if (
            method is None
            or fields.get(b"content-type") != b"application/grpc"
            or fields.get(b":method") != b"POST"
            or b"grpc-encoding" in fields
            or sum(map(len, fields.values())) > self.max_metadata_bytes
            or len(fields) != len(headers)
            or self.congested
        ):
            verdict = admit(self.host, fields, headers, congested=self.congested)
            if isinstance(verdict, Rejection):
                self._reject(stream_id, verdict, end_stream)
                return
            method, gzip = verdict
        timeout = fields.get(b"grpc-timeout")
        make = CallbackCall if method.by_callback else TaskCall
        call = make(self, stream_id, method, headers)
        call.fields = fields
        call.gzip = gzip
        self.calls[stream_id] = call
        self.lifetime.active_ns = self.received_ns
        if timeout is not None or not (method.request_streaming or method.response_streaming):
            call.deadline_ns = self.received_ns + self._timeout_ns(timeout, method)
            self.host.wheel.add(call)
        if type(call) is TaskCall:
            call.begin()
        if end_stream:
            call.half_close()

    def _timeout_ns(self, value: bytes | None, method: Method) -> int:
        if value is not None:
            try:
                return parse_timeout(value)
            except ValueError:
                pass  # as if there were none
        return self.host.default_deadline_ns if method.by_callback else self.host.default_task_deadline_ns

    def _reject(self, stream_id: int, rejection: Rejection, end_stream: bool) -> None:
        try:
            self.h2.send_response(stream_id, rejection.fields, end_stream=True)
        except ngh2.NGH2Error:
            return  # the client has reset the stream in the same read
        if not end_stream:
            self.half_open.add(stream_id)
        self.schedule_if_wanted()

    def _discard(self, stream_id: int, data: bytes, end_stream: bool) -> None:
        """Data of a call that is answered already."""
        if data:
            self.acknowledge(len(data), stream_id)
        if end_stream:
            self.half_open.discard(stream_id)

    # The calls' side.

    def acknowledge(self, count: int, stream_id: int) -> None:
        """The client may send `count` bytes more."""
        try:
            self.h2.acknowledge_received_data(count, stream_id)
        except (ngh2.NGH2Error, ValueError):  # the connection ended, or ngh2 has forgotten the stream and freed them
            return

    def queued_bytes(self, stream_id: int) -> int:
        try:
            return self.h2.queued_body_size(stream_id)
        except (ngh2.NGH2Error, ValueError):
            return 0

    def reset(self, stream_id: int, code: int) -> None:
        try:
            self.h2.reset_stream(stream_id, code)
        except ngh2.NGH2Error:
            return
        self.schedule_if_wanted()

    def schedule(self) -> None:
        """The end of this read writes, or the next turn of the loop."""
        self.flushing = True
        if self.reading:
            self.prompt = True
        else:
            self.host.loop.call_soon(self.flush)

    def schedule_if_wanted(self) -> None:
        if not self.flushing and self.h2.want_write:
            self.schedule()

    def flush(self) -> None:
        """Everything that the windows and the socket allow is written."""
        h2 = self.h2
        if self.lifetime.ended:
            self.flushing = False
            return
        try:
            while not self.paused:
                chunk = h2.data_to_send(_WRITE_BYTES)
                if not chunk:
                    if not (self.half_open and self._stop_clients()):
                        break
                    continue
                self.transport.write(chunk)
                if len(chunk) < _WRITE_BYTES // 2 and not self.half_open:
                    break
            self.flushing = False
            events = h2.events()
        except ngh2.NGH2Error as error:
            self.flushing = False
            self.lifetime.fail(error)
            return
        if events:
            self._handle(events)
            if not self.calls:
                self.host.busy_poll.wrote(monotonic_ns())
        if self.backlogged:
            self._measure_backlog()
        if self.writers:
            self._wake_writers()

    def _stop_clients(self) -> bool:
        """Resets the streams whose answer is sent while the client still sends; whether there were any."""
        sent = [stream_id for stream_id in self.half_open if not self.queued_bytes(stream_id)]
        for stream_id in sent:
            self.half_open.discard(stream_id)
            self.reset(stream_id, 0)
        return bool(sent)

    def _measure_backlog(self) -> None:
        queued = self.h2.queued_body_size()
        self.congested = queued > self.max_send_bytes + 16 * _QUEUED_BYTES
        self.backlogged = queued > 0

    def _wake_writers(self) -> None:
        for stream_id, call in list(self.writers.items()):
            if self.queued_bytes(stream_id) < _QUEUED_BYTES // 2:
                del self.writers[stream_id]
                call.wake_writer()

    def _lose_calls(self) -> None:
        calls, self.calls = self.calls, {}
        for call in calls.values():
            if call.slot is not None:
                del call.slot[call]
            call.closed()


def _peer(name: Any) -> str:
    if isinstance(name, tuple) and len(name) >= 2:
        return f"ipv6:[{name[0]}]:{name[1]}" if ":" in name[0] else f"ipv4:{name[0]}:{name[1]}"
    return "unix:" if name is not None else "unknown"
