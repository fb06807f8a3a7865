"""What a connection takes that has had a call and now does nothing."""

import resource
import socket
import struct
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from loadtests.bench.body import METHOD
from loadtests.bench.processes import usage
from loadtests.bench.servers import Server, ServerFailed

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _SETTINGS, _GOAWAY = 0x0, 0x1, 0x4, 0x7
_END_STREAM, _END_HEADERS, _ACK = 0x1, 0x4, 0x1
_LARGEST_FRAME: Final = 16384  # what may be sent before the server has said more
_PATIENCE_S: Final = 10.0
_HOLD_S: Final = 1.0
# What the first connections make a server load or allocate once is not theirs alone.
_FIRST: Final = 32
_SPARE_FILES: Final = 100


@dataclass(frozen=True, slots=True)
class IdleCost:
    """What connections took. Units: KiB of the server's resident memory for each, the kernel's buffers not counted."""

    system: str
    connections: int
    kib_each: float
    rss_before_mib: float
    rss_after_mib: float
    seconds: float


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def header_block(authority: str) -> bytes:
    """The request's headers as literals that no table keeps (RFC 7541, 6.2.2), so no state is to be followed."""
    headers = (
        (":method", "POST"), (":scheme", "http"), (":path", METHOD), (":authority", authority),
        ("te", "trailers"), ("content-type", "application/grpc"),
    )  # fmt: skip
    return b"".join(
        b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode() for name, value in headers
    )


class Connection:
    """An HTTP/2 connection on which one call has been answered."""

    def __init__(self, host: str, port: int, message: bytes) -> None:
        """Sends the framed message. Raises: OSError; ServerFailed if what comes back is no answer."""
        self._socket = socket.create_connection((host, port), _PATIENCE_S)
        self._received = b""
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._call(f"{host}:{port}", message)
        except BaseException:
            self._socket.close()
            raise

    def close(self) -> None:
        self._socket.close()

    def open(self) -> bool:
        """Whether the server has neither closed nor announced to close; pings and windows are no such thing."""
        self._socket.setblocking(False)
        try:
            while data := self._socket.recv(65536):
                self._received += data
        except BlockingIOError:
            return not any(kind == _GOAWAY for kind, _ in self._frames())
        except OSError:
            return False
        return False

    def _call(self, authority: str, message: bytes) -> None:
        self._socket.sendall(
            _PREFACE
            + frame(_SETTINGS, 0, 0)
            + frame(_HEADERS, _END_HEADERS, 1, header_block(authority))
            + frame(_DATA, _END_STREAM, 1, message)
        )
        answered = ended = False
        while not ended:
            data = self._socket.recv(65536)
            if not data:
                raise ServerFailed(f"{authority} closed a new connection")
            self._received += data
            for kind, flags in self._frames():
                if kind == _SETTINGS and not flags & _ACK:
                    self._socket.sendall(frame(_SETTINGS, _ACK, 0))
                answered = answered or kind == _DATA
                ended = ended or (kind in (_HEADERS, _DATA) and bool(flags & _END_STREAM))
        if not answered:
            raise ServerFailed(f"{authority} refused the call of a new connection")

    def _frames(self) -> list[tuple[int, int]]:
        """Kind and flags of each frame that is complete; the rest waits."""
        result = []
        while len(self._received) >= 9:
            length = int.from_bytes(self._received[:3])
            if len(self._received) < 9 + length:
                break
            result.append((self._received[3], self._received[4]))
            self._received = self._received[9 + length :]
        return result


def hold(server: Server, count: int, body: Path, *, advanced: Callable[[int], None]) -> IdleCost:
    """What so many connections take, held at the same time after one call each: a small framed message, in `body`.

    `advanced` is told how many are open.

    Raises: ServerFailed if one is refused or does not stay open.
    """
    allow_files(count)
    host, _, port = server.address.rpartition(":")
    message = body.read_bytes()
    if len(message) > _LARGEST_FRAME:
        raise ServerFailed(f"{body} has {len(message)} bytes, idle connections are made with at most {_LARGEST_FRAME}")
    begin = time.monotonic()
    with ExitStack() as stack:

        def opened() -> Connection:
            connection = Connection(host, int(port), message)
            stack.callback(connection.close)
            return connection

        held: list[Connection] = []
        try:
            for _ in range(_FIRST):
                opened()
            before = usage(server.pid).total_rss_mib
            for number in range(count):
                held.append(opened())
                advanced(number + 1)
        except OSError as error:
            raise ServerFailed(f"{server.label}: connection {len(held) + 1} of {count}: {error}") from None
        time.sleep(_HOLD_S)
        after = usage(server.pid).total_rss_mib
        closed = sum(not connection.open() for connection in held)
        if closed:
            raise ServerFailed(f"{server.label}: {closed} of {count} connections did not stay open")
        opened()  # and it still answers
    return IdleCost(server.label, count, (after - before) * 1024 / count, before, after, time.monotonic() - begin)


def allow_files(count: int) -> None:
    """This process may have so many connections. Raises: ServerFailed naming the limit."""
    wanted = count + _FIRST + _SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        if hard != resource.RLIM_INFINITY and hard < wanted:
            raise ServerFailed(f"{count} connections need {wanted} open files, this user may have {hard} (ulimit -Hn)")
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
