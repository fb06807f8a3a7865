"""Records of all workers of a host as they are written, read from the write-ahead logs.

The truth lives in files of other processes, so they are polled. A segment stays readable through rotation and
compaction as long as it is open here. Records that are in Parquet already are not shown; ask the lake for them.
"""

import asyncio
import os
from collections import deque
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from gateway.records.worker.block import ColumnMode
from gateway.records.worker.frame import HEAD, MAGIC, MAX_BODY_BYTES, Frame, FrameKind, scan
from gateway.records.worker.reading import DECODE_ERRORS, Block, TensorColumn, decode, parse_schema, peek_rows
from gateway.records.worker.segment import NEW, Segment, entries
from gateway.records.worker.stream_schema import StreamSchema

_SHOWN_ELEMENTS = 16
_READ_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Row:
    """One record, for people to read: long tensors are cut, and what is cut says so.

    `skipped` records before this one were left out, because they came faster than they could be shown.
    """

    ts_us: int
    gateway: str
    worker: str
    model: str
    version: str
    arm: str
    revision: int
    reason: str
    request_id: str
    code: int
    queue_us: int
    infer_us: int
    total_us: int
    rows: int
    inputs_json: str
    outputs_json: str
    skipped: int = 0
    bucket: int = -1


async def tail(
    directory: str | os.PathLike[str],
    *,
    model: str | None = None,
    backlog: int = 0,
    follow: bool = True,
    poll_s: float = 0.1,
    max_rows_per_poll: int = 500,
) -> AsyncGenerator[Row, None]:
    """Yields the last `backlog` records that the write-ahead logs still have, then new ones as they are flushed.

    Order: by time within one poll. Without `follow` it ends after the backlog.
    """
    tailer = Tailer(Path(directory), model=model)
    try:
        for row in await asyncio.to_thread(tailer.start, backlog):
            yield row
        while follow:
            await asyncio.sleep(poll_s)
            for row in await asyncio.to_thread(tailer.poll, max_rows_per_poll):
                yield row
    finally:
        tailer.close()


class Tailer:
    """The reading side of `tail`, one call at a time."""

    def __init__(self, directory: Path, *, model: str | None = None) -> None:
        self._directory = directory
        self._model = model
        self._cursors: dict[Segment, _Cursor] = {}
        self._finished: dict[tuple[str, str, str], int] = {}  # last segment read to its end, per run

    def start(self, backlog: int) -> list[Row]:
        """Goes to the end of every segment; the last `backlog` records before that."""
        places: list[tuple[Segment, Block, int]] = []
        for cursor in self._discover():
            places += cursor.backlog(backlog, self._model)
        places.sort(key=_when)
        return [row_of(segment, block, index) for segment, block, index in places[-backlog:]] if backlog > 0 else []

    def poll(self, limit: int) -> list[Row]:
        """Returns the newest records since the last call, at most `limit`; the first says how many were skipped."""
        places: list[tuple[Segment, Block, int]] = []
        skipped = 0
        list(self._discover())
        for segment, cursor in list(self._cursors.items()):
            for block in cursor.blocks(self._model):
                places += ((segment, block, index) for index in range(len(block.table)))
                if len(places) > 2 * limit:
                    places.sort(key=_when)
                    skipped += len(places) - limit
                    places = places[-limit:]
            if cursor.is_finished():
                cursor.close()
                del self._cursors[segment]
                self._finished[_run(segment)] = max(segment.seq, self._finished.get(_run(segment), -1))
        places.sort(key=_when)
        skipped += max(0, len(places) - limit)
        chosen = places[-limit:]
        return [row_of(*item, skipped=skipped if place == 0 else 0) for place, item in enumerate(chosen)]

    def close(self) -> None:
        for cursor in self._cursors.values():
            cursor.close()
        self._cursors.clear()

    def _discover(self) -> Iterator["_Cursor"]:
        """Opens the segments that were not open or finished before."""
        for entry in entries(self._directory):
            segment = entry.segment
            if segment is None or entry.suffix == NEW or segment in self._cursors:
                continue
            if segment.seq <= self._finished.get(_run(segment), -1):
                continue
            try:
                cursor = _Cursor(entry.path, segment)
            except OSError:  # renamed or deleted meanwhile; under its new name it is found at the next poll
                continue
            self._cursors[segment] = cursor
            yield cursor


def _run(segment: Segment) -> tuple[str, str, str]:
    return segment.gateway, segment.worker, segment.boot


class _Cursor:
    """A place in one segment."""

    def __init__(self, path: Path, segment: Segment) -> None:
        self.segment = segment
        self._descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        self._position = 0
        self._schemas: dict[int, StreamSchema] = {}
        self._sealed = False

    def close(self) -> None:
        os.close(self._descriptor)

    def is_finished(self) -> bool:
        """Returns whether nothing can come any more: sealed in order, or deleted."""
        return self._sealed or os.fstat(self._descriptor).st_nlink == 0

    def blocks(self, model: str | None) -> Iterator[Block]:
        """Yields the blocks written since the last call, of one model or all; a frame still being written waits."""
        size = os.fstat(self._descriptor).st_size
        wanted = _READ_BYTES
        while self._position < size:
            data = os.pread(self._descriptor, min(wanted, size - self._position), self._position)
            taken = 0
            for part in scan(data, seed=self.segment.seed):
                if isinstance(part, Frame):
                    taken = part.end
                    yield from self._block(part, model)
                elif part.offset + part.length < len(data):
                    taken = part.offset + part.length  # damage with whole frames behind it
            self._position += taken
            if not taken:
                longer = self._frame_bytes(data)
                if longer <= len(data) or longer > size - self._position:
                    return
                wanted = longer

    def backlog(self, count: int, model: str | None) -> list[tuple[Segment, Block, int]]:
        """Moves to the end; the last `count` records on the way. Row frames before those are not read."""
        rows: deque[tuple[int, int, int]] = deque()
        held = 0
        for offset, length, head in self._heads():
            if head and head[0] == FrameKind.SCHEMA:
                self._learn(offset, length)
            elif head and head[0] == FrameKind.SEAL:
                self._sealed = True
            elif head and head[0] == FrameKind.ROWS and count > 0:
                stream, records = peek_rows(head)
                if model is None or (stream in self._schemas and self._schemas[stream].model == model):
                    rows.append((offset, length, records))
                    held += records
                    while held - rows[0][2] >= count:
                        held -= rows.popleft()[2]
        places: list[tuple[Segment, Block, int]] = []
        for offset, length, _ in rows:
            for frame in scan(os.pread(self._descriptor, length, offset), seed=self.segment.seed):
                if isinstance(frame, Frame):
                    for block in self._block(frame, model):
                        places += ((self.segment, block, index) for index in range(len(block.table)))
        return places

    def _heads(self) -> Iterator[tuple[int, int, bytes]]:
        """Offset, length and first bytes of each frame, by the lengths alone; stops before what is no frame."""
        while True:
            head = os.pread(self._descriptor, HEAD.size + 32, self._position)
            if len(head) < HEAD.size + 1:
                return
            magic, length, _ = HEAD.unpack_from(head)
            end = self._position + HEAD.size + length
            if magic != MAGIC or not 0 < length <= MAX_BODY_BYTES or end > os.fstat(self._descriptor).st_size:
                return
            yield self._position, HEAD.size + length, head[HEAD.size :]
            self._position = end

    def _learn(self, offset: int, length: int) -> None:
        for frame in scan(os.pread(self._descriptor, length, offset), seed=self.segment.seed):
            if isinstance(frame, Frame):
                list(self._block(frame, None))

    def _frame_bytes(self, data: bytes) -> int:
        """Returns how long the frame is that the data begin with, 0 if they do not."""
        if len(data) < HEAD.size:
            return 0
        magic, length, _ = HEAD.unpack_from(data)
        return HEAD.size + int(length) if magic == MAGIC and 0 < length <= MAX_BODY_BYTES else 0

    def _block(self, frame: Frame, model: str | None) -> Iterator[Block]:
        try:
            if frame.kind == FrameKind.SCHEMA:
                stream, schema = parse_schema(frame.body)
                self._schemas[stream] = schema
            elif frame.kind == FrameKind.SEAL:
                self._sealed = True
            elif frame.kind == FrameKind.ROWS:
                schema = self._schemas[peek_rows(frame.body)[0]]
                if model is None or schema.model == model:
                    yield decode(frame.body, schema)
        except DECODE_ERRORS:
            return


def _when(item: tuple[Segment, Block, int]) -> tuple[int, str, int]:
    segment, block, index = item
    return int(block.table["ts_us"][index]), segment.worker, block.first_record + index


def row_of(segment: Segment, block: Block, index: int, *, skipped: int = 0) -> Row:
    """Returns the record of a block, for people to read."""
    record = block.table[index]
    return Row(
        ts_us=int(record["ts_us"]),
        gateway=segment.gateway,
        worker=segment.worker,
        model=block.schema.model,
        version=block.schema.version,
        arm=block.schema.arm,
        revision=int(record["revision"]),
        reason=block.reasons[int(record["reason"])],
        request_id=block.ids[index],
        code=int(record["code"]),
        queue_us=int(record["queue_us"]),
        infer_us=int(record["infer_us"]),
        total_us=int(record["total_us"]),
        rows=int(record["rows"]),
        inputs_json=_json(block.inputs, index),
        outputs_json=_json(block.outputs, index),
        skipped=skipped,
        bucket=int(record["bucket"]),
    )


def _json(columns: Sequence[TensorColumn], index: int) -> str:
    shown = {column.spec.name: _shown(column, index) for column in columns if column.modes[index]}
    return msgspec.json.encode(shown).decode()


def _shown(column: TensorColumn, index: int) -> object:
    """Returns a short tensor as its elements, a long one as shape and first elements, a large one as its shape."""
    shape = list(column.shape(index))
    if column.modes[index] == ColumnMode.DIGEST:
        return {"shape": shape, "digest": True}
    elements = [_rounded(value) for value in column.elements(index, _SHOWN_ELEMENTS)]
    total = int(column.starts[index + 1] - column.starts[index])
    if total > len(elements):
        return {"shape": shape, "first": elements}
    return elements


def _rounded(value: object) -> object:
    if isinstance(value, float):
        return float(f"{value:.6g}") if value == value and abs(value) != float("inf") else str(value)
    return value[:64] + "…" if isinstance(value, str) and len(value) > 64 else value
