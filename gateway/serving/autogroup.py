"""The share of the CPU of a session of processes, as Linux gives it (sched(7), "The autogroup feature").

Where nobody puts processes into control groups, Linux shares the CPU among their sessions first, and among the
processes of one then. A process that leads a session of its own therefore competes with the workers as an equal,
whatever its niceness, and even in the idle class: those say nothing to processes of other sessions.

A session's share is split over the CPUs that it uses: beside a session that is busy on two CPUs, one with a single
thread gets more of its CPU than its niceness says, at 5 it was 40 % where niceness within a session gives 25.
Whatever has a limit of wall-clock time keeps its share: a busy host would call it too slow.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from time import sleep
from typing import Final

AUTOGROUP: Final = Path("/proc/self/autogroup")
_PATIENCE_S: Final = 5.0
_PAUSES_S: Final = (0.05, 0.25)  # around the 0.1 s in which the kernel lets one process of the whole host in


def lower_autogroup(niceness: int) -> bool:
    """Has other sessions go before this one, about as that niceness does within one; blocks for up to 5 s.

    Where this process does not lead its session that is left as it is: others are in it. Returns whether nobody has to
    share with it as with an equal: True, too, where the system knows no shares of sessions.
    """
    if os.getsid(0) != os.getpid():
        return False
    try:
        return in_turn(lambda: AUTOGROUP.write_text(str(niceness)), Random(), sleep)
    except FileNotFoundError:
        return True
    except OSError:
        return False


def in_turn(write: Callable[[], object], random: Random, pause: Callable[[float], None]) -> bool:
    """Returns whether `write` succeeded before patience ended, BlockingIOError being the answer of a shut gate.

    Who is not root passes the kernel's gate one at a time on the whole host: the pauses are of random length, or those
    who start together would meet there again.

    Raises: OSError.
    """
    for length_s in pauses(random):
        try:
            write()
        except BlockingIOError:
            pause(length_s)
        else:
            return True
    return False


def pauses(random: Random) -> Iterator[float]:
    """Yields the lengths of the pauses between tries, in seconds."""
    left_s = _PATIENCE_S
    while left_s > 0:
        length_s = random.uniform(*_PAUSES_S)
        left_s -= length_s
        yield length_s
