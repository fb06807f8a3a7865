"""Stalled peers: who holds a byte budget without moving on, while it runs out."""

from collections.abc import Mapping
from typing import Final

from gateway.rpc.output import Output
from gateway.rpc.pushback import later
from gateway.rpc.server_call import OPEN, ServerCall
from gateway.rpc.server_state import ServerState

_MIN_BYTES_PER_S: Final = 64 * 1024


class StallCheck:
    """Compares what moved on a connection from one look to the next, `stall_timeout_s` later.

    1. Nothing is done while the budgets have room: a peer may be as slow as it likes.
    2. When answers run out of room, a connection that takes fewer than 64 KiB of them in a second is stalled.
    3. When messages run out of room, a call that is sent fewer than 64 KiB in a second of its message is refused.
    """

    __slots__ = ("_calls", "_looked_ns", "_missing", "_output", "_sent_bytes", "_server", "_unsent_bytes")

    def __init__(self, server: ServerState, output: Output, calls: Mapping[int, ServerCall]) -> None:
        self._server = server
        self._output = output
        self._calls = calls
        self._looked_ns = 0
        self._sent_bytes = 0
        self._unsent_bytes = 0
        self._missing: dict[int, int] = {}  # bytes of each stream's message that were missing at the last look

    def check(self, now_ns: int) -> bool:
        """Refuses stalled calls; returns whether the connection is stalled and should end."""
        elapsed_ns = now_ns - self._looked_ns
        if elapsed_ns < self._server.options.stall_timeout_s * 1e9:
            return False
        least_bytes = elapsed_ns * _MIN_BYTES_PER_S // 10**9
        output = self._output
        stalled = (
            self._server.unsent.scarce
            and min(self._unsent_bytes, output.unsent_bytes) > 0
            and output.sent_bytes - self._sent_bytes < least_bytes
        )
        self._refuse_stalled(least_bytes)
        self._looked_ns = now_ns
        self._sent_bytes = output.sent_bytes
        self._unsent_bytes = output.unsent_bytes
        return stalled

    def _refuse_stalled(self, least_bytes: int) -> None:
        missing: dict[int, int] = {}
        if self._server.received.scarce:
            for stream_id, call in list(self._calls.items()):
                assembler = call.assembler
                # While a whole message waits to be read it is we who hold the client back.
                if call.state != OPEN or assembler is None or assembler.messages or not assembler.partial:
                    continue
                before = self._missing.get(stream_id, -1)
                missing[stream_id] = assembler.missing_bytes
                if 0 <= before - missing[stream_id] < least_bytes:
                    call.refuse(later("the message comes too slowly for a server that has no room left"))
        self._missing = missing
