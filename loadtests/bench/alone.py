"""ONNX Runtime with no server around it, as a system among the others."""

import json
import subprocess
import sys
import time
from dataclasses import dataclass

from loadtests.bench.cases import Case
from loadtests.bench.h2load import LoadFailed
from loadtests.bench.machine import busy_s, loop_ms
from loadtests.bench.run import Row


@dataclass(frozen=True, slots=True)
class Layout:
    """How ONNX Runtime is used with no server around it: threads that call, threads of each call, rows of each call."""

    threads: int
    intra: int
    batch: int

    @property
    def label(self) -> str:
        return f"ONNX Runtime {self.threads}x{self.intra} batch {self.batch}"


def layouts(concurrency: int, cores: int) -> list[Layout]:
    """What could serve so many calls at a time."""
    wanted = [Layout(cores, 1, 1), Layout(1, cores, 1), Layout(cores, 1, 8), Layout(1, cores, 8)]
    return list(dict.fromkeys(layout for layout in wanted if layout.threads * layout.batch <= concurrency))


def run_in_process(case: Case, layout: Layout, concurrency: int, seconds: float) -> Row:
    """The model alone, in a process of its own. Raises: LoadFailed."""
    model = case.repository / case.model.name / "1" / "model.onnx"
    numbers = (seconds, layout.threads, layout.intra, layout.batch)
    command = [sys.executable, "-m", "loadtests.bench.session", str(model), str(case.row), case.model.output]
    loop_before_ms = loop_ms()
    own, busy, begin = time.process_time(), busy_s(), time.monotonic()
    done = subprocess.run([*command, *map(str, numbers)], capture_output=True, text=True, check=False)
    elapsed_s, busy, own = time.monotonic() - begin, busy_s() - busy, time.process_time() - own
    if done.returncode:
        raise LoadFailed(f"{' '.join(command)}: {done.stderr.strip()[-300:]}")
    told = json.loads(done.stdout)
    return Row(
        system=layout.label,
        model=case.model.name,
        concurrency=concurrency,
        requests=told["rows"],
        seconds=told["seconds"],
        requests_per_s=told["rows"] / told["seconds"],
        p50_ms=told["p50_ms"],
        p99_ms=told["p99_ms"],
        client_cores=0.0,
        loop_before_ms=loop_before_ms,
        loop_after_ms=loop_ms(),
        cpu_us=told["cpu_s"] / told["rows"] * 1e6,
        rss_mib=told["rss_mib"],
        alone=True,
        other_cores=max(0.0, busy - own - told["process_s"]) / elapsed_s,
    )
