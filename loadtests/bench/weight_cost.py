"""What workers hold of one large model together, how soon they serve it, and what preparing it costs others."""

import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from loadtests.bench.bystander import Beside, Bystander, CallTimes, counting, sentences
from loadtests.bench.cases import Case
from loadtests.bench.models import BenchModel, Graph
from loadtests.bench.processes import command_line, members_of, pss_mib
from loadtests.bench.servers import GatewaySetup, Server, ServerFailed, gateway

_MEBIBYTE: Final = 1 << 20
_LAYERS: Final = 10
_PATIENCE_S: Final = 600.0
_TURN_S: Final = 0.05
_BURSTS: Final = 16  # alone and beside what counts, before each preparation
_PREPARED: Final = ("1", "2", "3")  # versions, one after the other: one alone says little of a p99
_AVAILABLE: Final = r"version available: model=wide version={} \S+ load_ms=([\d.]+) weights=(\S+)"
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

    `own_*` without prepared models, `first_ms` with the preparation, `shared_*` once it was prepared, `start_ms` then
    at the gateway's start, beside all else that starts; `calls` to another model, by what went on.
    """

    workers: int
    weights_mb: float
    idle_mib: float
    own_mib: float
    shared_mib: float
    own_ms: tuple[float, ...]
    first_ms: tuple[float, ...]
    shared_ms: tuple[float, ...]
    start_ms: tuple[float, ...]
    calls: Mapping[Beside, CallTimes]

    @property
    def goal_mib(self) -> float:
        """Returns what all workers may hold together."""
        return (SHARE_OF_WEIGHTS * self.weights_mb + self.workers * MB_OF_A_WORKER) * 1e6 / _MEBIBYTE

    def lines(self) -> Iterator[str]:
        """Yields the findings in words."""
        own, first, shared, start = (
            " ".join(f"{ms:.0f}" for ms in times)
            for times in (self.own_ms, self.first_ms, self.shared_ms, self.start_ms)
        )
        yield (
            f"{self.workers} workers, {self.weights_mb:.0f} MB of weights: PSS {self.shared_mib:.0f} MiB together, "
            f"{self.own_mib:.0f} with weights of their own, {self.idle_mib:.0f} without the model "
            f"(goal {self.goal_mib:.0f})"
        )
        yield (
            f"AVAILABLE after {shared} ms in each worker, {start} at a start, {own} with weights of its own, "
            f"{first} with the preparation"
        )
        yield from sentences(self.calls)


def measure(case: Case, work: Path, *, workers: int, megabytes: int, begun: Callable[[str], None]) -> WeightCost:
    """Returns what the model cost; `case` is the other model. Raises: ServerFailed, LoadFailed."""
    begun(f"making {len(_PREPARED)} versions of a model with {megabytes} MB of weights")
    model = wide_model(megabytes)
    apart, served = work / "apart", case.repository / model.name
    for version in _PREPARED:
        (apart / version).mkdir(parents=True, exist_ok=True)
        (apart / version / "model.onnx").write_bytes(model.serialized(version))
    first = _PREPARED[0]
    weights_mb = (apart / first / "model.onnx").stat().st_size / 1e6
    shutil.rmtree(served, ignore_errors=True)
    served.mkdir()
    begun("weights of their own")
    with gateway(GatewaySetup("own weights", workers=workers, shares_weights=False), [case], work) as server:
        idle_mib = _together_mib(server)
        (apart / first).rename(served / first)
        own_ms = _awaited(work / "own-weights" / "output.txt", first, workers, "its")
        own_mib = _together_mib(server)
    (served / first).rename(apart / first)
    setup = GatewaySetup("shared weights", workers=workers)
    output = work / "shared-weights" / "output.txt"
    with gateway(setup, [case], work) as server:
        bystander = Bystander(server, case)
        for version in _PREPARED:
            begun(f"preparation {version} of {len(_PREPARED)}")
            _prepare(bystander, apart / version, served / version, partial(_available, output, version, workers))
            if version != first:
                shutil.rmtree(served / version)
        first_ms = _available(output, first, workers)
    begun("what was prepared, at a start")
    with gateway(setup, [case], work):
        start_ms = _awaited(output, first, workers, "shared")
    begun("what was prepared")
    (served / first).rename(apart / first)
    with gateway(setup, [case], work) as server:  # which does nothing else by now
        (apart / first).rename(served / first)
        shared_ms = _awaited(output, first, workers, "shared")
        shared_mib = _together_mib(server)
    return WeightCost(
        workers, weights_mb, idle_mib, own_mib, shared_mib, own_ms, first_ms, shared_ms, start_ms, bystander.times()
    )


def _prepare(bystander: Bystander, apart: Path, served: Path, available: Callable[[], tuple[float, ...]]) -> None:
    """Has the version prepared while the bystander calls, who has called just before. Raises: ServerFailed."""
    bystander.call(_BURSTS, Beside.NOTHING)
    with counting():
        bystander.call(_BURSTS, Beside.COUNTING)
    apart.rename(served)
    if not bystander.call_until(lambda: bool(available()), limit_s=_PATIENCE_S):
        raise ServerFailed(f"the large model was not served within {_PATIENCE_S:.0f} s")


def _together_mib(server: Server) -> float:
    return sum(pss_mib(one.pid) for one in members_of(server.pid) if "gateway.runtime.worker" in command_line(one.pid))


def _awaited(output: Path, version: str, workers: int, weights: str) -> tuple[float, ...]:
    """Returns how long each worker's load took, once all of them serve the version. Raises: ServerFailed."""
    end = time.monotonic() + _PATIENCE_S
    while time.monotonic() < end:
        loads_ms = _available(output, version, workers, weights)
        if loads_ms:
            return loads_ms
        time.sleep(_TURN_S)
    raise ServerFailed(f"{workers} workers did not serve the large model within {_PATIENCE_S:.0f} s: see {output}")


def _available(output: Path, version: str, workers: int, weights: str = "shared") -> tuple[float, ...]:
    """Returns how long each worker's load took; () until all of them serve the version.

    Raises: ServerFailed, where their weights are others.
    """
    lines = re.findall(_AVAILABLE.format(version), output.read_text(errors="replace"))
    if any(kind != weights for _, kind in lines):
        raise ServerFailed(f"the workers' weights are {[kind for _, kind in lines]}, not {weights}: see {output}")
    return tuple(float(ms) for ms, _ in lines) if len(lines) >= workers else ()
