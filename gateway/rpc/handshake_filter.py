"""New clients of a port that several processes listen on, kept away from the one that is about to stop.

The kernel spreads new connections over all listening sockets of a port, and closing one of them resets whoever has
connected to it and was not accepted yet. So a server that stops first refuses handshakes: a SYN is dropped, which the
client's kernel repeats after a second, when another process gets it. Who had begun before is accepted meanwhile.

Linux only, without any privilege (a classic BPF filter); elsewhere nothing is done.
"""

import asyncio
import logging
import os
import socket
import sys
from collections.abc import Sequence
from typing import Final

from gateway.rpc.held_connections import attach_filter, duplicate

# So long a handshake that had begun may take to its end: a round trip to the other side of the earth.
SETTLE_S: Final = 0.25
# A server that gets no CPU is late to accept those whose handshake has ended: it is waited for, so many times at most.
_LOOK_S: Final = 0.01
_ACCEPT_LOOKS: Final = 200
# Where `struct tcp_info` of Linux has `tcpi_unacked`, of a listening socket the connections that wait for an accept.
_WAITING: Final = slice(24, 28)
_FLAGS_OFFSET: Final = 13  # in the TCP header, with which the filter's input begins
_SYN: Final = 0x02
_SYN_ACK: Final = 0x12
# struct sock_filter: code, jump if true, jump if false, operand.
_PROGRAM: Final = (
    (0x30, 0, 0, _FLAGS_OFFSET),  # load the byte with the flags
    (0x54, 0, 0, _SYN_ACK),  # keep these two
    (0x15, 0, 1, _SYN),  # a SYN without ACK?
    (0x06, 0, 0, 0),  # drop it
    (0x06, 0, 0, 0xFFFFFFFF),  # let it pass
)
_log = logging.getLogger(__name__)


async def turn_away(listening: Sequence[socket.socket]) -> None:
    """Returns once nobody is on the way to these sockets any more, so that closing them loses no connection."""
    if sys.platform != "linux" or not listening:
        return
    try:
        for one in listening:
            attach_filter(one, _PROGRAM)
    except OSError as error:
        _log.info("new connections are not turned away before the stop: %s", error.strerror)
        return
    await asyncio.sleep(SETTLE_S)
    for _ in range(_ACCEPT_LOOKS):
        if not any(map(waiting, listening)):
            return
        await asyncio.sleep(_LOOK_S)


def waiting(listening: socket.socket) -> int:
    """Returns how many connections wait to be accepted; 0 where the system does not tell."""
    if sys.platform != "linux":
        return 0
    told = listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _WAITING.stop)
    return int.from_bytes(told[_WAITING], sys.byteorder)


def listening_descriptors() -> set[int]:
    """Returns the descriptors of this process's listening TCP sockets."""
    names = os.listdir("/proc/self/fd") if sys.platform == "linux" else []
    return {descriptor for descriptor in map(int, names) if _listens(descriptor)}


def _listens(descriptor: int) -> bool:
    if (one := duplicate(descriptor)) is None:
        return False
    with one:
        return (
            one.family in (socket.AF_INET, socket.AF_INET6)
            and one.type == socket.SOCK_STREAM
            and bool(one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
        )
