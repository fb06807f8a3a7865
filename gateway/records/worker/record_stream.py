"""The records of one model, version and arm, as requests append them: references, and no work that can wait.

Most records take the fast path: the request succeeded, and all its tensors are raw bytes of a size that the schema
gives. They are kept column by column, so that a flush only joins them. Every other record is kept as it is, and the
flush encodes it in detail. Of a large input only the digest is kept. It is made at once: the input is in the cache now,
a few dozen inputs would fill the buffer, and on the log's thread the digest would compete for the interpreter.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from math import inf
from typing import Final

import numpy as np
from xxhash import xxh3_64_intdigest

from gateway.records.worker.block import ENCODE_ERRORS, MAX_ID_BYTES, PACKED_ROW
from gateway.records.worker.digest import MAX_TENSOR_BYTES, Digests
from gateway.records.worker.fast_path import FastPathRecords
from gateway.records.worker.large_inputs import digest_large, digestible
from gateway.records.worker.record import Logged, Record
from gateway.records.worker.redaction import StreamRedaction
from gateway.records.worker.sampling import EVERY_HASH, UNDECIDED_IN, UNDECIDED_OUT, Kept, Sampling, threshold
from gateway.records.worker.score_filter import StreamRecords
from gateway.records.worker.stream_schema import StreamSchema, fixed_bytes, is_batched
from gateway.tensor import Datatype, TensorSpec

_PACK_ROW: Final = PACKED_ROW.pack
_ERROR: Final = int(Kept.ERROR)
_FIRST: Final = int(Kept.FIRST)
_OVERHEAD_BYTES: Final = 400  # of a record beside its tensors: the object, its integers, its id
_FAST_PATH_BYTES: Final = 260  # of a fast-path record beside its values: its row, and the heads of its bytes
_DIGESTED_BYTES: Final = 4 << 20  # of a record digested at once, at 80 us a MiB; a larger one is left to the thread


class Buffering:
    """Tells what all streams of a log share on the hot path."""

    __slots__ = (
        "closed",
        "max_bytes",
        "max_record_bytes",
        "max_records",
        "records",
        "scale",
        "size_bytes",
        "wake",
        "wake_at",
    )

    def __init__(
        self, *, max_bytes: int, max_records: int, max_record_bytes: int, wake_at: int, wake: Callable[[], None]
    ) -> None:
        self.max_bytes = max_bytes
        self.max_records = max_records
        self.max_record_bytes = max_record_bytes
        self.records = 0  # including those being written
        self.size_bytes = 0
        self.wake_at = wake_at
        self.wake = wake
        self.closed = False
        self.scale = 1.0  # of all rates; below 1 while the buffer or the disk is nearly full


class RecordStream:
    """Takes the records of one model, version and arm. Belongs to the loop."""

    __slots__ = (
        "_base",
        "_below",
        "_buffer",
        "_digestible",
        "_draw",
        "_fast_path",
        "_first",
        "_has_fast_path",
        "_input_count",
        "_keep_errors",
        "_keeps_all",
        "_kept",
        "_output_count",
        "_passed",
        "_rate",
        "_row_bytes",
        "_sampling",
        "_threshold",
        "_undecided",
        "dropped",
        "keeps_disagreement",
        "number",
        "records",
        "sampled_out",
        "schema",
        "seen",
    )

    def __init__(
        self,
        number: int,
        schema: StreamSchema,
        redaction: StreamRedaction,
        buffer: Buffering,
        sampling: Sampling,
        draw: Callable[[int], int],
    ) -> None:
        self.number = number
        self.schema = schema
        self.records: list[Record] = []
        self.seen = 0
        self.sampled_out = 0
        self.dropped: Counter[str] = Counter()
        self._buffer = buffer
        self._draw = draw
        self._base: object = None
        self._undecided = False
        input_bytes, output_bytes = _row_bytes(schema.inputs), _row_bytes(schema.outputs)
        self._input_count = len(schema.inputs)
        self._output_count = len(schema.outputs)
        self._row_bytes = input_bytes + output_bytes
        self._has_fast_path = bool(input_bytes and output_bytes) and not redaction.touches(schema)
        self._has_fast_path &= all(_has_fast_path(spec) for spec in (*schema.inputs, *schema.outputs))
        self._fast_path = FastPathRecords()
        self._digestible = digestible(schema.inputs, redaction)
        self.follow(sampling)

    def follow(self, sampling: Sampling) -> None:
        """From now on records are kept as this says, and as the buffer's scale does."""
        self._sampling = sampling
        self._rate = sampling.rate_of(self.schema.arm) * self._buffer.scale
        self._threshold = threshold(self._rate)
        self._keeps_all = self._threshold == EVERY_HASH
        self._keep_errors = sampling.keep_errors
        self._first = sampling.keep_first
        self._below = sampling.keep_score_below
        self._kept: int = Kept.RATE if self._buffer.scale == 1 else Kept.PRESSURE
        self._passed = 0  # why a record is undecided whose hash is not below the threshold; 0: it is left out
        if self._below is not None:
            self._kept, self._passed = UNDECIDED_IN | self._kept, UNDECIDED_OUT
        self.keeps_disagreement = sampling.keep_disagreement and not self._keeps_all

    def rescale(self) -> None:
        """The buffer's scale has changed."""
        self.follow(self._sampling)

    def count_in(self, buffer: Buffering) -> None:
        """Counts its records in that buffer from now on."""
        self._buffer = buffer

    def append(self, record: Record, keep: int = 0) -> None:
        """Takes a record; the record is the stream's from here on. Neither blocks nor raises.

        `keep` is why the record is kept whatever its hash is (a `Kept`), 0 where nothing is known of it.
        """
        self.seen += 1
        sample_p, kept = 1.0, 0
        try:
            request_id, code, rows = record.request_id, record.code, record.rows
            if not self._keeps_all:
                if code and self._keep_errors:
                    kept = _ERROR
                elif self.seen <= self._first:
                    kept = _FIRST
                elif keep:
                    kept = keep
                elif (xxh3_64_intdigest(request_id.encode()) if request_id else self._draw(64)) < self._threshold:
                    sample_p, kept = self._rate, self._kept
                    if self._passed:
                        self._undecided = True
                elif self._passed:
                    sample_p, kept = self._rate, self._passed
                    self._undecided = True
                else:
                    self.sampled_out += 1
                    return
            inputs, outputs = record.inputs, record.outputs
            buffer = self._buffer
            name = request_id.encode()
            length = len(name)
            if (
                self._has_fast_path
                and not code
                and record.in_shapes is None
                and record.wanted is None
                and 0 < length <= MAX_ID_BYTES
                and len(outputs) == self._output_count
                and len(inputs) == self._input_count
                and type(outputs[0]) is bytes
                and tensor_bytes(inputs) + tensor_bytes(outputs) == self._row_bytes * rows
            ):
                size = self._row_bytes * rows + length + _FAST_PATH_BYTES
                if buffer.size_bytes + size > buffer.max_bytes or buffer.records >= buffer.max_records or buffer.closed:
                    self._refuse(size)
                    return
                fast_path = self._fast_path
                reasons = fast_path.reasons
                place = reasons.get(record.reason)
                if place is None:
                    place = reasons[record.reason] = len(reasons)
                row = _PACK_ROW(
                    record.ts_us, record.revision, record.bucket, rows, record.queue_us, record.infer_us,
                    record.total_us, 0, place, length, kept, sample_p,
                )  # fmt: skip
                fast_path.table.append(row)
                fast_path.ids.append(name)
                fast_path.tensors += inputs
                fast_path.tensors += outputs
                fast_path.rows += rows
            else:
                size = self._size(record)
                record.sample_p, record.kept, record.size_bytes = sample_p, kept, size
                if self._digestible and MAX_TENSOR_BYTES < size <= _DIGESTED_BYTES:
                    size -= digest_large(record, self._digestible)
                if buffer.size_bytes + size > buffer.max_bytes or buffer.records >= buffer.max_records or buffer.closed:
                    self._refuse(size)
                    return
                self.records.append(record)
            buffer.records += 1
            buffer.size_bytes += size
            if buffer.size_bytes >= buffer.wake_at:
                buffer.wake()
        except ENCODE_ERRORS:
            self.dropped["encode_error"] += 1

    def take(self) -> StreamRecords:
        """Returns the records so far; they are the caller's to write."""
        taken = StreamRecords(self.number, self.schema, self.records, self._fast_path, self._score_bound())
        self.records, self._fast_path = [], FastPathRecords()
        self._undecided = False
        self._base = None
        return taken

    def _score_bound(self) -> float | None:
        if not self._undecided:
            return None
        return self._below if self._below is not None else -inf  # the rule has gone since

    @property
    def waiting(self) -> int:
        """Records appended and not taken."""
        return len(self.records) + len(self._fast_path)

    def _size(self, record: Record) -> int:
        """Returns what the record counts as: the bytes of the buffers that it keeps, whatever rows and schema say."""
        outputs = record.outputs
        size = _OVERHEAD_BYTES + len(record.request_id) + tensor_bytes(record.inputs)
        if outputs:
            # A view keeps the whole result of its batch; the records of one batch come one after the other.
            base = getattr(outputs[0], "base", None)
            if base is None:
                size += tensor_bytes(outputs)
            elif base is not self._base:
                self._base = base
                size += _retained(outputs)
        return size

    def _refuse(self, size: int) -> None:
        self._base = None
        if self._buffer.closed:
            self.dropped["closed"] += 1
        elif size > self._buffer.max_record_bytes:
            self.dropped["oversize"] += 1
        else:
            self.dropped["buffer"] += 1


def _has_fast_path(spec: TensorSpec) -> bool:
    return spec.datatype is not Datatype.BYTES and 0 < fixed_bytes(spec) <= MAX_TENSOR_BYTES


def _row_bytes(specs: tuple[TensorSpec, ...]) -> int:
    """Returns the bytes of a row over all specs, or 0 if they depend on the request."""
    sizes = [fixed_bytes(spec) if is_batched(spec) else 0 for spec in specs]
    return sum(sizes) if all(sizes) else 0


def tensor_bytes(tensors: Sequence[Logged | None]) -> int:
    """Returns the bytes of the tensors' buffers; of Python's objects, what they take in memory."""
    size = 0
    for tensor in tensors:
        if tensor is None:
            continue
        if isinstance(tensor, bytes):
            size += len(tensor)
        elif isinstance(tensor, Digests):
            size += len(tensor.data)
        elif isinstance(tensor, memoryview) or tensor.dtype != object:
            size += tensor.nbytes
        else:
            size += sum(len(element) + 60 for element in tensor.ravel().tolist())
    return size


def _retained(outputs: Sequence[Logged]) -> int:
    """Returns the bytes that the outputs keep in memory: of a view those of the whole array behind it."""
    size = 0
    for output in outputs:
        base = getattr(output, "base", None)
        own = tensor_bytes((output,))
        size += max(own, base.nbytes) if isinstance(base, np.ndarray) and base.dtype != object else own
    return size
