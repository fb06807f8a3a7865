"""What calls to one model take while others are tried, prepared and loaded, and beside a process that only counts.

Calls go one at a time, in short bursts; a burst belongs to what the gateway did at its begin and at its end. What a
process costs that steps back as a preparation does and only counts, no work that steps back so costs less.

A preparation is halted for every other burst: what those take is compared with what the others take in the same second,
for between two seconds a machine that is shared differs by more than a preparation costs.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np

from loadtests.bench.cases import Case
from loadtests.bench.h2load import Order, drive
from loadtests.bench.processes import command_line, members_of
from loadtests.bench.servers import Server

_BURST_CALLS: Final = 500
_PREPARES: Final = "preparation_child"
_COUNTING: Final = """
from gateway.serving.preparation_child import step_back
step_back(idle=True)
print(flush=True)
while True:
    pass
"""

Times = np.ndarray[tuple[int], np.dtype[np.float64]]


class Beside(StrEnum):
    """What goes on while calls are made."""

    NOTHING = "alone"
    COUNTING = "beside a process that only counts"
    TRIAL = "during trials"
    HALTED = "while preparations are halted"
    PREPARATION = "during preparations"
    LOADS = "during the workers' loads"


# With what each is compared.
_COMPARED: Final[Mapping[Beside, Sequence[Beside]]] = {
    Beside.COUNTING: (Beside.NOTHING,),
    Beside.TRIAL: (Beside.NOTHING, Beside.COUNTING),
    Beside.PREPARATION: (Beside.NOTHING, Beside.COUNTING, Beside.HALTED),
    Beside.LOADS: (Beside.NOTHING, Beside.COUNTING),
}


@dataclass(frozen=True, slots=True)
class CallTimes:
    """How long calls took, of all bursts together. Units: milliseconds."""

    calls: int
    p50_ms: float
    p99_ms: float


class Bystander:
    """Calls a model, and keeps the times by what went on."""

    def __init__(self, server: Server, case: Case) -> None:
        self._server = server
        self._order = Order(server.address, case.body, ("user-0",), 1)
        self._times: dict[Beside, list[Times]] = {}

    def times(self) -> Mapping[Beside, CallTimes]:
        """Returns the times of all bursts until now."""
        pooled = {beside: np.concatenate(self._times[beside]) for beside in Beside if beside in self._times}
        return {
            beside: CallTimes(len(times), float(np.percentile(times, 50)), float(np.percentile(times, 99)))
            for beside, times in pooled.items()
        }

    def call(self, bursts: int, beside: Beside) -> None:
        """Makes so many bursts while that goes on."""
        for _ in range(bursts):
            self._keep(beside, self._burst())

    def call_until(self, ended: Callable[[], bool], *, limit_s: float) -> bool:
        """Makes bursts while a version is tried, prepared and loaded; returns whether it has `ended` in time."""
        was_prepared, halts, end = False, True, time.monotonic() + limit_s
        while not ended():
            if time.monotonic() > end:
                return False
            begun = self._present(was_prepared)
            was_prepared = was_prepared or begun is Beside.PREPARATION
            halts = begun is Beside.PREPARATION and not halts
            with self._halted() if halts else nullcontext():
                times = self._burst()
            if begun is not None and begun is self._present(was_prepared) and not ended():
                self._keep(Beside.HALTED if halts else begun, times)
        return True

    @contextmanager
    def _halted(self) -> Iterator[None]:
        """Halts the preparation for the block."""
        halted = [one.pid for one in members_of(self._server.pid) if _PREPARES in command_line(one.pid)]
        try:
            for pid in halted:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSTOP)
            yield
        finally:
            for pid in halted:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def _keep(self, beside: Beside, times: Times) -> None:
        self._times.setdefault(beside, []).append(times)

    def _burst(self) -> Times:
        return drive(self._order, _BURST_CALLS, limit_s=60, logged=True, tick=lambda: None).latencies_ms

    def _present(self, was_prepared: bool) -> Beside | None:
        """Returns what the gateway does now; None where nobody can tell."""
        processes = members_of(self._server.pid)
        commands = {one.pid: command_line(one.pid) for one in processes}
        if any(_PREPARES in command for command in commands.values()):
            return Beside.PREPARATION
        if was_prepared:
            return Beside.LOADS
        if any("zygote_process" in commands.get(one.parent, "") for one in processes):
            return Beside.TRIAL
        return None


@contextmanager
def counting() -> Iterator[None]:
    """Has a process count in the block, which steps back as a preparation does."""
    command = [sys.executable, "-c", _COUNTING]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield
        finally:
            process.kill()


def sentences(times: Mapping[Beside, CallTimes]) -> Sequence[str]:
    """Returns in words what calls took, and how much longer than what they are compared with."""
    return [
        f"another model's calls {beside}: p50 {taken.p50_ms:.2f} ms, p99 {taken.p99_ms:.2f} ms ({taken.calls} calls"
        + "".join(
            f"; {taken.p99_ms / times[other].p99_ms:.2f} times that {other}"
            for other in _COMPARED.get(beside, ())
            if other in times
        )
        + ")"
        for beside, taken in times.items()
    ]
