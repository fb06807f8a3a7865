"""One REST request on HTTP/2: a stream of the connection that gRPC's calls run on."""

from collections.abc import Sequence
from typing import Final

import grpc
import ngh2
import numpy as np

from gateway.errors import Cancelled, GatewayError, ResourceExhausted
from gateway.rest.chunked_body import too_large
from gateway.rest.endpoint import Announced, Endpoint
from gateway.rest.http_call import Fields, Piece
from gateway.rest.http_head import HttpHead
from gateway.rest.http_refusal import HttpRefusal, refusal_of
from gateway.rest.response_head import checked_fields, size_of
from gateway.rest.rest_call import RestCall
from gateway.rpc.handler import AnnouncedCall
from gateway.rpc.metadata import never_indexed
from gateway.rpc.method import Method
from gateway.rpc.output import CONGESTED, LARGE_BYTES, QUEUED_BYTES, Output
from gateway.rpc.pushback import later, never
from gateway.rpc.request_head import too_many_calls
from gateway.rpc.server_call import ANSWERED, GONE, OPEN, ServerCall
from gateway.rpc.server_state import STREAM_SHARE_BYTES, ServerState

_ACKNOWLEDGED_BYTES: Final = STREAM_SHARE_BYTES // 2
_INTERNAL_ERROR: Final = 2
# What the connection and its checks ask of every call's method; nobody calls it.
_METHOD: Final = Method("REST", grpc.unary_unary_rpc_method_handler(lambda request, context: b""))


class Http2Stream(ServerCall):
    """Takes the body as its frames come, and writes the answer; `rest` is the request."""

    __slots__ = ("_endpoint", "_expected", "_filled", "_large", "_parts", "_size_bytes", "rest")

    def __init__(
        self, server: ServerState, output: Output, stream_id: int, headers: Fields, head: HttpHead, endpoint: Endpoint
    ) -> None:
        ServerCall.__init__(self, server, output, stream_id, _METHOD, headers)
        self.rest = RestCall(server, self, head)
        self._endpoint = endpoint
        self._large: memoryview | None = None  # where a body of a length that is known is put together
        self._filled = 0
        self._expected: AnnouncedCall | None = None
        self._parts: list[bytes] = []
        self._size_bytes = 0

    def admit(self, names: tuple[str, ...]) -> None:
        """Lets the request in by its head. Raises: GatewayError."""
        server, output = self.server, self.output
        if server.open_calls >= server.max_calls:
            raise later(too_many_calls(server.open_calls, server.max_calls))
        if output.congested:
            raise later(CONGESTED)
        self.rest.admit(self._endpoint, names)
        self.rest.limit(self._endpoint, output.received_ns)

    # What the connection tells.

    def receive(self, data: bytes, end: bool) -> None:
        rest, endpoint = self.rest, self._endpoint
        size_bytes = len(data)
        self.held_bytes += size_bytes
        self._size_bytes += size_bytes
        try:
            if self._size_bytes > endpoint.max_body_bytes:
                self.turn_away(too_large(self._size_bytes, endpoint.max_body_bytes), ended=end)
                return
            if end and not self._parts and self._large is None:
                self.acknowledge()
                self.request_ended = True
                rest.begin(endpoint, data)
                return
            self._keep(data)
        except GatewayError as error:
            self.turn_away(refusal_of(error, rest.head.path), ended=end)
            return
        if end or self.held_bytes >= _ACKNOWLEDGED_BYTES:
            self.acknowledge()
        if end:
            self.half_close()

    def _keep(self, data: bytes) -> None:
        """Keeps a part of the body. Raises: GatewayError."""
        rest = self.rest
        if not self._size_bytes - len(data) and not self._parts:
            length = rest.head.content_length
            if self._endpoint.announced is not None and length > 0:
                self._expected = self._announced(self._endpoint.announced, length)
            if length > self.output.unread_bytes:
                self.widen(waits=self._expected is not None and self._expected.waits)
            if length >= LARGE_BYTES:
                rest.hold(length)
                self._large = np.empty(length, np.uint8).data
        large = self._large
        if large is None:
            rest.hold(len(data))
            self._parts.append(data)
        elif self._filled + len(data) <= len(large):
            large[self._filled : self._filled + len(data)] = data
            self._filled += len(data)

    def _announced(self, announced: Announced, length: int) -> AnnouncedCall | None:
        """Returns what is to know of the body's end, if anything is. Raises: GatewayError."""
        try:
            return announced(self.rest, length)
        except ResourceExhausted:
            self.output.crowd()
            raise

    def half_close(self) -> None:
        self.request_ended = True
        if self._expected is not None:
            self._expected.end()
        if self.state != OPEN:
            return
        large = self._large
        self._large = None
        if large is not None:
            self.rest.begin(self._endpoint, large.toreadonly())
        else:
            parts, self._parts = self._parts, []
            self.rest.begin(self._endpoint, parts[0] if len(parts) == 1 else b"".join(parts))

    def turn_away(self, refusal: HttpRefusal, *, ended: bool) -> None:
        """Refuses a request before it was begun."""
        self.request_ended = ended
        self._parts = []
        self._large = None
        self.rest.refuse(refusal)

    def refuse(self, error: GatewayError) -> None:
        if self.state == OPEN:
            self.rest.fail(error)
            self.rest.gone()

    def shut(self) -> None:
        self.rest.shut()

    def abandon(self) -> None:
        self.rest.gone()
        if self._expected is not None:
            self._expected.end()

    def closed(self) -> None:
        self.state = GONE
        self.abandon()
        self.acknowledge()  # the connection's window counts them still
        output = self.output
        if output.unsent_bytes and not output.flushing and not output.closed:
            output.schedule()  # what was queued is gone with the stream: it is counted anew

    # What the request writes.

    def write_answer(self, call: RestCall, status: int, fields: Fields, pieces: Sequence[Piece], own: Fields) -> None:
        output = self.output
        size_bytes = size_of(pieces)
        sent = checked_fields(fields)
        if own:
            # What differs with each answer would drive what repeats out of HPACK's table.
            sent += tuple([never_indexed(field) for field in checked_fields(own)])
        if size_bytes > output.max_send_bytes:
            raise never(f"answer of {size_bytes} bytes, at most {output.max_send_bytes} are sent")
        if size_bytes >= LARGE_BYTES or output.unsent_bytes:
            output.reserve(size_bytes)
        head = ((b":status", b"%d" % status), *sent, (b"content-length", b"%d" % size_bytes))
        if call.head.method == "HEAD" or not size_bytes:
            pieces = ()
        self.state = ANSWERED
        h2, stream_id = output.h2, self.stream_id
        try:
            h2.send_response(stream_id, head, end_stream=not pieces)
            last = len(pieces) - 1
            if last > 0 and size_bytes < LARGE_BYTES:
                h2.send_data(stream_id, b"".join(pieces), end_stream=True)
            else:
                for index, piece in enumerate(pieces):
                    h2.send_data(stream_id, piece, end_stream=index == last)
        except ngh2.NGH2Error:
            self.state = GONE  # the stream ended in the same read as this request's data
        self.answered()

    def begin_answer(self, call: RestCall, status: int, fields: Fields) -> None:
        self.response_begun = True
        try:
            self.output.h2.send_response(self.stream_id, ((b":status", b"%d" % status), *checked_fields(fields)))
        except ngh2.NGH2Error:
            self.state = GONE
        self.output.schedule_if_wanted()

    async def write_piece(self, call: RestCall, piece: Piece) -> None:
        output = self.output
        if call.head.method == "HEAD":
            return
        output.reserve(len(piece))
        try:
            output.h2.send_data(self.stream_id, piece)
        except ngh2.NGH2Error as error:
            raise Cancelled("the client has gone") from error
        output.answered = True
        if not output.flushing:
            output.schedule()
        while self.state == OPEN and output.queued_bytes(self.stream_id) >= QUEUED_BYTES:
            await output.until_short(self.stream_id)
        if self.state != OPEN:
            raise Cancelled("the client has gone")

    def end_answer(self, call: RestCall) -> None:
        if self.state != OPEN:
            return
        self.state = ANSWERED
        try:
            self.output.h2.end_stream(self.stream_id)
        except ngh2.NGH2Error:
            self.state = GONE
        self.answered()

    def cut_answer(self, call: RestCall) -> None:
        self.state = ANSWERED
        self.output.reset(self.stream_id, _INTERNAL_ERROR)
