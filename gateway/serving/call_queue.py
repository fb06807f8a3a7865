"""The queue of one version: its calls in the order in which they run, each until it is taken or has waited too long."""

import asyncio
from bisect import bisect_right
from collections import deque
from collections.abc import Callable
from time import monotonic_ns
from typing import Final

from gateway.backoff import retry_after_ms
from gateway.errors import DeadlineExceeded, InvalidArgument, ResourceExhausted
from gateway.serving.call import Call
from gateway.serving.queue_wait import QueueWait
from gateway.serving.run import alike, is_empty
from gateway.serving.version import Version

# How much later a call may come than one of the next lower class and still run before it: no class waits for ever.
HEAD_START_NS: Final = 250_000_000
_LEFT: Final = 16  # answered calls that a queue may hold, beside as many as wait


class CallQueue:
    """Holds the calls that wait for a run. `size` does not count those that were answered meanwhile."""

    __slots__ = (
        "_by_class",
        "_draw",
        "_expiry_timer",
        "_expiry_timer_ns",
        "_fixed",
        "_limit_ns",
        "_loop",
        "_max_size",
        "_override",
        "_refuses_empty",
        "_version",
        "_wait",
        "_waiting",
        "size",
    )

    def __init__(
        self, version: Version, loop: asyncio.AbstractEventLoop, *, fixed: bool, draw: Callable[[], float]
    ) -> None:
        """`fixed`: any two calls fit into one run, whatever their shapes."""
        config = version.config
        self._version = version
        self._loop = loop
        self._fixed = fixed
        self._draw = draw
        self._refuses_empty = bool(config.refuses_empty)
        self._max_size = config.max_queue_size
        self._limit_ns = 0 if config.delays_expired else config.default_timeout_us * 1000
        self._override = config.allow_timeout_override and not config.delays_expired
        self._expiry_timer: asyncio.TimerHandle | None = None
        self._expiry_timer_ns = 0
        self._wait = QueueWait()
        self._waiting: deque[Call] = deque()
        self._by_class = False  # whether calls of several priority classes have been queued
        self.size = 0

    def wait_ns(self, level: int, now_ns: int) -> int:
        """Returns after what time a call of that class would be answered; 0 where the queue is short or not known."""
        ahead = self._place_of(level, now_ns) if self._by_class else self.size
        self._version.backlog = self._wait.of(self.size, now_ns)
        wait_ns = self._wait.of(ahead, now_ns)
        return wait_ns + int(self._wait.run_ns) if wait_ns else 0

    def ran(self, call: Call, now_ns: int) -> None:
        """Notes that the run of a call that was taken has just ended."""
        self._wait.ran(now_ns - call.queued_ns - call.queue_ns)

    def put(self, call: Call) -> None:
        """Takes the call in.

        Raises: ResourceExhausted (the configured queue size is reached), InvalidArgument (nothing is in a tensor, and
                the version cannot take that).
        """
        if self._refuses_empty and is_empty(call):
            raise InvalidArgument(
                f"model {self._version.model!r} version {self._version.name!r} takes no inputs without rows or elements"
            )
        if self._max_size and self.size >= self._max_size:
            raise ResourceExhausted(
                f"the queue of model {self._version.model!r} version {self._version.name!r} is full: "
                f"max_queue_size is {self._max_size}",
                retry_after_ms=retry_after_ms(self._draw()),
            )
        now_ns = call.queued_ns = monotonic_ns()
        if not self.size:
            self._wait.emptied()
        if call.level or self._by_class:
            self._by_class = True
            self._waiting.insert(self._place_of(call.level, now_ns), call)
        else:
            self._waiting.append(call)
        self.size += 1
        if self._version.backlog:
            self._version.backlog = self._wait.of(self.size, now_ns)
        if self._limit_ns or self._override:
            self._limit(call)

    def take(self, limit: int, *, merges: bool) -> list[Call]:
        """Returns the calls of the next run, of at most `limit` rows beyond the first call.

        Calls that were answered are dropped, those whose time is over fail.
        """
        now = monotonic_ns()
        taken: list[Call] = []
        rest: list[Call] = []
        rows = 0
        waiting = self._waiting
        run_ns = int(self._wait.run_ns)
        while waiting:
            call = waiting.popleft()
            if call.answered:
                continue
            # While others wait, nothing runs whose answer would come too late. The call's time is over then, and that
            # is nobody's fault but its deadline's.
            if call.deadline_ns and now + (run_ns if waiting else 0) > call.deadline_ns:
                self.size -= 1
                call.deadline_ns = now
                call.fail(DeadlineExceeded("the deadline passed while the request was queued"))
                continue
            if call.queue_expires_ns and now > call.queue_expires_ns:
                self.size -= 1
                call.fail(_waited_too_long())
                continue
            # Without rows a model may fail, or do worse: the others do not share that.
            alone = not call.rows or (taken and not rows)
            if taken and (rows + call.rows > limit or not merges or alone):
                waiting.appendleft(call)
                break
            if taken and not self._fixed and not alike(taken[0], call):
                rest.append(call)
                continue
            self.size -= 1
            call.queue_ns = now - call.queued_ns or 1  # a clock may be coarse, and 0 would say that it waits
            taken.append(call)
            rows += call.rows
        waiting.extendleft(reversed(rest))
        self._wait.took(len(taken), self.size, now)
        self._version.backlog = self._wait.of(self.size, now)
        return taken

    def forget(self, call: Call) -> None:
        """Notes that a call was answered, if it waits: one whose run has just ended may be cancelled by what the answer
        of another one of that run brings about.

        It leaves with the next run. Where that takes long, those who come and go meanwhile would be kept without bound,
        so those that were answered leave, in place, once they are most of the queue.
        """
        if call.queue_ns:
            return
        self.size -= 1
        waiting = self._waiting
        if len(waiting) >= 2 * self.size + _LEFT:
            for _ in range(len(waiting)):
                one = waiting.popleft()
                if not one.answered:
                    waiting.append(one)

    def _place_of(self, level: int, now_ns: int) -> int:
        """Returns how many calls are before one of that class: those of its class or a better one, and others that wait
        for so long that nobody passes them any more.

        Source: Triton's priority levels, where only lower levels wait for ever under load.
        """
        return bisect_right(self._waiting, now_ns + level * HEAD_START_NS, key=_turn_ns)

    def _limit(self, call: Call) -> None:
        """Sets when the call has waited for too long, which is noticed then, whatever runs meanwhile.

        Source: Triton, ModelQueuePolicy: a request may shorten the default, it cannot lengthen it.
        """
        limit_ns = self._limit_ns
        own_ns = call.queue_limit_ns if self._override else 0
        if own_ns and (not limit_ns or own_ns < limit_ns):
            limit_ns = own_ns
        if not limit_ns:
            return
        call.queue_expires_ns = call.queued_ns + limit_ns
        timer = self._expiry_timer
        if timer is not None:
            if self._expiry_timer_ns <= call.queue_expires_ns:
                return
            timer.cancel()
        self._expiry_timer_ns = call.queue_expires_ns
        self._expiry_timer = self._loop.call_later(limit_ns / 1e9, self._expire)

    def _expire(self) -> None:
        """Answers the calls that have waited for too long.

        They leave before they are told: where nothing moves they would be kept with their inputs, and one that goes on
        to another version would run here, too.
        """
        self._expiry_timer = None
        now_ns = monotonic_ns()
        next_ns = 0
        expired: list[Call] = []
        waiting = self._waiting
        for _ in range(len(waiting)):
            call = waiting.popleft()
            if call.answered:
                continue
            expires_ns = call.queue_expires_ns
            if expires_ns and expires_ns <= now_ns:
                expired.append(call)
                continue
            if expires_ns and (not next_ns or expires_ns < next_ns):
                next_ns = expires_ns
            waiting.append(call)
        if next_ns:
            self._expiry_timer_ns = next_ns
            self._expiry_timer = self._loop.call_later(max(0, next_ns - now_ns) / 1e9, self._expire)
        for call in expired:
            if not call.answered:
                self.size -= 1
                call.fail(_waited_too_long())


def _turn_ns(call: Call) -> int:
    """Returns the time by which calls of all classes are in order."""
    return call.queued_ns + call.level * HEAD_START_NS


def _waited_too_long() -> DeadlineExceeded:
    return DeadlineExceeded("the request waited in the queue of its version for longer than the limit")
