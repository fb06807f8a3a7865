"""Deadlines that the transport does not know: the default one, and those of requests on a stream."""

import asyncio
from collections.abc import Callable
from time import monotonic_ns
from typing import Final

from gateway.serving.call import Call

SWEEP_S: Final = 0.1


class StaleCalls:
    """Watches calls with a deadline of their own and hands those that miss it to `expire`, at most one sweep late.

    One timer for all of them, and none while there are none: a timer for each would cost more than the sweep.
    """

    __slots__ = ("_calls", "_expire", "_loop", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, expire: Callable[[Call], None]) -> None:
        self._loop = loop
        self._expire = expire
        self._calls: dict[Call, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, call: Call) -> None:
        """Makes the call expire at its `deadline_ns` unless it is forgotten before."""
        self._calls[call] = None
        if self._timer is None:
            self._timer = self._loop.call_later(SWEEP_S, self._sweep)

    def forget(self, call: Call) -> None:
        """Stops watching the call, if it was watched."""
        if self._calls:
            self._calls.pop(call, None)

    def sweep(self, now_ns: int) -> None:
        """Hands over every watched call whose deadline has passed."""
        for call in [call for call in self._calls if call.deadline_ns <= now_ns]:
            del self._calls[call]
            self._expire(call)

    def _sweep(self) -> None:
        self._timer = None
        self.sweep(monotonic_ns())
        if self._calls and self._timer is None:
            self._timer = self._loop.call_later(SWEEP_S, self._sweep)
