"""grpcio is told of a certificate once: it frees the last one while its other threads use it."""

import os
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import trustme

from gateway.rpc.server_certificate import ServerCertificate
from gateway.rpc.shown_certificate import ShownCertificate
from tests.rpc.test_server_certificate import issued, place

ROOT = Path(__file__).parents[2]
SERVER = """
import asyncio, sys
from pathlib import Path

from gateway.rpc.server import ServerOptions
from gateway.rpc.server_certificate import TlsFiles
from tests.rpc.serving import make


async def serve():
    files = TlsFiles(*map(Path, sys.argv[1:]))
    server = make("grpcio", ServerOptions(reuse_port=False, tls=files, tls_look_s=0.01))
    await server.start()
    print(server.port, flush=True)
    await asyncio.to_thread(sys.stdin.read)


asyncio.run(serve())
"""
BURSTS, AT_ONCE = 400, 16


def test_a_certificate_is_given_once(tmp_path: Path) -> None:
    authority, at = trustme.CA(), place(tmp_path)
    at.write(issued(authority))
    certificate = ServerCertificate(at.files)
    shown = ShownCertificate(certificate)
    assert shown.first is not None
    assert shown() is None
    at.write(issued(authority))
    assert shown() is None
    assert certificate.look()
    assert shown() is not None
    assert shown() is None


def burst(port: int, count: int) -> None:
    """Connects so many times at once, and waits until each is turned away."""
    connections = [socket.create_connection(("127.0.0.1", port), timeout=30) for _ in range(count)]
    for connection in connections:
        with connection, suppress(ConnectionError):
            connection.sendall(b"no TLS at all")
            connection.recv(100)


@pytest.mark.long
def test_many_handshakes_at_once_end_no_process_also_while_the_certificate_changes(tmp_path: Path) -> None:
    authority, at = trustme.CA(), place(tmp_path)
    at.write(issued(authority))
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, at.files.certificate, at.files.key],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        for number in range(BURSTS):
            if number % 40 == 39:
                at.write(issued(authority))
            burst(port, AT_ONCE)
            assert server.poll() is None
    finally:
        server.kill()
        server.communicate()
