"""Micro-batching: what waits for one version runs together.

1. A call joins the queue of its version. Nothing waits on a timer unless the version's configuration asks for a delay:
   the first call of a loop turn schedules one flush at the end of that turn, so that what arrived together runs
   together, and what arrives while the version is busy runs when it is free.
2. A short run (measured, kept up to date) happens on the loop itself: handing it to a thread would cost more than the
   run. A long one happens on a thread, so that the loop never stalls.
3. Every run is shown on the worker's page, so that the supervisor knows what a worker died of; what somebody died of
   does not run again (`quarantine`). A run on the loop that takes too long is ended and repeated on a thread.
4. Each call owns its answer. Answered calls (cancelled) and expired ones leave before the run; a batch that fails is
   run again call by call, so that one call's fault stays its own.
"""

import asyncio
import logging
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from random import random
from time import monotonic_ns
from typing import Final

from gateway.backoff import retry_after_ms
from gateway.errors import DeadlineExceeded, GatewayError, Internal, InvalidArgument, ResourceExhausted
from gateway.routing.decision.decision import FALLBACK
from gateway.serving.batch import Batch
from gateway.serving.call import Call
from gateway.serving.inline_watch import LIMIT_NS
from gateway.serving.input_digest import input_digest
from gateway.serving.line_limit import LineLimit
from gateway.serving.queue_wait import QueueWait
from gateway.serving.run import RowBytes, Run, alike, common_wanted, is_empty, split
from gateway.serving.run_page import LOOP_SLOT, NO_SLOT, VersionKey
from gateway.serving.session import RunFailed, Termination
from gateway.serving.shared_run_state import SharedRunState
from gateway.serving.version import Version
from gateway.tensor import Buffer

logger = logging.getLogger(__name__)

# A thread hop costs about 100 us of two threads' time; up to this a run on the loop delays others less than it saves.
INLINE_NS: Final = 1_000_000
# Merging beyond this only adds latency: the fixed cost of a run is long paid.
MERGED_RUN_NS: Final = 20_000_000
SMOOTHING: Final = 0.1
# A run costs about 5 us beside its rows; joining inputs costs 100 us per MiB. Larger rows run one by one.
MERGED_ROW_BYTES: Final = 65_536
# After so many runs of one call each, the next call runs at once instead of at the end of the loop's turn, until one
# comes so soon after a run that it had company.
LONELY_RUNS: Final = 32
COMPANY_NS: Final = 30_000
# How long runs stay on threads after one had to be ended on the loop.
LONG_NS: Final = 60_000_000_000
# How much later a call may come than one of the next lower class and still run before it: no class waits for ever.
HEAD_START_NS: Final = 250_000_000
# Of long runs, one in so many tries what the measures speak against, because they may have changed.
EXPLORED_RUNS: Final = 64


class Batcher:
    """The queue of one version, and its runs."""

    def __init__(
        self,
        version: Version,
        *,
        loop: asyncio.AbstractEventLoop,
        threads: Executor,
        parallel: int,
        shared: SharedRunState | None = None,
        draw: Callable[[], float] = random,
    ) -> None:
        if version.session is None:
            raise ValueError(f"version {version.name} of {version.model} has no session")
        self._version = version
        self._session = version.session
        self._loop = loop
        self._threads = threads
        self._parallel = parallel
        self._draw = draw
        self._shared = shared or SharedRunState()
        self._page = self._shared.page
        self._refusals = self._shared.refusals
        self._watch = self._shared.watch
        self._key = VersionKey(version.model, version.name, version.digest)
        self._entry = self._page.register(self._key)
        self._error_lines = LineLimit()
        self._refuses_empty = bool(version.config.refuses_empty)
        self._long_until_ns = 0
        self._names = [spec.name for spec in version.outputs]
        self._row_bytes = RowBytes.of(version)
        self._merges = version.config.merges
        self._fixed = all(-1 not in spec.shape[1:] and not spec.optional for spec in version.inputs)
        self._max_rows = version.max_batch_size if version.batches else 1
        if sum(spec.row_bytes() for spec in version.inputs) > MERGED_ROW_BYTES:
            self._max_rows = 1
        self._max_queue = version.config.max_queue_size
        self._delay_s = version.config.max_queue_delay_us / 1e6
        config = version.config
        self._queue_limit_ns = 0 if config.delays_expired else config.default_timeout_us * 1000
        self._override = config.allow_timeout_override and not config.delays_expired
        self._expiry_timer: asyncio.TimerHandle | None = None
        self._expiry_timer_ns = 0
        self._row_ns = max(1.0, version.run_us * 1000)
        self._batch_ns = self._row_ns
        # What a row costs in a run of its own, and in a merged one: 0 until measured. A convolution is dearer merged,
        # because its data leave the cache; a layer whose weights are read once for all rows is cheaper.
        self._alone_ns = 0.0
        self._merged_ns = 0.0
        self._long_runs = 0
        self._on_loop = version.run_us * 1000 < INLINE_NS
        self._wait = QueueWait()
        self._waiting: deque[Call] = deque()
        self._by_class = False  # whether calls of several priority classes have been queued
        self._queued = 0
        self._running = 0
        self._flush_handle: asyncio.Handle | None = None
        self._lonely_runs = 0
        self._flushed_ns = 0

    @property
    def queued(self) -> int:
        """Returns how many calls wait for a run."""
        return self._queued

    def wait_ns(self, level: int, now_ns: int) -> int:
        """Returns how long a call of that class would wait here, as far as is known; 0 where it is not."""
        ahead = self._place_of(level, now_ns) if self._by_class else self._queued
        self._version.backlog = self._wait.of(self._queued, now_ns)
        return self._wait.of(ahead, now_ns)

    def _place_of(self, level: int, now_ns: int) -> int:
        """Returns how many calls are before one of that class: those of its class or a better one, and others that wait
        for so long that nobody passes them any more.

        Source: Triton's priority levels, where only lower levels wait for ever under load.
        """
        return bisect_right(self._waiting, now_ns + level * HEAD_START_NS, key=_turn_ns)

    def put(self, call: Call) -> None:
        """Queues the call, which will be answered.

        Raises: ResourceExhausted (the configured queue size is reached), InvalidArgument (nothing is in a tensor, and
                the version cannot take that).
        """
        if self._refuses_empty and is_empty(call):
            raise InvalidArgument(
                f"model {self._version.model!r} version {self._version.name!r} takes no inputs without rows or elements"
            )
        if self._max_queue and self._queued >= self._max_queue:
            raise ResourceExhausted(
                f"the queue of model {self._version.model!r} version {self._version.name!r} is full: "
                f"max_queue_size is {self._max_queue}",
                retry_after_ms=retry_after_ms(self._draw()),
            )
        now_ns = call.queued_ns = monotonic_ns()
        if call.level or self._by_class:
            self._by_class = True
            self._waiting.insert(self._place_of(call.level, now_ns), call)
        else:
            self._waiting.append(call)
        self._queued += 1
        if self._version.backlog:
            self._version.backlog = self._wait.of(self._queued, now_ns)
        if self._queue_limit_ns or self._override:
            self._limit(call)
        if self._flush_handle is None and self._running < self._parallel:
            if self._delay_s and self._queued < self._max_rows:
                self._flush_handle = self._loop.call_later(self._delay_s, self._flush)
            elif self._lonely_runs < LONELY_RUNS or not self._on_loop:
                self._flush_handle = self._loop.call_soon(self._flush)
            elif call.queued_ns - self._flushed_ns > COMPANY_NS:
                self._flush()
            else:
                self._lonely_runs = 0
                self._flush_handle = self._loop.call_soon(self._flush)
        elif self._delay_s and self._queued == self._max_rows and self._flush_handle is not None:
            self._flush_handle.cancel()
            self._flush_handle = self._loop.call_soon(self._flush)

    def _limit(self, call: Call) -> None:
        """Sets when the call has waited for too long, which is noticed then, whatever runs meanwhile.

        Source: Triton, ModelQueuePolicy: a request may shorten the default, it cannot lengthen it.
        """
        limit_ns = self._queue_limit_ns
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
        """Answers the calls that have waited for too long; they leave the queue when it moves."""
        self._expiry_timer = None
        now_ns = monotonic_ns()
        next_ns = 0
        expired: list[Call] = []
        for call in self._waiting:
            if call.answered or not call.queue_expires_ns:
                continue
            if call.queue_expires_ns <= now_ns:
                expired.append(call)
            elif not next_ns or call.queue_expires_ns < next_ns:
                next_ns = call.queue_expires_ns
        if next_ns:
            self._expiry_timer_ns = next_ns
            self._expiry_timer = self._loop.call_later(max(0, next_ns - now_ns) / 1e9, self._expire)
        for call in expired:
            if not call.answered:
                self._queued -= 1
                call.fail(_waited_too_long())

    def forget(self, call: Call) -> None:
        """Stops counting an answered call as waiting."""
        self._queued -= 1

    def _flush(self) -> None:
        self._flush_handle = None
        started = monotonic_ns()
        while self._queued and self._running < self._parallel:
            calls = self._take()
            if not calls:
                break
            if not self._on_loop:
                self._run_on_thread(calls)
                continue
            self._lonely_runs = self._lonely_runs + 1 if len(calls) == 1 else 0
            self._run_here(calls)
            self._flushed_ns = monotonic_ns()
            if self._queued and monotonic_ns() - started > INLINE_NS:  # others on the loop come first
                self._flush_handle = self._loop.call_soon(self._flush)
                return

    def _take(self) -> list[Call]:
        """Returns the calls of the next run; drops those that were answered, and fails those whose time is over."""
        now = monotonic_ns()
        limit = self._rows_of_next_run()
        taken: list[Call] = []
        rest: list[Call] = []
        rows = 0
        waiting = self._waiting
        while waiting:
            call = waiting.popleft()
            if call.answered:
                continue
            if call.deadline_ns and now > call.deadline_ns:
                self._queued -= 1
                call.fail(DeadlineExceeded("the deadline passed while the request was queued"))
                continue
            if call.queue_expires_ns and now > call.queue_expires_ns:
                self._queued -= 1
                call.fail(_waited_too_long())
                continue
            # Without rows a model may fail, or do worse: the others do not share that.
            alone = not call.rows or (taken and not rows)
            if taken and (rows + call.rows > limit or not self._merges or alone):
                waiting.appendleft(call)
                break
            if taken and not self._fixed and not alike(taken[0], call):
                rest.append(call)
                continue
            self._queued -= 1
            call.queue_ns = now - call.queued_ns
            taken.append(call)
            rows += call.rows
        waiting.extendleft(reversed(rest))
        self._wait.took(len(taken), self._queued, now)
        self._version.backlog = self._wait.of(self._queued, now)
        return taken

    def _rows_of_next_run(self) -> int:
        if not self._merges:
            return 1
        budget = INLINE_NS if self._on_loop else MERGED_RUN_NS
        limit = min(self._max_rows, max(1, int(budget / self._row_ns)))
        free = self._parallel - self._running
        if self._on_loop:
            return limit
        if free > 1:  # several threads are free: share what waits among them
            limit = min(limit, max(1, -(-self._queued // free)))
        self._long_runs += 1
        alone = 0.0 < self._alone_ns < self._merged_ns
        exploring = self._long_runs % EXPLORED_RUNS == 0 or (self._merged_ns > 0.0 and not self._alone_ns)
        return 1 if alone != exploring else limit

    # ---- runs ----

    def _run_here(self, calls: list[Call]) -> None:
        digests = self._digests(calls)
        if self._refusals.active or self._refusals.number[0] != self._refusals.seen:
            calls, digests = self._permitted(calls, digests)
            if not calls:
                return
        run = Run(self._version, self._session, calls, self._names_of(calls))
        watch, page = self._watch, self._page
        termination = watch.begin()
        page.enter_on_loop(self._entry, digests)
        try:
            run.execute(termination)
        except GatewayError as error:
            page.leave(LOOP_SLOT)
            if watch.end():
                self._take_for_long()
                self._run_on_thread(calls)
                return
            self._failed(calls, error)
            return
        except BaseException:
            page.leave(LOOP_SLOT)
            watch.end()
            for call in calls:  # a defect of ours is told to the loop, but nobody waits for ever because of it
                call.fail(Internal(self._shared.ids.of(call)))
            raise
        page.leave(LOOP_SLOT)
        if watch.end():
            self._take_for_long()
        self._succeeded(calls, run)

    def _take_for_long(self) -> None:
        """Runs happen on threads for a minute at least: one of them held up the loop."""
        self._on_loop = False
        self._long_until_ns = monotonic_ns() + LONG_NS
        self._batch_ns = max(self._batch_ns, float(LIMIT_NS))

    def _digests(self, calls: Sequence[Call]) -> list[int]:
        return [input_digest(call, fixed=self._fixed) for call in calls]

    def _permitted(self, calls: list[Call], digests: list[int]) -> tuple[list[Call], list[int]]:
        """Returns the calls that may run together, with their digests; refuses or runs the others by themselves."""
        refusals = self._refusals
        refusals.follow()
        refusal = refusals.of_version(self._key)
        permitted: list[Call] = []
        kept: list[int] = []
        suspects: list[Call] = []
        for call, digest in zip(calls, digests, strict=True):
            substitute = call.decision is not None and call.decision.reason.startswith(FALLBACK)
            error = refusal or refusals.of_input(self._key, digest, substitute=substitute)
            if error is not None:
                call.fail(error)
            elif len(calls) > 1 and refusals.is_suspect(self._key, digest):
                suspects.append(call)
            else:
                permitted.append(call)
                kept.append(digest)
        if suspects:
            self._alone(suspects)
        return permitted, kept

    def _run_on_thread(self, calls: list[Call]) -> None:
        if self._refusals.active or self._refusals.number[0] != self._refusals.seen:
            calls, _ = self._permitted(calls, self._digests(calls))
            if not calls:
                return
        batch = Batch(len(calls))
        for call in calls:
            call.batch = batch
        self._running += 1
        self._version.lease()
        run = Run(self._version, self._session, calls, self._names_of(calls))

        def ended(future: Future[None]) -> None:  # on the thread
            self._loop.call_soon_threadsafe(self._thread_done, calls, batch, run, future)

        self._threads.submit(self._shown, run, batch.termination, calls).add_done_callback(ended)

    def _shown(self, run: Run, termination: Termination, calls: list[Call]) -> None:
        """Executes the run, shown on the page. On a thread."""
        page, digests = self._page, self._digests(calls)
        slot = page.take_slot()
        if slot == NO_SLOT:
            run.execute(termination)
            return
        page.enter(slot, self._entry, digests)
        try:
            run.execute(termination)
        finally:
            page.give_slot(slot)

    def _thread_done(self, calls: list[Call], batch: Batch, run: Run, future: Future[None]) -> None:
        self._running -= 1
        for call in calls:
            call.batch = None
        error = future.exception()
        if error is None:
            self._succeeded(calls, run)
        elif batch.live:
            self._failed(calls, error)
        self._version.release()
        if self._queued and self._flush_handle is None:
            self._flush()

    def _names_of(self, calls: Sequence[Call]) -> list[str]:
        wanted = common_wanted(calls)
        return self._names if wanted is None else [self._names[index] for index in wanted]

    def _succeeded(self, calls: list[Call], run: Run) -> None:
        rows, outputs = run.rows, run.outputs
        if len(calls) > 1 and any(not array.shape or array.shape[0] != rows for array in outputs):
            logger.warning(
                "model %s version %s does not answer one row per row of input: it is not batched any more",
                self._version.model,
                self._version.name,
            )
            self._merges = False
            self._alone(calls)
            return
        sliced_at = monotonic_ns()
        raw = self._row_bytes.split(calls, outputs, rows) if self._row_bytes is not None else None
        answers: Sequence[Sequence[Buffer]] = split(calls, outputs) if raw is None else raw
        output_ns = monotonic_ns() - sliced_at
        self._learn(max(rows, 1), run.cpu_ns, merged=len(calls) > 1)
        arm = calls[0].arm
        if arm is not None:
            items = rows if self._version.batches else 1
            arm.series.batch(items, run.infer_ns, run.input_ns, output_ns)
            if self._shared.judged.by_revision:
                self._judge(calls[0], items, run.infer_ns)
        for call, own in zip(calls, answers, strict=True):
            call.infer_ns = run.infer_ns
            if call.deadline_ns and call.deadline_ns < sliced_at:
                call.fail(DeadlineExceeded("the deadline passed while the model ran"))
            else:
                call.answer(own)

    def _judge(self, call: Call, rows: int, infer_ns: int) -> None:
        decision = call.decision
        tally = self._shared.judged.of(decision) if decision is not None else None
        if tally is not None:
            tally.run(rows, infer_ns)

    def _failed(self, calls: list[Call], error: BaseException) -> None:
        if len(calls) > 1:
            self._alone(calls)
            return
        call = calls[0]
        if isinstance(error, GatewayError) and not isinstance(error, RunFailed):
            call.fail(error)
            return
        if isinstance(error, RunFailed) and is_empty(call):
            call.fail(InvalidArgument(f"the model cannot take inputs without rows or elements: {error.public_reason}"))
            return
        request_id = self._shared.ids.of(call)
        omitted = self._error_lines.take(monotonic_ns())
        if omitted >= 0:
            logger.error(
                "model %s version %s failed on request %r: %s%s",
                self._version.model,
                self._version.name,
                request_id,
                error.reason if isinstance(error, RunFailed) else error,
                f" ({omitted} more since the last line)" if omitted else "",
                exc_info=None if isinstance(error, RunFailed) else error,
            )
        call.fail(Internal(request_id))

    def _alone(self, calls: list[Call]) -> None:
        """Runs each call by itself, in order, before those that wait."""
        for call in calls:
            if call.answered:
                continue
            if self._on_loop:
                self._run_here([call])
            else:
                self._run_on_thread([call])

    def _learn(self, rows: int, run_ns: int, *, merged: bool) -> None:
        if not self._on_loop:
            row_ns = run_ns / rows
            if merged:
                self._merged_ns += SMOOTHING * (row_ns - self._merged_ns) if self._merged_ns else row_ns
            else:
                self._alone_ns += SMOOTHING * (row_ns - self._alone_ns) if self._alone_ns else row_ns
        self._batch_ns += SMOOTHING * (run_ns - self._batch_ns)
        self._row_ns += SMOOTHING * (run_ns / rows - self._row_ns)
        self._version.run_us = self._row_ns / 1000
        # The gap between the two bounds keeps a version whose runs are near the bound from changing sides all the time.
        if self._on_loop:
            self._on_loop = self._batch_ns < 2 * INLINE_NS
        else:
            self._on_loop = self._batch_ns < INLINE_NS / 2 and monotonic_ns() >= self._long_until_ns


def _turn_ns(call: Call) -> int:
    """Returns the time by which calls of all classes are in order."""
    return call.queued_ns + call.level * HEAD_START_NS


def _waited_too_long() -> DeadlineExceeded:
    return DeadlineExceeded("the request waited in the queue of its version for longer than the limit")
