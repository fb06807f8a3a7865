"""The time slice of a thread, by which the kernel decides whether who wakes has to wait for it (Linux 6.12 and later).

A thread that is awakened goes before one whose slices are longer, if it had less than its share so far; else it waits
until the slice of that one is over, 3 ms and more. Longer slices give a thread neither more of the CPU nor less.
"""

import ctypes
import os
import struct
import sys
from contextlib import suppress
from threading import get_native_id
from typing import Final

SLICE_NS: Final = 20_000_000
_SET: Final = {"x86_64": 314, "aarch64": 274}  # the number of sched_setattr(2)
_ATTRIBUTES: Final = "IIQiIQQQII"  # size, policy, flags, niceness, and of the others the first: the slice
_SIZE: Final = struct.calcsize(_ATTRIBUTES)
_RESET_ON_FORK: Final = 1


def ask_long_slices() -> None:
    """Has threads that wake go before this one, which computes for long; those that it starts are as others.

    Nothing happens where a kernel, a sandbox, or a priority that somebody has chosen for the process is against it.
    """
    number = _SET.get(os.uname().machine) if sys.platform == "linux" else None
    if number is None:
        return
    with suppress(OSError, AttributeError):
        thread = get_native_id()
        niceness = os.getpriority(os.PRIO_PROCESS, thread)
        if os.sched_getscheduler(thread) != os.SCHED_OTHER or niceness < 0:  # what it starts would not inherit that
            return
        values = (_SIZE, os.SCHED_OTHER, _RESET_ON_FORK, niceness, 0, SLICE_NS, 0, 0, 0, 0)
        attributes = ctypes.create_string_buffer(struct.pack(_ATTRIBUTES, *values), _SIZE)
        ctypes.CDLL(None).syscall(number, 0, attributes, 0)
