"""A call whose handler is a coroutine or a generator: one Task, with grpcio's context."""

import asyncio
from collections.abc import Callable
from typing import Any, NoReturn

import grpc
import ngh2

from gateway.access.principal import Principal
from gateway.errors import Cancelled, DeadlineExceeded, GatewayError
from gateway.rpc.authorizer import CallCredential
from gateway.rpc.handler import EOF, Metadata
from gateway.rpc.invocation import failure, invoke, requests
from gateway.rpc.message import BadMessage, Compressed, frame
from gateway.rpc.metadata import Fields, encode
from gateway.rpc.method import Method
from gateway.rpc.output import QUEUED_BYTES, Output
from gateway.rpc.pushback import never
from gateway.rpc.server_call import ANSWERED, GONE, OK, OPEN, RESPONSE, ServerCall
from gateway.rpc.server_state import ServerState
from gateway.rpc.status_codes import Status, status_of

_GZIP: Fields = ((b"grpc-encoding", b"gzip"),)


class TaskCall(ServerCall):
    """A call and the context that its handler is given; the methods are those of grpc.aio.ServicerContext.

    Order: received bytes are acknowledged, and so replaced by the client, only while no whole message waits to be read;
           a handler that does not read holds its client back at the stream's window.
    """

    __slots__ = (
        "_code",
        "_compress",
        "_compress_next",
        "_details",
        "_done_callbacks",
        "_reader",
        "_task",
        "_trailing",
        "credential",
    )

    def __init__(self, server: ServerState, output: Output, stream_id: int, method: Method, headers: Fields) -> None:
        super().__init__(server, output, stream_id, method, headers)
        self.credential: CallCredential | None = None
        self._code = OK
        self._details = ""
        self._trailing: Metadata = ()
        self._compress = False
        self._compress_next = True
        self._reader: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._done_callbacks: list[Callable[[Any], None]] = []

    # What the connection tells.

    def begin(self) -> None:
        """Notes that the request's headers are here; a handler of a client's stream starts now."""
        self.make_assembler()
        self.widen()
        if self.method.request_streaming:
            self._start()

    def receive(self, data: bytes, end: bool) -> None:
        assembler = self.assembler
        assert assembler is not None
        self.held_bytes += len(data)
        try:
            assembler.feed(data)
            if len(assembler.messages) > 1 and not self.method.request_streaming:
                raise BadMessage("a unary call has more than one message")
        except GatewayError as error:
            self.request_ended = end
            self.refuse(error)
            return
        if not assembler.messages or not self.method.request_streaming:
            self.acknowledge()
        self._wake_reader()
        if end:
            self.half_close()

    def half_close(self) -> None:
        self.request_ended = True
        assembler = self.assembler
        assert assembler is not None
        if assembler.partial or not (self.method.request_streaming or assembler.messages):
            self.refuse(BadMessage("the client ended its side within a message, or without one"))
        elif self.method.request_streaming:
            self._wake_reader()
        elif 0 < self.deadline_ns <= self.output.received_ns:
            self.refuse(DeadlineExceeded("deadline exceeded before the call began"))
        else:
            self._start()

    def abandon(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def prove(self) -> Principal:
        """Returns who calls, found out anew: a stream outlives what proved its caller.

        Raises: Unauthenticated, PermissionDenied.
        """
        if self.credential is not None:
            self.principal = self.credential.prove()
        return self.principal

    def _wake_reader(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    # The handler.

    def _start(self) -> None:
        self._task = self.server.spawn(self._run(), self.method.path)
        self._task.add_done_callback(self._finished)

    async def _run(self) -> None:
        method = self.method
        assert self.assembler is not None
        try:
            request = requests(self) if method.request_streaming else method.decode(await self._content())
            answer = await invoke(method, request, self)
            if self.state == OPEN:
                await self._complete(answer)
        except grpc.aio.AbortError:
            return
        except asyncio.CancelledError:
            if self.state == OPEN:
                self.send_status(status_of(Cancelled("the call was cancelled by the server"), method.path))
            raise
        except Exception as error:  # the boundary of a request
            if self.state == OPEN:
                self._end(failure(error, method, self))

    async def _complete(self, answer: object) -> None:
        if not self.method.response_streaming and self._code is OK:
            await self._send(answer)
        elif self._code is OK:
            self._begin_response(())
        self._end(Status(self._code, self._details))

    def _end(self, status: Status) -> None:
        try:
            encode(self._trailing)
        except ValueError as error:
            status, self._trailing = status_of(error, self.method.path), ()
        self.send_status(status, self._trailing)

    def _finished(self, _: asyncio.Task[None]) -> None:
        if self.assembler is not None:
            self.assembler.release()
        callbacks, self._done_callbacks = self._done_callbacks, []
        for callback in callbacks:
            callback(self)

    async def read(self) -> object:
        assembler = self.assembler
        assert assembler is not None
        while not assembler.messages:
            if self.request_ended:
                return EOF
            self._reader = self.server.loop.create_future()
            await self._reader
        self.prove()
        message = await self._content()
        assembler.pop()
        if not assembler.messages:
            self.acknowledge()
            self.output.schedule_if_wanted()
        return self.method.decode(message)

    async def _content(self) -> bytes | memoryview:
        """Returns the content of the oldest message; an inflated one is counted until the next is asked for."""
        assembler = self.assembler
        assert assembler is not None
        if self.inflation is not None:
            self.inflation.release()
            self.inflation = None
        message = assembler.messages[0]
        if not isinstance(message, Compressed):
            return message
        inflation = self.inflation = self.server.inflater.open(message)
        content = inflation.begin()
        return await self.server.inflater.finish(inflation) if content is None else content

    async def write(self, message: object) -> None:
        self.prove()
        await self._send(message)
        # The queue is bounded before the next message is made, not after.
        while self.state == OPEN and self.output.queued_bytes(self.stream_id) >= QUEUED_BYTES:
            await self.output.until_short(self.stream_id)

    async def _send(self, message: object) -> None:
        if self.state != OPEN:
            raise Cancelled("the call has ended")
        raw = self.method.encode(message)
        output = self.output
        if len(raw) > output.max_send_bytes:
            raise never(f"answer of {len(raw)} bytes, at most {output.max_send_bytes} are sent")
        framed = frame(raw, compress=self._compress and self._compress_next)
        output.reserve(len(framed))
        self._begin_response(())
        self._compress_next = True
        try:
            output.h2.send_data(self.stream_id, framed)
        except ngh2.NGH2Error as error:
            raise Cancelled("the call has ended") from error
        output.answered = True
        if not output.flushing:
            output.schedule()

    def _begin_response(self, metadata: Metadata) -> None:
        if self.response_begun:
            return
        fields = RESPONSE + (_GZIP if self._compress else ()) + encode(metadata)
        self.response_begun = True
        try:
            self.output.h2.send_response(self.stream_id, fields)
        except ngh2.NGH2Error:
            self.state = GONE
        self.output.schedule_if_wanted()

    async def send_initial_metadata(self, initial_metadata: Metadata) -> None:
        if self.response_begun:
            raise grpc.aio.UsageError("initial metadata were sent already")
        self._begin_response(initial_metadata)

    # The status.

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Metadata = ()) -> NoReturn:
        if code is OK:
            raise grpc.aio.UsageError("a call is not aborted with OK")
        if self.state == OPEN:
            self._trailing = tuple(trailing_metadata) or self._trailing
            self._code, self._details = code, details
            self._end(Status(code, details))
        raise grpc.aio.AbortError("Locally aborted.")

    async def abort_with_status(self, status: Any) -> NoReturn:
        await self.abort(status.code, status.details, status.trailing_metadata)

    def set_trailing_metadata(self, trailing_metadata: Metadata) -> None:
        self._trailing = tuple(trailing_metadata)

    def trailing_metadata(self) -> Metadata:
        return self._trailing

    def set_code(self, code: grpc.StatusCode) -> None:
        self._code = code

    def set_details(self, details: str) -> None:
        self._details = details

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._details

    def set_compression(self, compression: grpc.Compression) -> None:
        if self.response_begun:
            raise grpc.aio.UsageError("compression is set before the response begins")
        self._compress = compression is grpc.Compression.Gzip and self.accepts_gzip

    def disable_next_message_compression(self) -> None:
        self._compress_next = False

    # The end.

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        if self.done():
            callback(self)
        else:
            self._done_callbacks.append(callback)

    def cancel(self) -> bool:
        if self.state != OPEN:
            return False
        self.refuse(Cancelled("the call was cancelled by the server"))
        return True

    def cancelled(self) -> bool:
        return self._task is not None and self._task.cancelled()

    def done(self) -> bool:
        return self.state in (ANSWERED, GONE) and (self._task is None or self._task.done())
