"""Who calls during a soak, and who makes trouble meanwhile; which of it comes when is drawn from a seed.

A good call has to be answered rightly, whatever happens: it has docs/examples/service-config.json, so it is repeated
where a worker dies of a kill. A bad one is refused for what is wrong with it. One that is cancelled or late may end
so. Nothing ever ends with INTERNAL or UNKNOWN.
"""

import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Final

import grpc
import numpy as np

from gateway.pb import control_pb2
from gateway.pb import inference_pb2 as pb
from gateway.pb.control_pb2_grpc import ControlStub
from gateway.pb.inference_pb2_grpc import GRPCInferenceServiceStub
from loadtests.soak import model
from loadtests.soak.holdings import Holdings

METHOD: Final = "/inference.GRPCInferenceService/ModelInfer"
SERVICE_CONFIG: Final = Path(__file__).parents[2] / "docs" / "examples" / "service-config.json"
# How often in a thousand calls; the rest are good ones.
SHARES: Final[Mapping[str, int]] = {"large": 5, "bad": 50, "nonsense": 10, "cancelled": 40, "late": 40, "reconnect": 5}
DEADLINE_S: Final = 20.0
LARGE_ROWS: Final = 64
TROUBLE: Final = ("flip", "flip", "flip", "reload", "kill", "stop", "store")
PAUSE_S: Final = 2.0
Runner = Callable[[threading.Event], None]
_EXPECTED: Final[Mapping[str, frozenset[str]]] = {
    "good": frozenset({"OK"}),
    "large": frozenset({"OK"}),
    "bad": frozenset({"INVALID_ARGUMENT", "NOT_FOUND"}),
    "nonsense": frozenset({"INVALID_ARGUMENT"}),
    "cancelled": frozenset({"CANCELLED", "OK"}),
    # RESOURCE_EXHAUSTED: its turn would come too late; UNAVAILABLE: the time was up before there was a connection.
    "late": frozenset({"DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "OK", "UNAVAILABLE"}),
}


class Calls:
    """What became of all calls: how many of each kind ended how, and which should not have."""

    def __init__(self) -> None:
        self.ended: Counter[tuple[str, str]] = Counter()
        self.wrong: list[str] = []
        self._lock = threading.Lock()

    def add(self, kind: str, code: str, text: str) -> None:
        with self._lock:
            self.ended[kind, code] += 1
            if code not in _EXPECTED[kind]:
                self.wrong.append(f"{kind}: {code}: {text}")

    @property
    def total(self) -> int:
        with self._lock:
            return self.ended.total()


class Caller:
    """One client: a call as soon as the last one has ended."""

    def __init__(self, server: str, seed: str, calls: Calls) -> None:
        self._server = server
        self._draw = Random(seed)
        self._calls = calls
        self._small = model.request(1)
        self._large = model.request(LARGE_ROWS)

    def run(self, over: threading.Event) -> None:
        while not over.is_set():
            with grpc.insecure_channel(self._server, options=channel_options()) as channel:
                call = channel.unary_unary(METHOD, None, None)
                while not over.is_set() and (kind := self._kind()) != "reconnect":
                    self._calls.add(kind, *self._one(call, kind))

    def _kind(self) -> str:
        at = self._draw.randrange(1000)
        for kind, share in SHARES.items():
            if at < share:
                return kind
            at -= share
        return "good"

    def _one(self, call: Callable[..., bytes], kind: str) -> tuple[str, str]:
        try:
            match kind:
                case "bad":
                    call(self._bad(), timeout=DEADLINE_S)
                case "nonsense":
                    call(b"\xff" * 64, timeout=DEADLINE_S)
                case "cancelled":
                    running = call.future(self._small[0], timeout=DEADLINE_S)  # type: ignore[attr-defined]
                    running.cancel()
                    running.result()
                case "late":
                    call(self._small[0], timeout=self._draw.uniform(0.0002, 0.002))
                case _:
                    sent, values = self._large if kind == "large" else self._small
                    return _judged(call(sent, timeout=DEADLINE_S), values)
        except grpc.FutureCancelledError:
            return "CANCELLED", ""
        except grpc.RpcError as error:
            assert isinstance(error, grpc.Call)  # noqa: PT017
            return error.code().name, error.details() or ""
        return "OK", ""

    def _bad(self) -> bytes:
        message = pb.ModelInferRequest.FromString(self._small[0])
        match self._draw.randrange(4):
            case 0:
                message.inputs[0].datatype = "INT64"
            case 1:
                message.inputs[0].shape[1] = model.FEATURES + 1
            case 2:
                message.model_name = f"nobody-{self._draw.randrange(10**6)}"
            case _:
                message.raw_input_contents[0] = b"short"
        return message.SerializeToString()


def _judged(answer: bytes, values: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> tuple[str, str]:
    """Returns "OK" if the answer is that of the version that it names."""
    message = pb.ModelInferResponse.FromString(answer)
    factor = model.FACTORS.get(message.model_version, 0.0)
    right = (values * np.float32(factor)).tobytes() == message.raw_output_contents[0]
    return ("OK", "") if right else ("WRONG", f"version {message.model_version} answered something else")


class Troublemaker:
    """Flips, loads, kills; of the workers only the last one, so that the first tells what a long life holds."""

    def __init__(self, server: str, seed: str, holdings: Holdings) -> None:
        self._server = server
        self._draw = Random(seed)
        self._holdings = holdings
        self.made: Counter[str] = Counter()
        self.wrong: list[str] = []

    def run(self, over: threading.Event) -> None:
        while not over.wait(self._draw.uniform(0.5, 1.5) * PAUSE_S):
            kind = self._draw.choice(TROUBLE)
            self.made[kind] += 1
            try:
                getattr(self, f"_{kind}")()
            except grpc.RpcError as error:
                assert isinstance(error, grpc.Call)  # noqa: PT017
                if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                    self.wrong.append(f"{kind}: {error.code().name}: {error.details()}")

    def _flip(self) -> None:
        with grpc.insecure_channel(self._server, options=channel_options()) as channel:
            flip(channel, self._draw.choice(list(model.FACTORS)))

    def _reload(self) -> None:
        with grpc.insecure_channel(self._server, options=channel_options()) as channel:
            stub = GRPCInferenceServiceStub(channel)  # type: ignore[no-untyped-call]
            stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="spare"), timeout=30)
            stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="spare"), timeout=30)

    def _kill(self) -> None:
        self._signal("worker", signal.SIGKILL)

    def _stop(self) -> None:
        self._signal("worker", signal.SIGSTOP)

    def _store(self) -> None:
        self._signal("valkey", signal.SIGKILL)

    def _signal(self, role: str, number: signal.Signals) -> None:
        children = [child for child in self._holdings.children(role) if child["state"] == "READY"]
        if children and (role != "worker" or len(children) > 1):  # the only one that serves is left alone
            try:
                os.kill(int(str(children[-1]["pid"])), number)
            except ProcessLookupError:
                pass


def flip(channel: grpc.Channel, version: str) -> None:
    """Lets that version answer. Raises: RpcError."""
    control = ControlStub(channel)  # type: ignore[no-untyped-call]
    route = {
        "apiVersion": "gateway/v1",
        "kind": "Route",
        "metadata": {"model": "soak"},
        "spec": {"arms": {"only": {"version": version}}, "strategy": {"pinned": {"arm": "only"}}},
    }
    control.Apply(control_pb2.ApplyRequest(document_json=json.dumps(route)), timeout=30)


def channel_options() -> list[tuple[str, object]]:
    return [("grpc.use_local_subchannel_pool", 1), ("grpc.service_config", SERVICE_CONFIG.read_text())]


def wait_until(holds: Callable[[], bool], seconds: float, what: str) -> None:
    """Raises: TimeoutError."""
    end_s = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end_s:
            raise TimeoutError(f"not within {seconds:g} s: {what}")
        time.sleep(0.1)
