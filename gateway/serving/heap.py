"""The heap of glibc's malloc: one for all threads, what a load frees in it is used again, and goes back to the system.

A load of a prepared model has each layer's weights packed into a buffer that it drops again. malloc maps a buffer of
more than 32 MiB and unmaps it when it is freed, so that every page of every buffer is a fault: as many as the model has
pages, which took half of the time. Without mappings of its own a buffer lies where the one before it lay.

1. Threads have arenas of their own, whose heaps of 64 MiB are unmapped when they are empty: a worker has the main
   arena alone.
2. Setting a threshold ends for good that malloc moves it by what is freed; a worker sets those at which that ends.
3. What is cut off a buffer's end may be kept for its thread, seven such pieces at most: the buffer then does not join
   what is free above it, and the next one lies beside it. A load may hold that many buffers for a moment.

With another C library nothing of this happens.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from mmap import MADV_DONTNEED, PAGESIZE
from threading import Lock
from typing import Final

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_MMAP_MAX: Final = -4
_M_ARENA_MAX: Final = -8
_NO_TRIM: Final = -1
_MMAPS: Final = 65536  # what malloc has when nobody sets it
_MMAP_BYTES: Final = 32 << 20  # to which it raises the threshold itself, once a buffer of that size was freed
_TRIM_BYTES: Final = 2 * _MMAP_BYTES
_BLOCK_BYTES: Final = 4 << 20


class _Mallinfo(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks"),
            "fordblks",  # how many bytes of the heap are free
            "keepcost",
        )
    ]


_LIBC: Final = ctypes.CDLL(None)
_mallopt: Final = getattr(_LIBC, "mallopt", None)
_malloc_trim: Final = getattr(_LIBC, "malloc_trim", None)
_mallinfo: Final = getattr(_LIBC, "mallinfo2", None)  # of glibc 2.33
if _mallinfo is not None:
    _mallinfo.restype = _Mallinfo
_LIBC.malloc.restype = ctypes.c_void_p
_LIBC.malloc.argtypes = [ctypes.c_size_t]
_LIBC.free.argtypes = [ctypes.c_void_p]
_LIBC.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]

_lock = Lock()
_loads = 0  # that use buffers again


def limit_arenas(most: int) -> None:
    """Has malloc keep that many arenas, each of which reserves 64 MiB. Order: before the process has threads."""
    _set(_M_ARENA_MAX, most)


def settle_heap() -> None:
    """Has all threads allocate from one heap, whose rules stay as they are. Order: before the process has threads."""
    limit_arenas(1)
    _restore()


@contextmanager
def reused_buffers() -> Iterator[None]:
    """Has large buffers that are freed within the block used again; they go back to the system after it.

    Order: where such blocks overlap, after the last of them. In a process with several arenas it has its effect on the
           main thread alone.
    """
    global _loads
    with _lock:
        _loads += 1
        if _loads == 1:
            _set(_M_TRIM_THRESHOLD, _NO_TRIM)
            _set(_M_MMAP_MAX, 0)
    try:
        yield
    finally:
        with _lock:
            _loads -= 1
            if _loads == 0:
                _restore()
                give_back_memory()


def give_back_memory() -> None:
    """Returns to the system what was freed. It blocks, but nobody else who allocates.

    `malloc_trim` holds the heap's lock until the last page is gone: tens of milliseconds for what a load has freed. So
    the free memory is taken first, block by block, and its pages go while nobody is kept out.
    """
    if _malloc_trim is None:
        return
    blocks = []
    for _ in range(_mallinfo().fordblks // _BLOCK_BYTES if _mallinfo is not None else 0):
        block = _LIBC.malloc(_BLOCK_BYTES)
        if block is None:
            break
        blocks.append(block)
        first = -(-block // PAGESIZE) * PAGESIZE
        _LIBC.madvise(first, (block + _BLOCK_BYTES - first) // PAGESIZE * PAGESIZE, MADV_DONTNEED)
    for block in blocks:
        _LIBC.free(block)
    _malloc_trim(0)


def _restore() -> None:
    _set(_M_MMAP_MAX, _MMAPS)
    _set(_M_MMAP_THRESHOLD, _MMAP_BYTES)
    _set(_M_TRIM_THRESHOLD, _TRIM_BYTES)


def _set(parameter: int, value: int) -> None:
    if _mallopt is not None:
        _mallopt(parameter, value)
