"""A small disk in memory, for tests of what happens when it is full."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

_DETACH = 2
_REMOUNT = 32


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """A file system of that size ("256k") at the folder; the test is skipped where this user may mount none."""
    if sys.platform != "linux":
        pytest.skip("mounts as Linux has them")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _mount(folder, size, 0)
    try:
        yield
    finally:
        ctypes.CDLL(None).umount2(os.fsencode(folder), _DETACH)


def remount(folder: Path, size: str, *, read_only: bool = False) -> None:
    """Gives the disk another size, or lets nobody write to it; what is on it stays."""
    _mount(folder, size, _REMOUNT | read_only)


def fill(folder: Path) -> None:
    """Leaves no room on the disk."""
    descriptor = os.open(folder / "ballast", os.O_CREAT | os.O_WRONLY, 0o600)
    try:
        with suppress(OSError):
            while True:
                os.write(descriptor, bytes(4096))
    finally:
        os.close(descriptor)


def _mount(folder: Path, size: str, flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", flags, f"size={size},mode=700".encode()):
        pytest.skip(f"cannot mount a tmpfs: {os.strerror(ctypes.get_errno())}")
