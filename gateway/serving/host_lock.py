"""Locks that the processes of a host share, held through files: the kernel frees them when a process dies."""

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

_POLL_S: Final = 0.05


@asynccontextmanager
async def awaited_lock(path: Path) -> AsyncIterator[None]:
    """Holds the lock file, alone on this host. It is polled: the kernel tells no event loop when a lock is free.

    Raises: OSError, if the file cannot be made.
    """
    descriptor = _opened(path)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(_POLL_S)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def blocking_lock(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Holds the lock file, alone on this host or with others that share it. It blocks: for threads.

    Raises: OSError, if the file cannot be made.
    """
    descriptor = _opened(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _opened(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
