"""How a connection lives and ends: its pings, its patience, its age, its drain."""

import logging
import random
from time import monotonic_ns
from typing import TYPE_CHECKING, Any, Final

import ngh2

if TYPE_CHECKING:
    from gateway.rpc.connection import Connection

_log = logging.getLogger(__name__)

_KEEPALIVE: Final = b"keepaliv"
_DRAIN: Final = b"draining"
_MAX_CONTROLS: Final = 500  # frames between two checks that are neither requests nor data nor windows


class Lifetime:
    """The rules of a connection that are about time. `check` is called every second, or more often for short limits.

    Units: instants on the monotonic clock in nanoseconds; 0: not yet.
    """

    __slots__ = (
        "_age_ns",
        "_began_ns",
        "_connection",
        "_controls",
        "_ended_ns",
        "_last_ping_ns",
        "_pinged_ns",
        "_settled",
        "_strikes",
        "_until_ns",
        "active_ns",
        "calmed",
        "draining",
        "ended",
    )

    def __init__(self, connection: "Connection") -> None:
        self._connection = connection
        self._began_ns = monotonic_ns()
        self._age_ns = 0
        self._controls = 0
        self._ended_ns = 0
        self._last_ping_ns = 0
        self._pinged_ns = 0
        self._settled = False
        self._strikes = 0
        self._until_ns = 0
        self.active_ns = self._began_ns
        self.draining = False
        self.calmed = False  # it was told to calm down, and ends with that
        self.ended = False

    def begin(self) -> None:
        spread = random.uniform(0.9, 1.1)
        self._age_ns = self._began_ns + int(self._connection.host.options.max_connection_age_s * spread * 1e9)

    def check(self, now_ns: int) -> None:
        """Acts on every limit that has passed."""
        options = self._connection.host.options
        self._controls = 0
        if self.ended:
            if now_ns - self._ended_ns > options.keepalive_timeout_s * 1e9:
                self._connection.transport.abort()  # the peer does not take what was left to write
            return
        if self.calmed:
            self.abort()  # it had until now to take the GOAWAY, and goes on
            return
        try:
            self._apply(now_ns)
        except ngh2.NGH2Error:
            self.abort()  # ngh2 is done with the connection

    def _apply(self, now_ns: int) -> None:
        options = self._connection.host.options
        if not self._settled:
            if now_ns - self._began_ns > options.handshake_timeout_s * 1e9:
                self.abort()
            return
        if self.draining:
            if now_ns >= self._until_ns:
                self.end()
        elif now_ns >= self._age_ns or self._idle(now_ns):
            self.drain(options.age_grace_s)
        self._keep_alive(now_ns)

    def _idle(self, now_ns: int) -> bool:
        connection = self._connection
        return not connection.calls and now_ns - self.active_ns > connection.host.options.idle_timeout_s * 1e9

    def _keep_alive(self, now_ns: int) -> None:
        connection, options = self._connection, self._connection.host.options
        silent_ns = now_ns - max(connection.received_ns, self._began_ns)
        if self._pinged_ns and connection.received_ns >= self._pinged_ns:
            self._pinged_ns = 0
        if self._pinged_ns:
            if now_ns - self._pinged_ns > options.keepalive_timeout_s * 1e9:
                self.abort()
        elif silent_ns > options.keepalive_time_s * 1e9:
            self._pinged_ns = now_ns
            connection.h2.ping(_KEEPALIVE)
            connection.schedule_if_wanted()

    def control(self, event: Any) -> None:
        """A frame that belongs to no call."""
        self.oddity()
        if isinstance(event, ngh2.PingReceived):
            self._count_ping()
        elif isinstance(event, ngh2.SettingsReceived):
            self._settled = True
        elif isinstance(event, ngh2.PingAcknowledged):
            if event.opaque_data == _DRAIN and self.draining:
                self._connection.h2.send_goaway()
                self._connection.schedule_if_wanted()
        elif isinstance(event, ngh2.GoAwayReceived):
            self.active_ns = 0  # it will send no more requests: idle as soon as its calls have ended
        elif isinstance(event, ngh2.ConnectionClosed):
            if event.error_code:
                self._connection.host.broken += 1
            self.close()

    def oddity(self) -> None:
        """Counts what costs us work and moves no call on; too much of it ends the connection."""
        self._controls += 1
        if self._controls > _MAX_CONTROLS:
            self._controls = 0
            self._calm(b"too_many_control_frames")

    def _count_ping(self) -> None:
        connection, options = self._connection, self._connection.host.options
        now_ns = connection.received_ns
        early = now_ns - self._last_ping_ns < options.min_ping_interval_s * 1e9
        self._last_ping_ns = now_ns
        if connection.answered:
            connection.answered = False
            self._strikes = 0
        elif early:
            self._strikes += 1
            if self._strikes > options.max_ping_strikes:
                self._calm(b"too_many_pings")

    def _calm(self, why: bytes) -> None:
        if self.calmed:
            return
        self.calmed = True
        self._connection.h2.send_goaway(ngh2.ErrorCode.ENHANCE_YOUR_CALM, debug_data=why)
        self._connection.schedule_if_wanted()

    # The end.

    def drain(self, grace_s: float) -> None:
        """The client is asked to go elsewhere; calls that run may end within the grace time.

        Order: GOAWAY with the highest stream id and a ping; when the ping returns, every request that the client had
               sent before it knew is here, and GOAWAY with the last of them follows (gRFC A9).
        """
        if self.draining or self.ended:
            return
        self.draining = True
        self._until_ns = monotonic_ns() + int(grace_s * 1e9)
        h2 = self._connection.h2
        try:
            h2.send_shutdown_notice()
            h2.ping(_DRAIN)
        except ngh2.NGH2Error:
            self.abort()
            return
        self._connection.schedule_if_wanted()

    def end(self) -> None:
        """The grace time is over: calls that still run fail, and the connection ends."""
        connection = self._connection
        if self.ended:
            return
        for call in list(connection.calls.values()):
            call.shut()
        try:
            connection.h2.send_goaway()
        except ngh2.NGH2Error:
            self.abort()
            return
        connection.flush()
        self.close()

    def close(self) -> None:
        """ngh2 has sent and received its last; what was written still goes out."""
        if not self.ended:
            self.over()
            self._connection.transport.close()

    def abort(self) -> None:
        self.over()
        self._connection.transport.abort()

    def over(self) -> None:
        """Nothing more is read or sent."""
        if not self.ended:
            self.ended = True
            self._ended_ns = monotonic_ns()

    def fail(self, error: ngh2.NGH2Error) -> None:
        """The peer broke HTTP/2 or a limit; ngh2 says nothing more, so the last frame is written by hand."""
        if self.ended:
            return
        flood = isinstance(error, ngh2.DenialOfServiceError)
        code = ngh2.ErrorCode.ENHANCE_YOUR_CALM if flood else ngh2.ErrorCode.PROTOCOL_ERROR
        self._connection.host.broken += 1
        _log.info("connection of %s ended: %s", self._connection.peer, error)
        self.over()
        if self._settled:
            payload = (2**31 - 1).to_bytes(4, "big") + int(code).to_bytes(4, "big") + str(error).encode()[:128]
            self._connection.transport.write(len(payload).to_bytes(3, "big") + b"\x07\x00" + bytes(4) + payload)
        self._connection.transport.close()
