"""One REST request on its way: read, inflated, given to its endpoint, answered once."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

from gateway.access.principal import ANONYMOUS, Principal
from gateway.access.quota_pass import QuotaPass
from gateway.errors import Cancelled, DeadlineExceeded, GatewayError, Internal, InvalidArgument, Unavailable
from gateway.rest.endpoint import Endpoint
from gateway.rest.http_call import Fields, Piece
from gateway.rest.http_head import HttpHead
from gateway.rest.http_refusal import JSON, HttpRefusal, refusal_of
from gateway.rpc.deadline import Slot
from gateway.rpc.inflation import Inflation
from gateway.rpc.message import BadMessage, Compressed
from gateway.rpc.server_state import ServerState

_log = logging.getLogger(__name__)

_OPEN: Final = 0
_STARTED: Final = 1  # an answer in pieces has begun
_ANSWERED: Final = 2
_GONE: Final = 3


class Answerer(Protocol):
    """The write half of a connection, as its calls see it."""

    def write_answer(self, call: "RestCall", status: int, fields: Fields, pieces: Sequence[Piece], own: Fields) -> None:
        """Writes a whole answer. Raises: GatewayError, ValueError for one that cannot be sent; nothing is written."""

    def begin_answer(self, call: "RestCall", status: int, fields: Fields) -> None:
        """Writes the head of an answer in pieces. Raises: ValueError for a field that cannot be sent."""

    async def write_piece(self, call: "RestCall", piece: Piece) -> None:
        """Writes a piece; returns when there is room for the next one."""

    def end_answer(self, call: "RestCall") -> None: ...

    def cut_answer(self, call: "RestCall") -> None: ...


class RestCall:
    """The `gateway.rest.http_call.HttpCall` of both transports; a member of the server's deadline wheel.

    `ready` is what a pipelined answer has to wait with until those before it are written; `close_after`: the connection
    ends with the answer. Units: `held_bytes` are taken from the server's budget of messages.
    """

    __slots__ = (
        *("_callbacks", "_inflation", "_proven_names", "_state", "_task", "answerer", "body", "close_after"),
        *("complete", "deadline_ns", "head", "held_bytes", "message_size", "principal", "quota_pass", "ready"),
        *("server", "slot"),
    )

    def __init__(self, server: ServerState, answerer: Answerer, head: HttpHead) -> None:
        self.server = server
        self.answerer = answerer
        self.head = head
        self.body: bytes | memoryview = b""
        self.message_size = 0
        self.deadline_ns = 0
        self.principal: Principal = ANONYMOUS
        self._proven_names: tuple[str, ...] = ()  # of the connection's certificate
        self.quota_pass: QuotaPass | None = None
        self.slot: Slot | None = None
        self.held_bytes = 0
        self.ready: list[Piece] | None = None
        self.complete = False  # the answer is whole
        self.close_after = False
        self._callbacks: list[Callable[[], None]] | None = None
        self._inflation: Inflation | None = None
        self._task: asyncio.Task[None] | None = None
        self._state = _OPEN

    # What handlers ask.

    @property
    def method(self) -> str:
        return self.head.method

    @property
    def path(self) -> str:
        return self.head.path

    @property
    def query(self) -> str:
        return self.head.query

    @property
    def names(self) -> tuple[str, ...]:
        outcome = self.head.outcome
        return () if isinstance(outcome, HttpRefusal) else outcome.names

    @property
    def fields(self) -> Mapping[str, str]:
        return self.head.fields

    @property
    def is_open(self) -> bool:
        """Whether an answer is awaited."""
        return self._state == _OPEN

    def header(self, name: str) -> str | None:
        return self.head.fields.get(name)

    def on_cancel(self, callback: Callable[[], None]) -> None:
        if self._state == _GONE:
            callback()
        elif self._state <= _STARTED:
            if self._callbacks is None:
                self._callbacks = [callback]
            else:
                self._callbacks.append(callback)

    # From the head to the handler.

    def admit(self, endpoint: Endpoint, names: tuple[str, ...]) -> None:
        """Lets the request in by its head. Raises: GatewayError."""
        server = self.server
        self._proven_names = names
        if server.authorizer is not None:
            self.principal = server.authorizer.authorize(endpoint.permission_key, self.head.authorization, names)
        if server.quotas is not None and endpoint.by_quota:
            self.quota_pass = server.quotas.enter(self.principal.name, self.principal.tenant)

    def prove(self) -> Principal:
        authorizer, outcome = self.server.authorizer, self.head.outcome
        if authorizer is not None and not isinstance(outcome, HttpRefusal):
            key = outcome.endpoint.permission_key
            self.principal = authorizer.authorize(key, self.head.authorization, self._proven_names)
        return self.principal

    def limit(self, endpoint: Endpoint, received_ns: int) -> None:
        """Gives the call its deadline, which the wheel keeps."""
        server, timeout_ns = self.server, self.head.timeout_ns
        if not timeout_ns:
            if endpoint.streams:
                return
            timeout_ns = server.default_deadline_ns if endpoint.by_callback else server.default_task_deadline_ns
        self.deadline_ns = received_ns + timeout_ns
        server.wheel.add(self)

    def hold(self, count: int) -> None:
        """Takes so many bytes for the body. Raises: ResourceExhausted."""
        self.server.received.take(count)
        self.held_bytes += count

    def begin(self, endpoint: Endpoint, body: bytes | memoryview) -> None:
        """Gives the whole request to its endpoint."""
        encoding = self.head.encoding
        if not encoding:
            self._dispatch(endpoint, body)
            return
        raw = body if isinstance(body, bytes) else bytes(body)
        inflation = self._inflation = Inflation(
            Compressed(raw, encoding), min(endpoint.max_body_bytes, self.server.max_receive_bytes), self.server.received
        )
        try:
            content = inflation.begin()
        except GatewayError as error:
            self._refuse_encoded(error)
            return
        if content is not None:
            self._dispatch(endpoint, content)
        else:
            self._task = self.server.spawn(self._finish_inflation(endpoint, inflation), self.head.path)

    async def _finish_inflation(self, endpoint: Endpoint, inflation: Inflation) -> None:
        try:
            content = await self.server.inflater.finish(inflation)
        except GatewayError as error:
            self._refuse_encoded(error)
            return
        self._task = None
        if self._state == _OPEN:
            self._dispatch(endpoint, content)

    def _refuse_encoded(self, error: GatewayError) -> None:
        if isinstance(error, BadMessage):
            error = InvalidArgument("the body is not what its Content-Encoding says")
        self.fail(error)

    def _dispatch(self, endpoint: Endpoint, body: bytes | memoryview) -> None:
        self.body = body
        self.message_size = len(body)
        try:
            if endpoint.by_callback:
                endpoint.answer(self)
            else:
                self._task = self.server.spawn(self._run(endpoint), self.head.path)
        except Exception as error:  # the boundary of a request
            self._fail(error)

    async def _run(self, endpoint: Endpoint) -> None:
        try:
            answered = endpoint.answer(self)
            if answered is not None:
                await answered
        except asyncio.CancelledError:
            self._fail(Cancelled("the request was cancelled by the server"))
            raise
        except Exception as error:  # the boundary of a request
            self._fail(error)
            return
        if self._state == _OPEN:
            _log.error("the endpoint of %s ended without an answer", self.head.path)
            self.fail(Internal())
        elif self._state == _STARTED:
            self.end()

    # The answer.

    def respond(self, status: int, fields: Fields, pieces: Sequence[Piece], own: Fields = ()) -> None:
        if self._state != _OPEN:
            return
        try:
            self.answerer.write_answer(self, status, fields, pieces, own)
        except Exception as error:  # the boundary of a request: what cannot be sent is said in fewer bytes
            self.refuse(refusal_of(error, self.head.path))
            return
        self._settle()

    def fail(self, error: GatewayError, own: Fields = ()) -> None:
        if self._state == _OPEN:
            self.refuse(refusal_of(error, self.head.path), own)

    def refuse(self, refusal: HttpRefusal, own: Fields = ()) -> None:
        """Answers with a refusal, if an answer is awaited."""
        if self._state != _OPEN:
            return
        try:
            self.answerer.write_answer(self, refusal.status, JSON, (refusal.body,), refusal.fields + own)
        except ValueError:
            self.answerer.write_answer(self, 500, JSON, (refusal_of(Internal(), "").body,), ())
        self._settle()

    def _fail(self, error: BaseException) -> None:
        refusal = refusal_of(error, self.head.path)
        if self._state == _STARTED:
            self.abort()
        else:
            self.refuse(refusal)

    def start(self, status: int, fields: Fields) -> None:
        if self._state != _OPEN:
            return
        self.answerer.begin_answer(self, status, fields)
        self._state = _STARTED

    async def send(self, piece: Piece) -> None:
        if self._state != _STARTED:
            raise Cancelled("nobody reads the answer any more")
        if piece:  # an empty one would end the body
            await self.answerer.write_piece(self, piece)

    def end(self) -> None:
        if self._state == _STARTED:
            self.answerer.end_answer(self)
            self._settle()

    def abort(self) -> None:
        if self._state == _STARTED:
            self._settle()
            self.answerer.cut_answer(self)

    def _settle(self) -> None:
        """Gives back what the call held."""
        self._state = _ANSWERED
        self._callbacks = None
        if self.slot is not None:
            del self.slot[self]
            self.slot = None
        if self.quota_pass is not None:
            self.quota_pass.release()
        if self.held_bytes:
            self.server.received.give(self.held_bytes)
            self.held_bytes = 0
        if self._inflation is not None:
            self._inflation.release()
            self._inflation = None

    # The end without an answer.

    def expire(self) -> None:
        """Fails the call, whose deadline has passed, and stops its handler."""
        if self._state == _OPEN:
            callbacks, self._callbacks = self._callbacks, None
            self.fail(DeadlineExceeded("deadline exceeded"))
            self._stop(callbacks)
        elif self._state == _STARTED:
            callbacks, self._callbacks = self._callbacks, None
            self.abort()
            self._stop(callbacks)

    def shut(self) -> None:
        """Fails an open call because the server stops."""
        callbacks, self._callbacks = self._callbacks, None
        if self._state == _OPEN:
            self.fail(Unavailable("the server is shutting down"))
        else:
            self.abort()
        self._stop(callbacks)

    def gone(self) -> None:
        """Ends the call with its connection, or its stream."""
        callbacks = self._callbacks
        was_open = self._state <= _STARTED
        self._settle()
        self._state = _GONE
        if was_open:
            self._stop(callbacks)

    def _stop(self, callbacks: list[Callable[[], None]] | None) -> None:
        if self._task is not None:
            self._task.cancel()
        for callback in callbacks or ():
            try:
                callback()
            except Exception:  # the boundary of a request: the other callbacks must run
                _log.exception("cancel callback of %s failed", self.head.path)
