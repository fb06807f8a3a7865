"""Finds logged records in the write-ahead logs of a host: one by its request id, or the newest of a model.

What the compactor has moved to Parquet is not here; it is read by a process that has Arrow, never by a worker.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gateway.byte_size import rounded_bytes
from gateway.records.worker.block import HEAD, ROW
from gateway.records.worker.frame import Frame, FrameKind, scan
from gateway.records.worker.reading import DECODE_ERRORS, decode, parse_schema, peek_rows
from gateway.records.worker.segment import NEW, LogEntry, Segment, entries
from gateway.records.worker.stream_schema import StreamSchema
from gateway.records.worker.tail import Row, row_of

READ_LIMIT_BYTES = 1 << 30
_COARSE_S = 1.0  # a file's time of modification comes from a clock that ticks every few milliseconds


@dataclass(frozen=True, slots=True)
class Search:
    """Tells what was found, and in words where. `marks` are (revision, bucket) of records, newest first."""

    searched: tuple[str, ...]
    row: Row | None = None
    marks: tuple[tuple[int, int], ...] = ()


def find(directory: Path, model: str, request_id: str) -> Search:
    """Returns the newest record of the model with that request id, if the write-ahead logs still hold one."""
    search_log = _SearchLog()
    wanted = request_id.encode()
    for segment, data in search_log.segments(directory):
        for schema, frame in reversed(_frames(data, segment, model)):
            if data.find(wanted, frame.end - len(frame.body), frame.end) < 0:
                continue
            try:
                block = decode(frame.body, schema)
            except DECODE_ERRORS:
                continue
            places = [index for index, name in enumerate(block.ids) if name == request_id]
            if places:
                return Search(search_log.words(), row_of(segment, block, places[-1]))
    return Search(search_log.words())


def newest(directory: Path, model: str, limit: int) -> Search:
    """Revision and bucket of the model's newest records over all workers, at most `limit`."""
    search_log = _SearchLog()
    table = np.empty(0, ROW)
    for segment, data in search_log.segments(directory):
        tables = [_table(frame) for _, frame in _frames(data, segment, model)]
        table = np.concatenate([table, *tables])
        table = table[np.argsort(table["ts_us"], kind="stable")[::-1]][:limit]
        if len(table) == limit:  # what was written before the oldest of these is older than all of them
            search_log.not_before = int(table["ts_us"][-1]) / 1e6
    marks = zip(table["revision"].tolist(), table["bucket"].tolist(), strict=True)
    return Search(search_log.words(), marks=tuple(marks))


def _frames(data: bytes, segment: Segment, model: str) -> list[tuple[StreamSchema, Frame]]:
    """Returns the frames with records of the model, in order. None is decoded, for the worker serves meanwhile."""
    schemas: dict[int, StreamSchema] = {}
    frames: list[tuple[int, Frame]] = []
    for frame in scan(data, seed=segment.seed):
        if not isinstance(frame, Frame):
            continue
        try:
            if frame.kind == FrameKind.SCHEMA:
                stream, schema = parse_schema(frame.body)
                schemas[stream] = schema
            elif frame.kind == FrameKind.ROWS:
                frames.append((peek_rows(frame.body)[0], frame))
        except DECODE_ERRORS:
            continue
    ours = {stream: schema for stream, schema in schemas.items() if schema.model == model}
    return [(ours[stream], frame) for stream, frame in frames if stream in ours]


def _table(frame: Frame) -> npt.NDArray[np.void]:
    """Returns what every record of the frame has, without its tensors."""
    count = peek_rows(frame.body)[1]
    if HEAD.size + count * ROW.itemsize > len(frame.body):
        return np.empty(0, ROW)
    return np.frombuffer(frame.body, ROW, count, HEAD.size)


class _SearchLog:
    """Segments as they are read, the newest first, and the account of it.

    Units: segments last written before `not_before` (seconds since the epoch) are not wanted.
    """

    def __init__(self) -> None:
        self._count = 0
        self._bytes = 0
        self._left = 0
        self.not_before = 0.0

    def segments(self, directory: Path) -> Iterator[tuple[Segment, bytes]]:
        there = [entry for entry in entries(directory) if entry.segment is not None and entry.suffix != NEW]
        for entry in sorted(there, key=lambda entry: entry.modified_s, reverse=True):
            if entry.modified_s + _COARSE_S < self.not_before:
                return
            if self._bytes >= READ_LIMIT_BYTES:
                self._left += 1
                continue
            data = _content(entry)
            if data is not None and entry.segment is not None:
                self._count += 1
                self._bytes += len(data)
                yield entry.segment, data

    def words(self) -> tuple[str, ...]:
        amount = f"{self._count} segments, {rounded_bytes(self._bytes)}"
        said = [f"the write-ahead logs of the answering host: {amount}"]
        if self._left:
            said.append(f"not {self._left} older segments: one search reads at most {READ_LIMIT_BYTES >> 30} GiB")
        said.append("not the Parquet files, where records go when a segment is full or old: query those by request_id")
        said.append("not other hosts: ask a worker there with --server")
        return tuple(said)


def _content(entry: LogEntry) -> bytes | None:
    try:
        descriptor = os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:  # compacted or renamed meanwhile
        return None
    with open(descriptor, "rb") as file:
        return file.read()
