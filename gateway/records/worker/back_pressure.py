"""Answers that wait for room in the prediction log, where losing a record is worse than answering late."""

import asyncio
from collections import deque
from collections.abc import Callable
from enum import Enum
from time import monotonic_ns

from gateway.records.worker.record_stream import Buffering

_TROUBLE_NS = 1_000_000_000


class LossPolicy(Enum):
    """Names what happens when more waits for the disk than the log may hold."""

    DROP_NEWEST = "drop_newest"
    SAMPLE = "sample"
    BLOCK = "block"
    AUDIT = "audit"


class BackPressure:
    """Holds answers back, at most `limit_s` each, while the buffer is over these bounds. Belongs to the loop.

    With `refuses` an answer that found no room must not be given, and there is none after a write that lost records,
    until one succeeds or a second has passed.
    """

    __slots__ = ("_buffer", "_limit_ns", "_max_bytes", "_max_records", "_timer", "_troubled_ns", "_waiting",
                 "blocked_ns", "refuses")  # fmt: skip

    def __init__(self, buffer: Buffering, *, max_bytes: int, max_records: int, limit_s: float, refuses: bool) -> None:
        self.refuses = refuses
        self.blocked_ns = 0  # how long answers waited, together
        self._buffer = buffer
        self._max_bytes = max_bytes
        self._max_records = max_records
        self._limit_ns = int(limit_s * 1e9)
        self._waiting: deque[tuple[int, Callable[[bool], None]]] = deque()  # since when, oldest first
        self._timer: asyncio.TimerHandle | None = None
        self._troubled_ns = 0

    @property
    def full(self) -> bool:
        buffer = self._buffer
        if buffer.size_bytes >= self._max_bytes or buffer.records >= self._max_records:
            return True
        return self._troubled_ns > 0 and monotonic_ns() < self._troubled_ns

    def hold(self, go: Callable[[bool], None]) -> None:
        """`go` is called once: with True when there is room, with False when the time is over."""
        self._waiting.append((monotonic_ns(), go))
        self._buffer.wake()
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._limit_ns / 1e9, self._expire)

    def written(self, *, lost: bool) -> None:
        """A write has ended: those go for which there is room now, in their order."""
        if self.refuses:
            self._troubled_ns = monotonic_ns() + _TROUBLE_NS if lost else 0
        while self._waiting and not self.full:
            self._release(granted=True)
        if self._waiting:
            self._buffer.wake()

    def close(self) -> None:
        """Nobody waits any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiting:
            self._release(granted=False)

    def _expire(self) -> None:
        self._timer = None
        now_ns = monotonic_ns()
        while self._waiting and self._waiting[0][0] + self._limit_ns <= now_ns:
            self._release(granted=False)
        if self._waiting and self._timer is None:
            delay_s = (self._waiting[0][0] + self._limit_ns - now_ns) / 1e9
            self._timer = asyncio.get_running_loop().call_later(max(delay_s, 0.0), self._expire)

    def _release(self, *, granted: bool) -> None:
        since_ns, go = self._waiting.popleft()
        self.blocked_ns += monotonic_ns() - since_ns
        go(granted)
