"""Tells systemd how a service of Type=notify is doing; where nobody asked for it nothing is told.

Source: sd_notify(3): NAME=VALUE lines, a datagram to the socket that NOTIFY_SOCKET names; "@": the abstract namespace.
"""

import logging
import os
import socket
from collections.abc import Mapping
from typing import Final

READY: Final = "READY=1"
STOPPING: Final = "STOPPING=1"
_VARIABLE: Final = "NOTIFY_SOCKET"
_log = logging.getLogger(__name__)


def notify(*lines: str, environ: Mapping[str, str] | None = None) -> bool:
    """Sends the lines; returns whether somebody wanted to hear and was told. Never raises, never waits."""
    address = (os.environ if environ is None else environ).get(_VARIABLE, "")
    if not address:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sending:
        sending.setblocking(False)
        try:
            sending.sendto("\n".join(lines).encode(), "\0" + address[1:] if address[0] == "@" else address)
        except OSError as error:
            _log.warning("%s %r cannot be told: %s", _VARIABLE, address, error.strerror or error)
            return False
    return True
