"""Time slices: of a thread that asks for long ones, and of none that it starts."""

import ctypes
import errno
import os
import platform
import struct
import sys
from threading import Thread, get_native_id

import pytest

from gateway.serving.time_slice import SLICE_NS, ask_long_slices

_SET = {"x86_64": 314, "aarch64": 274}  # sched_setattr(2)
_GET = {"x86_64": 315, "aarch64": 275}  # sched_getattr(2)
_FORMAT = "IIQiIQQQII"
_SINCE = (6, 12)


def _is_free_to_ask() -> bool:
    """Whether nothing is against it: a sandbox, or a priority that somebody has chosen for these tests.

    The call is refused for its size, where it reaches the kernel: E2BIG.
    """
    thread, number = get_native_id(), _SET.get(os.uname().machine)
    if number is None or os.sched_getscheduler(thread) != os.SCHED_OTHER or os.getpriority(os.PRIO_PROCESS, thread) < 0:
        return False
    attributes = ctypes.create_string_buffer(struct.pack("I", 1), struct.calcsize(_FORMAT))
    library = ctypes.CDLL(None, use_errno=True)
    return library.syscall(number, 0, attributes, 0) == -1 and ctypes.get_errno() == errno.E2BIG


def _slice_ns() -> int:
    attributes = ctypes.create_string_buffer(struct.calcsize(_FORMAT))
    assert ctypes.CDLL(None).syscall(_GET[os.uname().machine], 0, attributes, len(attributes), 0) == 0
    return int(struct.unpack(_FORMAT, attributes.raw)[5])


def _release() -> tuple[int, ...]:
    return tuple(int(part) for part in platform.release().split(".")[:2] if part.isdigit())


@pytest.mark.skipif(sys.platform != "linux" or _release() < _SINCE, reason="slices of threads are Linux 6.12's")
def test_a_thread_asks_for_itself_alone() -> None:
    if not _is_free_to_ask():
        pytest.skip("a sandbox or the priority of the tests is against it")
    said: dict[str, tuple[int, int]] = {}

    def tell(who: str) -> None:
        said[who] = (_slice_ns(), os.getpriority(os.PRIO_PROCESS, get_native_id()))

    def ask() -> None:
        ask_long_slices()
        tell("asked")
        started = Thread(target=tell, args=("started",))
        started.start()
        started.join()

    asking = Thread(target=ask)
    asking.start()
    asking.join()
    tell("beside")
    assert said["asked"][0] == SLICE_NS
    assert said["started"][0] == said["beside"][0] < SLICE_NS
    assert len({niceness for _, niceness in said.values()}) == 1
