"""The write half of an HTTP/1.1 connection: answers leave in the order of their requests."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic_ns
from typing import Final, cast

from gateway.errors import Cancelled
from gateway.rest.http_call import Fields, Piece
from gateway.rest.response_head import CONTINUE, ResponseHeads, size_of
from gateway.rest.rest_call import RestCall
from gateway.rpc.message import ByteBudget
from gateway.rpc.output import LARGE_BYTES, QUEUED_BYTES
from gateway.rpc.pushback import never

_CLOSE: Final = b"connection: close\r\n"
_KEEP_ALIVE: Final = b"connection: keep-alive\r\n"


class AnswerQueue:
    """The calls of a connection, oldest first, and what of their answers cannot leave yet.

    `on_turn` is told when a call has left the queue, and whether the connection is to end with it. What the socket has
    not taken is counted in the budget of the server's answers. `retiring`: the connection ends with the newest call.

    Units: `moved_ns` is when the client last took something, on the monotonic clock.
    """

    __slots__ = (
        *("_budget", "_heads", "_max_send_bytes", "_on_turn", "_waiters", "calls", "closed", "moved_ns", "paused"),
        *("retiring", "transport", "unsent_bytes"),
    )

    def __init__(
        self, heads: ResponseHeads, budget: ByteBudget, max_send_bytes: int, on_turn: Callable[[bool], None]
    ) -> None:
        self.transport: asyncio.Transport = cast(asyncio.Transport, None)
        self.calls: deque[RestCall] = deque()
        self.paused = False
        self.closed = False
        self.retiring = False
        self.unsent_bytes = 0
        self.moved_ns = 0
        self._budget = budget
        self._heads = heads
        self._max_send_bytes = max_send_bytes
        self._on_turn = on_turn
        self._waiters: list[asyncio.Future[None]] = []

    def is_full(self, max_pipelined: int) -> bool:
        """Returns whether a request has to wait for the answers before it, or will have none. There are such."""
        calls = self.calls
        return (
            len(calls) >= max_pipelined
            or self.paused
            or self.retiring
            or not calls[-1].head.keep_alive
            or calls[-1].close_after
        )

    def takes_nothing(self, now_ns: int, scarce_limit_s: float, limit_s: float) -> bool:
        """Returns whether the client has taken nothing of what was written for longer than it may: where the server's
        budget is scarce, the first of the limits.
        """
        self.count_unsent()
        limit_s = scarce_limit_s if self._budget.scarce else limit_s
        return self.unsent_bytes > 0 and now_ns - self.moved_ns > limit_s * 1e9

    # The calls' side.

    def write_answer(self, call: RestCall, status: int, fields: Fields, pieces: Sequence[Piece], own: Fields) -> None:
        size_bytes = size_of(pieces)
        if size_bytes >= LARGE_BYTES:
            if size_bytes > self._max_send_bytes:
                raise never(f"answer of {size_bytes} bytes, at most {self._max_send_bytes} are sent")
            self._budget.take(size_bytes, "an answer")
            self._budget.give(size_bytes)  # there is room; what the socket does not take is counted once it is written
        head = self._heads.whole(status, fields, size_bytes, own, self._connection(call))
        parts: list[Piece] = [head]
        if call.head.method != "HEAD":
            parts += pieces
        call.complete = True
        self._write(call, parts)

    def begin_answer(self, call: RestCall, status: int, fields: Fields) -> None:
        chunked = call.head.version != "1.0"
        if not chunked:
            call.close_after = True
        head = self._heads.endless(status, fields, self._connection(call), chunked=chunked)
        self._write(call, [head])

    async def write_piece(self, call: RestCall, piece: Piece) -> None:
        while not self.closed and (self.paused or not self.calls or self.calls[0] is not call):
            await self._until_moved()
        if self.closed:
            raise Cancelled("the client has gone")
        if call.head.method == "HEAD":
            return
        if call.head.version == "1.0":
            self.transport.write(piece)
        else:
            self.transport.writelines((b"%x\r\n" % len(piece), piece, b"\r\n"))
        if self.paused:
            self.count_unsent()
        while self.paused and not self.closed:
            await self._until_moved()

    def end_answer(self, call: RestCall) -> None:
        call.complete = True
        chunked = call.head.version != "1.0" and call.head.method != "HEAD"
        self._write(call, [b"0\r\n\r\n"] if chunked else [])

    def cut_answer(self, call: RestCall) -> None:
        """Ends the connection without the last chunk, by which the client sees that something is missing."""
        call.complete = call.close_after = True
        if call.head.version == "1.0":
            self.transport.abort()  # a plain end would be the end of the body
        else:
            self._write(call, [])

    def _connection(self, call: RestCall) -> bytes:
        """Returns the line that says what becomes of the connection; it is told once for all calls behind."""
        if not call.head.keep_alive or (self.retiring and self.calls[-1] is call):
            call.close_after = True
        if call.close_after:
            return _CLOSE
        return _KEEP_ALIVE if call.head.version == "1.0" else b""

    # The order.

    def _write(self, call: RestCall, parts: list[Piece]) -> None:
        if self.closed:
            return
        calls = self.calls
        if not calls or calls[0] is not call:
            if call.ready is None:
                call.ready = parts
            else:
                call.ready += parts
            return
        self._send(parts)
        if call.complete:
            self._advance()

    def _advance(self) -> None:
        """Takes out the oldest call, whose answer is written, and writes what waited for that."""
        calls = self.calls
        while calls and calls[0].complete:
            ended = calls.popleft()
            if ended.close_after:
                self._on_turn(True)
                return
            if calls:
                following = calls[0]
                if following.ready is not None:
                    self._send(following.ready)
                    following.ready = None
            self._on_turn(False)
        if self._waiters:
            self._wake()

    def _send(self, parts: list[Piece]) -> None:
        if len(parts) == 1 or (parts and size_of(parts) < LARGE_BYTES):
            self.transport.write(b"".join(parts))  # one buffer costs less than several
        elif parts:
            self.transport.writelines(parts)
        if self.paused or self.unsent_bytes:
            self.count_unsent()

    def invite(self) -> None:
        """Tells the client of the oldest call, which waits for that, to send its body."""
        self.transport.write(CONTINUE)

    # The socket's side.

    def pause(self) -> None:
        """Holds pieces back: the socket takes no more."""
        self.paused = True
        self.moved_ns = monotonic_ns()

    def resume(self) -> None:
        """Lets pieces through again."""
        self.paused = False
        self.count_unsent()
        self._wake()

    def count_unsent(self) -> None:
        """Counts what the socket has not taken."""
        waiting = self.transport.get_write_buffer_size() if not self.closed else 0
        if waiting < self.unsent_bytes:
            self.moved_ns = monotonic_ns()
        self._budget.charge(waiting - self.unsent_bytes)
        self.unsent_bytes = waiting

    def release(self) -> None:
        """Forgets what was not sent, and wakes who waits: the connection is lost."""
        self.closed = True
        self._budget.give(self.unsent_bytes)
        self.unsent_bytes = 0
        self._wake()

    async def _until_moved(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


def open_queue(queue: AnswerQueue, transport: asyncio.Transport) -> None:
    """Gives the queue the transport of its connection, which is made now."""
    queue.transport = transport
    transport.set_write_buffer_limits(high=QUEUED_BYTES)
