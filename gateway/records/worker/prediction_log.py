"""The prediction log of one worker: a request appends references, a thread writes them every 50 ms.

Serving never waits for it and never fails with it: what the buffer or the disk does not take is left out and counted,
and `seen = written + sampled_out + dropped + buffered` holds at every moment.
"""

import asyncio
import logging
import os
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic
from uuid import UUID

from gateway.records.worker.back_pressure import BackPressure, LossPolicy
from gateway.records.worker.flush import FlushBatch, Flusher, FlushOutcome
from gateway.records.worker.open_streams import OpenStreams
from gateway.records.worker.record_stream import Buffering, RecordStream
from gateway.records.worker.redaction import Redaction
from gateway.records.worker.sampling import Sampling, disk_scale, relieved
from gateway.records.worker.segment import Segment, checked_part
from gateway.records.worker.stream_schema import StreamSchema
from gateway.records.worker.wal import SegmentLimits, WalWriter
from gateway.tensor import TensorSpec
from gateway.threads import started_threads

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LogLimits:
    """Bounds of the buffer and rhythm of the writes.

    While the buffer is over `fill` of its bytes or records, `policy` says what happens; beyond them nothing is taken.
    Over `disk_sample` of the disk in use fewer records are kept (not where every one has to be: AUDIT), over
    `disk_metadata` they lose their tensors, over `disk_off` they are dropped; 1 turns any of these off.
    """

    max_bytes: int = 64 << 20
    max_records: int = 200_000
    max_record_bytes: int = 32 << 20
    fill: float = 0.8
    policy: LossPolicy = LossPolicy.DROP_NEWEST
    block_s: float = 0.02
    flush_interval_s: float = 0.05
    flush_bytes: int = 8 << 20
    disk_sample: float = 0.75
    disk_metadata: float = 0.90
    disk_off: float = 0.95
    close_timeout_s: float = 10.0
    segment: SegmentLimits = field(default_factory=SegmentLimits)


@dataclass(frozen=True, slots=True)
class LogCounts:
    """Tells what became of the records since the worker started.

    seen = written + sampled_out + sum(dropped.values()) + buffered. `withheld` counts records that were written without
    their tensors, by reason; they are among the written.
    """

    seen: int
    written: int
    sampled_out: int
    dropped: Mapping[str, int]
    buffered: int
    buffered_bytes: int
    written_bytes: int
    withheld: Mapping[str, int]
    suspect_segments: int
    error: str  # of the disk; empty while the last write succeeded
    thread_restarts: int  # after errors that nobody foresaw
    blocked_ns: int  # how long answers were held back for the log, together
    flush_ns: int
    flushes: int

    def to_json(self) -> dict[str, object]:
        counts = {name: getattr(self, name) for name in self.__slots__}
        return counts | {"dropped": dict(self.dropped), "withheld": dict(self.withheld)}


def _idle() -> float:
    return 0.0


class PredictionLog:
    """The log of one worker. Everything but the writing itself happens on the loop.

    Raises: ValueError (a worker or gateway name that cannot be part of a file name, a boot that is no UUID).
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        worker: str,
        gateway: str,
        boot: str,
        limits: LogLimits | None = None,
        sampling: Sampling | None = None,
        redaction: Redaction | None = None,
        clock: Callable[[], float] = monotonic,
        randomness: random.Random | None = None,
    ) -> None:
        self._limits = limits or LogLimits()
        self._sampling = sampling or Sampling()
        self._samplings: Mapping[str, Sampling] = {}
        self._redaction = redaction or Redaction()
        self._draw = (randomness or random.Random()).getrandbits
        run = Segment(checked_part("gateway", gateway), checked_part("worker", worker), UUID(boot).hex, 0)
        self._flusher = Flusher(
            WalWriter(Path(directory), run, self._limits.segment, clock),
            Path(directory),
            disk=(self._limits.disk_metadata, self._limits.disk_off),
            max_record_bytes=self._limits.max_record_bytes,
            clock=clock,
            draw=self._draw,
        )
        self._due = asyncio.Event()
        over_bytes, over_records = (
            int(limit * self._limits.fill) for limit in (self._limits.max_bytes, self._limits.max_records)
        )
        self._flush_bytes = min(self._limits.flush_bytes, over_bytes)
        drops = self._limits.policy is LossPolicy.DROP_NEWEST
        self._buffer = Buffering(
            max_bytes=over_bytes if drops else self._limits.max_bytes,
            max_records=over_records if drops else self._limits.max_records,
            max_record_bytes=self._limits.max_record_bytes,
            wake_at=self._flush_bytes,
            wake=self._due.set,
        )
        self.back_pressure: BackPressure | None = None  # holds answers back, where the policy says so
        if self._limits.policy in (LossPolicy.BLOCK, LossPolicy.AUDIT):
            self.back_pressure = BackPressure(
                self._buffer,
                max_bytes=over_bytes,
                max_records=over_records,
                limit_s=self._limits.block_s,
                refuses=self._limits.policy is LossPolicy.AUDIT,
            )
        # The share of the worker's limits that is in use: with loss policy SAMPLE fewer calls are logged over 80 %.
        self.load: Callable[[], float] = _idle
        self._relief = 1.0  # factor of the rates for the buffer, beside that for the disk
        self._disk_use = 0.0
        self._ticker: asyncio.TimerHandle | None = None
        self._streams = OpenStreams(self._buffer, self._flusher.redactions)
        self._in_flight: asyncio.Future[FlushOutcome] | None = None
        self._in_flight_bytes = self._in_flight_records = 0
        self._executor = started_threads(1, "prediction-log")
        self._restarts = 0
        self._written = self._sampled_out = self._written_bytes = self._suspects = 0
        self._flush_ns = self._flushes = 0
        self._withheld: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()
        self._error = ""

    def stream(
        self,
        model: str,
        version: str,
        arm: str,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        digest: str,
        shadow_of: str = "",
        *,
        batches: bool = True,
    ) -> RecordStream:
        """Returns the stream of one arm of one version; the same object for the same arguments.

        `shadow_of` is the version that answered the callers, where the arm is a mirror. Where the version does not
        batch, a request is one row, whatever the lengths of its tensors are.
        """
        features = {spec.name: spec.features for spec in inputs if spec.features}
        key = (model, version, arm, digest, shadow_of, tuple(features.items()))
        stream = self._streams.get(key)
        if stream is not None:
            return stream
        if not batches:
            inputs, outputs = _unbatched(inputs), _unbatched(outputs)
        redaction = self._redaction.of(model, inputs, outputs)
        if idle := self._redaction.idle(model, inputs, outputs):
            _log.warning("redaction names tensors that %s version %s does not have: %s", model, version, idle)
        schema = StreamSchema(
            model, version, arm, digest, inputs, outputs,
            redaction.dropped, redaction.hidden, redaction.revision, shadow_of,
            frozenset(spec.name for spec in outputs if spec.labels), features,
            frozenset(spec.name for spec in (*inputs, *outputs) if redaction.touches_tensor(spec.name)),
        )  # fmt: skip
        number = self._streams.new_number()
        stream = RecordStream(number, schema, redaction, self._buffer, self._sampling_of(model), self._draw)
        return self._streams.add(key, stream, redaction)

    def forget(self, model: str, version: str, digest: str) -> None:
        """Keeps no stream of content that no longer serves, once it is written; what still comes of it is written, too.

        The counts stay.
        """
        self._streams.end(model, version, digest)

    def follow(self, samplings: Mapping[str, Sampling]) -> None:
        """From now on records are kept as this says by model; of other models as it was said when the log was made."""
        self._samplings = samplings
        for stream in self._streams:
            stream.follow(self._sampling_of(stream.schema.model))

    def _sampling_of(self, model: str) -> Sampling:
        return self._samplings.get(model, self._sampling)

    def counts(self) -> LogCounts:
        """Returns the counts at this moment."""
        dropped = self._streams.dropped
        dropped.update(self._dropped)
        return LogCounts(
            seen=self._streams.seen,
            written=self._written,
            sampled_out=self._sampled_out + self._streams.sampled_out,
            dropped=dict(dropped),
            buffered=self._buffer.records,
            buffered_bytes=self._buffer.size_bytes,
            written_bytes=self._written_bytes,
            withheld=dict(self._withheld),
            suspect_segments=self._suspects,
            error=self._error,
            thread_restarts=self._restarts,
            blocked_ns=self.back_pressure.blocked_ns if self.back_pressure is not None else 0,
            flush_ns=self._flush_ns,
            flushes=self._flushes,
        )

    async def run(self) -> None:
        """Writes what was appended, every flush interval or as soon as enough of it waits, until cancelled."""
        if self._limits.policy is LossPolicy.SAMPLE:
            self._tick()
        try:
            while True:
                try:
                    async with asyncio.timeout(self._limits.flush_interval_s):
                        await self._due.wait()
                except TimeoutError:
                    pass
                await self.flush()
        finally:
            if self._ticker is not None:
                self._ticker.cancel()

    def _tick(self) -> None:
        """Looks at the buffer at the rhythm of the writes, also while a write hangs."""
        limits, buffer = self._limits, self._buffer
        fill = max(buffer.size_bytes / limits.max_bytes, buffer.records / limits.max_records, self.load())
        self._relief = relieved(self._relief, fill)
        self._rescale()
        self._ticker = asyncio.get_running_loop().call_later(limits.flush_interval_s, self._tick)

    def _rescale(self) -> None:
        audits = self._limits.policy is LossPolicy.AUDIT
        scale = self._relief * (1.0 if audits else disk_scale(self._disk_use, self._limits.disk_sample))
        if scale != self._buffer.scale:
            self._buffer.scale = scale
            for stream in self._streams:
                stream.rescale()

    @property
    def scale(self) -> float:
        """The factor of all rates; below 1 while the buffer or the disk is nearly full."""
        return self._buffer.scale

    async def flush(self) -> None:
        """Everything appended before this call was written, or counted as dropped."""
        await self._finished()
        self._start(seal=False)
        await self._finished()

    async def close(self) -> None:
        """Writes and seals what is left; later appends are dropped. Gives up after `close_timeout_s`.

        Order: when this returns, no thread of the log writes any more, unless the disk hangs.
        """
        self._buffer.closed = True
        if self.back_pressure is not None:
            self.back_pressure.close()
        try:
            async with asyncio.timeout(self._limits.close_timeout_s):
                await self._finished()
                self._start(seal=True)
                await self._finished()
        except TimeoutError:
            self._give_up()
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _start(self, *, seal: bool) -> None:
        """Hands everything that waits to the thread."""
        self._due.clear()
        taken = self._streams.take()
        self._in_flight_bytes = self._buffer.size_bytes
        self._in_flight_records = sum(map(len, taken))
        self._buffer.wake_at = self._in_flight_bytes + self._flush_bytes
        batch = FlushBatch(taken, self.counts().to_json())
        loop = asyncio.get_running_loop()
        self._in_flight = loop.run_in_executor(self._executor, self._flusher.flush, batch, seal)
        self._in_flight.add_done_callback(self._count)

    def _count(self, done: "asyncio.Future[FlushOutcome]") -> None:
        """Counts what became of a batch; runs on the loop."""
        if self._in_flight is not done or done.cancelled():
            return
        self._in_flight = None
        error = done.exception()
        outcome = done.result() if error is None else self._failed(error)
        self._written += outcome.written
        self._sampled_out += outcome.sampled_out
        self._written_bytes += outcome.written_bytes
        self._withheld.update(outcome.withheld)
        self._flush_ns += outcome.elapsed_ns
        self._flushes += 1
        self._dropped.update(outcome.dropped)
        self._suspects = outcome.suspects
        self._error = outcome.error
        self._buffer.records -= self._in_flight_records
        self._buffer.size_bytes -= self._in_flight_bytes
        self._buffer.wake_at = self._flush_bytes
        if outcome.disk_use != self._disk_use:
            self._disk_use = outcome.disk_use
            self._rescale()
        if self.back_pressure is not None and (outcome.written or outcome.dropped):
            self.back_pressure.written(lost=bool(outcome.dropped))

    async def _finished(self) -> None:
        """Waits for the batch in the thread. Cancelling the wait leaves the batch to end by itself."""
        while (waiting := self._in_flight) is not None:
            await asyncio.wait([waiting])
            await asyncio.sleep(0)  # `_count` runs in the same turn as this wake-up, or the next

    def _failed(self, error: BaseException) -> FlushOutcome:
        """Returns what became of the batch whose write ended in an error that nobody foresaw.

        Neither the worker nor the records after this batch suffer from it: the thread outlives what it is given.
        """
        self._restarts += 1
        if not self._restarts & (self._restarts - 1):  # the 1st, 2nd, 4th, ...: it may fail at every flush
            _log.error("the prediction log's thread failed (%d times) and goes on", self._restarts, exc_info=error)
        outcome = self._flusher.abandon()
        lost = self._in_flight_records - outcome.written - outcome.sampled_out - sum(outcome.dropped.values())
        outcome.dropped["internal_error"] += lost
        outcome.error = f"{type(error).__name__}: {error}"
        return outcome

    def _give_up(self) -> None:
        lost = self._buffer.records
        self._in_flight = None
        for stream in self._streams:
            stream.take()
        self._dropped["shutdown_timeout"] += lost
        self._buffer.records = self._buffer.size_bytes = 0


def _unbatched(specs: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
    return tuple(replace(spec, batched=False) for spec in specs)
