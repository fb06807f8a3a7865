"""Logged records found again in the write-ahead logs of a host: one by its request id, or the newest of a model.

What the compactor has moved to Parquet is not here; it is read by a process that has Arrow, never by a worker.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gateway.records.reading import Block, read
from gateway.records.segment import NEW, Entry, Segment, entries
from gateway.records.tail import Row, row_of

READ_LIMIT_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Search:
    """What was found and where it was looked for, in words. `marks` are (revision, bucket) of records, newest first."""

    searched: tuple[str, ...]
    row: Row | None = None
    marks: tuple[tuple[int, int], ...] = ()


def find(directory: Path, model: str, request_id: str) -> Search:
    """The newest record of the model with that request id, if the write-ahead logs still hold one."""
    looked = _Looked()
    wanted = request_id.encode()
    for segment, data in looked.segments(directory):
        if wanted not in data:
            continue
        best: tuple[int, Block, int] | None = None
        for block in _blocks(data, segment, model):
            for index, name in enumerate(block.ids):
                if name == request_id and (best is None or int(block.table["ts_us"][index]) >= best[0]):
                    best = int(block.table["ts_us"][index]), block, index
        if best is not None:
            return Search(looked.words(directory), row_of(segment, best[1], best[2]))
    return Search(looked.words(directory))


def newest(directory: Path, model: str, limit: int) -> Search:
    """Revision and bucket of the model's newest records, at most `limit`."""
    looked = _Looked()
    marks: list[tuple[int, int]] = []
    for segment, data in looked.segments(directory):
        tables = [block.table for block in _blocks(data, segment, model)]
        if tables:
            table = np.concatenate(tables)
            table = table[np.argsort(table["ts_us"], kind="stable")[::-1]][: limit - len(marks)]
            marks += zip(table["revision"].tolist(), table["bucket"].tolist(), strict=True)
        if len(marks) >= limit:
            break
    return Search(looked.words(directory), marks=tuple(marks))


def _blocks(data: bytes, segment: Segment, model: str) -> Iterator[Block]:
    return (block for block in read(data, segment).blocks if block.schema.model == model)


class _Looked:
    """Segments as they are read, the newest first, and the account of it."""

    def __init__(self) -> None:
        self._count = 0
        self._bytes = 0
        self._left = 0

    def segments(self, directory: Path) -> Iterator[tuple[Segment, bytes]]:
        there = [entry for entry in entries(directory) if entry.segment is not None and entry.suffix != NEW]
        for entry in sorted(there, key=lambda entry: entry.modified_s, reverse=True):
            if self._bytes >= READ_LIMIT_BYTES:
                self._left += 1
                continue
            data = _content(entry)
            if data is not None and entry.segment is not None:
                self._count += 1
                self._bytes += len(data)
                yield entry.segment, data

    def words(self, directory: Path) -> tuple[str, ...]:
        size = f"{self._bytes / (1 << 20):.1f} MiB"
        said = [f"the write-ahead logs of the answering host ({directory}): {self._count} segments, {size}"]
        if self._left:
            said.append(f"not {self._left} older segments: one search reads at most {READ_LIMIT_BYTES >> 30} GiB")
        said.append("not the Parquet files, where records go when a segment is full or old: query those by request_id")
        said.append("not other hosts: ask a worker there with --server")
        return tuple(said)


def _content(entry: Entry) -> bytes | None:
    try:
        descriptor = os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:  # compacted or renamed meanwhile
        return None
    with open(descriptor, "rb") as file:
        return file.read()
