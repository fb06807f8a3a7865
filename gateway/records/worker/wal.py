"""The write-ahead log of one worker: segments, one write per flush, rotation, and what happens when the disk says no.

Everything here blocks and runs on the log's own thread, one call at a time.
"""

import errno
import fcntl
import os
import struct
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import msgspec

from gateway.records.worker.frame import FrameKind, frame
from gateway.records.worker.segment import (
    NEW,
    OPEN,
    SEALED,
    SUSPECT,
    Segment,
    is_same_file,
    sync_content,
    sync_directory,
)
from gateway.records.worker.stream_schema import StreamSchema

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Durability(Enum):
    """When data are forced to the disk; a killed process loses nothing that was written in any case."""

    NEVER = "never"
    INTERVAL = "interval"  # once a second, while there is something to force
    ALWAYS = "always"  # after every write


@dataclass(frozen=True, slots=True)
class SegmentLimits:
    """When a segment ends, and how durable it is."""

    max_bytes: int = 64 << 20
    max_age_s: float = 60.0
    durability: Durability = Durability.INTERVAL
    sync_interval_s: float = 1.0


@dataclass(frozen=True, slots=True)
class Chunk:
    """An encoded body and the stream it belongs to; a body that explains itself (LABELS) has no schema.

    `records` counts those in the body; `withheld` is why they have no tensors, "" where they have them.
    """

    stream: int
    schema: StreamSchema | None
    body: bytes
    records: int = 0
    withheld: str = ""


class _OpenSegment:
    """The file being written."""

    __slots__ = ("descriptor", "opened_at", "path", "schemas", "segment", "size_bytes", "unsynced")

    def __init__(self, descriptor: int, segment: Segment, path: Path, opened_at: float) -> None:
        self.descriptor = descriptor
        self.segment = segment
        self.path = path
        self.opened_at = opened_at
        self.size_bytes = 0
        self.schemas: dict[int, StreamSchema] = {}
        self.unsynced = False


class WalWriter:
    """Writes the segments of one worker's run.

    Order: a chunk that `write` returned for is in the page cache: it survives the process. Sequence numbers only rise.
    """

    def __init__(self, directory: Path, run: Segment, limits: SegmentLimits, clock: Callable[[], float]) -> None:
        self._directory = directory
        self._next = run
        self._limits = limits
        self._clock = clock
        self._open: _OpenSegment | None = None
        self._synced_at = clock()
        self.suspects = 0

    def write(self, chunks: Sequence[Chunk]) -> int:
        """Writes all of the chunks, or none; returns how many bytes that were.

        A write that fails is tried once more in a new segment: the fault may lie in the file (deleted, at its size
        limit) rather than in the disk.

        Raises: OSError (the disk does not take them; the next call tries again from the start).
        """
        self._leave_lost()
        try:
            return self._write(chunks)
        except OSError:
            self._abandon()
            try:
                return self._write(chunks)
            except OSError:
                self._abandon()
                raise

    def abandon(self) -> None:
        """Ends the open segment as it is, after an error that nobody foresaw; the next write opens another."""
        self._abandon()

    def prepare(self) -> None:
        """Makes sure that a segment is open, so that nothing is encoded in vain.

        Raises: OSError.
        """
        self._leave_lost()
        if self._open is None:
            self._open = self._create()

    def tend(self, counts: Mapping[str, object]) -> None:
        """Forces data to the disk and ends a segment when it is time for either.

        Raises: OSError (a segment whose data could not be forced was set aside as suspect before).
        """
        current = self._open
        if current is None:
            return
        now = self._clock()
        due = now - self._synced_at >= self._limits.sync_interval_s
        always = self._limits.durability is Durability.ALWAYS
        if current.unsynced and (always or (due and self._limits.durability is Durability.INTERVAL)):
            self._sync(current)
        if current.size_bytes >= self._limits.max_bytes or now - current.opened_at >= self._limits.max_age_s:
            self.seal(counts)

    def seal(self, counts: Mapping[str, object]) -> None:
        """Ends the open segment, if any: schemas once more, the counts, then the name that the compactor looks for.

        Raises: OSError.
        """
        current, self._open = self._open, None
        if current is None:
            return
        try:
            closing = [self._schema_frame(current, number, schema) for number, schema in current.schemas.items()]
            seal = bytes([FrameKind.SEAL]) + msgspec.json.encode(counts)
            with suppress(OSError):  # a seal that does not fit is not missed: every row is checked by itself
                _append(current, b"".join([*closing, frame(seal, seed=current.segment.seed)]))
            if self._limits.durability is not Durability.NEVER:
                self._sync(current)
            os.rename(current.path, current.path.with_name(current.segment.stem + SEALED))
            if self._limits.durability is not Durability.NEVER:
                sync_directory(current.path.parent)
        finally:
            os.close(current.descriptor)

    def _write(self, chunks: Sequence[Chunk]) -> int:
        self.prepare()
        current = self._open
        assert current is not None
        parts: list[bytes] = []
        declared: dict[int, StreamSchema] = {}
        for chunk in chunks:
            schema = chunk.schema
            if schema is not None and chunk.stream not in current.schemas and chunk.stream not in declared:
                declared[chunk.stream] = schema
                parts.append(self._schema_frame(current, chunk.stream, schema))
            parts.append(frame(chunk.body, seed=current.segment.seed))
        written = _append(current, b"".join(parts))
        current.schemas.update(declared)
        return written

    def _create(self) -> _OpenSegment:
        segment = self._next
        self._next = Segment(segment.gateway, segment.worker, segment.boot, segment.seq + 1)
        folder = segment.path(self._directory, NEW).parent
        folder.mkdir(parents=True, exist_ok=True)
        path = segment.path(self._directory, NEW)
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o640)
        current = _OpenSegment(descriptor, segment, segment.path(self._directory, OPEN), self._clock())
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            header = {"format": 1, "gateway": segment.gateway, "worker": segment.worker}
            header |= {"boot": segment.boot, "seq": segment.seq}
            _append(current, frame(bytes([FrameKind.FILE]) + msgspec.json.encode(header), seed=segment.seed))
            os.rename(path, current.path)
        except OSError:
            with suppress(OSError):
                os.unlink(path)
            os.close(descriptor)
            raise
        return current

    def _leave_lost(self) -> None:
        """Leaves a segment whose file was moved or deleted under us: what goes there, nobody reads."""
        if self._open is not None and not is_same_file(self._open.descriptor, self._open.path):
            os.close(self._open.descriptor)
            self._open = None

    def _abandon(self) -> None:
        """Ends a segment that did not take a write; what it holds is whole, for a partial write was cut off."""
        current, self._open = self._open, None
        if current is None:
            return
        with suppress(OSError):
            os.rename(current.path, current.path.with_name(current.segment.stem + SEALED))
        os.close(current.descriptor)

    def _sync(self, current: _OpenSegment) -> None:
        try:
            sync_content(current.descriptor)
        except OSError:
            # After a failed fsync the kernel may call lost pages clean, and a second fsync would succeed for nothing.
            self.suspects += 1
            with suppress(OSError):
                os.rename(current.path, current.path.with_name(current.segment.stem + SUSPECT))
            if self._open is current:
                os.close(current.descriptor)
                self._open = None
            raise
        current.unsynced = False
        self._synced_at = self._clock()

    def _schema_frame(self, current: _OpenSegment, number: int, schema: StreamSchema) -> bytes:
        return frame(
            bytes([FrameKind.SCHEMA]) + struct.pack("<I", number) + schema.to_json(), seed=current.segment.seed
        )


def reason(error: OSError) -> str:
    """Returns what a record that the disk did not take is counted as."""
    return "disk_full" if error.errno in _FULL else "disk_error"


def _append(current: _OpenSegment, data: bytes) -> int:
    """Writes all of the data at the end of the file, or none of it; returns how many bytes that were.

    Raises: OSError.
    """
    view = memoryview(data)
    try:
        while view:
            written = os.write(current.descriptor, view)
            view = view[written:]
    except OSError:
        with suppress(OSError):
            os.ftruncate(current.descriptor, current.size_bytes)
        raise
    current.size_bytes += len(data)
    current.unsynced = True
    return len(data)
