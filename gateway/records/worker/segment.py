"""Segments of the write-ahead log by name: who wrote them, which comes after which, and whether the writer lives."""

import fcntl
import os
import re
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID
from zlib import crc32

OPEN = ".wal"  # being written, under flock
SEALED = ".sealed"  # closed in order, or adopted
SUSPECT = ".suspect"  # the disk reported an error on fsync: what reads back right is right, the rest is not
NEW = ".new"  # being created; renamed to OPEN once it is locked and has its first frame
FAILED = "failed"  # directory of what was quarantined
_NAME = re.compile(r"(?P<worker>[A-Za-z0-9][A-Za-z0-9._-]*)-(?P<boot>[0-9a-f]{32})-(?P<seq>\d{8,18})")
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True, order=True)
class Segment:
    """One segment: the `seq`-th file of one run (`boot`) of one worker of one gateway."""

    gateway: str
    worker: str
    boot: str
    seq: int

    @property
    def stem(self) -> str:
        return f"{self.worker}-{self.boot}-{self.seq:08d}"

    @property
    def seed(self) -> int:
        """Returns where the checksums of this segment's frames start."""
        return crc32(UUID(self.boot).bytes + self.seq.to_bytes(8, "little"))

    def path(self, directory: Path, suffix: str) -> Path:
        return directory / self.gateway / (self.stem + suffix)


@dataclass(frozen=True, slots=True)
class LogEntry:
    """A directory entry under the log directory; `segment` is None where it is not ours."""

    path: Path
    segment: Segment | None
    suffix: str
    size_bytes: int
    modified_s: float


def checked_part(name: str, value: str) -> str:
    """Returns the value, fit to be part of a file name.

    Raises: ValueError (naming field, value and what is allowed).
    """
    if not _PART.fullmatch(value):
        raise ValueError(f"{name} is {value!r}: letters, digits, '.', '_', '-' are allowed, at most 100 of them")
    return value


def entries(directory: Path) -> Iterator[LogEntry]:
    """Yields everything below the log directory that a writer may have put there, and everything that does not belong.

    Links, pipes and folders are reported as alien without being opened.
    """
    for gateway in _scan(directory):
        if gateway.name == FAILED or not gateway.is_dir(follow_symlinks=False):
            if gateway.name != FAILED:
                yield from _entry(gateway, None, "")
            continue
        if not _PART.fullmatch(gateway.name):
            continue
        for item in _scan(Path(gateway.path)):
            stem, suffix = os.path.splitext(item.name)
            match = _NAME.fullmatch(stem) if suffix in (OPEN, SEALED, SUSPECT, NEW) else None
            regular = item.is_file(follow_symlinks=False)
            segment = Segment(gateway.name, match["worker"], match["boot"], int(match["seq"])) if match else None
            yield from _entry(item, segment if regular else None, suffix)


def adopt(directory: Path, segment: Segment, suffix: str = OPEN) -> bool:
    """Returns whether the writer of an open segment is gone; the segment is sealed then.

    Order: a writer holds the lock from before the name is visible until after it has renamed the file itself, so a lock
           that can be had, on a file that still has its name, means that nobody writes.
    """
    path = segment.path(directory, suffix)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not is_same_file(descriptor, path):
            return False
        os.rename(path, segment.path(directory, SEALED))
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def is_same_file(descriptor: int, path: Path) -> bool:
    """Returns whether the path still names the open file."""
    try:
        named = os.stat(path, follow_symlinks=False)
    except OSError:
        return False
    opened = os.fstat(descriptor)
    return (named.st_ino, named.st_dev) == (opened.st_ino, opened.st_dev)


def sync_content(descriptor: int) -> None:
    """Returns when what was written to the file is on the disk; of its attributes only what finds it again.

    On macOS the disk's own cache may still hold it: it outlives the process and the system, not a power cut.

    Raises: OSError.
    """
    if sys.platform == "linux":
        os.fdatasync(descriptor)
    else:
        os.fsync(descriptor)


def sync_directory(path: Path) -> None:
    """Makes renames in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _scan(directory: Path) -> list["os.DirEntry[str]"]:
    try:
        with os.scandir(directory) as items:
            return sorted(items, key=lambda item: item.name)
    except OSError:
        return []


def _entry(item: "os.DirEntry[str]", segment: Segment | None, suffix: str) -> Iterator[LogEntry]:
    try:
        status = item.stat(follow_symlinks=False)
    except OSError:
        return
    size_bytes = status.st_size if stat.S_ISREG(status.st_mode) else 0
    yield LogEntry(Path(item.path), segment, suffix, size_bytes, status.st_mtime)
