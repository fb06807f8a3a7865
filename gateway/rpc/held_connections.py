"""The connections of a port that is about to close, from which nothing more is read.

A call that reaches grpcio's server while it stops is ended with CANCELLED before any handler sees it, and so are those
that a client sends until it has read the GOAWAY (https://github.com/grpc/grpc/issues/41785). So before the stop the
kernel drops what clients send on, which it does not acknowledge. What the server has read it finishes; its last GOAWAY
then names the last call that it has seen, and a client repeats the later ones elsewhere, by itself.

A call may be cut in the middle: the rest of its message is dropped, or what its client says about the room for its
answer. Its connection is let through until none of its calls waits for anything.

Linux only, without any privilege (a classic BPF filter); elsewhere nothing is held.
"""

import ctypes
import logging
import os
import socket
import struct
import sys
from collections.abc import Iterable, Set
from contextlib import suppress
from typing import Final
from urllib.parse import unquote

from gateway.rpc.connection_end import unread_bytes
from gateway.rpc.peer_identity import peer_name

_SO_ATTACH_FILTER: Final = 26
_SO_DETACH_FILTER: Final = 27
# A client's kernel repeats what was held for a second within this time, if the way to it is not very long.
REPEATED_S: Final = 0.5
_ESTABLISHED: Final = 1  # the first byte of TCP_INFO
_LINGER_S: Final = 90  # Linux keeps the filter of a half-closed socket while more than its TIME_WAIT, 60 s, is left
# struct sock_filter: code, jump if true, jump if false, operand. The input begins with the TCP header.
_NO_PAYLOAD: Final = (
    (0x30, 0, 0, 12),  # load the byte whose upper half is the length of the header in words
    (0x74, 0, 0, 2),  # as bytes,
    (0x54, 0, 0, 0x3C),  # without the lower half
    (0x07, 0, 0, 0),  # keep it
    (0x80, 0, 0, 0),  # load the length of all
    (0x1D, 0, 1, 0),  # nothing but the header?
    (0x06, 0, 0, 0xFFFFFFFF),  # let it pass
    (0x06, 0, 0, 0),  # drop it
)
_log = logging.getLogger(__name__)


class HeldConnections:
    """Holds the connections that this process has accepted on a port, until `release`; what came before is read.

    Order: nobody connects to the port any more, or is missed.
    """

    def __init__(self, port: int) -> None:
        self._sockets: dict[str, socket.socket] = {}  # by peer, as grpcio names it
        self._let_through: set[str] = set()
        for one in connections_of(port):
            if (peer := _peer(one)) not in self._sockets and _held(one):
                self._sockets[peer] = one
            else:
                one.close()  # it cannot be held, or was listed under two descriptors
        self.any = bool(self._sockets)

    def let_through(self, peers: Set[str]) -> None:
        """Holds the connections of all peers but these."""
        wanted = {peer for peer in map(unquote, peers) if peer in self._sockets}
        for peer in self._let_through - wanted:
            _held(self._sockets[peer])
        for peer in wanted - self._let_through:
            _pass(self._sockets[peer])
        self._let_through = wanted

    def hold(self, peer: str) -> None:
        """Holds the connection of one peer again."""
        if (peer := unquote(peer)) in self._let_through:
            self._let_through.remove(peer)
            _held(self._sockets[peer])

    def unread(self) -> bool:
        """Returns whether something that came before is still to be read."""
        return any(map(unread_bytes, self._sockets.values()))

    def release(self) -> None:
        """Lets the kernel take what comes, which clients repeat until then.

        Connections that are closed on this side are left to the kernel, which goes on dropping what comes. It would
        answer by a reset, which takes from a slow client what it has not read yet.
        """
        if sys.platform != "linux":
            return  # it holds none
        sockets, self._sockets = self._sockets, {}
        for one in sockets.values():
            with one:
                try:
                    if one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _ESTABLISHED:
                        _pass(one)
                    else:
                        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_LINGER2, _LINGER_S)
                except OSError:
                    pass  # closed on both sides


def _held(one: socket.socket) -> bool:
    """Lets a connection take nothing more, and returns whether the kernel does so."""
    try:
        attach_filter(one, _NO_PAYLOAD)
    except OSError as error:
        _log.info("a connection is not held before the stop: %s", error.strerror)
        return False
    return True


def _pass(one: socket.socket) -> None:
    with suppress(OSError):  # it has no filter: it was let through, or could not be held
        one.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)


def _peer(one: socket.socket) -> str:
    """Returns the peer of a connection as grpcio names it: an IPv4 address that an IPv6 socket shows is one."""
    try:
        host, port, *_ = one.getpeername()
    except OSError:
        return f"closed:{one.fileno()}"
    return peer_name((host.removeprefix("::ffff:") if "." in host else host, port))


def connections_of(port: int) -> Iterable[socket.socket]:
    """Yields the TCP connections of this process with that local port, each under a descriptor of its own."""
    names = os.listdir("/proc/self/fd") if sys.platform == "linux" else []
    for one in filter(None, map(duplicate, map(int, names))):
        try:
            if one.family in (socket.AF_INET, socket.AF_INET6) and one.getsockname()[1] == port and one.getpeername():
                yield one
                continue
        except OSError:
            pass  # not connected
        one.close()


def duplicate(descriptor: int) -> socket.socket | None:
    """Returns the socket under a descriptor of its own; None if it is no socket, or is closed by now."""
    try:
        copied = os.dup(descriptor)
    except OSError:
        return None
    try:
        return socket.socket(fileno=copied)
    except OSError:
        os.close(copied)
        return None


def attach_filter(one: socket.socket, steps: Iterable[tuple[int, int, int, int]]) -> None:
    """Lets a program decide which packets the socket takes. Raises: OSError."""
    packed = [struct.pack("=HBBI", *step) for step in steps]
    program = ctypes.create_string_buffer(b"".join(packed))
    one.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", len(packed), ctypes.addressof(program)))
