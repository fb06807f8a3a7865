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
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from random import random
from time import monotonic_ns
from typing import Final

from gateway.errors import DeadlineExceeded, GatewayError, Internal, InvalidArgument
from gateway.routing.decision.decision import FALLBACK
from gateway.serving.batch import Batch
from gateway.serving.call import CACHED, UNCACHED, Call, log_fields
from gateway.serving.call_queue import CallQueue
from gateway.serving.input_digest import input_digest
from gateway.serving.line_limit import LineLimit
from gateway.serving.response_cache import VersionCache
from gateway.serving.run import RowBytes, Run, common_wanted, is_empty, split
from gateway.serving.run_cost import INLINE_NS, RunCost
from gateway.serving.run_page import LOOP_SLOT, NO_SLOT, VersionKey
from gateway.serving.session import RunFailed, Termination
from gateway.serving.shared_run_state import SharedRunState
from gateway.serving.version import Version
from gateway.serving.version_queue import VersionQueue
from gateway.tensor import Buffer

logger = logging.getLogger(__name__)

# A run costs about 5 us beside its rows; joining inputs costs 100 us per MiB. Larger rows run one by one.
MERGED_ROW_BYTES: Final = 65_536
# After so many runs of one call each, the next call runs at once instead of at the end of the loop's turn, until one
# comes so soon after a run that it had company.
LONELY_RUNS: Final = 32
COMPANY_NS: Final = 30_000
VERDICT_LOOK_S: Final = 0.005  # between two looks whether the death of a sibling has been examined


class Batcher(VersionQueue):
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
        cache: VersionCache | None = None,
    ) -> None:
        if version.session is None:
            raise ValueError(f"version {version.name} of {version.model} has no session")
        self._version = version
        self._session = version.session
        self._loop = loop
        self._threads = threads
        self._parallel = parallel
        self._shared = shared or SharedRunState()
        self._page = self._shared.page
        self._refusals = self._shared.refusals
        self._watch = self._shared.watch
        self._key = VersionKey(version.model, version.name, version.digest)
        self._entry = self._page.register(self._key)
        self._error_lines = LineLimit()
        self._names = [spec.name for spec in version.outputs]
        self._row_bytes = RowBytes.of(version)
        self._merges = version.config.merges
        self._fixed = all(-1 not in spec.shape[1:] and not spec.optional for spec in version.inputs)
        self._max_rows = version.max_batch_size if version.batches else 1
        if sum(spec.row_bytes() for spec in version.inputs) > MERGED_ROW_BYTES:
            self._max_rows = 1
        self._delay_s = version.config.max_queue_delay_us / 1e6
        self._queue = CallQueue(version, loop, fixed=self._fixed, draw=draw)
        self._cost = RunCost(version.run_us, self._max_rows)
        self._cache = cache
        self._running = 0
        self._flush_handle: asyncio.Handle | None = None
        self._lonely_runs = 0
        self._flushed_ns = 0

    @property
    def queued(self) -> int:
        return self._queue.size

    def wait_ns(self, level: int, now_ns: int) -> int:
        return self._queue.wait_ns(level, now_ns)

    def put(self, call: Call) -> None:
        """Queues the call, or answers it at once with what is kept for it. Raises: as `CallQueue.put`."""
        if self._cache is not None and self._answered(call, self._cache):
            return
        queue, cost = self._queue, self._cost
        queue.put(call)
        if self._flush_handle is None and self._running < self._parallel:
            if self._delay_s and queue.size < self._max_rows:
                self._flush_handle = self._loop.call_later(self._delay_s, self._flush)
            elif self._lonely_runs < LONELY_RUNS or not cost.on_loop:
                self._flush_handle = self._loop.call_soon(self._flush)
            elif call.queued_ns - self._flushed_ns > COMPANY_NS:
                self._flush()
            else:
                self._lonely_runs = 0
                self._flush_handle = self._loop.call_soon(self._flush)
        elif self._delay_s and queue.size == self._max_rows and self._flush_handle is not None:
            self._flush_handle.cancel()
            self._flush_handle = self._loop.call_soon(self._flush)

    def _answered(self, call: Call, cache: VersionCache) -> bool:
        """Answers the call with what is kept for it; returns whether there was such an answer."""
        if call.cache_key == UNCACHED:
            return False
        key = cache.key_of(call)
        outputs = cache.find(call, key)
        arm = call.arm
        if outputs is None:
            call.cache_key = key
            if arm is not None:
                arm.series.cache_misses += 1
            return False
        call.cache_key = CACHED
        call.answer(outputs)
        return True

    def end(self) -> None:
        if self._cache is not None:
            self._cache.clear(self._loop.call_soon)

    def forget(self, call: Call) -> None:
        self._queue.forget(call)

    def _flush(self) -> None:
        self._flush_handle = None
        started = monotonic_ns()
        queue, cost = self._queue, self._cost
        while queue.size and self._running < self._parallel:
            rows = cost.rows_of_next_run(queue.size, self._parallel - self._running) if self._merges else 1
            calls = queue.take(rows, merges=self._merges)
            if not calls:
                break
            if not cost.on_loop:
                self._run_on_thread(calls)
                continue
            self._lonely_runs = self._lonely_runs + 1 if len(calls) == 1 else 0
            self._run_here(calls)
            self._flushed_ns = monotonic_ns()
            if queue.size and self._flushed_ns - started > INLINE_NS:  # others on the loop come first
                self._flush_handle = self._loop.call_soon(self._flush)
                return

    # ---- runs ----

    def _run_here(self, calls: list[Call]) -> None:
        digests = self._digests(calls)
        refusals = self._refusals
        if refusals.active or refusals.memory[refusals.watched] != refusals.seen:
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
                self._cost.keep_off_loop(monotonic_ns())
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
            self._cost.keep_off_loop(monotonic_ns())
        self._succeeded(calls, run)

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
        held: list[Call] = []
        for call, digest in zip(calls, digests, strict=True):
            substitute = call.decision is not None and call.decision.reason.startswith(FALLBACK)
            error = refusal or refusals.of_input(self._key, digest, substitute=substitute)
            if error is not None:
                call.fail(error)
            elif refusals.awaits_verdict(self._key, digest, substitute=substitute):
                held.append(call)
            elif len(calls) > 1 and refusals.is_suspect(self._key, digest):
                suspects.append(call)
            else:
                permitted.append(call)
                kept.append(digest)
        if held:  # a client repeats what its worker died of before the supervisor has said so
            self._loop.call_later(VERDICT_LOOK_S, self._alone, held)
        if suspects:
            self._alone(suspects)
        if len(permitted) < len(calls):  # what became of the others may have ended one of these, which has no inputs
            left = [place for place, call in enumerate(permitted) if not call.answered]
            return [permitted[place] for place in left], [kept[place] for place in left]
        return permitted, kept

    def _run_on_thread(self, calls: list[Call]) -> None:
        refusals = self._refusals
        if refusals.active or refusals.memory[refusals.watched] != refusals.seen:
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
        if self._queue.size and self._flush_handle is None:
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
        self._queue.ran(calls[0], sliced_at)
        self._cost.learn(max(rows, 1), run.cpu_ns, sliced_at, merged=len(calls) > 1)
        self._version.run_us = self._cost.row_ns / 1000
        arm = calls[0].arm
        if arm is not None:
            items = rows if self._version.batches else 1
            arm.series.batch(items, run.infer_ns, run.input_ns, output_ns, run.cpu_ns)
            if self._shared.judged.by_revision:
                self._judge(calls[0], items, run)
        if self._shared.traced:
            _trace(calls, run)
        # Where the shapes are fixed and the answer has others, it is served once and kept for nobody.
        keeps = self._cache if self._row_bytes is None or raw is not None or common_wanted(calls) is not None else None
        for call, own in zip(calls, answers, strict=True):
            call.infer_ns = run.infer_ns
            if keeps is not None and call.cache_key > 0 and not call.answered:
                keeps.keep(call, call.cache_key, own)
            if call.deadline_ns and call.deadline_ns < sliced_at:
                call.fail(DeadlineExceeded("the deadline passed while the model ran"))
            else:
                call.answer(own)

    def _judge(self, call: Call, rows: int, run: Run) -> None:
        decision = call.decision
        tally = self._shared.judged.of(decision) if decision is not None else None
        if tally is not None:
            tally.run(rows, run.infer_ns, run.cpu_ns * self._shared.judged.threads)

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
            version = self._version
            logger.error(
                "model %s version %s failed on request %r: %s%s",
                version.model,
                version.name,
                request_id,
                error.reason if isinstance(error, RunFailed) else error,
                f" ({omitted} more since the last line)" if omitted else "",
                exc_info=None if isinstance(error, RunFailed) else error,
                extra={"said": {**log_fields(call, request_id), "model": version.model, "version": version.name}},
            )
        call.fail(Internal(request_id))

    def _alone(self, calls: list[Call]) -> None:
        """Runs each call by itself, in order, before those that wait."""
        for call in calls:
            if call.answered:
                continue
            if self._cost.on_loop:
                self._run_here([call])
            else:
                self._run_on_thread([call])


def _trace(calls: list[Call], run: Run) -> None:
    """Lets the sampled calls of a run know it, and each other."""
    traces = [call.trace for call in calls if call.trace is not None]
    for trace in traces:
        trace.ran(len(calls), run.rows, run.input_ns, traces)
