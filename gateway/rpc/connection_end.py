"""How a connection ends without cutting what is on its way, in either direction."""

import array
import asyncio
import fcntl
import termios
from typing import Protocol


class WithDescriptor(Protocol):
    """A socket, or what an event loop shows of one."""

    def fileno(self) -> int: ...


def half_close(transport: asyncio.Transport) -> None:
    """Ends this side once everything is written; the peer ends its own, and what it sends until then is still read.

    A socket that is closed at once answers what comes by a reset, which takes what the peer has not read yet. A TLS
    transport has no half and is closed: uvloop's reads on until the peer ends.
    """
    try:
        if transport.can_write_eof() and not transport.is_closing():
            transport.write_eof()
            return
    except OSError:
        pass  # the peer has gone
    transport.close()


def unread_bytes(one: WithDescriptor | None) -> int:
    """Returns how much has come on a socket and waits to be read; 0 where there is no socket."""
    count = array.array("i", [0])
    try:
        if one is not None:
            fcntl.ioctl(one.fileno(), termios.FIONREAD, count)
    except OSError:
        return 0  # closed by now
    return count[0]
