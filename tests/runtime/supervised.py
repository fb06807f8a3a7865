"""A supervisor under test, as a process of its own, and what a test does with it."""

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import TypeVar

from gateway.backoff import Backoff
from gateway.runtime.child_programs import Programs
from gateway.runtime.config import Config, from_json
from gateway.runtime.config_parser import parse
from gateway.runtime.liveness import Timing
from gateway.runtime.supervisor import supervise
from tests.machine_load import as_loaded

T = TypeVar("T")
CHILD = (sys.executable, "-P", str(Path(__file__).with_name("child_program.py")))


def wait_until(read: Callable[[], T], within_s: float = 30.0) -> T:
    """The first true answer of `read`."""
    deadline = time.monotonic() + as_loaded(within_s)
    while True:
        if answer := read():
            return answer
        assert time.monotonic() < deadline, f"not within {within_s} s"
        time.sleep(0.02)


class Supervised:
    """A running supervisor whose children are `child_program`, but with the real Valkey; `real`: all are real.

    What they say on standard error is in `errors`, or passed through.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        workers: int = 2,
        grace_seconds: float = 3.0,
        embedded: bool = False,
        real: bool = False,
        options: Mapping[str, object] = MappingProxyType({}),
        errors: Path | None = None,
    ) -> None:
        self.data_dir = data_dir
        given: dict[str, object] = {
            "data-dir": data_dir,
            "grpc-port": 0,
            "metrics-port": 0,
            "http-port": 0,
            "workers": workers,
            "grace-seconds": grace_seconds,
            "redis-url": "" if embedded or real else "redis://127.0.0.1:1",
            **options,
        }
        self.config = parse(given, {}, {})
        self.process = start(self.config, "gateway.runtime.supervisor" if real else __name__, errors)
        self.stdout = ""

    def __enter__(self) -> "Supervised":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def state(self) -> dict[str, object]:
        try:
            state: dict[str, object] = json.loads((self.data_dir / "run" / "state.json").read_text())
        except (OSError, ValueError):
            return {}
        return state if state.get("pid") == self.process.pid else {}

    def child(self, role: str, slot: int = 0) -> dict[str, object]:
        children = self.state().get("children", [])
        assert isinstance(children, list)
        return next((child for child in children if child["role"] == role and child["slot"] == slot), {})

    def pid(self, role: str, slot: int = 0) -> int:
        pid = self.child(role, slot).get("pid", 0)
        assert isinstance(pid, int)
        return pid

    def pids(self) -> list[int]:
        children = self.state().get("children", [])
        assert isinstance(children, list)
        return [child["pid"] for child in children if child["pid"]]

    def processes(self) -> set[int]:
        """All children of the supervisor, those among them that no state shows."""
        pid = self.process.pid
        return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}

    def port(self, name: str) -> int:
        ports = self.state()["ports"]
        assert isinstance(ports, dict)
        return int(ports[name])

    def wait_serving(self) -> "Supervised":
        wait_until(lambda: self.state().get("phase") == "SERVING", 50)
        return self

    def wait_ready(self, role: str, slot: int = 0, *, other_than: int = 0, within_s: float = 10.0) -> int:
        """The pid of that child, once it is ready and not the given one."""

        def ready() -> int:
            child = self.child(role, slot)
            pid = child.get("pid", 0)
            return pid if child.get("state") == "READY" and isinstance(pid, int) and pid != other_than else 0

        return wait_until(ready, within_s)

    def stop(self, number: signal.Signals = signal.SIGTERM, within_s: float = 15.0) -> int:
        self.process.send_signal(number)
        self.stdout, _ = self.process.communicate(timeout=as_loaded(within_s))
        return self.process.returncode


def start(config: Config, module: str = __name__, errors: Path | None = None) -> subprocess.Popen[str]:
    """A supervisor with that configuration, its standard error in that file or passed through."""
    with ExitStack() as stack:
        process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stack.enter_context(errors.open("wb")) if errors is not None else None,
            text=True,
            start_new_session=True,
            cwd=Path(__file__).parents[2],
        )
    assert process.stdin is not None
    process.stdin.write(config.to_json())
    process.stdin.close()
    process.stdin = None
    return process


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            return connection.recv(16) == b"here\n"
    except OSError:
        return False


def main() -> None:
    programs = Programs(worker=CHILD, control=CHILD, compactor=(*CHILD, "compactor"))
    quick = Timing(healthy_s=2.0, backoff=Backoff(0.2, 0.8), memory_look_s=0.1, recycle_s=0.5)
    supervise(from_json(sys.stdin.read()), programs=programs, timing=quick)


if __name__ == "__main__":
    main()
