"""The servers under test, each in processes of its own, each stopped when its block ends."""

import json
import os
import resource
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from gateway.access.principal import Grant, Role
from gateway.access.token_file import StaticToken, digest_of, random_token
from loadtests.bench.cases import Case
from loadtests.bench.probe import KEY_HEADER, WrongAnswer, probing
from loadtests.bench.processes import all_processes, usage
from loadtests.bench.trace_sink import trace_sink

HOST: Final = "127.0.0.1"
_ROOT: Final = Path(__file__).parents[2]
ARMS: Final = {"a": "1", "b": "2"}
_START_S: Final = 90.0
_STOP_S: Final = 25.0
_TURN_S: Final = 0.1
_LOG_TAIL: Final = 1500


class ServerFailed(Exception):
    """A server did not start, does not serve the models, or has ended."""


@dataclass(slots=True)
class Tally:
    """What a server answered from its first run to its last, and what its log cost over all that time.

    Segments of a log are sealed each minute or when it stops, so short runs do not see them become files. `log_cpu_s`
    is known once the server has stopped: what its compactor used, and what all its processes used for the stop.
    """

    calls: int = 0
    log_cpu_s: float | None = None


@dataclass(frozen=True, slots=True)
class Server:
    """A server that answers. `pid` is that of its first process, 0 if unknown; no `metrics_url`, nothing to scrape.

    No `address`: it has no gRPC, and `rest` says what it is sent.
    """

    label: str
    address: str
    pid: int = 0
    metrics_url: str = ""
    tally: Tally = field(default_factory=Tally, compare=False)
    authorization: str = field(default="", repr=False)  # what its callers send to prove who they are
    rest: str = ""  # the form of the requests that it is sent over REST, at `rest_address`
    rest_address: str = ""


@dataclass(frozen=True, slots=True)
class GatewaySetup:
    """How a gateway is started: every feature is on but those in `off`."""

    label: str
    transport: str = "ngh2"
    workers: int = 1
    off: frozenset[str] = frozenset()
    guarded: bool = False  # callers prove who they are by a token
    judged: bool = False  # routes are canaries of the same split, which are counted and judged
    traced: bool = False  # one call in a hundred is, and told to a collector
    rest: str = ""  # the form of the requests, which come over REST
    shares_weights: bool = True

    def arguments(self, repository: Path, data_dir: Path, ports: Mapping[str, int]) -> list[str]:
        return [
            *("--model-repository", str(repository), "--data-dir", str(data_dir)),
            *("--workers", str(self.workers), "--transport", self.transport),
            *("--max-connections-per-address", "0"),  # the load comes from one
            *("--log-rate", "0" if "log" in self.off else "1"),
            *(() if self.shares_weights else ("--prepared-models-bytes", "0")),
            "--no-feedback-token" if "token" in self.off else "--feedback-token",
            *(part for name, port in ports.items() for part in (f"--{name}-port", str(port))),
        ]


@contextmanager
def gateway(setup: GatewaySetup, cases: Sequence[Case], work: Path) -> Iterator[Server]:
    """A gateway that serves the cases, an A/B route by key active on each.

    Raises: ServerFailed.
    """
    ports = {name: free_port() for name in ("grpc", "http", "metrics")}
    data_dir = work / setup.label.replace(" ", "-")
    data_dir.mkdir(parents=True, exist_ok=True)
    arguments = setup.arguments(cases[0].repository, data_dir, ports)
    token = ""
    if setup.guarded:
        token = random_token()
        known = StaticToken(digest_of(token.encode()), "bench", (Grant(Role.ADMIN),))
        (data_dir / "tokens").write_text(known.to_line() + "\n")
        arguments += ["--access-tokens", str(data_dir / "tokens")]
    authorization = f"Bearer {token}" if token else ""
    if "metrics" in setup.off:
        command = [sys.executable, "-P", "-m", "loadtests.bench.uncounted", *arguments]
    else:
        command = [*gateway_command(), "serve", *arguments]
    address = f"{HOST}:{ports['grpc']}"
    with ExitStack() as stack:
        if setup.traced:
            command += ["--trace-ratio", "0.01", "--otlp-endpoint", stack.enter_context(trace_sink())]
        process = stack.enter_context(running(command, data_dir / "output.txt"))
        _await_answers(address, cases, process, data_dir / "output.txt", authorization)
        if "route" not in setup.off:
            _apply_routes(address, cases, data_dir / "routes.yaml", token, judged=setup.judged)
        metrics_url = "" if "metrics" in setup.off else f"http://{HOST}:{ports['metrics']}/metrics"
        server = Server(
            setup.label, address, process.pid, metrics_url, authorization=authorization,
            rest=setup.rest, rest_address=f"{HOST}:{ports['http']}",
        )  # fmt: skip
        compactor_s = usage(process.pid).cpu_s.get("compactor", 0.0)
        yield server
        last = usage(process.pid)
        stop_s = _end(process) - last.total_cpu_s
        server.tally.log_cpu_s = last.cpu_s.get("compactor", 0.0) - compactor_s + stop_s


@contextmanager
def bare(cases: Sequence[Case], work: Path) -> Iterator[Server]:
    """The bare grpc.aio server. Raises: ServerFailed."""
    address = f"{HOST}:{free_port()}"
    command = [sys.executable, "-m", "loadtests.bench.bare", str(cases[0].repository), address]
    with running(command, work / "grpc.aio.txt") as process:
        _await_answers(address, cases, process, work / "grpc.aio.txt")
        yield Server("grpc.aio", address, process.pid)


@contextmanager
def floor(template: str, cases: Sequence[Case], work: Path) -> Iterator[Server]:
    """The server that a shell command starts, {port} and {models} filled in. Raises: ServerFailed."""
    port = free_port()
    text = template.replace("{port}", str(port)).replace("{models}", shlex.quote(str(cases[0].repository)))
    address = f"{HOST}:{port}"
    with running(["/bin/sh", "-c", text], work / "floor.txt") as process:
        _await_answers(address, cases, process, work / "floor.txt")
        yield Server("floor", address, process.pid)


@contextmanager
def against(address: str, pid: int, cases: Sequence[Case]) -> Iterator[Server]:
    """A server that runs already; it serves the cases. Raises: ServerFailed."""
    try:
        _ask_all(address, cases)
    except WrongAnswer as error:
        raise ServerFailed(
            f"{address} does not serve the benchmark's models ({error}): make them with --only-models"
        ) from None
    yield Server(address, address, pid)


@contextmanager
def running(command: Sequence[str], output: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The process, leading a session of its own; at the end nothing of that session is left."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    # The package may be one that was built apart, and is there by PYTHONPATH too; this one comes after it.
    environment["PYTHONPATH"] = os.pathsep.join([*filter(None, [os.environ.get("PYTHONPATH")]), str(_ROOT)])
    with output.open("wb") as file:
        process = subprocess.Popen(
            list(command), stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, env=environment,
            start_new_session=True,
        )  # fmt: skip
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> float:
    """The process and its session have ended; the CPU seconds of its life, its children's included.

    0 if that was known before: a number that was given back may be another's by now.
    """
    if process.returncode is not None:
        return 0.0
    before = _children_cpu_s()
    os.killpg(process.pid, signal.SIGTERM)  # a shell and what it started are one group
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for left in all_processes():
        if left.session == process.pid and left.pid != process.pid:
            _kill(left.pid)
    return _children_cpu_s() - before


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _await_answers(
    address: str, cases: Sequence[Case], process: subprocess.Popen[bytes], output: Path, authorization: str = ""
) -> None:
    """Every case has been answered rightly."""
    await_right(address, process, output, lambda: _ask_all(address, cases, authorization))


def await_right(address: str, process: subprocess.Popen[bytes], output: Path, ask: Callable[[], None]) -> None:
    """Somebody listens at `address`, and `ask` has raised no WrongAnswer. Raises: ServerFailed."""
    host, _, port = address.rpartition(":")
    end = time.monotonic() + _START_S
    trouble = "nobody listens"
    while time.monotonic() < end and process.poll() is None:
        time.sleep(_TURN_S)
        try:
            socket.create_connection((host, int(port)), 1).close()
            ask()
            return
        except (OSError, WrongAnswer) as error:
            trouble = str(error)
    state = f"ended with status {process.poll()}" if process.poll() is not None else f"{trouble} after {_START_S:.0f} s"
    tail = output.read_text(errors="replace")[-_LOG_TAIL:]
    raise ServerFailed(f"{shlex.join(map(str, process.args))[:300]}: {state}\n{tail}")  # type: ignore[arg-type]


def _ask_all(address: str, cases: Sequence[Case], authorization: str = "") -> None:
    for case in cases:
        with probing(address, case.model, case.expected, authorization) as probe:
            probe.ask("user-0")


def route_document(model: str, *, judged: bool = False) -> dict[str, object]:
    """Half of the keys to each version; as a canary that is judged and stays there, if `judged`."""
    stable, other = ARMS
    split: dict[str, object] = {"ab": {"control": stable, "weights": dict.fromkeys(ARMS, "50%")}}
    if judged:
        steps = [{"weight": "50%", "hold": "1d"}]
        split = {"canary": {"stable": stable, "canary": other, "steps": steps, "analysis": {"onFail": "hold"}}}
    return {
        "apiVersion": "gateway/v1",
        "kind": "Route",
        "metadata": {"model": model},
        "spec": {
            "arms": {arm: {"version": version} for arm, version in ARMS.items()},
            "key": {"from": [f"metadata:{KEY_HEADER}"], "salt": "bench"},
            "strategy": split,
        },
    }


def _apply_routes(address: str, cases: Sequence[Case], file: Path, token: str, *, judged: bool) -> None:
    """Every worker follows the routes, and both arms of each answer."""
    documents = (route_document(case.model.name, judged=judged) for case in cases)
    file.write_text("\n---\n".join(json.dumps(document) for document in documents))
    command = [*gateway_command(), "routes", "apply", "-f", str(file), "--wait", "--server", address, "--timeout", "60"]
    environment = {**os.environ, **({"GATEWAY_TOKEN": token} if token else {})}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise ServerFailed(f"the routes were not applied: {done.stderr.strip() or done.stdout.strip()}")
    for case in cases:
        with probing(address, case.model, case.expected, f"Bearer {token}" if token else "") as probe:
            arms = sorted(probe.keys_of_arms())
        if arms != sorted(ARMS):
            raise ServerFailed(f"{case.model.name}: of the route's arms {sorted(ARMS)} only {arms} answer")


def gateway_command() -> list[str]:
    script = Path(sys.executable).with_name("gateway")
    return [str(script)] if script.exists() else [sys.executable, "-c", "from gateway.cli import main; main()"]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        number: int = listener.getsockname()[1]
        return number
