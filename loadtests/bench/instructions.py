"""What a gRPC call costs a worker, in instructions: the same on a busy machine. With REST beside it, or with traces.

    PYTHONPATH=build/compiled python -m loadtests.bench.instructions [--of rest|traces|...] [--calls N] [--rounds N]

The worker runs under `valgrind --tool=callgrind`, which counts what the thread of its loop executes, between two dumps
that enclose so many calls, one after the other. What counts is the read that brings a call, within which its model
runs and its answer is written; all else there goes by the clock. The rounds go through the settings in turns.

Of traces one call in a hundred is sampled, exactly: by its parent, as its caller says. Beside the difference between
two workers stands what the functions take by which a worker traces: on a busy machine some runs go to a thread, where
they are not counted, and then that alone can be relied on. What traces cost beyond the calls, until a collector has
them, is that of `trace_cost`.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

import grpc

from gateway.runtime.child_programs import Programs
from gateway.runtime.config_parser import load
from gateway.runtime.liveness import Timing
from gateway.runtime.supervisor import supervise
from gateway.telemetry.logs import start_logging
from loadtests.bench import cases
from loadtests.bench.body import METHOD, message
from loadtests.bench.models import MODELS
from loadtests.bench.servers import HOST, GatewaySetup, free_port, running
from loadtests.bench.trace_cost import export_instructions
from loadtests.bench.trace_sink import trace_sink
from loadtests.bench.uncounted import given_options

Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Setting:
    """What the gateway is started with, and which metadata each of a hundred calls has, the last of them others."""

    options: tuple[str, ...] = ("--http-port", "-1")
    traced: bool = False
    metadata: Metadata = ()
    hundredth: Metadata = ()


_TRACE: Final = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0"
_SAMPLED: Final[Metadata] = (("traceparent", f"{_TRACE}1"),)
_UNSAMPLED: Final[Metadata] = (("traceparent", f"{_TRACE}0"),)
# The first of each is what the others are held against.
SETTINGS: Final[Mapping[str, Mapping[str, Setting]]] = {
    "rest": {
        "no REST": Setting(),
        "REST on a port of its own": Setting(()),
        "REST on the same port": Setting(("--single-port",)),
    },
    "traces": {
        "no traces": Setting(hundredth=_SAMPLED),
        "traces": Setting(traced=True, hundredth=_SAMPLED),
    },
    "parents": {
        "no traces, each call has a parent": Setting(metadata=_UNSAMPLED, hundredth=_SAMPLED),
        "traces, each call has a parent": Setting(traced=True, metadata=_UNSAMPLED, hundredth=_SAMPLED),
    },
    "tracing": {"traces": Setting(traced=True, hundredth=_SAMPLED)},  # alone, for what its functions take
}
SHARE: Final = 100  # one call in so many is sampled
_READ: Final = "CPyDef_connection___Connection___buffer_updated"
# The decision, what a sampled call's run leaves, and what is kept when it has ended.
_TRACING: Final = "CPyDef_(?:exchange___Exchanges____trace|batcher____trace|tracer___Tracer___finish)"
_RUN_ELSEWHERE: Final = "CPyDef_batcher___Batcher____thread_done"
_WARM_CALLS: Final = 1500
_CALL_S: Final = 60.0
_START_S: Final = 600.0
_SERVE: Final = "serve"


@dataclass(frozen=True, slots=True)
class CallCost:
    """What a call took: all of it, and what traces have of that. Units: instructions."""

    call: float
    tracing: float


def serve(out: Path, arguments: list[str]) -> None:
    """Runs a gateway whose worker is under callgrind, as `gateway serve` does."""
    config = load(given_options(arguments), {})
    start_logging("supervisor", config.process.log_level)
    options = ("--tool=callgrind", "--separate-threads=yes", f"--callgrind-out-file={out}/calls.%p")
    worker = ("/usr/bin/valgrind", *options, sys.executable, "-P", "-m", "gateway.runtime.worker")
    timing = Timing(silence_s=_START_S, suspect_s=_START_S, start_s=_START_S)
    supervise(config, programs=Programs(worker=worker), timing=timing)


@contextmanager
def called(address: str) -> Iterator["grpc.UnaryUnaryMultiCallable[bytes, bytes]"]:
    with grpc.insecure_channel(address) as channel:
        yield channel.unary_unary(METHOD, request_serializer=None, response_deserializer=None)


def calls(call: "grpc.UnaryUnaryMultiCallable[bytes, bytes]", body: bytes, count: int, setting: Setting) -> None:
    for number in range(1, count + 1):
        call(body, timeout=_CALL_S, metadata=setting.metadata if number % SHARE else setting.hundredth)


def await_served(call: "grpc.UnaryUnaryMultiCallable[bytes, bytes]", body: bytes) -> None:
    end_s = time.monotonic() + _START_S
    while True:
        try:
            call(body, timeout=_CALL_S, wait_for_ready=True)
            return
        except grpc.RpcError:
            if time.monotonic() > end_s:
                raise
            time.sleep(0.5)


def dumped(pid: int, out: Path, count: int) -> CallCost:
    """Returns what the loop's thread has executed for each of so many calls since the last dump."""
    before = set(out.glob(f"calls.{pid}.*-01"))
    subprocess.run(["callgrind_control", "-d", str(pid)], check=True, capture_output=True)
    (made,) = set(out.glob(f"calls.{pid}.*-01")) - before
    command = ["callgrind_annotate", "--inclusive=yes", "--threshold=100", str(made)]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def of(function: str) -> int:
        counts = re.findall(rf"^ *([\d,]+) .*__native\w*\.c:{function} ", text, re.MULTILINE)
        return sum(int(count.replace(",", "")) for count in counts)

    if of(_RUN_ELSEWHERE):
        print("some runs were on a thread, and are not counted: begin anew on a machine with more time")
    return CallCost(of(_READ) / count, of(_TRACING) / count)


def worker_pid(out: Path) -> int:
    """Returns the process whose dumps go there."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if f"--callgrind-out-file={out}/calls.%p".encode() in words:
            return int(process.name)
    raise SystemExit("the worker has ended")


def measure(setting: Setting, made: cases.Case, work: Path, count: int) -> CallCost:
    """Returns what a call costs, of so many."""
    data_dir = Path(tempfile.mkdtemp(dir=work))
    port = free_port()
    ports = {"grpc": port, "metrics": free_port()}
    if "--http-port" not in setting.options:
        ports["http"] = free_port()
    arguments = [*GatewaySetup("gateway").arguments(made.repository, data_dir, ports), *setting.options]
    command = [sys.executable, "-m", "loadtests.bench.instructions", _SERVE, str(data_dir), *arguments]
    body = message(made.model)
    with trace_sink() if setting.traced else nullcontext() as sink:
        if sink is not None:
            command += ["--otlp-endpoint", sink, "--trace-ratio", "0"]
        with running(command, data_dir / "output.txt"), called(f"{HOST}:{port}") as call:
            await_served(call, body)
            calls(call, body, _WARM_CALLS, setting)
            pid = worker_pid(data_dir)
            dumped(pid, data_dir, 1)
            calls(call, body, count, setting)
            return dumped(pid, data_dir, count)


def compare(of: str, count: int, rounds: int) -> dict[str, CallCost]:
    """Returns what a call costs under each setting, by the medians of so many rounds."""
    costs: dict[str, list[CallCost]] = {title: [] for title in SETTINGS[of]}
    with tempfile.TemporaryDirectory(prefix="instructions-") as name:
        (made,) = cases.make([MODELS["tiny"]], Path(name))
        for _ in range(rounds):
            for title, of_it in costs.items():
                of_it.append(measure(SETTINGS[of][title], made, Path(name), count))
                print(f"{title}: {of_it[-1].call:.0f} instructions a call", flush=True)
    return {
        title: CallCost(median(cost.call for cost in of_it), median(cost.tracing for cost in of_it))
        for title, of_it in costs.items()
    }


def tracing_share(cost: CallCost, export: float) -> float:
    """Returns what traces add to a call without them, where one in a hundred is exported."""
    return (cost.tracing + export / SHARE) / (cost.call - cost.tracing)


def main() -> None:
    if sys.argv[1:2] == [_SERVE]:
        serve(Path(sys.argv[2]), sys.argv[3:])
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--of", choices=tuple(SETTINGS), default="rest")
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    costs = compare(options.of, options.calls, options.rounds)
    base = next(iter(costs.values())).call
    for title, cost in costs.items():
        print(f"{title}: {cost.call:.0f}, {cost.call / base - 1:+.2%}")
    traced = [title for title, setting in SETTINGS[options.of].items() if setting.traced]
    export = export_instructions() if traced else 0.0
    for title in traced:
        cost = costs[title]
        print(
            f"{title}: {cost.tracing:.0f} a call in the worker, {export:.0f} for each that is exported:"
            f" {tracing_share(cost, export):+.2%} with one in {SHARE}"
        )


if __name__ == "__main__":
    main()
