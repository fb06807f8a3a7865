"""Busy polling: after an answer the loop looks for the next request instead of going to sleep, where that pays.

A client that sends its next request when it has the answer keeps one call in flight. Each of its calls meets a process
that sleeps and whose caches are cold, which costs both sides more than the call itself. Such a client shows itself when
several calls in a row come to an idle server within the limit. After one that comes later the loop sleeps again.
"""

import asyncio
from time import monotonic_ns
from typing import Final

_PROVEN: Final = 8


class BusyPoll:
    """Keeps the loop awake for up to the limit after an answer. Units: `limit_ns`; 0: never."""

    __slots__ = ("_armed", "_hits", "_limit_ns", "_loop", "_until_ns", "_wrote_ns")

    def __init__(self, loop: asyncio.AbstractEventLoop, limit_ns: int) -> None:
        self._loop = loop
        self._limit_ns = limit_ns
        self._armed = False
        self._hits = 0  # calls in a row that came soon enough
        self._until_ns = 0
        self._wrote_ns = 0

    def read(self, now_ns: int) -> None:
        """Notes that bytes came to a connection that had no call."""
        self._hits = self._hits + 1 if now_ns - self._wrote_ns < self._limit_ns else 0
        self._until_ns = 0

    def wrote(self, now_ns: int) -> None:
        """Notes that the last answer of a connection has left."""
        self._wrote_ns = now_ns
        if self._hits >= _PROVEN:
            self._until_ns = now_ns + self._limit_ns
            if not self._armed:
                self._armed = True
                self._loop.call_soon(self._turn)

    @property
    def polling(self) -> bool:
        """Returns whether the loop is kept awake."""
        return self._armed

    def _turn(self) -> None:
        if monotonic_ns() < self._until_ns:
            self._loop.call_soon(self._turn)
        else:
            self._armed = False
