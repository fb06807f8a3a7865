"""What workers hold of one large model together, how soon they serve it, and what preparing it costs others."""

import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

from loadtests.bench.cases import Case
from loadtests.bench.h2load import Order, drive
from loadtests.bench.models import BenchModel, Graph
from loadtests.bench.processes import command_line, members_of, pss_mib
from loadtests.bench.servers import GatewaySetup, Server, ServerFailed, gateway

_MEBIBYTE: Final = 1 << 20
_LAYERS: Final = 10
_PATIENCE_S: Final = 600.0
_TURN_S: Final = 0.05
_BURST_CALLS: Final = 2000
_BURSTS: Final = 8
_AVAILABLE: Final = re.compile(r"version available: model=wide version=1 \S+ load_ms=([\d.]+) weights=(\S+)")
SHARE_OF_WEIGHTS: Final = 1.15  # the goal, with as many MB for each worker:
MB_OF_A_WORKER: Final = 80.0


def _wide(width: int) -> Callable[[Graph, str], None]:
    def build(graph: Graph, output: str) -> None:
        source = "input"
        for _ in range(_LAYERS - 1):
            source = graph.dense(source, width, width, relu=True)
        graph.node("Identity", graph.dense(source, width, width), output=output)

    return build


def wide_model(megabytes: int) -> BenchModel:
    """A chain of dense layers with about that many MB of weights, all of which a run reads."""
    width = int((megabytes * 1e6 / 4 / _LAYERS) ** 0.5)
    return BenchModel("wide", "ten dense layers", _wide(width), (width,), "scores", (width,), 8, 5)


@dataclass(frozen=True, slots=True)
class WeightCost:
    """What was measured. Units: MB of weights; MiB (PSS) of all workers together; milliseconds of each worker's load.

    `own_*` without prepared models, `first_ms` with the preparation, `shared_*` once it was prepared; `p99_*` of calls
    of another model before and while it was prepared.
    """

    workers: int
    weights_mb: float
    idle_mib: float
    own_mib: float
    shared_mib: float
    own_ms: tuple[float, ...]
    first_ms: tuple[float, ...]
    shared_ms: tuple[float, ...]
    p99_before_ms: float
    p99_meanwhile_ms: float

    @property
    def goal_mib(self) -> float:
        """Returns what all workers may hold together."""
        return (SHARE_OF_WEIGHTS * self.weights_mb + self.workers * MB_OF_A_WORKER) * 1e6 / _MEBIBYTE

    def lines(self) -> Iterator[str]:
        """Yields the findings in words."""
        own, first, shared = (
            " ".join(f"{ms:.0f}" for ms in times) for times in (self.own_ms, self.first_ms, self.shared_ms)
        )
        yield (
            f"{self.workers} workers, {self.weights_mb:.0f} MB of weights: PSS {self.shared_mib:.0f} MiB together, "
            f"{self.own_mib:.0f} with weights of their own, {self.idle_mib:.0f} without the model "
            f"(goal {self.goal_mib:.0f})"
        )
        yield f"AVAILABLE after {shared} ms in each worker, {own} with weights of its own, {first} with the preparation"
        if self.p99_meanwhile_ms:
            change = self.p99_meanwhile_ms / self.p99_before_ms - 1
            yield (
                f"another model's p99 was {self.p99_meanwhile_ms:.2f} ms while it was prepared, "
                f"{self.p99_before_ms:.2f} before ({change:+.0%})"
            )
        else:
            yield "it was prepared in less time than a burst of calls to another model"


def measure(case: Case, work: Path, *, workers: int, megabytes: int, begun: Callable[[str], None]) -> WeightCost:
    """Returns what the model cost; `case` is the other model. Raises: ServerFailed, LoadFailed."""
    begun(f"making a model with {megabytes} MB of weights")
    model = wide_model(megabytes)
    apart = work / "apart" / model.name
    (apart / "1").mkdir(parents=True, exist_ok=True)
    (apart / "1" / "model.onnx").write_bytes(model.serialized("1"))
    weights_mb = (apart / "1" / "model.onnx").stat().st_size / 1e6
    served = case.repository / model.name
    shutil.rmtree(served, ignore_errors=True)
    begun("weights of their own")
    with gateway(GatewaySetup("own weights", workers=workers, shares_weights=False), [case], work) as server:
        idle_mib = _together_mib(server)
        apart.rename(served)
        own_ms = _available(work / "own-weights" / "output.txt", workers, "its")
        own_mib = _together_mib(server)
    served.rename(apart)
    begun("the first preparation")
    setup = GatewaySetup("shared weights", workers=workers)
    with gateway(setup, [case], work) as server:
        burst = _Bursts(server, case)
        before = [burst.p99_ms() for _ in range(_BURSTS)]
        apart.rename(served)
        meanwhile = burst.while_preparing()
        first_ms = _available(work / "shared-weights" / "output.txt", workers, "shared")
    begun("what was prepared")
    with gateway(setup, [case], work) as server:
        shared_ms = _available(work / "shared-weights" / "output.txt", workers, "shared")
        shared_mib = _together_mib(server)
    return WeightCost(
        workers,
        weights_mb,
        idle_mib,
        own_mib,
        shared_mib,
        own_ms,
        first_ms,
        shared_ms,
        median(before),
        median(meanwhile) if meanwhile else 0.0,
    )


class _Bursts:
    """Short bursts of calls to the other model."""

    def __init__(self, server: Server, case: Case) -> None:
        self._server = server
        self._order = Order(server.address, case.body, ("user-0",), 1)

    def p99_ms(self) -> float:
        return drive(self._order, _BURST_CALLS, limit_s=60, logged=True, tick=lambda: None).percentile_ms(99)

    def while_preparing(self) -> list[float]:
        """Returns the p99 of each burst that lay wholly in a preparation, once there is one."""
        end = time.monotonic() + _PATIENCE_S
        while not self._is_preparing():
            if time.monotonic() > end:
                raise ServerFailed(f"no preparation began within {_PATIENCE_S:.0f} s")
            time.sleep(_TURN_S)
        times = []
        while self._is_preparing():
            p99_ms = self.p99_ms()
            if self._is_preparing():
                times.append(p99_ms)
        return times

    def _is_preparing(self) -> bool:
        return any("preparation_child" in command_line(one.pid) for one in members_of(self._server.pid))


def _together_mib(server: Server) -> float:
    return sum(pss_mib(one.pid) for one in members_of(server.pid) if "gateway.runtime.worker" in command_line(one.pid))


def _available(output: Path, workers: int, weights: str) -> tuple[float, ...]:
    """Returns how long each worker's load took, once all of them serve the model with such weights.

    Raises: ServerFailed, where they do not.
    """
    end = time.monotonic() + _PATIENCE_S
    while time.monotonic() < end:
        lines: Sequence[tuple[str, str]] = _AVAILABLE.findall(output.read_text(errors="replace"))
        if len(lines) >= workers:
            if any(kind != weights for _, kind in lines):
                raise ServerFailed(
                    f"the workers' weights are {[kind for _, kind in lines]}, not {weights}: see {output}"
                )
            return tuple(float(ms) for ms, _ in lines)
        time.sleep(_TURN_S)
    raise ServerFailed(f"{workers} workers did not serve the large model within {_PATIENCE_S:.0f} s: see {output}")
