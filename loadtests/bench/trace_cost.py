"""What a sampled call costs once it has ended, in instructions: from the worker's queue until a collector has it.

The worker's answer to the control process, over a unix socket, and the export with its encoding and HTTP are real, and
in one process, so that all of it is counted: python -m loadtests.bench.trace_cost COLLECTOR TRACES, under valgrind.
What starting the process takes is in both of two counts, and not in their difference.
"""

import asyncio
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from gateway.errors import GatewayError
from gateway.runtime.otlp_settings import read_otlp_settings
from gateway.runtime.peers import TRACES, Payload, PeerServer, ask
from gateway.runtime.trace_export import TraceExport
from gateway.runtime.trace_sender import TraceSender
from gateway.telemetry.finished_trace import FinishedTrace
from loadtests.bench.trace_sink import trace_sink

ROOT: Final = Path(__file__).parents[2]
_AT_ONCE: Final = 400  # what a second of a busy worker brings: one call in a hundred of 40,000
_STEPS: Final = 8
_TOTAL: Final = re.compile(r"Collected : (\d+)")


def finished(number: int) -> FinishedTrace:
    """Returns a trace as a call of a model by an A/B route leaves it; ids, times and rows are each its own."""
    began = 1_767_323_045_000_000_000 + 25_000_000 * number
    return FinishedTrace(
        trace_id=f"{number + 1:032x}", span_id=f"{number + 7:016x}", parent_id=f"{number + 9:016x}", state="",
        received_ns=began, queued_ns=began + 20_000, queue_ns=31_000 + number, input_ns=4_000,
        infer_ns=52_000 + 3 * number, total_ns=240_000 + 5 * number, method="inference.GRPCInferenceService/ModelInfer",
        model="tiny", version=str(1 + number % 2), arm="ab"[number % 2], revision=3, reason="SPLIT",
        request_id=f"019ad1b2-{number:012x}", code=0, rows=1 + number % 4, batch_calls=1 + number % 9,
        batch_rows=1 + number % 17, links=[],
    )  # fmt: skip


async def export(collector: str, count: int, folder: Path) -> None:
    """Hands that many traces over and exports them, so many at once as a second brings."""
    waiting = [finished(number) for number in range(count)]
    path = folder / "worker"

    async def take(_: Payload) -> Payload:
        taken = waiting[:_AT_ONCE]
        del waiting[:_AT_ONCE]
        return {"traces": taken}

    async def fetch() -> Mapping[int, Payload | GatewayError]:
        return {0: await ask(path, TRACES, {})}

    settings = read_otlp_settings({})
    traces = TraceExport(TraceSender(collector, settings, limit_s=600.0), fetch, settings.resource)
    async with PeerServer(path, {TRACES: take}):
        while waiting:
            await traces.step()
        await traces.close()
    if traces.counts["failed"] or not traces.counts["exported"]:
        raise SystemExit(f"not exported: {dict(traces.counts)}")


def _collected(collector: str, count: int, folder: Path) -> int:
    valgrind = ("/usr/bin/valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/export.{count}")
    command = [*valgrind, sys.executable, "-P", "-m", "loadtests.bench.trace_cost", collector, str(count)]
    # behind the compiled gateway, which has no load tests beside it
    paths = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(ROOT))))
    environ = os.environ | {"PYTHONPATH": paths}
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=environ)
    if ended.returncode:
        raise SystemExit(ended.stderr[-2000:])
    return sum(int(number) for number in _TOTAL.findall(ended.stderr))


def export_instructions() -> float:
    """Returns the instructions that each trace takes, those of its share of a step among them."""
    with trace_sink() as collector, tempfile.TemporaryDirectory(prefix="trace-cost-") as name:
        few, many = (_collected(collector, steps * _AT_ONCE, Path(name)) for steps in (1, 1 + _STEPS))
    return (many - few) / (_STEPS * _AT_ONCE)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="trace-cost-") as name:
        asyncio.run(export(sys.argv[1], int(sys.argv[2]), Path(name)))
