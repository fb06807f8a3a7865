"""A killed process stops listening before its connections end: the kernel closes high descriptors first."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Iterator

import pytest

from gateway.rpc.listening_descriptor import low_descriptors_taken, raised
from tests.rpc.serving import TRANSPORTS, serving

CONNECTIONS = 8


def served_descriptors(port: int) -> Iterator[tuple[int, bool]]:
    """Each descriptor of this process that is a socket at the port, and whether it listens."""
    for name in os.listdir("/proc/self/fd"):
        try:
            one = socket.socket(fileno=os.dup(int(name)))
        except OSError:
            continue
        with one:
            if one.family != socket.AF_UNIX and one.getsockname()[1] == port:
                yield int(name), bool(one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and other kernels close in another order")
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_server_listens_above_its_connections(transport: str) -> None:
    async with serving(transport) as served:
        clients = [await asyncio.open_connection("127.0.0.1", served.server.port) for _ in range(CONNECTIONS)]
        for reader, _ in clients:
            await reader.readexactly(9)  # the head of the server's settings: the connection is accepted
        descriptors = list(served_descriptors(served.server.port))
        listening = [number for number, listens in descriptors if listens]
        accepted = [number for number, listens in descriptors if not listens]
        assert listening
        assert len(accepted) >= CONNECTIONS
        assert min(listening) > max(accepted)
        for _, writer in clients:
            writer.close()


@pytest.mark.skipif(sys.platform != "linux", reason="other kernels close in another order")
def test_nobody_connects_to_a_killed_process_again() -> None:
    for _ in range(20):
        assert not connects_again()


def connects_again() -> bool:
    """Whether a client of a killed process, told of the end of its connection, reaches the same process once more."""
    with raised(socket.create_server(("127.0.0.1", 0))) as listening:
        address = listening.getsockname()
        accepted, told = os.pipe()
        child = os.fork()
        if not child:
            connections = [listening.accept() for _ in range(CONNECTIONS)]
            os.write(told, b"%d" % len(connections))
            signal.pause()
            os._exit(0)
    clients = [socket.create_connection(address, 10) for _ in range(CONNECTIONS)]
    try:
        os.read(accepted, 1)
        os.kill(child, signal.SIGKILL)
        try:
            clients[-1].recv(1)
        except ConnectionResetError:
            pass
        try:
            socket.create_connection(address, 10).close()
        except ConnectionRefusedError:
            return False
        return True
    finally:
        os.waitpid(child, 0)
        for one in clients:
            one.close()
        os.close(accepted)
        os.close(told)


def test_what_others_open_is_raised_and_nothing_stays_open() -> None:
    before = set(os.listdir("/proc/self/fd")) if sys.platform == "linux" else set()
    with low_descriptors_taken():
        one = socket.socket()
    with socket.socket() as other:
        assert one.fileno() > other.fileno()
    one.close()
    if before:
        assert set(os.listdir("/proc/self/fd")) <= before  # what tests before this one left may end meanwhile
