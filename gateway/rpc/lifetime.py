"""The life and the end of a connection: its pings, its keepalive, its age, its drain."""

import logging
import random
from collections.abc import Mapping
from time import monotonic_ns
from typing import Any, Final

import ngh2

from gateway.rpc.connection_end import half_close
from gateway.rpc.output import Output
from gateway.rpc.server_call import ServerCall
from gateway.rpc.server_state import ServerState
from gateway.rpc.stall import StallCheck

_log = logging.getLogger(__name__)

_KEEPALIVE: Final = b"keepaliv"
_DRAIN: Final = b"draining"
_MAX_CONTROLS: Final = 500  # frames between two checks that are neither requests nor data nor windows


class Lifetime:
    """The rules of a connection that are about time. `check` is called every second, or more often for short limits.

    Units: instants on the monotonic clock in nanoseconds; 0: not yet. `_ended_ns` is when the connection ended, or when
           its peer was last seen to take something of what was left.
    """

    __slots__ = (
        "_age_ns",
        "_began_ns",
        "_calls",
        "_controls",
        "_ended_ns",
        "_last_ping_ns",
        "_output",
        "_pinged_ns",
        "_server",
        "_settings_received",
        "_stalls",
        "_strikes",
        "_taken_bytes",
        "_told_to_calm",
        "_until_ns",
        "active_ns",
        "draining",
    )

    def __init__(self, server: ServerState, output: Output, calls: Mapping[int, ServerCall]) -> None:
        self._server = server
        self._output = output
        self._calls = calls
        self._began_ns = monotonic_ns()
        self._age_ns = 0
        self._controls = 0
        self._ended_ns = 0
        self._last_ping_ns = 0
        self._pinged_ns = 0
        self._settings_received = False
        self._stalls = StallCheck(server, output, calls)
        self._strikes = 0
        self._until_ns = 0
        self._taken_bytes = 0
        self.active_ns = self._began_ns
        self.draining = False
        self._told_to_calm = False  # the peer was sent ENHANCE_YOUR_CALM: the connection ends at the next check

    @property
    def address(self) -> str:
        """Returns the address that the connection is counted by; empty if it is not."""
        return self._output.address

    @property
    def open_calls(self) -> int:
        """Returns the number of calls whose streams have not ended."""
        return len(self._calls)

    def begin(self) -> None:
        """Starts the connection's age."""
        spread = random.uniform(0.9, 1.1)
        self._age_ns = self._began_ns + int(self._server.options.max_connection_age_s * spread * 1e9)

    def check(self, now_ns: int) -> None:
        """Acts on every limit that has passed."""
        self._controls = 0
        if self._output.closed:
            self._see_off(now_ns)
            return
        if self._told_to_calm:
            self.abort()  # it had until now to take the GOAWAY, and goes on
            return
        try:
            self._apply(now_ns)
        except ngh2.NGH2Error:
            self.abort()  # ngh2 is done with the connection

    def _apply(self, now_ns: int) -> None:
        options = self._server.options
        if not self._settings_received:
            if now_ns - self._began_ns > options.handshake_timeout_s * 1e9:
                self.abort()
            return
        if self.draining:
            if now_ns >= self._until_ns:
                self.end()
        elif now_ns >= self._age_ns or self._idle(now_ns):
            self.drain(options.age_grace_s)
        if self._stalls.check(now_ns):
            _log.info("connection of %s ended: it leaves answers unread while no room is left", self._output.peer)
            self._server.broken += 1
            self.abort()
            self._output.release()  # at once: the next one may stay
            return
        self._keep_alive(now_ns)

    def _idle(self, now_ns: int) -> bool:
        return not self._calls and now_ns - self.active_ns > self._server.options.idle_timeout_s * 1e9

    def _keep_alive(self, now_ns: int) -> None:
        output, options = self._output, self._server.options
        silent_ns = now_ns - max(output.received_ns, self._began_ns)
        if self._pinged_ns and output.received_ns >= self._pinged_ns:
            self._pinged_ns = 0
        if self._pinged_ns:
            if now_ns - self._pinged_ns > options.keepalive_timeout_s * 1e9:
                # Behind a slow link the ping waits until everything before it is taken.
                taken, self._taken_bytes = self._taken_bytes, output.taken_bytes()
                if self._taken_bytes > taken:
                    self._pinged_ns = now_ns
                else:
                    self.abort()
        elif silent_ns > options.keepalive_time_s * 1e9:
            self._pinged_ns = now_ns
            self._taken_bytes = output.taken_bytes()
            output.h2.ping(_KEEPALIVE)
            output.schedule_if_wanted()

    def control(self, event: Any) -> None:
        """Handles a frame that belongs to no call."""
        self.count_glitch()
        if isinstance(event, ngh2.PingReceived):
            self._count_ping()
        elif isinstance(event, ngh2.SettingsReceived):
            self._settings_received = True
        elif isinstance(event, ngh2.PingAcknowledged):
            if event.opaque_data == _DRAIN and self.draining:
                self._output.h2.send_goaway()
                self._output.schedule_if_wanted()
        elif isinstance(event, ngh2.GoAwayReceived):
            self.active_ns = 0  # it will send no more requests: idle as soon as its calls have ended
        elif isinstance(event, ngh2.ConnectionClosed):
            if event.error_code:
                self._server.broken += 1
                self.mark_ended()
                self._output.transport.close()  # at once: its calls run for nobody
            else:
                self.close()

    def count_glitch(self, weight: int = 1) -> None:
        """Counts what costs us work and moves no call on; too much of it ends the connection."""
        self._controls += weight
        if self._controls > _MAX_CONTROLS:
            self._controls = 0
            self._calm(b"too_many_control_frames")

    def _count_ping(self) -> None:
        output, options = self._output, self._server.options
        now_ns = output.received_ns
        early = now_ns - self._last_ping_ns < options.min_ping_interval_s * 1e9
        self._last_ping_ns = now_ns
        if output.answered:
            output.answered = False
            self._strikes = 0
        elif early:
            self._strikes += 1
            if self._strikes > options.max_ping_strikes:
                self._calm(b"too_many_pings")

    def _calm(self, why: bytes) -> None:
        if self._told_to_calm:
            return
        self._told_to_calm = True
        self._output.h2.send_goaway(ngh2.ErrorCode.ENHANCE_YOUR_CALM, debug_data=why)
        self._output.schedule_if_wanted()

    # The end.

    def drain(self, grace_s: float) -> None:
        """Asks the client to go elsewhere; calls that run may end within the grace time.

        Order: GOAWAY with the highest stream id and a ping; when the ping returns, every request that the client had
               sent before it knew is here, and GOAWAY with the last of them follows (gRFC A9).
        """
        if self.draining or self._output.closed:
            return
        self.draining = True
        self._until_ns = monotonic_ns() + int(grace_s * 1e9)
        h2 = self._output.h2
        try:
            h2.send_shutdown_notice()
            h2.ping(_DRAIN)
        except ngh2.NGH2Error:
            self.abort()
            return
        self._output.schedule_if_wanted()

    def end(self) -> None:
        """Fails the calls that still run, and ends the connection."""
        output = self._output
        if output.closed:
            return
        for call in list(self._calls.values()):
            call.shut()
        try:
            output.h2.send_goaway()
        except ngh2.NGH2Error:
            self.abort()
            return
        output.flush()
        self.close()

    def close(self) -> None:
        """Ends the connection; what was written still goes out, and what the peer sends meanwhile is dropped."""
        if not self._output.closed:
            self.mark_ended()
            if not self.draining:
                self._until_ns = self._ended_ns + int(self._server.options.age_grace_s * 1e9)
            self._taken_bytes = self._output.taken_bytes()
            half_close(self._output.transport)

    def _see_off(self, now_ns: int) -> None:
        """Waits for a peer that takes what was left to write, as long as the calls had time; for others a moment."""
        taken, self._taken_bytes = self._taken_bytes, self._output.taken_bytes()
        if self._taken_bytes > taken and now_ns < self._until_ns:
            self._ended_ns = now_ns
        elif now_ns - self._ended_ns > self._server.options.keepalive_timeout_s * 1e9:
            self._output.transport.abort()

    def abort(self) -> None:
        """Ends the connection at once."""
        self.mark_ended()
        self._output.transport.abort()

    def mark_ended(self) -> None:
        """Lets nothing more be read or sent."""
        if not self._output.closed:
            self._output.closed = True
            self._ended_ns = monotonic_ns()

    def fail(self, error: ngh2.NGH2Error) -> None:
        """Ends the connection of a peer that broke HTTP/2 or a limit.

        ngh2 says nothing more after an error, so GOAWAY is written by hand.
        """
        if self._output.closed:
            return
        flood = isinstance(error, ngh2.DenialOfServiceError)
        code = ngh2.ErrorCode.ENHANCE_YOUR_CALM if flood else ngh2.ErrorCode.PROTOCOL_ERROR
        self._server.broken += 1
        _log.info("connection of %s ended: %s", self._output.peer, error)
        self.mark_ended()
        if self._settings_received:
            payload = (2**31 - 1).to_bytes(4, "big") + int(code).to_bytes(4, "big") + str(error).encode()[:128]
            self._output.transport.write(len(payload).to_bytes(3, "big") + b"\x07\x00" + bytes(4) + payload)
        self._output.transport.close()
