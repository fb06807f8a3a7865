"""One HTTP/1.1 connection: bytes in, requests in their order, and the rules about time."""

import asyncio
import logging
import random
import ssl
from time import monotonic_ns
from typing import Final, cast

from gateway.errors import GatewayError
from gateway.rest.answer_queue import AnswerQueue, open_queue
from gateway.rest.chunked_body import too_large
from gateway.rest.http1_limits import Http1Limits
from gateway.rest.http_head import MAX_HEAD_BYTES, RETURN, HeadParser, HttpHead, hopeless_head, late_head
from gateway.rest.http_refusal import HttpRefusal, refusal_of
from gateway.rest.incoming_body import IncomingBody
from gateway.rest.response_head import ResponseHeads
from gateway.rest.rest_call import RestCall
from gateway.rpc.connection import go_on_as_http2
from gateway.rpc.connection_end import half_close, unread_bytes
from gateway.rpc.peer_identity import auth_context, certificate_names, peer_address
from gateway.rpc.pushback import later
from gateway.rpc.request_head import too_many_calls
from gateway.rpc.server_state import ServerState

_log = logging.getLogger(__name__)
_HEAD_END: Final = b"\r\n\r\n"
_PREFACE: Final = b"PRI "  # with which HTTP/2 begins, and no method does


class Http1Connection:
    """Takes requests out of what it reads; `queue` writes their answers.

    Order: a request is begun when its body is whole. At most `max_pipelined` are open at a time, and no second one is
           begun while the client does not take what was written; meanwhile nothing is read.
    """

    __slots__ = (
        *("_age_ns", "_consuming", "_drained", "_ended_ns", "_fresh", "_held", "_incoming", "_lingering", "_rest"),
        *("_since_ns", "_skip", "_until_ns", "active_ns", "address", "draining", "limits", "names", "parser", "plain"),
        *("queue", "server"),
    )

    def __init__(self, server: ServerState, parser: HeadParser, heads: ResponseHeads, limits: Http1Limits) -> None:
        self.server = server
        self.parser = parser
        self.limits = limits
        self.queue = AnswerQueue(heads, server.unsent, server.options.max_send_bytes, self._on_turn)
        self.names: tuple[str, ...] = ()
        self.address = ""
        self.plain = True
        self.draining = False
        self.active_ns = monotonic_ns()
        self._fresh = True  # nothing has come yet
        self._rest = b""  # a head that is not whole, or requests that have to wait
        self._held = False  # the latter
        self._consuming = False
        self._incoming: IncomingBody | None = None  # of the newest call
        self._skip = 0  # bytes of a body that is read over
        self._since_ns = 0  # when the head began
        self._lingering = False
        self._ended_ns = 0
        self._drained = 0  # bytes that came since
        self._until_ns = 0  # a connection that drains ends then
        self._age_ns = self.active_ns + int(server.options.max_connection_age_s * random.uniform(0.9, 1.1) * 1e9)

    # asyncio's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        ssl_object: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
        self.plain = ssl_object is None
        self.address = peer_address(transport.get_extra_info("peername"))
        if ssl_object is not None:
            if ssl_object.selected_alpn_protocol() == "h2":
                self._hand_over(b"", transport)
                return
            self.names = certificate_names(auth_context(ssl_object))
        open_queue(self.queue, cast(asyncio.Transport, transport))
        if not self.server.add(self):
            self.abort()

    def get_buffer(self, sizehint: int) -> memoryview:
        incoming = self._incoming
        room = None if incoming is None else incoming.room()
        return self.server.buffer if room is None else room

    def buffer_updated(self, nbytes: int) -> None:
        now_ns = monotonic_ns()
        queue, incoming = self.queue, self._incoming
        if queue.closed:
            return
        self.active_ns = now_ns
        if incoming is not None:
            incoming.progress += nbytes
            if incoming.view is not None:
                incoming.missing -= nbytes
                self._received(incoming)
                return
        elif self._lingering:
            self._drained += nbytes
            if self._drained > self.limits.drained_bytes:
                self.abort()
            return
        if not self.server.open_calls:
            self.server.busy_poll.read(now_ns)
        data = bytes(self.server.buffer[:nbytes])
        if self._rest:
            data = self._rest + data
            self._rest = b""
        self._consume(data, now_ns)

    def eof_received(self) -> bool:
        """Takes a client that ends its side for one that has gone, as most servers do; what was written goes out."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.queue.release()
        self.server.remove(self)
        self._forget_calls()

    def pause_writing(self) -> None:
        self.queue.pause()

    def resume_writing(self) -> None:
        self.queue.resume()
        self._go_on()

    def _forget_calls(self) -> None:
        calls = list(self.queue.calls)
        self.queue.calls.clear()
        self.server.open_calls -= len(calls)
        self._incoming = None
        for call in calls:
            call.gone()

    # What was read.

    def _consume(self, data: bytes, now_ns: int) -> None:
        """Takes what is whole out of the bytes, and keeps the rest."""
        self._consuming = True
        position, end = 0, len(data)
        queue, server = self.queue, self.server
        while position < end and not queue.closed and not self._lingering:
            if self._skip:
                taken = min(self._skip, end - position)
                self._skip -= taken
                position += taken
                continue
            if self._incoming is not None:
                position = self._feed(self._incoming, data, position)
                continue
            if queue.calls and queue.is_full(self.limits.max_pipelined):
                self._hold(data[position:])
                break
            if self._fresh and data[:4] == _PREFACE[: len(data)]:
                if len(data) >= len(_PREFACE):
                    self._hand_over(data, queue.transport)
                    break
            elif data[position] == RETURN and data[position : position + 2] == b"\r\n":
                position += 2  # RFC 9112, 2.2: some clients end a body so
                continue
            stop = data.find(_HEAD_END, position)
            if stop < 0 or stop - position > MAX_HEAD_BYTES:
                self._keep_head(data[position:], now_ns)
                break
            stop += len(_HEAD_END)
            self._fresh = False
            self._since_ns = 0
            position = self._begin(self.parser.parse(data[position:stop]), data, stop, now_ns)
        self._consuming = False
        if not server.open_calls:
            server.busy_poll.wrote(now_ns)

    def _keep_head(self, rest: bytes, now_ns: int) -> None:
        """Keeps a head that is not whole; refuses at once what cannot become one."""
        hopeless = hopeless_head(rest)
        if hopeless is not None:
            self._begin(hopeless, rest, len(rest), now_ns)
            return
        self._rest = rest
        if not self._since_ns:
            self._since_ns = now_ns

    def _hold(self, rest: bytes) -> None:
        """Keeps requests that have to wait for answers, and reads nothing more meanwhile."""
        self._rest = rest
        if not self._held:
            self._held = True
            self.queue.transport.pause_reading()

    def _go_on(self) -> None:
        """Takes up what had to wait."""
        queue = self.queue
        if not self._held or queue.closed or queue.paused or self._lingering:
            return
        self._held = False
        queue.transport.resume_reading()
        rest, self._rest = self._rest, b""
        self._consume(rest, monotonic_ns())

    def _hand_over(self, data: bytes, transport: asyncio.BaseTransport) -> None:
        """Lets the code of HTTP/2 serve the connection, which began with its preface or agreed upon it."""
        self.queue.closed = True
        if self in self.server.connections:
            self.server.release(self)
            self.server.accepted -= 1  # it is counted where it goes
        go_on_as_http2(self.server, data, transport)

    # One request.

    def _begin(self, head: HttpHead, data: bytes, position: int, now_ns: int) -> int:
        """Begins the request of a head; returns the position behind what it took of `data`."""
        server, queue = self.server, self.queue
        call = RestCall(server, queue, head)
        queue.calls.append(call)
        server.open_calls += 1
        outcome = head.outcome
        if isinstance(outcome, HttpRefusal):
            return self._refuse(call, outcome, position)
        endpoint = outcome.endpoint
        length = head.content_length
        try:
            if server.open_calls > server.max_calls:
                raise later(too_many_calls(server.open_calls - 1, server.max_calls))
            call.admit(endpoint, self.names)
            if length > endpoint.max_body_bytes:
                return self._refuse(call, too_large(length, endpoint.max_body_bytes), position)
            come = len(data) - position
            if head.chunked or length > come:
                if endpoint.announced is not None and length > 0:
                    expected = endpoint.announced(call, length)
                    if expected is not None:
                        expected.end()  # nothing else waits behind this body, however long it takes
                incoming = IncomingBody(call, endpoint.max_body_bytes, now_ns)
                incoming.put(data[position:])
                self._incoming = incoming
                incoming.uninvited = head.expects_continue and not come
                call.limit(endpoint, now_ns)
                self._invite()
                return len(data) if not head.chunked else position
        except GatewayError as error:
            return self._refuse(call, refusal_of(error, head.path), position)
        call.limit(endpoint, now_ns)
        stop = position + length
        call.begin(endpoint, data[position:stop])
        return stop

    def _invite(self) -> None:
        """Tells a client that waits for it to send its body, once the answers before are written."""
        incoming, calls = self._incoming, self.queue.calls
        if incoming is not None and incoming.uninvited and calls and calls[0] is incoming.call:
            incoming.uninvited = False
            self.queue.invite()

    def _received(self, incoming: IncomingBody) -> None:
        """Takes notice of more of a body; one that nobody waits for any more is read over."""
        call = incoming.call
        outcome = call.head.outcome
        if not call.is_open:
            self._incoming = None
            self._skip = incoming.missing
        elif incoming.complete and not isinstance(outcome, HttpRefusal):
            self._incoming = None
            call.begin(outcome.endpoint, incoming.content())

    def _feed(self, incoming: IncomingBody, data: bytes, position: int) -> int:
        """Feeds a chunked body; returns the position behind what it took."""
        if not incoming.call.is_open:
            self.close()  # the end of what nobody waits for is not worth the search
            return len(data)
        reached = incoming.feed(data, position)
        if isinstance(reached, HttpRefusal):
            self._cut_body(incoming.call, reached)
            return len(data)
        self._received(incoming)
        return reached

    # Refusals.

    def _refuse(self, call: RestCall, refusal: HttpRefusal, position: int) -> int:
        """Refuses a request by its head, and reads over its body where that is not much."""
        head = call.head
        self._skip = max(head.content_length, 0)
        if head.fatal or head.expects_continue or self._skip > self.limits.drained_bytes or head.chunked:
            call.close_after = True
        call.refuse(refusal)
        return position

    def _cut_body(self, call: RestCall, refusal: HttpRefusal) -> None:
        """Refuses a request whose body breaks the framing or a limit: what follows cannot be told apart."""
        self._incoming = None
        call.close_after = True
        if call.is_open:
            call.refuse(refusal)
        else:
            self.close()

    # The queue's side.

    def _on_turn(self, ends: bool) -> None:
        self.server.open_calls -= 1
        queue = self.queue
        if ends:
            self.close()
        elif not self._consuming:
            self._invite()
            if self._held:
                self.server.loop.call_soon(self._go_on)
            if not queue.calls:
                self.active_ns = monotonic_ns()
                if not self.server.open_calls:
                    self.server.busy_poll.wrote(self.active_ns)

    # Time. What the server asks of every connection.

    @property
    def open_calls(self) -> int:
        return len(self.queue.calls)

    def check(self, now_ns: int) -> None:
        """Acts on every limit that has passed."""
        queue, options = self.queue, self.server.options
        if queue.closed:
            return
        slow_s, send_s = options.stall_timeout_s, self.limits.send_timeout_s
        if (queue.paused or queue.unsent_bytes) and queue.takes_nothing(now_ns, slow_s, send_s):
            _log.info("connection of %s ended: it does not take its answers", self.address)
            self.server.broken += 1
            self.abort()
            return
        if self._lingering:
            if not queue.unsent_bytes and now_ns - max(self._ended_ns, queue.moved_ns) > self.limits.linger_s * 1e9:
                self.abort()
            return
        if self.draining and now_ns >= self._until_ns:
            self.end()
            return
        if now_ns >= self._age_ns:
            queue.retiring = True
        incoming = self._incoming
        if incoming is not None:
            if incoming.too_slow(now_ns, self.limits, options.stall_timeout_s, scarce=self.server.received.scarce):
                self._cut_body(incoming.call, HttpRefusal(408, "the body comes too slowly"))
        elif self._since_ns:
            if now_ns - self._since_ns > self.limits.head_timeout_s * 1e9:
                self._begin(late_head(), b"", 0, now_ns)
        elif not queue.calls:
            limit_s = self.limits.head_timeout_s if self._fresh else options.idle_timeout_s
            if self.draining:
                limit_s = self.limits.settle_s
            # What has come, and was not read yet because this loop was busy, is a request that would be lost.
            if now_ns - self.active_ns > limit_s * 1e9 and not unread_bytes(queue.transport.get_extra_info("socket")):
                self.close()

    def drain(self, grace_s: float) -> None:
        """Lets the answers that are written from now on be the last ones, so that clients go elsewhere.

        Order: a connection that was not used for a moment ends at once, others when their answer is written, or when
               they were not used for a moment.
        """
        if self.draining or self.queue.closed:
            return
        self.draining = self.queue.retiring = True
        now_ns = monotonic_ns()
        self._until_ns = now_ns + int(grace_s * 1e9)
        self.check(now_ns)

    def end(self) -> None:
        """Fails the calls that still run, and ends the connection."""
        for call in list(self.queue.calls):
            call.shut()
        self.close()

    def close(self) -> None:
        """Ends the connection; what was written still goes out, and what the client sent before it knew is read over.

        A socket that is closed while something unread is there resets the connection, and so the answer on its way.
        """
        queue = self.queue
        if queue.closed or self._lingering:
            return
        self._lingering = True
        self._ended_ns = queue.moved_ns = monotonic_ns()
        self._drained = 0
        self._rest = b""
        self._forget_calls()
        if queue.transport.is_closing():
            return  # the client has gone, and the loop knows
        if self.plain:
            half_close(queue.transport)
        elif not self._skip:
            queue.transport.close()
        if self._held:
            self._held = False
            queue.transport.resume_reading()

    def abort(self) -> None:
        """Ends the connection at once."""
        self.queue.closed = True
        self.queue.transport.abort()
