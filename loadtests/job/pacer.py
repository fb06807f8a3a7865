"""Waits until a moment, to some ten microseconds on Linux; an event loop's own timers have 1 ms.

A millisecond more in each latency would hide what fast models do.
"""

import asyncio
import ctypes
import os
import sys
from time import monotonic
from typing import Final

_MONOTONIC: Final = 1
_FLAGS: Final = os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0)
_ROUGH_S: Final = 0.05  # beyond it the loop's own timer does, and is corrected by the next wait


class _Interval(ctypes.Structure):
    _fields_ = (
        ("again_s", ctypes.c_long),
        ("again_ns", ctypes.c_long),
        ("first_s", ctypes.c_long),
        ("first_ns", ctypes.c_long),
    )


class Pacer:
    """A timer of the running loop. Order: `close` at the end."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None) if sys.platform == "linux" else None
        self._fd = self._libc.timerfd_create(_MONOTONIC, _FLAGS) if self._libc is not None else -1
        self._waiting: asyncio.Future[None] | None = None
        if self._fd >= 0:
            asyncio.get_running_loop().add_reader(self._fd, self._rings)

    async def until(self, moment_s: float, at_most_s: float = _ROUGH_S) -> None:
        """Returns at that monotonic time, or after `at_most_s`."""
        wait_s = min(moment_s - monotonic(), at_most_s)
        if wait_s <= 0:
            await asyncio.sleep(0)
            return
        if self._fd < 0 or self._libc is None:
            await asyncio.sleep(wait_s)
            return
        interval = _Interval(0, 0, int(wait_s), max(1, int(wait_s % 1 * 1e9)))
        self._waiting = asyncio.get_running_loop().create_future()
        self._libc.timerfd_settime(self._fd, 0, ctypes.byref(interval), None)
        await self._waiting

    def _rings(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:
            return
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def close(self) -> None:
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1
