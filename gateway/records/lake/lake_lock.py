"""Readers of the lake and the replacing of its folders: a file that a reader has listed stays where it is.

Readers share a lock that the operating system gives back whatever they die of. Without write permission on the lake, or
before a compactor has run there, they read without it.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NAME = "_readers"


def prepare(lake: Path) -> None:
    """Readers can hold the lake from now on. Raises: OSError."""
    (lake / _NAME).touch(mode=0o644)


def hold(lake: Path) -> int | None:
    """Returns an open descriptor: until it is closed no folder is replaced. None where there is nothing to hold."""
    try:
        descriptor = os.open(lake / _NAME, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    fcntl.flock(descriptor, fcntl.LOCK_SH)  # the other side has it for a few milliseconds only
    return descriptor


@contextmanager
def alone(lake: Path) -> Iterator[bool]:
    """Yields whether nobody reads now; if so, none begins to before this is left. Raises: OSError."""
    descriptor = os.open(lake / _NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)
