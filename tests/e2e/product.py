"""The product as its user has it: the `gateway` command in processes of its own, found by what it prints."""

import json
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from typer.testing import CliRunner, Result

from gateway.cli.app import app
from tests.machine_load import as_loaded

GATEWAY = Path(sys.executable).with_name("gateway")
START_DEADLINE_S = 90.0
STOP_DEADLINE_S = 30.0
_T = TypeVar("_T")
_LAST_LINE = "Ctrl-C stops everything."


def until(condition: Callable[[], _T], seconds: float, what: str) -> _T:
    """The first true answer of `condition`; asked again and again, for nobody tells. Raises: AssertionError."""
    deadline = time.monotonic() + as_loaded(seconds)
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.02)
    return answer


def environment() -> dict[str, str]:
    """This process' environment without what would configure a gateway."""
    return {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}


def command(*arguments: str, text: str | None = None, seconds: float = 60.0) -> subprocess.CompletedProcess[str]:
    """The `gateway` command, run to its end."""
    return subprocess.run(
        [GATEWAY, *arguments], input=text, capture_output=True, text=True, timeout=seconds, env=environment()
    )


class Product:
    """A running gateway on ports that it chose itself; its log of events is the file `directory`/stderr."""

    def __init__(self, directory: Path, repository: Path, *arguments: str, program: Path = GATEWAY) -> None:
        self.directory = directory
        self._program = program
        self.data = directory / "data"
        self.repository = repository
        self._arguments = arguments
        self._process: subprocess.Popen[str] | None = None
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader: threading.Thread | None = None
        self.banner = ""

    # ---- life ----

    def start(self) -> "Product":
        """The same, ready: it has printed its banner."""
        return self.launch().ready()

    def launch(self) -> "Product":
        """The same, started and not waited for."""
        self.banner = ""
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / "stderr").open("ab") as errors:
            self._process = subprocess.Popen(
                [self._program, *self.serve_arguments()],
                stdout=subprocess.PIPE,
                stderr=errors,
                stdin=subprocess.DEVNULL,
                text=True,
                env=environment(),
                start_new_session=True,  # everything that it starts can be found by its session
            )
        self._lines = queue.Queue()
        self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._reader.start()
        return self

    def ready(self) -> "Product":
        """The same, once it has printed its banner."""
        self.banner = self._banner()
        return self

    def serve_arguments(self) -> list[str]:
        return [
            *("serve", "--model-repository", str(self.repository), "--data-dir", str(self.data), "--workers", "2"),
            *("--grpc-port", "0", "--metrics-port", "0", "--http-port", "0", *self._arguments),
        ]

    def stop(self) -> None:
        """Nothing of it is left after SIGTERM. Raises: AssertionError if it is, or if it did not end well."""
        assert self._process is not None
        ports = (self.port("grpc"), self.port("metrics"))
        self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(STOP_DEADLINE_S)
        finally:
            left = self.remains()
            self.kill()
        assert code == 0, f"exit code {code}: {self.events()[-2000:]}"
        assert not left, f"processes are left: {left}"
        for port in ports:
            with socket.socket() as alone:
                alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                alone.bind(("127.0.0.1", port))

    def kill(self) -> None:
        """Nothing of it runs, whatever state it is in."""
        if self._process is None:
            return
        for pid in self.remains():
            _signal(pid, signal.SIGKILL)
        self._process.kill()
        self._process.wait(STOP_DEADLINE_S)
        until(lambda: not self.remains(), STOP_DEADLINE_S, "the end of killed processes")
        if self._reader is not None:
            self._reader.join(STOP_DEADLINE_S)
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._process = None

    # ---- what it says of itself ----

    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = json.loads((self.data / "run" / "state.json").read_text())
        return state

    def port(self, name: str) -> int:
        if not self.banner:
            return int(self.state()["ports"][name])
        patterns = {"grpc": r"grpcs?://127.0.0.1:(\d+)", "http": r"https?://127.0.0.1:(\d+)\n"}
        address = re.search(patterns.get(name, r"http://127.0.0.1:(\d+)/"), self.banner)
        assert address is not None, self.banner
        return int(address[1])

    @property
    def server(self) -> str:
        return f"127.0.0.1:{self.port('grpc')}"

    def children(self, role: str) -> list[dict[str, Any]]:
        return [child for child in self.state()["children"] if child["role"] == role]

    def events(self) -> str:
        return (self.directory / "stderr").read_text(errors="replace")

    def metrics(self) -> dict[str, float]:
        """The samples of the metrics page: name with labels -> value."""
        lines = self.page("/metrics").splitlines()
        return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}

    def page(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port('metrics')}{path}", timeout=10) as answer:
            body: bytes = answer.read()
        return body.decode()

    def cli(self, *words: str, text: str | None = None) -> Result:
        """A command of the command line, asked of this gateway from within this process: a second less than `shell`."""
        return CliRunner().invoke(app, [*words, "--server", self.server], input=text)

    def shell(self, *words: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
        """A command of the command line, asked of this gateway as a shell does it."""
        return command(*words, "--server", self.server, text=text)

    # ---- inside ----

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def _banner(self) -> str:
        lines: list[str] = []
        deadline = time.monotonic() + as_loaded(START_DEADLINE_S)
        while _LAST_LINE not in (lines[-1] if lines else ""):
            try:
                lines.append(self._lines.get(timeout=max(0.0, deadline - time.monotonic())))
            except queue.Empty:
                lines.append("")
            if not lines[-1]:
                self.kill()
                raise AssertionError(f"the gateway did not start: {self.events()[-4000:]}")
        return "".join(lines)

    def remains(self) -> Sequence[int]:
        """Living processes of the gateway's session, without the supervisor."""
        assert self._process is not None
        leader = self._process.pid
        pids = {pid for pid, session in _sessions() if session == leader}
        return sorted(pids - {leader})


def _sessions() -> list[tuple[int, int]]:
    """Every process that is not dead yet, with its session."""
    sessions = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if fields[0] != "Z":
                sessions.append((int(entry.name), int(fields[3])))
    return sessions


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
