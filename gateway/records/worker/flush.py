"""One flush: redact, encode, write. Runs on the log's thread; what it did comes back as a value."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic_ns

from gateway.records.worker.block import ENCODE_ERRORS, RedactionFailed, encode
from gateway.records.worker.fast_path import FastPathRecords, encode_fast_path
from gateway.records.worker.frame import MAX_BODY_BYTES
from gateway.records.worker.record import Record
from gateway.records.worker.record_stream import tensor_bytes
from gateway.records.worker.redaction import StreamRedaction
from gateway.records.worker.score_filter import StreamRecords, filter_by_score
from gateway.records.worker.stream_schema import StreamSchema
from gateway.records.worker.wal import Chunk, WalWriter, reason

_CHUNK_RECORDS = 4096
_CHUNK_BYTES = 4 << 20
_GROUP_BYTES = 8 << 20  # of chunks that one write takes
_DISK_CHECK_S = 1.0


@dataclass(frozen=True, slots=True)
class FlushBatch:
    """The records taken from each stream, and the log's counts when they were taken."""

    streams: list[StreamRecords]
    counts: Mapping[str, object]


@dataclass(slots=True)
class FlushOutcome:
    """Tells what became of a batch; every record of it was written, sampled out or dropped."""

    written: int = 0
    sampled_out: int = 0
    written_bytes: int = 0
    withheld: Counter[str] = field(default_factory=Counter)  # written without tensors, by reason; among the written
    suspects: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    error: str = ""
    disk_use: float = 0.0
    elapsed_ns: int = 0


class _Oversize(Exception):
    """A record is larger than one may be, once it is encoded."""


class Flusher:
    """Writes batches to the write-ahead log, one at a time.

    What is encoded is written in groups, so that neither a batch nor a segment is ever much larger than its bound.
    """

    def __init__(
        self,
        wal: WalWriter,
        directory: Path,
        *,
        disk: tuple[float, float],
        max_record_bytes: int,
        clock: Callable[[], float],
        draw: Callable[[int], int],
    ) -> None:
        self.redactions: dict[int, StreamRedaction] = {}
        self._wal = wal
        self._directory = directory
        self._metadata_above, self._off_above = disk
        self._max_body_bytes = min(max_record_bytes, MAX_BODY_BYTES)
        self._clock = clock
        self._draw = draw
        self._next_record = 0
        self._disk_use = 0.0
        self._disk_checked_at = clock() - _DISK_CHECK_S
        self._outcome = FlushOutcome()
        self._failed = False

    def flush(self, batch: FlushBatch, seal: bool) -> FlushOutcome:
        """Writes the batch. A disk that refuses is an outcome, not an exception."""
        started_ns = monotonic_ns()
        if self._failed:
            self._failed = False
            self._wal.abandon()
        outcome = self._outcome = FlushOutcome(disk_use=self._used())
        if batch.streams:
            self._write(batch, outcome)
        try:
            if seal:
                self._wal.seal(batch.counts)
            else:
                self._wal.tend(batch.counts)
        except OSError as error:
            outcome.error = str(error)
        outcome.suspects = self._wal.suspects
        outcome.elapsed_ns = monotonic_ns() - started_ns
        return outcome

    def abandon(self) -> FlushOutcome:
        """Returns what was done of a batch that ended in an exception; the next flush begins with a new segment."""
        self._failed = True
        self._outcome.suspects = self._wal.suspects
        return self._outcome

    def _write(self, batch: FlushBatch, outcome: FlushOutcome) -> None:
        streams = [filter_by_score(taken, self.redactions[taken.number]) for taken in batch.streams]
        total = sum(map(len, streams))
        outcome.sampled_out = sum(map(len, batch.streams)) - total
        if outcome.disk_use > self._off_above:
            outcome.dropped["disk_watermark"] += total
            return
        try:
            self._wal.prepare()
            group: list[Chunk] = []
            waiting_bytes = 0
            for chunk in self._chunks(streams, outcome):
                group.append(chunk)
                waiting_bytes += len(chunk.body)
                if waiting_bytes >= _GROUP_BYTES:
                    self._put(group, batch, outcome)
                    group, waiting_bytes = [], 0
            if group:
                self._put(group, batch, outcome)
        except OSError as error:
            outcome.dropped[reason(error)] += total - outcome.written - sum(outcome.dropped.values())
            outcome.error = str(error)

    def _put(self, group: list[Chunk], batch: FlushBatch, outcome: FlushOutcome) -> None:
        """Writes a group of chunks, and ends the segment if it is full.

        Raises: OSError (nothing of the group was written).
        """
        outcome.written_bytes += self._wal.write(group)
        for chunk in group:
            outcome.written += chunk.records
            if chunk.withheld:
                outcome.withheld[chunk.withheld] += chunk.records
        try:
            self._wal.tend(batch.counts)
        except OSError as error:  # the group was written; what could not be forced to the disk is in a suspect segment
            outcome.error = str(error)

    def _chunks(self, streams: list[StreamRecords], outcome: FlushOutcome) -> Iterator[Chunk]:
        withheld = "disk_watermark" if outcome.disk_use > self._metadata_above else ""
        for taken in streams:
            for run in taken.fast_path.runs(taken.schema, _CHUNK_RECORDS, _CHUNK_BYTES):
                yield from self._joined(taken.number, taken.schema, run, outcome, withheld=withheld)
            for part in _parts(taken.records):
                yield from self._encoded(taken.number, taken.schema, part, outcome, withheld=withheld)

    def _joined(
        self, number: int, schema: StreamSchema, fast_path: FastPathRecords, outcome: FlushOutcome, *, withheld: str
    ) -> Iterator[Chunk]:
        """Yields the fast-path records as one chunk; if one is not as it should be, all are encoded in detail."""
        if not len(fast_path):
            return
        try:
            body = encode_fast_path(schema, number, fast_path, first_record=self._next_record, payload=not withheld)
            self._check(body)
        except (_Oversize, *ENCODE_ERRORS):
            yield from self._encoded(number, schema, fast_path.records(schema), outcome, withheld=withheld)
            return
        self._next_record += len(fast_path)
        yield Chunk(number, schema, body, len(fast_path), withheld)

    def _encoded(
        self, number: int, schema: StreamSchema, records: list[Record], outcome: FlushOutcome, *, withheld: str
    ) -> Iterator[Chunk]:
        """Yields the records as one chunk; if that fails, each by itself, so that one bad record costs only itself."""
        redaction = self.redactions[number]
        try:
            body = encode(
                schema,
                number,
                records,
                first_record=self._next_record,
                redaction=redaction,
                payload=not withheld,
                new_id=self._new_id,
            )
            self._check(body)
        except (_Oversize, RedactionFailed, *ENCODE_ERRORS) as error:
            if len(records) > 1:
                for record in records:
                    yield from self._encoded(number, schema, [record], outcome, withheld=withheld)
            elif not withheld:  # the row is kept without its tensors
                why = _WITHHELD.get(type(error), "encode_error")
                yield from self._encoded(number, schema, records, outcome, withheld=why)
            else:
                outcome.dropped["encode_error"] += 1
        else:
            self._next_record += len(records)
            yield Chunk(number, schema, body, len(records), withheld)

    def _check(self, body: bytes) -> None:
        if len(body) > self._max_body_bytes:
            raise _Oversize

    def _used(self) -> float:
        """Returns the share of the disk in use, as `df` says it, looked up once a second; 0 where it cannot be told."""
        now = self._clock()
        if now - self._disk_checked_at >= _DISK_CHECK_S:
            self._disk_checked_at = now
            try:
                status = os.statvfs(self._directory)
                used = status.f_blocks - status.f_bfree
                self._disk_use = used / (used + status.f_bavail) if used + status.f_bavail else 0.0
            except OSError:
                self._disk_use = 0.0
        return self._disk_use

    def _new_id(self, ts_us: int) -> str:
        """Returns a UUID (version 7) for a record whose caller gave no id.

        Source: RFC 9562, section 5.7.
        """
        value = (ts_us // 1000 & (1 << 48) - 1) << 80 | 7 << 76 | self._draw(12) << 64 | 2 << 62 | self._draw(62)
        text = f"{value:032x}"
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


_WITHHELD: Mapping[type[Exception], str] = {RedactionFailed: "redact_error", _Oversize: "oversize"}


def _parts(records: list[Record]) -> Iterator[list[Record]]:
    """Yields the records in runs that make chunks of bounded size; a record is never split."""
    run: list[Record] = []
    size = 0
    for record in records:
        own = tensor_bytes(record.inputs or ()) + tensor_bytes(record.outputs or ())
        if run and (len(run) >= _CHUNK_RECORDS or size + own > _CHUNK_BYTES):
            yield run
            run, size = [], 0
        run.append(record)
        size += own
    if run:
        yield run
