"""Listening sockets at high descriptors, so that a process that is killed stops listening before its connections end.

Linux closes a dead process's files from the highest descriptor down (task works run last in, first out). Were the
listening socket among the lower ones, a client whose connection has just ended would connect again to the dying
process, be reset, and wait for its back-off: a second in which every call of a client without retries fails.
"""

import fcntl
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

# Connections beyond so many lie above the listening socket. The kernel's table of files has eight bytes for each.
_HIGH: Final = 4096


def raised(one: socket.socket) -> socket.socket:
    """Returns the socket at a high descriptor, with the given one closed; the given one where there is no room."""
    try:
        descriptor = fcntl.fcntl(one.fileno(), fcntl.F_DUPFD_CLOEXEC, _lowest())
    except OSError:
        return one
    high = socket.socket(one.family, one.type, one.proto, fileno=descriptor)
    high.settimeout(one.gettimeout())
    one.close()
    return high


@contextmanager
def low_descriptors_taken() -> Iterator[None]:
    """Lets whatever is opened meanwhile have a high descriptor, for sockets that only other code can open."""
    with ExitStack() as stack:
        try:
            filler = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, filler)
            while (filler := os.dup(filler)) < _lowest():
                stack.callback(os.close, filler)
            os.close(filler)
        except OSError:
            pass  # no room: the order in which sockets end is then as it happens
        yield


def _lowest() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _HIGH if soft == resource.RLIM_INFINITY else min(_HIGH, soft // 2)
