"""The share of the CPU of a session of processes, as Linux gives it (sched(7), "The autogroup feature").

Where nobody puts processes into control groups, Linux shares the CPU among their sessions first, and among the
processes of one then. A process that leads a session of its own therefore competes with the workers as an equal,
whatever its niceness, and even in the idle class: those say nothing to processes of other sessions.
"""

import os
from pathlib import Path
from time import sleep
from typing import Final

AUTOGROUP: Final = Path("/proc/self/autogroup")
_TURNS: Final = 20
_PAUSE_S: Final = 0.05  # the kernel lets one process of the host change its session's share in 0.1 s


def lower_autogroup(niceness: int) -> bool:
    """Has other sessions go before this one, as that niceness does within one; returns whether the system does so.

    The session is left as it is where this process does not lead it: others are in it. It blocks, seldom for 0.1 s.
    """
    if os.getsid(0) != os.getpid():
        return False
    for _ in range(_TURNS):
        try:
            AUTOGROUP.write_text(str(niceness))
        except BlockingIOError:
            sleep(_PAUSE_S)
        except OSError:  # another system, or one without it
            return False
        else:
            return True
    return False
