"""The queue of a version that is not in memory: its calls wait until it is, or are told why they wait no longer."""

import asyncio
from collections.abc import Callable
from time import monotonic_ns
from typing import Final

from gateway.backoff import retry_after_ms
from gateway.errors import GatewayError, ResourceExhausted, Unavailable
from gateway.serving.call import Call
from gateway.serving.version import Version
from gateway.serving.version_queue import VersionQueue

# A call waits for this share of the time that it has left; the rest is for being told, before its client gives up.
COLD_PATIENCE: Final = 0.875


class ColdQueue(VersionQueue):
    """Holds the calls of a version that is not in memory. The first of them has it loaded.

    `wake` begins the load, unless it is under way; `delay` returns why it is not there yet, as an error for a call.
    """

    def __init__(
        self,
        version: Version,
        *,
        loop: asyncio.AbstractEventLoop,
        wake: Callable[[Version], None],
        delay: Callable[[Version], GatewayError],
        draw: Callable[[], float],
    ) -> None:
        self._version = version
        self._loop = loop
        self._wake = wake
        self._delay = delay
        self._draw = draw
        self._waiting: dict[Call, None] = {}  # in the order in which they came
        self._woken_ns = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_ns = 0

    @property
    def queued(self) -> int:
        return len(self._waiting)

    def wait_ns(self, level: int, now_ns: int) -> int:
        return 0

    def put(self, call: Call) -> None:
        """Takes the call, and has the version loaded.

        Raises: ResourceExhausted (the configured queue size is reached); Unavailable, where its deadline is sooner than
                the version can be there. The version is loaded in either case.
        """
        version = self._version
        now_ns = monotonic_ns()
        if not self._woken_ns:
            self._woken_ns = now_ns
            self._wake(version)
        limit = version.config.max_queue_size
        if limit and len(self._waiting) >= limit:
            raise ResourceExhausted(
                f"model {version.model!r} version {version.name!r} is being loaded, as a request asked for it, and its "
                f"queue is full: max_queue_size is {limit}",
                retry_after_ms=retry_after_ms(self._draw()),
            )
        if call.deadline_ns:
            patience_ns = int((call.deadline_ns - now_ns) * COLD_PATIENCE)
            missing_ns = version.load_ns - (now_ns - self._woken_ns)
            if missing_ns > patience_ns:
                after_ms = missing_ns // 1_000_000 + retry_after_ms(self._draw())
                raise Unavailable(
                    f"model {version.model!r} version {version.name!r} is not in memory and is being loaded now, which "
                    f"took {version.load_ns // 1_000_000} ms before: too long for a request whose deadline is in "
                    f"{(call.deadline_ns - now_ns) // 1_000_000} ms; retry in {after_ms} ms",
                    retry_after_ms=after_ms,
                )
            call.queue_expires_ns = now_ns + patience_ns
        call.queued_ns = now_ns
        self._waiting[call] = None
        if call.queue_expires_ns and (self._timer is None or call.queue_expires_ns < self._timer_ns):
            self._set_timer(call.queue_expires_ns)

    def forget(self, call: Call) -> None:
        self._waiting.pop(call, None)

    def end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def hand_over(self, queue: VersionQueue) -> None:
        """Gives those that wait to the queue of the version, which is in memory now. Nothing comes here any more."""
        waiting = self._taken()
        for call in waiting:
            call.queued_ns = call.queue_expires_ns = 0  # in no queue: what becomes of another may end it
        for call in waiting:
            if call.answered:
                continue
            try:
                queue.put(call)
            except GatewayError as error:
                call.fail(error)

    def fail(self, error: GatewayError) -> None:
        """Answers those that wait: the version could not be loaded. The next call has it tried again."""
        for call in self._taken():
            call.fail(error)

    def _taken(self) -> list[Call]:
        self.end()
        waiting = list(self._waiting)
        self._waiting.clear()
        self._woken_ns = 0
        return waiting

    def _set_timer(self, at_ns: int) -> None:
        self.end()
        self._timer_ns = at_ns
        self._timer = self._loop.call_later(max(0, at_ns - monotonic_ns()) / 1e9, self._expire)

    def _expire(self) -> None:
        """Answers those whose time is over while the version is still not there."""
        self._timer = None
        now_ns = monotonic_ns()
        limited = [call for call in self._waiting if call.queue_expires_ns]
        expired = [call for call in limited if call.queue_expires_ns <= now_ns]
        for call in expired:
            del self._waiting[call]
        next_ns = min((call.queue_expires_ns for call in limited if call.queue_expires_ns > now_ns), default=0)
        if next_ns:
            self._set_timer(next_ns)
        for call in expired:
            call.fail(self._delay(self._version))
