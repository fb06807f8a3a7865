"""The write half of a connection: what calls hand over, and the one write of a turn of the loop."""

import asyncio
import socket
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, cast

import ngh2

from gateway.rpc.message import ByteBudget
from gateway.rpc.peer_identity import INSECURE, peer_address, peer_name
from gateway.rpc.pushback import later

QUEUED_BYTES: Final = 256 * 1024  # what the socket, or one stream, may have waiting before its writer waits
# A unary answer of this size is counted before it is queued. Smaller ones are counted after the write, which most of
# them do not outlive, unless earlier ones are unread already.
LARGE_BYTES: Final = 64 * 1024
# What a client may send of a message that is not let in yet, or that will wait for others.
UNREAD_BYTES: Final = 256 * 1024
# The same while calls on its connection are refused: heads of further ones come behind what is on its way. A message
# that is let in then needs one exchange more.
_CROWDED_UNREAD_BYTES: Final = 64 * 1024
_CROWDED_NS: Final = 1_000_000_000  # so long after the last refusal
CONGESTED: Final = "earlier answers on this connection are not read"
# Where `struct tcp_info` of Linux has `tcpi_bytes_acked`.
_ACKED_BEGIN: Final = 120
_ACKED_END: Final = 128
# Of what waits to be written after a read: a call was refused in it; refusals of earlier ones wait for their moment.
REFUSED: Final = 1
HELD: Final = 2
_WRITE_BYTES: Final = 64 * 1024  # ngh2 takes five times as long for 256 KiB at once as for four times this


class Output:
    """Takes the frames of the calls and writes them once in a turn of the loop.

    Order: calls hand their frames to `h2` and ask for `schedule`; all of them leave with the one write of the flush.
           While the socket does not take more, nothing is taken from ngh2: what waits stays where it is bounded.
           `on_events` gets what ngh2 reports after a write, `on_error` the error with which it gave up; `closed` is
           set by who ends the connection.
           What waits to be sent is counted in the budget of the server's answers. A connection with more than
           `_congested_bytes` of it, or with any while the budget runs out, is `congested`: it gets no further requests
           served.
    Units: `received_ns` is when the peer was last heard, on the monotonic clock; `crowded_ns` when a call was last
           refused before its message was read, 0 where new calls may send as much as ever; `unread_bytes` is how much.
    """

    __slots__ = (
        "_budget",
        "_congested_bytes",
        "_loop",
        "_max_unsent_bytes",
        "_on_error",
        "_on_events",
        "_paused",
        "address",
        "answered",
        "auth_context",
        "closed",
        "congested",
        "crowded_ns",
        "flush_after_read",
        "flushing",
        "h2",
        "half_open",
        "max_send_bytes",
        "peer",
        "reading",
        "received_ns",
        "refusals",
        "sent_bytes",
        "transport",
        "unread_bytes",
        "unsent_bytes",
        "writers",
    )

    def __init__(
        self,
        h2: ngh2.Connection,
        loop: asyncio.AbstractEventLoop,
        on_events: Callable[[list[Any]], None],
        on_error: Callable[[ngh2.NGH2Error], None],
        *,
        budget: ByteBudget,
        max_send_bytes: int,
    ) -> None:
        self.h2 = h2
        self.transport: asyncio.Transport = cast(asyncio.Transport, None)
        self.max_send_bytes = max_send_bytes
        self.peer = ""
        self.address = ""
        self.auth_context: Mapping[str, Iterable[bytes]] = INSECURE
        self.half_open: set[int] = set()  # answered, but the client has not ended its side
        self.writers: dict[int, asyncio.Future[None]] = {}  # waiting until their stream's queue is short
        self.flushing = False
        self.reading = False
        self.flush_after_read = False  # a call was answered while its bytes were read
        self.refusals = 0  # REFUSED, HELD
        self.answered = False  # something was sent for a call since the last ping
        self.unsent_bytes = 0  # of answers, as counted in the budget
        self.sent_bytes = 0  # of answers that had to wait
        self.congested = False
        self.closed = False
        self.received_ns = 0
        self.crowded_ns = 0
        self.unread_bytes = UNREAD_BYTES
        self._budget = budget
        self._congested_bytes = max(max_send_bytes + 16 * QUEUED_BYTES, budget.size_bytes // 4)
        self._max_unsent_bytes = 2 * self._congested_bytes
        self._loop = loop
        self._on_events = on_events
        self._on_error = on_error
        self._paused = False

    def open(self, transport: asyncio.Transport, auth_context: Mapping[str, Iterable[bytes]]) -> None:
        """Takes the transport of the connection, which is made now."""
        name = transport.get_extra_info("peername")
        self.transport = transport
        self.peer = peer_name(name)
        self.address = peer_address(name)
        self.auth_context = auth_context
        transport.set_write_buffer_limits(high=QUEUED_BYTES)

    def reserve(self, count: int) -> None:
        """Counts an answer before it is queued.

        Raises: ResourceExhausted, with nothing counted, if the client leaves too many answers unread.
        """
        if self.unsent_bytes + count > self._max_unsent_bytes:
            raise later(
                f"answer of {count} bytes: {self.unsent_bytes} bytes of earlier answers on this connection are not "
                f"read, at most {self._max_unsent_bytes} wait"
            )
        self._budget.take(count, "an answer")
        self.unsent_bytes += count
        self._update_congestion()

    def release(self) -> None:
        """Gives back to the budget what unsent answers held; the connection is lost."""
        self._budget.give(self.unsent_bytes)
        self.unsent_bytes = 0

    def pause(self) -> None:
        """Writes nothing until `resume`: the socket takes no more."""
        self._paused = True

    def resume(self) -> None:
        """Goes on writing."""
        self._paused = False
        if not self.flushing:
            self.schedule()

    def acknowledge(self, count: int, stream_id: int) -> None:
        """Lets the client send `count` bytes more."""
        try:
            self.h2.acknowledge_received_data(count, stream_id)
        except (ngh2.NGH2Error, ValueError):  # the connection ended, or ngh2 has forgotten the stream and freed them
            return

    def widen(self, window_bytes: int, stream_id: int) -> None:
        """Gives a stream a receive window of that size."""
        try:
            self.h2.set_local_window_size(window_bytes, stream_id=stream_id)
        except (ngh2.NGH2Error, ValueError):  # the stream ended in the same read
            return
        self.schedule_if_wanted()

    def crowd(self) -> None:
        """Lets new calls send less until they are let in, for one was refused."""
        if not self.crowded_ns:
            self._set_unread(_CROWDED_UNREAD_BYTES)
        self.crowded_ns = self.received_ns

    def relax(self) -> None:
        """Lets new calls send as much as ever, if none was refused for a while."""
        if self.received_ns - self.crowded_ns > _CROWDED_NS:
            self._set_unread(UNREAD_BYTES)
            self.crowded_ns = 0

    def _set_unread(self, window_bytes: int) -> None:
        self.unread_bytes = window_bytes
        try:
            self.h2.update_settings({ngh2.Setting.INITIAL_WINDOW_SIZE: window_bytes})
        except ngh2.NGH2Error:  # the connection ends
            return
        self.schedule_if_wanted()

    def taken_bytes(self) -> int:
        """Returns how many bytes the peer's kernel has acknowledged; 0 where the system does not tell."""
        one = self.transport.get_extra_info("socket")
        if one is None or sys.platform != "linux":
            return 0
        try:
            told = one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ACKED_END)
        except OSError:  # closed, or no TCP
            return 0
        return int.from_bytes(told[_ACKED_BEGIN:], sys.byteorder)

    def queued_bytes(self, stream_id: int) -> int:
        """Returns how many bytes of a stream wait for its window or for the socket."""
        try:
            return self.h2.queued_body_size(stream_id)
        except (ngh2.NGH2Error, ValueError):
            return 0

    def reset(self, stream_id: int, code: int) -> None:
        """Ends a stream with RST_STREAM; nothing happens if it has ended already."""
        try:
            self.h2.reset_stream(stream_id, code)
        except ngh2.NGH2Error:
            return
        self.schedule_if_wanted()

    async def until_short(self, stream_id: int) -> None:
        """Returns when the stream's queue is half empty, or the stream has ended."""
        writer = self.writers[stream_id] = self._loop.create_future()
        await writer

    def forget(self, stream_id: int) -> None:
        """Drops what is kept for a stream that has ended, and wakes its writer."""
        if self.half_open:
            self.half_open.discard(stream_id)
        if self.writers:
            writer = self.writers.pop(stream_id, None)
            if writer is not None and not writer.done():
                writer.set_result(None)

    def schedule(self) -> None:
        """Has the flush run at the end of this read, or in the next turn of the loop."""
        self.flushing = True
        if self.reading:
            self.flush_after_read = True
        else:
            self._loop.call_soon(self.flush)

    def schedule_refusal(self) -> None:
        """Has a refusal written, soon: it may wait for others (`gateway.rpc.held_refusals`)."""
        if self.reading and not self.flushing:
            self.refusals |= REFUSED
        elif not self.flushing:
            self.schedule()

    def schedule_if_wanted(self) -> None:
        """Schedules a write if ngh2 has something to send."""
        if not self.flushing and self.h2.want_write:
            self.schedule()

    def flush(self) -> None:
        """Writes everything that the windows and the socket allow."""
        h2 = self.h2
        self.refusals = 0
        if self.closed:
            self.flushing = False
            return
        try:
            while not self._paused:
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
            unsent_bytes = h2.queued_body_size()
        except ngh2.NGH2Error as error:
            self.flushing = False
            self._on_error(error)
            return
        if unsent_bytes or self.unsent_bytes:
            self._count_unsent(unsent_bytes)
        if events:
            self._on_events(events)
        if self.writers:
            self._wake_writers()

    def _stop_clients(self) -> bool:
        """Resets the streams whose answer is sent while the client still sends; returns whether there were any."""
        sent = [stream_id for stream_id in self.half_open if not self.queued_bytes(stream_id)]
        for stream_id in sent:
            self.half_open.discard(stream_id)
            self.reset(stream_id, 0)
        return bool(sent)

    def _count_unsent(self, unsent_bytes: int) -> None:
        if unsent_bytes < self.unsent_bytes:
            self.answered = True
            self.sent_bytes += self.unsent_bytes - unsent_bytes
        self._budget.charge(unsent_bytes - self.unsent_bytes)
        self.unsent_bytes = unsent_bytes
        self._update_congestion()

    def _update_congestion(self) -> None:
        self.congested = self.unsent_bytes > self._congested_bytes or (self.unsent_bytes > 0 and self._budget.scarce)

    def _wake_writers(self) -> None:
        for stream_id, writer in list(self.writers.items()):
            if self.queued_bytes(stream_id) < QUEUED_BYTES // 2:
                del self.writers[stream_id]
                if not writer.done():
                    writer.set_result(None)
