"""Which workers of the host have died and not been examined, known to every sibling before any client can know it.

A worker holds a robust mutex in shared memory for as long as it lives. When it dies of whatever cause, the kernel marks
the mutex while it takes the process down, before it closes the first connection. So a request that a client repeats
because its connection was reset finds the mark, however long the supervisor takes to examine the death.

    offset 0                          the number of the supervisor's document (`run_quarantine`)
    LIVES_OFFSET                      a mutex for each worker that there may be, LIFE_BYTES each
    LIVES_OFFSET + lives * LIFE_BYTES its boot id, LIFE_BYTES each

Source: pthread_mutexattr_setrobust(3), set_robust_list(2); Linux's do_exit() ends robust futexes in exit_mm(), before
exit_files().
"""

import ctypes
import errno
import mmap
import os
import sys
from pathlib import Path
from threading import get_native_id
from typing import Final

LIVES_OFFSET: Final = 64
LIFE_BYTES: Final = 48  # a mutex has 40 bytes, or 48; few bytes are soon compared
_OWNER_DIED: Final = 0x4000_0000  # the kernel's mark in the word of a futex
_OWNER: Final = 0x3FFF_FFFF
_PROCESS_SHARED: Final = 1
_ROBUST: Final = 1
_ATTRIBUTES_BYTES: Final = 64


class WorkerLives:
    """The shared memory, as the supervisor or a worker sees it.

    Where the system has no robust mutexes that can be read so (not Linux), `claim` says so and nobody is ever told to
    be dead.
    """

    def __init__(self, path: Path) -> None:
        """Raises: OSError."""
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            size = os.fstat(descriptor).st_size
            if not size:
                raise OSError(errno.ENODATA, "empty: the disk was full", os.fspath(path))
            self.memory = mmap.mmap(descriptor, size)
        finally:
            os.close(descriptor)
        self._lives = max(0, size - LIVES_OFFSET) // (2 * LIFE_BYTES) if sys.platform == "linux" else 0
        self._library = ctypes.CDLL(None)

    @classmethod
    def make(cls, path: Path, lives: int) -> "WorkerLives":
        """Makes the file, for so many workers at once. Raises: OSError; no file is left then."""
        path.unlink(missing_ok=True)  # who has mapped an older one keeps it
        try:
            path.write_bytes(bytes(LIVES_OFFSET + lives * 2 * LIFE_BYTES))
        except OSError:
            path.unlink(missing_ok=True)
            raise
        path.chmod(0o600)
        made = cls(path)
        for life in range(made._lives):
            made._renew(life)
        return made

    @property
    def watched(self) -> slice:
        """The part of the memory that changes when a worker dies, or the supervisor's document does."""
        return slice(0, LIVES_OFFSET + self._lives * LIFE_BYTES)

    def claim(self, boot: str) -> bool:
        """Shows from now on that the worker of this boot lives, as long as this thread does; returns whether it can."""
        name = boot.encode()
        if len(name) > LIFE_BYTES:
            return False
        for life in range(self._lives):
            if self._word(life) or self._library.pthread_mutex_trylock(self._mutex(life)):
                continue
            if self._word(life) & _OWNER != get_native_id():  # another C library, whose mutexes look otherwise
                self._library.pthread_mutex_unlock(self._mutex(life))
                return False
            start = self._name_offset(life)
            self.memory[start : start + LIFE_BYTES] = name.ljust(LIFE_BYTES, b"\0")
            return True
        return False

    def dead(self) -> list[str]:
        """Returns the boot ids of those that have died and were not buried."""
        return [self._boot(life) for life in range(self._lives) if self._word(life) & _OWNER_DIED]

    def bury(self, boot: str) -> None:
        """Forgets a dead worker. Order: only the supervisor does, when everybody can read what it died of."""
        for life in range(self._lives):
            if self._word(life) & _OWNER_DIED and self._boot(life) == boot:
                self._renew(life)

    def _renew(self, life: int) -> None:
        library = self._library
        start = LIVES_OFFSET + life * LIFE_BYTES
        self.memory[start : start + LIFE_BYTES] = bytes(LIFE_BYTES)
        attributes = ctypes.create_string_buffer(_ATTRIBUTES_BYTES)
        if (
            library.pthread_mutexattr_init(attributes)
            or library.pthread_mutexattr_setpshared(attributes, _PROCESS_SHARED)
            or library.pthread_mutexattr_setrobust(attributes, _ROBUST)
            or library.pthread_mutex_init(self._mutex(life), attributes)
        ):
            self._lives = 0

    def _mutex(self, life: int) -> ctypes.c_void_p:
        buffer = ctypes.c_char.from_buffer(self.memory, LIVES_OFFSET + life * LIFE_BYTES)
        return ctypes.c_void_p(ctypes.addressof(buffer))

    def _word(self, life: int) -> int:
        start = LIVES_OFFSET + life * LIFE_BYTES
        return int.from_bytes(self.memory[start : start + 4], "little")

    def _name_offset(self, life: int) -> int:
        return LIVES_OFFSET + (self._lives + life) * LIFE_BYTES

    def _boot(self, life: int) -> str:
        start = self._name_offset(life)
        return self.memory[start : start + LIFE_BYTES].rstrip(b"\0").decode("ascii", "replace")
