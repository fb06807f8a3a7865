"""Starts the gateway that this interpreter has, asks it on each of its ports, kills a worker, and stops it.

    python -P tests/e2e/installed_wheel.py [--compiled]

Needs nothing but what the wheel brings, so that it shows a platform on which no test suite runs. Prints what it lacks
there; ends with 0 if everything was answered.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import grpc
from onnx import TensorProto, helper

from gateway.pb import inference_pb2
from gateway.runtime.build import is_compiled
from gateway.runtime.platform_limits import platform_limits

T = TypeVar("T")
GATEWAY = (sys.executable, "-P", "-c", "from gateway.cli import main; main()")
CONNECTIONS = 16


def write_model(repository: Path) -> None:
    """Writes version 1 of a model that negates."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "negation", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    folder = repository / "negation" / "1"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(model.SerializeToString())


def within(seconds: float, what: str, read: Callable[[], T]) -> T:
    """Returns the first true answer of `read`."""
    end = time.monotonic() + seconds
    while True:
        try:
            if answer := read():
                return answer
        except OSError:
            pass
        assert time.monotonic() < end, f"not within {seconds:g} s: {what}"
        time.sleep(0.05)


def got(url: str, body: object = None) -> Any:
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def asked(port: int, number: float) -> float:
    """Returns what the model makes of a number, asked on a connection of its own."""
    request = inference_pb2.ModelInferRequest(model_name="negation")
    tensor = request.inputs.add(name="x", datatype="FP32", shape=[1, 1])
    tensor.contents.fp32_contents.append(number)
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        infer = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=inference_pb2.ModelInferRequest.SerializeToString,
            response_deserializer=inference_pb2.ModelInferResponse.FromString,
        )
        answer = infer(request, timeout=10, wait_for_ready=True)
    return float(answer.outputs[0].contents.fp32_contents[0])


def ask(ports: dict[str, int]) -> None:
    for number in range(CONNECTIONS):
        assert asked(ports["grpc"], number) == -number
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [2.0]}]}
    assert got(f"http://127.0.0.1:{ports['http']}/v2/models/negation/infer", body)["outputs"][0]["data"] == [-2.0]


class Running:
    """A gateway that serves, from its start to its end."""

    def __init__(self, folder: Path) -> None:
        self._state = folder / "data" / "run" / "state.json"
        self._state.unlink(missing_ok=True)
        options = {"model-repository": folder / "models", "data-dir": folder / "data", "workers": 2}
        options |= {"grpc-port": 0, "http-port": 0, "metrics-port": 0}
        arguments = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        self.process = subprocess.Popen([*GATEWAY, "serve", *arguments], start_new_session=True)
        within(120, "a gateway that serves", lambda: self.state()["phase"] == "SERVING")
        self.ports: dict[str, int] = self.state()["ports"]
        assert got(f"http://127.0.0.1:{self.ports['metrics']}/readyz")["ready"]

    def state(self) -> Any:
        assert self.process.poll() is None, f"the gateway has ended with {self.process.returncode}"
        return json.loads(self._state.read_text())

    def workers(self) -> set[int]:
        children = self.state()["children"]
        return {child["pid"] for child in children if child["role"] == "worker" and child["state"] == "READY"}

    def lose_a_worker(self) -> None:
        first = min(self.workers())
        os.kill(first, signal.SIGKILL)
        ask(self.ports)
        within(60, "another worker", lambda: len(self.workers() - {first}) == 2)

    def lose_its_supervisor(self) -> None:
        os.kill(self.state()["pid"], signal.SIGKILL)
        self.process.wait()
        addresses: list[Any] = [("127.0.0.1", port) for port in self.ports.values()]
        addresses.append(str(self._state.with_name("valkey.sock")))
        within(30, "the end of what it had started", lambda: not any(map(is_served, addresses)))

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(30) == 0, f"the gateway has ended with {self.process.returncode}"


def is_served(address: Any) -> bool:
    with socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET) as asking:
        return asking.connect_ex(address) == 0


def try_gateway(folder: Path) -> None:
    """Raises: AssertionError, OSError, grpc.RpcError."""
    write_model(folder / "models")
    running = Running(folder)
    try:
        ask(running.ports)
        running.lose_a_worker()
        running.lose_its_supervisor()
        running = Running(folder)
        ask(running.ports)
        running.stop()
    finally:
        if running.process.poll() is None:
            running.process.terminate()
            running.process.wait(30)


def main() -> None:
    assert is_compiled() or "--compiled" not in sys.argv, "the wheel has no compiled modules"
    with TemporaryDirectory() as folder:
        try_gateway(Path(folder))
    lacking = "; ".join(limit.feature for limit in platform_limits(sys.platform))
    print(f"served on {sys.platform}, lacking: {lacking or 'nothing'}")


if __name__ == "__main__":
    main()
