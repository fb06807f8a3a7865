"""`python -m loadtests overload`: what a gateway does with more work than it can do, and what it costs.

A gateway of its own is started with one worker. Its capacity is measured by a schedule that grows until the answers do
not; then calls come at 1 to 10 times that rate, by a schedule, small ones and ones of 4 MiB, in several rounds. The
gates are in `budgets`: goodput (right answers within their deadline, per second) under overload, memory, how long a
refusal takes, and no answer after its deadline.
"""

import asyncio
import tempfile
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

import uvloop

from loadtests import budgets
from loadtests.bench import cases
from loadtests.bench.models import INPUT, BenchModel, Graph
from loadtests.bench.processes import usage
from loadtests.bench.servers import GatewaySetup, Server, gateway
from loadtests.open_loop import OK, Outcome, Traffic, drive

MIB: Final = 1 << 20
FACTORS: Final = (1.0, 2.0, 3.0, 5.0, 10.0)
LIMIT_BYTES: Final = 256 * MIB
_GROWTH: Final = 1.5
# As the load begins it is not known yet what a call takes, and what was let in meanwhile is received, into memory that
# is used for the first time.
ONSET_S: Final = 0.5


def _steady(graph: Graph, output: str) -> None:
    """About ten milliseconds of CPU for each row, hardly less for rows that run together.

    So a client at ten times the capacity leaves the CPUs to the server, also where it shares them.
    """
    source = graph.convolution(INPUT, 1, 64)
    for _ in range(72):
        source = graph.convolution(source, 64, 64)
    pooled = graph.node("Flatten", graph.node("GlobalAveragePool", source), axis=1)
    graph.node("Softmax", graph.dense(pooled, 64, 10), output=output, axis=1)


def _weighty(graph: Graph, output: str) -> None:
    """About a tenth of a second for a message of 4 MiB: the bytes of ten times the capacity can be sent on one host."""
    source = INPUT
    for _ in range(40):
        source = graph.node("Erf", source)
    graph.node("ReduceMean", source, axes=[1], keepdims=1, output=output)


SMALL: Final = BenchModel("small", "1 KiB", _steady, (1, 16, 16), "scores", (10,), 16, 11)
LARGE: Final = BenchModel("large", "4 MiB", _weighty, (1 << 20,), "mean", (1,), 16, 12)
# The deadline of a call; where the search for the capacity begins, in calls per second.
_SCENARIOS: Final[Mapping[str, tuple[BenchModel, float, float]]] = {
    "small": (SMALL, 1.0, 10.0),
    "large": (LARGE, 3.0, 2.0),
}


@dataclass(frozen=True, slots=True)
class LimitedSetup(GatewaySetup):
    """A gateway with limits that a load test reaches."""

    more: tuple[str, ...] = ()

    def arguments(self, repository: Path, data_dir: Path, ports: Mapping[str, int]) -> list[str]:
        limits = ("--max-in-flight-bytes", str(LIMIT_BYTES), *self.more)
        return [*GatewaySetup.arguments(self, repository, data_dir, ports), *limits]


@dataclass(frozen=True, slots=True)
class Step:
    """One rate and what came of it."""

    factor: float
    offered: float
    outcome: Outcome
    rss_mib: float
    cpu_s: float  # of the worker

    @property
    def per_cpu_s(self) -> float:
        """Right answers within their deadline for each second of CPU that the worker got."""
        return self.outcome.goodput * self.outcome.seconds / self.cpu_s if self.cpu_s else 0.0

    def line(self) -> str:
        outcome = self.outcome
        codes = ", ".join(f"{code}: {count}" for code, count in sorted(outcome.codes.items()))
        return (
            f"{self.factor:5.1f}x {self.offered:8.0f}/s  goodput {outcome.goodput:8.1f}/s, {self.per_cpu_s:6.1f} "
            f"per CPU second  p50 "
            f"{1e3 * outcome.latency_s(0.5):6.0f} ms  p99 {1e3 * outcome.latency_s(0.99):6.0f} ms  refused in "
            f"{1e3 * outcome.refusal_s(0.5):5.1f} / {1e3 * outcome.refusal_s(0.99):5.1f} ms "
            f"({1e3 * outcome.refusal_s(0.99, after_s=ONSET_S):5.1f} after {ONSET_S:g} s)  late {outcome.late} "
            f"({1e3 * outcome.late_by_s:.0f} ms)  RSS {self.rss_mib:5.0f} MiB  client behind by "
            f"{1e3 * outcome.lag_s:.0f} ms  codes {{{codes}}}"
        )


def worker_rss_mib(server: Server) -> float:
    return usage(server.pid).rss_mib.get("worker", 0.0)


def worker_cpu_s(server: Server) -> float:
    return sum(usage(server.pid).worker_cpu_s)


async def capacity(server: Server, traffic: Traffic, first: float, seconds: float) -> float:
    """Returns the most right answers a second, found by offering more until they grow no more."""
    best, offered = 0.0, first
    while True:
        goodput = (await _offer(server, traffic, offered, seconds)).goodput
        if goodput < 1.1 * best:
            return max(best, goodput)
        best = max(best, goodput)
        offered *= _GROWTH if goodput > 0.8 * offered else 1.1


async def _offer(server: Server, traffic: Traffic, per_second: float, seconds: float) -> Outcome:
    asked = Traffic(traffic.body, per_second, traffic.deadline_s, traffic.headers, traffic.connections)
    (outcome,) = await drive(server.address, [asked], seconds)
    return outcome


async def measure(
    server: Server, traffic: Traffic, first: float, seconds: float, rounds: int
) -> tuple[float, list[Step]]:
    """Returns the worker's memory before the overload, and the steps of all rounds."""
    rate = await capacity(server, traffic, first, seconds)
    base_mib = worker_rss_mib(server)
    print(f"capacity {rate:.0f} calls/s, the worker holds {base_mib:.0f} MiB", flush=True)
    steps = []
    for factor in FACTORS * rounds:
        peak, cpu_s = base_mib, worker_cpu_s(server)
        running = asyncio.ensure_future(_offer(server, traffic, factor * rate, seconds))
        while not running.done():
            await asyncio.wait([running], timeout=0.2)
            peak = max(peak, worker_rss_mib(server))
        steps.append(Step(factor, factor * rate, await running, peak, worker_cpu_s(server) - cpu_s))
        print(steps[-1].line(), flush=True)
    return base_mib, steps


def faults(base_mib: float, steps: list[Step]) -> list[str]:
    """Returns what does not hold, in words.

    Where others use the CPUs as well, what the worker got of them differs from step to step: goodput has fallen only if
    that for each second of its CPU has fallen too. How fast a CPU is differs as well: what depends on it is judged by
    the medians of the rounds, all else by each step.
    """
    wrong = []
    of_factor = {step.factor: [one for one in steps if one.factor == step.factor] for step in steps}
    goodput = {factor: median(one.outcome.goodput for one in ones) for factor, ones in of_factor.items()}
    per_cpu_s = {factor: median(one.per_cpu_s for one in ones) for factor, ones in of_factor.items()}
    allowed_mib = (base_mib + LIMIT_BYTES / MIB) * budgets.MEMORY_MARGIN
    for factor, ones in of_factor.items():
        at = f"at {factor:g}x"
        share = max(goodput[factor] / max(goodput.values()), per_cpu_s[factor] / max(per_cpu_s.values()))
        if 1 < factor <= budgets.OVERLOAD_FACTOR and share < budgets.GOODPUT:
            wrong.append(f"{at} goodput is {goodput[factor]:.0f}/s, {share:.0%} of the highest")
        refused_s = [one.outcome.refusal_s(0.99, after_s=ONSET_S) for one in ones if one.outcome.refusals_s]
        if refused_s and median(refused_s) > budgets.REFUSAL_S:
            wrong.append(f"{at} refusals take {1e3 * median(refused_s):.0f} ms (p99)")
    for step in steps:
        at, outcome = f"at {step.factor:g}x", step.outcome
        if step.rss_mib > allowed_mib:
            wrong.append(f"{at} the worker holds {step.rss_mib:.0f} MiB, {allowed_mib:.0f} are allowed")
        if outcome.late_by_s > budgets.LATE_S:
            wrong.append(f"{at} {outcome.late} answers up to {1e3 * outcome.late_by_s:.0f} ms after their deadline")
        if unknown := set(outcome.codes) - {OK, *budgets.OVERLOAD_CODES}:
            wrong.append(f"{at} calls ended with {', '.join(sorted(unknown))}")
    return wrong


def run(options: Namespace) -> int:
    """Runs the scenario; returns 0 if every gate held."""
    wrong = []
    with tempfile.TemporaryDirectory(prefix="overload-") as work:
        made = cases.make([model for model, _, _ in _SCENARIOS.values()], Path(work))
        setup = LimitedSetup("gateway", options.transport, off=frozenset({"route"}))
        with gateway(setup, made, Path(work)) as server:
            for case, (name, (_, deadline_s, first)) in zip(made, _SCENARIOS.items(), strict=True):
                if options.messages not in (name, "both"):
                    continue
                print(f"{name} messages ({case.model.about}), deadline {deadline_s:g} s", flush=True)
                traffic = Traffic(case.body.read_bytes(), 0.0, deadline_s, connections=16)
                result = uvloop.run(measure(server, traffic, first, options.step_seconds, options.rounds))
                wrong += [f"{name}: {fault}" for fault in faults(*result)]
    for fault in wrong:
        print(f"FAILED {fault}")
    return 1 if wrong else 0
