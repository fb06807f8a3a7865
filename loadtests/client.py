"""Calls as locust sees them: each one is timed, judged and reported to its statistics."""

from collections.abc import Callable
from time import perf_counter
from typing import Any

import grpc

from gateway.pb.control_pb2_grpc import ControlStub
from gateway.pb.inference_pb2_grpc import GRPCInferenceServiceStub
from loadtests.verdict import Violation


class Failed(Exception):
    """A call without an answer: code and text, the same for every call that failed the same way."""


class Client:
    """A connection of its own to the gateway; `environment` is locust's."""

    def __init__(self, environment: Any, server: str) -> None:
        self._events = environment.events
        # Without a pool of its own every channel of the process would be one connection, and so one worker.
        self._channel = grpc.insecure_channel(server, options=[("grpc.use_local_subchannel_pool", 1)])
        self.inference = GRPCInferenceServiceStub(self._channel)  # type: ignore[no-untyped-call]
        self.control = ControlStub(self._channel)  # type: ignore[no-untyped-call]

    def close(self) -> None:
        self._channel.close()

    def report(self, name: str, call: Callable[[], int]) -> bool:
        """Whether `call` succeeded; it returns the size of the answer and raises RpcError or Violation."""
        started_s = perf_counter()
        failure: Exception | None = None
        size_bytes = 0
        try:
            size_bytes = call()
        except grpc.RpcError as error:
            failure = Failed(text_of(error))
        except Violation as violation:
            failure = violation
        self._events.request.fire(
            request_type="grpc",
            name=name,
            response_time=(perf_counter() - started_s) * 1000,
            response_length=size_bytes,
            exception=failure,
            context={},
        )
        return failure is None


def text_of(error: grpc.RpcError) -> str:
    if isinstance(error, grpc.Call):
        return f"{error.code().name}: {error.details()}"
    return str(error)
