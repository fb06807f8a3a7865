"""Rivals in environments of their own: installed once, started with the benchmark's model, stopped with their block."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Final

from loadtests.bench.cases import Case
from loadtests.bench.probe import probing
from loadtests.bench.rest_body import answer_bytes
from loadtests.bench.rivals.roster import Rival
from loadtests.bench.rivals.start_order import StartOrder
from loadtests.bench.servers import HOST, Server, ServerFailed, await_right, free_port, running

_KEY: Final = "user-0"


def interpreter(rival: Rival, venvs: Path) -> Path:
    return venvs / rival.name / "bin" / "python"


def install(rival: Rival, venvs: Path) -> None:
    """The rival's environment is there, with the ONNX Runtime that the gateway has. Raises: ServerFailed."""
    venv = venvs / rival.name
    wanted = [*rival.requirements, f"onnxruntime=={version('onnxruntime')}"]
    for command in (
        [sys.executable, "-m", "venv", str(venv)],
        [str(interpreter(rival, venvs)), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ServerFailed(f"{rival.title} cannot be installed: {(done.stderr or done.stdout).strip()[-300:]}")


def installed_version(rival: Rival, venvs: Path) -> str:
    """The version of its distribution, as its own interpreter knows it. Raises: ServerFailed: it is not installed."""
    asked = f"from importlib.metadata import version; print(version({rival.distribution!r}))"
    python = interpreter(rival, venvs)
    if not python.exists():
        raise ServerFailed(f"{rival.title} is not installed in {venvs / rival.name}: use --install")
    done = subprocess.run([str(python), "-P", "-c", asked], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ServerFailed(f"{rival.distribution} is not installed in {venvs / rival.name}: use --install")
    return done.stdout.strip()


@contextmanager
def started(rival: Rival, venvs: Path, case: Case, folder: Path, workers: int) -> Iterator[Server]:
    """The rival, which has answered the case's request rightly. `folder` is made for it. Raises: ServerFailed.

    `rest_address` is where it has REST beside gRPC, if it has.
    """
    installed_version(rival, venvs)
    folder.mkdir(parents=True)
    port, *spare_ports = (free_port() for _ in range(3))
    order = StartOrder(case.repository, folder, workers, port, (spare_ports[0], spare_ports[1]))
    address = f"{HOST}:{port}"
    output = folder.with_suffix(".txt")

    def ask() -> None:
        if rival.rest:
            answer_bytes(address, case.rest[rival.rest], case.model, case.expected, _KEY)
            return
        with probing(address, case.model, case.expected) as probe:
            probe.ask(_KEY)

    with running([str(interpreter(rival, venvs)), "-m", rival.start, *order.arguments], output) as process:
        await_right(address, process, output, ask)
        yield Server(
            rival.title, "" if rival.rest else address, process.pid, rest=rival.rest,
            rest_address=address if rival.rest else f"{HOST}:{spare_ports[0]}",
        )  # fmt: skip
