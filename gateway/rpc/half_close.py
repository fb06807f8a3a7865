"""How a connection ends without cutting what is on its way to the peer."""

import asyncio


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
