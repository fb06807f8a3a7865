"""A unary call that is answered by callback: the hot path, without a Task."""

import asyncio
import logging

import ngh2

from gateway.errors import DeadlineExceeded, GatewayError, Overloaded, ResourceExhausted
from gateway.rpc.handler import Announced, AnnouncedCall, CancelCallback, Metadata, OwnMetadatum
from gateway.rpc.inflation import Inflation
from gateway.rpc.message import PREFIX, BadMessage, Compressed
from gateway.rpc.metadata import Fields, ok_trailers
from gateway.rpc.method import Method
from gateway.rpc.output import CONGESTED, LARGE_BYTES, Output
from gateway.rpc.pushback import later, never
from gateway.rpc.server_call import ANSWERED, GONE, OPEN, RESPONSE, ServerCall
from gateway.rpc.server_state import STREAM_SHARE_BYTES, ServerState
from gateway.rpc.status_codes import status_of

_log = logging.getLogger(__name__)

_OK: Fields = ((b"grpc-status", b"0"),)
# How much of a message that comes in many frames is acknowledged at once: half of each stream's share of the
# connection's window, so that messages which arrive side by side never wait for each other.
_ACKNOWLEDGED_BYTES = STREAM_SHARE_BYTES // 2


class CallbackCall(ServerCall):
    """One call and, for its handler, the `gateway.rpc.handler.CallbackContext` of it."""

    __slots__ = ("_callbacks", "_expected", "_inflating", "_own", "_trailing", "message_size")

    def __init__(self, server: ServerState, output: Output, stream_id: int, method: Method, headers: Fields) -> None:
        ServerCall.__init__(self, server, output, stream_id, method, headers)
        self.message_size = 0
        self._expected: AnnouncedCall | None = None
        self._trailing: Metadata = ()
        self._own: OwnMetadatum | None = None
        self._callbacks: list[CancelCallback] | None = None
        self._inflating: asyncio.Task[None] | None = None

    def receive(self, data: bytes, end: bool) -> None:
        # The flag and the length are one number: it is the length where the flag is 0 and the message is whole.
        size = len(data) - PREFIX
        if (
            end
            and self.assembler is None
            and int.from_bytes(data[:PREFIX], "big") == size
            and size <= self.server.max_receive_bytes
        ):
            self.output.h2.acknowledge_received_data(len(data), self.stream_id)
            self.request_ended = True
            self._dispatch(data[PREFIX:])
            return
        self.held_bytes += len(data)
        assembler = self.assembler
        try:
            if assembler is None:
                assembler = self.make_assembler()
                if size > 0:
                    size_bytes = int.from_bytes(data[1:PREFIX], "big")
                    if self.method.announce is not None and not data[0]:
                        self._expected = self._announced(self.method.announce, size_bytes, data[PREFIX:])
                    if size_bytes > self.output.unread_bytes - PREFIX:
                        self.widen(waits=self._expected is not None and self._expected.waits)
            assembler.feed(data)
            if len(assembler.messages) > 1:
                raise BadMessage("a unary call has more than one message")
        except GatewayError as error:
            self.request_ended = end
            self.refuse(error)
            return
        if end or self.held_bytes >= _ACKNOWLEDGED_BYTES:
            self.acknowledge()
        if end:
            self.half_close()

    def _announced(self, announce: Announced, size_bytes: int, lead: bytes) -> AnnouncedCall | None:
        """Returns what is to know of the message's end, if anything is. Raises: GatewayError."""
        try:
            return announce(self, size_bytes, lead)
        except ResourceExhausted:
            self.output.crowd()
            raise

    def half_close(self) -> None:
        self.request_ended = True
        assembler = self.assembler
        if assembler is None or assembler.partial or not assembler.messages:
            self.refuse(BadMessage("a unary call ended without a whole message"))
        else:
            self._dispatch(assembler.messages.popleft())

    def _dispatch(self, message: bytes | memoryview | Compressed) -> None:
        if isinstance(message, Compressed):
            self._inflate(message)
            return
        self._forget_expected()
        self.message_size = len(message)
        output = self.output
        if 0 < self.deadline_ns <= output.received_ns:
            self.refuse(DeadlineExceeded("deadline exceeded before the call began"))
            return
        if output.congested:
            self.refuse(later(CONGESTED))
            return
        try:
            self.method.call(message, self)
        except Exception as error:  # the boundary of a request
            self._fail(error)

    def _inflate(self, message: Compressed) -> None:
        inflation = self.inflation = self.server.inflater.open(message)
        try:
            content = inflation.begin()
        except GatewayError as error:
            self.refuse(error)
            return
        if content is not None:
            self._dispatch(content)
        else:
            self._inflating = self.server.spawn(self._finish_inflation(inflation), self.method.path)

    async def _finish_inflation(self, inflation: Inflation) -> None:
        try:
            content = await self.server.inflater.finish(inflation)
        except Exception as error:  # the boundary of a request
            self._fail(error)
            return
        if self.state == OPEN:
            self._dispatch(content)

    def answer(self, message: object) -> None:
        if self.state != OPEN:
            return
        self._callbacks = None
        output = self.output
        try:
            body = message if type(message) is bytes else self.method.encode(message)
            size = len(body)
            if size > output.max_send_bytes:
                raise never(f"answer of {size} bytes, at most {output.max_send_bytes} are sent")
            if size >= LARGE_BYTES or output.unsent_bytes:
                output.reserve(size)
            trailers = ok_trailers(self._trailing, self._own) if self._trailing or self._own else _OK
        except Exception as error:  # the boundary of a request
            self._fail(error)
            return
        self.state = ANSWERED
        h2, stream_id = output.h2, self.stream_id
        try:
            h2.send_response(stream_id, RESPONSE)
            if size < LARGE_BYTES:
                h2.send_data(stream_id, size.to_bytes(PREFIX, "big") + body)
            else:
                h2.send_data(stream_id, size.to_bytes(PREFIX, "big"))
                h2.send_data(stream_id, body)
            h2.send_trailers(stream_id, trailers)
        except ngh2.NGH2Error:
            self.state = GONE  # the stream ended in the same read as this call's data
        output.answered = True
        if not output.flushing:
            output.schedule()

    def fail(self, error: GatewayError) -> None:
        if self.state == OPEN and type(error) is Overloaded:
            self._callbacks = None
            try:
                self.send_refusal(error, self._trailing, self._own)
            except ValueError as refused:  # metadata that cannot be sent
                self._fail(refused)
        else:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        status = status_of(error, self.method.path)
        if self.state != OPEN:
            return
        self._callbacks = None
        try:
            self.send_status(status, self._trailing, self._own)
        except ValueError as refused:  # metadata that cannot be sent
            self.send_status(status_of(refused, self.method.path))

    def on_cancel(self, callback: CancelCallback) -> None:
        if self.state == GONE:
            callback()
        elif self.state == OPEN:
            if self._callbacks is None:
                self._callbacks = [callback]
            else:
                self._callbacks.append(callback)

    def _forget_expected(self) -> None:
        if self._expected is not None:
            self._expected.end()
            self._expected = None

    def abandon(self) -> None:
        self._forget_expected()
        if self._inflating is not None:
            self._inflating.cancel()
        callbacks, self._callbacks = self._callbacks, None
        for callback in callbacks or ():
            try:
                callback()
            except Exception:  # the boundary of a request: the other callbacks must run
                _log.exception("cancel callback of %s failed", self.method.path)

    def set_trailing_metadata(self, trailing_metadata: Metadata, own: OwnMetadatum | None = None) -> None:
        self._trailing = trailing_metadata
        self._own = own
