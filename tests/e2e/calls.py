"""Calls to a gateway as an application makes them, with everything that came back."""

from collections.abc import Sequence
from dataclasses import dataclass

import grpc
import pytest

from gateway.pb import inference_pb2 as pb
from gateway.pb.control_pb2_grpc import ControlStub
from gateway.pb.inference_pb2_grpc import GRPCInferenceServiceStub
from loadtests.samples import Sample, request
from loadtests.verdict import Answer, answer_of, check_answer

Metadata = Sequence[tuple[str, str]]


def stub(channel: grpc.Channel) -> GRPCInferenceServiceStub:
    return GRPCInferenceServiceStub(channel)  # type: ignore[no-untyped-call]


def control(channel: grpc.Channel) -> ControlStub:
    return ControlStub(channel)  # type: ignore[no-untyped-call]


def infer(
    channel: grpc.Channel, model: str, sample: Sample, *, version: str = "", key: Metadata = (), request_id: str = "e2e"
) -> Answer:
    """The answer, its outputs checked to be those of the version that it names. Raises: RpcError, Violation."""
    message, done = stub(channel).ModelInfer.with_call(
        request(model, sample, request_id, version), timeout=20, metadata=key
    )
    answer = answer_of(message, done.trailing_metadata())
    check_answer(answer, sample, request_id)
    return answer


@dataclass(frozen=True, slots=True)
class Refusal:
    code: grpc.StatusCode
    text: str


def refusal(channel: grpc.Channel, message: pb.ModelInferRequest, *, key: Metadata = ()) -> Refusal:
    """The status of a call that must not succeed."""
    with pytest.raises(grpc.RpcError) as raised:
        stub(channel).ModelInfer(message, timeout=20, metadata=key)
    error = raised.value
    assert isinstance(error, grpc.Call)
    return Refusal(error.code(), error.details() or "")
