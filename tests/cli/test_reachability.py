"""What is said of a server that cannot be reached, by everything that can be in the way."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from time import monotonic

import pytest
from typer.testing import CliRunner

from gateway.cli.app import app
from gateway.rpc.grpcio import GrpcioServer
from gateway.rpc.ngh2_server import Ngh2Server
from gateway.rpc.server import Server, ServerOptions
from gateway.rpc.server_certificate import TlsFiles
from tests.machine_load import as_loaded

FILES = Path(__file__).parents[1] / "rpc" / "certificates"
CA = ("--tls-ca", str(FILES / "ca.pem"))
CLIENT = ("--tls-cert", str(FILES / "client.pem"), "--tls-key", str(FILES / "client.key"))
PLAIN = None
OPEN = TlsFiles(FILES / "server.pem", FILES / "server.key")
CLOSED = TlsFiles(FILES / "server.pem", FILES / "server.key", FILES / "ca.pem")
STRANGER = TlsFiles(FILES / "stranger.pem", FILES / "stranger.key")


def asked(address: str, *words: str, limit_s: float = 2.0) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["models", "--server", address, "--connect-timeout", str(limit_s), *words])
    return result.exit_code, result.stderr


@asynccontextmanager
async def gateway(transport: str, tls: TlsFiles | None) -> AsyncIterator[str]:
    options = ServerOptions(reuse_port=False, tls=tls)
    server: Server = Ngh2Server(options) if transport == "ngh2" else GrpcioServer(options)
    await server.start()
    try:
        yield f"127.0.0.1:{server.port}"
    finally:
        await server.stop(0.0)


@contextmanager
def free_port() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    yield address


@contextmanager
def silent() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


class Web(BaseHTTPRequestHandler):
    default_request_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Keeps still."""


@contextmanager
def web() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Web)
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("there", "words", "says"),
    [
        (free_port, (), "connection refused: nothing listens on port"),
        (free_port, CA, "connection refused: nothing listens on port"),
        (silent, (), "not gRPC: it accepts connections and says nothing"),
        (silent, CA, "TLS: no handshake within 1 s"),
        (web, (), "not gRPC: it answers with HTTP/1"),
        (web, CA, "TLS: it does not speak TLS; leave the --tls options out"),
    ],
)
def test_what_is_no_gateway(there: "type[AbstractContextManager[str]]", words: tuple[str, ...], says: str) -> None:
    with there() as address:
        code, text = asked(address, *words)
    assert (code, says in text) == (3, True), text
    assert f"no gateway answers at {address}: " in text


@pytest.mark.parametrize("name", ["no-such-host.invalid", "x" * 70])
def test_a_host_that_nobody_knows(name: str) -> None:
    code, text = asked(f"{name}:8001")
    assert (code, f"unknown host: '{name}'" in text) == (3, True), text


@pytest.mark.parametrize("transport", ["ngh2", "grpcio"])
@pytest.mark.parametrize(
    ("tls", "words", "says"),
    [
        (PLAIN, CA, "TLS: it does not speak TLS"),
        (OPEN, (), "TLS: it speaks TLS; name the authorities that signed its certificate with --tls-ca"),
        (CLOSED, (), "TLS: it speaks TLS"),
        (CLOSED, CA, "a certificate of yours"),
        (STRANGER, CA, "TLS: its certificate is not accepted: "),
        (OPEN, (*CA, "--tls-name", "elsewhere.example"), "TLS: its certificate is not accepted: "),
    ],
    ids=["plain", "by TLS", "by TLS both ways", "no certificate shown", "unknown authority", "another name"],
)
async def test_what_is_a_gateway_behind_other_settings(
    transport: str, tls: TlsFiles | None, words: tuple[str, ...], says: str
) -> None:
    async with gateway(transport, tls) as address:
        code, text = await asyncio.to_thread(asked, address, *words)
    assert (code, says in text) == (3, True), text


def test_what_lasts_is_said_at_once() -> None:
    with free_port() as address:
        before = monotonic()
        asked(address, limit_s=30.0)
        assert monotonic() - before < as_loaded(5)
