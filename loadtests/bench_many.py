"""A gateway with many small models: its first and second start, the time until the first answer, and memory.

    python -m loadtests.bench_many [--models 1000] [--workers 2] [--on-demand]

The first start tries every version, the second knows them. CPU seconds are those of all processes of the gateway until
all versions were there: on a machine that others use they say more than the clock. What a version costs a worker is
the worker's resident memory beyond that of a gateway with one version, with and without what ONNX Runtime's session
of such a model takes in a process that holds nothing else.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final
from urllib.request import urlopen

import grpc
import numpy as np
from onnx import TensorProto, helper, numpy_helper

from gateway.pb import inference_pb2
from gateway.pb.inference_pb2_grpc import GRPCInferenceServiceStub
from loadtests.bench.processes import usage
from loadtests.bench.servers import HOST, ServerFailed, free_port, gateway_command, running

PATIENCE_S: Final = 1200.0
_TURN_S: Final = 0.1
_FEATURES: Final = 4
_SESSIONS: Final = 200
_OWN: Final = """
import sys
import onnxruntime as ort
from pathlib import Path
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4
def opened(place):
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1
    return ort.InferenceSession(paths[place], settings, providers=["CPUExecutionProvider"])
paths = [str(path) for path in sorted(Path(sys.argv[1]).glob("*/1/model.onnx"))]
held = [opened(place) for place in range(min(20, len(paths)))]
before = resident()
held += [opened(place % len(paths)) for place in range(int(sys.argv[2]))]
print((resident() - before) / int(sys.argv[2]))
"""


@dataclass(frozen=True, slots=True)
class StartFigures:
    """One start. Units: seconds from the command, until an answer and until all workers have all versions; CPU seconds
    of all processes until then; MiB resident of each worker.
    """

    answer_s: float
    ready_s: float
    cpu_s: float
    worker_mib: float


@dataclass(frozen=True, slots=True)
class ManyFigures:
    """Both starts with `models` versions; what each costs a worker, and what its session alone takes. Units: KiB."""

    models: int
    workers: int
    first: StartFigures
    second: StartFigures
    each_kib: float
    session_kib: float

    @property
    def beyond_kib(self) -> float:
        """What a version takes beyond its session."""
        return self.each_kib - self.session_kib


def write_models(repository: Path, count: int) -> None:
    """Writes `count` models of one version, all different: `y = x * scale + 1`."""
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, _FEATURES]) for name in "xy"]
    nodes = [helper.make_node("Mul", ["x", "scale"], ["scaled"]), helper.make_node("Add", ["scaled", "one"], ["y"])]
    for place in range(count):
        weights = [
            numpy_helper.from_array(np.full(_FEATURES, value, np.float32), name)
            for name, value in (("scale", place), ("one", 1))
        ]
        graph = helper.make_graph(nodes, "many", tensors[:1], tensors[1:], weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        directory = repository / f"m{place:05d}" / "1"
        directory.mkdir(parents=True)
        (directory / "model.onnx").write_bytes(model.SerializeToString())


def session_kib(repository: Path) -> float:
    """Returns what ONNX Runtime's session of such a model takes in a process of its own."""
    command = [sys.executable, "-c", _OWN, str(repository), str(_SESSIONS)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@contextmanager
def started(repository: Path, work: Path, workers: int, *options: str) -> Iterator[tuple[StartFigures, str]]:
    """A gateway on that repository once all versions are there, with what its start took and its address."""
    ports = {name: free_port() for name in ("grpc", "http", "metrics")}
    command = [
        *gateway_command(), "serve", "--model-repository", str(repository), "--data-dir", str(work / "data"),
        "--workers", str(workers), *(part for name, port in ports.items() for part in (f"--{name}-port", str(port))),
        *options,
    ]  # fmt: skip
    begin = time.monotonic()
    with running(command, work / "output.txt") as process, grpc.insecure_channel(f"{HOST}:{ports['grpc']}") as channel:
        stub = GRPCInferenceServiceStub(channel)  # type: ignore[no-untyped-call]
        model = sorted(path.name for path in repository.iterdir())[-1]  # loads come in this order backwards
        answer_s = _until(lambda: _answers(stub, model), process, begin)
        ready_s = _until(lambda: _loaded(ports["metrics"]) == workers, process, begin)
        used = usage(process.pid)
        figures = StartFigures(answer_s, ready_s, used.total_cpu_s, used.rss_mib["worker"] / workers)
        yield figures, f"{HOST}:{ports['grpc']}"


def measure(models: int, workers: int, *options: str) -> ManyFigures:
    """Returns the figures of a gateway with so many models and workers."""
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        one, many = work / "one", work / "many"
        write_models(one, 1)
        write_models(many, models)
        (work / "of-one").mkdir()
        (work / "of-many").mkdir()
        with started(one, work / "of-one", workers, *options) as (alone, _):
            pass
        with started(many, work / "of-many", workers, *options) as (first, _):
            pass
        with started(many, work / "of-many", workers, *options) as (second, _):
            pass
        each_kib = (first.worker_mib - alone.worker_mib) * 1024 / max(1, models - 1)
        return ManyFigures(models, workers, first, second, each_kib, session_kib(many))


def _until(reached: Callable[[], bool], process: subprocess.Popen[bytes], begin: float) -> float:
    """Returns after what time since `begin` it was reached. Raises: ServerFailed."""
    while not reached():
        passed_s = time.monotonic() - begin
        if process.poll() is not None or passed_s > PATIENCE_S:
            raise ServerFailed(f"the gateway did not start within {passed_s:.0f} s")
        time.sleep(_TURN_S)
    return time.monotonic() - begin


def _answers(stub: GRPCInferenceServiceStub, model: str) -> bool:
    request = inference_pb2.ModelInferRequest(model_name=model)
    request.inputs.add(name="x", datatype="FP32", shape=[1, _FEATURES])
    request.raw_input_contents.append(np.zeros(_FEATURES, np.float32).tobytes())
    try:
        return bool(stub.ModelInfer(request, timeout=5).outputs)
    except grpc.RpcError:
        return False


def _loaded(port: int) -> int:
    """Returns how many workers say that all versions of their start are there."""
    try:
        with urlopen(f"http://{HOST}:{port}/metrics", timeout=5) as page:
            lines: list[str] = page.read().decode().splitlines()
    except OSError:
        return 0
    return sum(line.startswith("gateway_start_seconds{") and 'until="loaded"' in line for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="The start and the memory of a gateway with many small models.")
    parser.add_argument("--models", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--on-demand", action="store_true", help="with --load-on-demand")
    chosen = parser.parse_args()
    figures = measure(chosen.models, chosen.workers, *(["--load-on-demand"] if chosen.on_demand else []))
    print(f"{figures.models} models, {figures.workers} workers")
    for name, start in (("first", figures.first), ("second", figures.second)):
        print(
            f"{name} start: first answer after {start.answer_s:.1f} s, all ready after {start.ready_s:.1f} s, "
            f"{start.cpu_s:.1f} s of CPU, {start.worker_mib:.0f} MiB in each worker"
        )
    print(f"a version: {figures.each_kib:.0f} KiB in a worker, {figures.beyond_kib:.0f} KiB beyond its session's own")
    print(json.dumps(asdict(figures)))


if __name__ == "__main__":
    main()
