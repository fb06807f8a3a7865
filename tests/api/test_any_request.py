"""Requests made at random: whatever comes, the answer is an answer or a refusal, never a defect."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import grpc.aio
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.pb import inference_pb2 as pb
from gateway.tensor import Datatype
from tests.api.calls import is_well, plain
from tests.api.stand import Stand

pytestmark = pytest.mark.asyncio(loop_scope="session")

_Tensor = pb.ModelInferRequest.InferInputTensor
_Parameter = pb.InferParameter
_Contents = pb.InferTensorContents


@pytest_asyncio.fixture(autouse=True, loop_scope="session")
async def _well_after(stand: Stand) -> AsyncIterator[None]:
    yield
    await is_well(stand)


# ---- anything at all ----

_TEXT = st.one_of(st.sampled_from(["", "x", "affine", "simple", "FP32", "BYTES", "1", "y"]), st.text(max_size=8))
_PARAMETERS = st.dictionaries(
    st.one_of(st.sampled_from(["timeout", "priority", "classification", "sequence_id"]), _TEXT),
    st.one_of(
        st.builds(lambda value: _Parameter(int64_param=value), st.integers(-(2**63), 2**63 - 1)),
        st.builds(lambda value: _Parameter(string_param=value), _TEXT),
        st.builds(lambda value: _Parameter(bool_param=value), st.booleans()),
        st.builds(_Parameter),
    ),
    max_size=2,
)
_SHAPES = st.lists(st.one_of(st.integers(0, 4), st.integers(-(2**63), 2**63 - 1)), max_size=4)
_CONTENTS = st.one_of(
    st.none(),
    st.builds(lambda values: _Contents(fp32_contents=values), st.lists(st.floats(width=32), max_size=5)),
    st.builds(lambda values: _Contents(int_contents=values), st.lists(st.integers(-(2**31), 2**31 - 1), max_size=5)),
    st.builds(lambda values: _Contents(bytes_contents=values), st.lists(st.binary(max_size=3), max_size=5)),
)
_INPUTS = st.lists(
    st.builds(
        lambda name, datatype, shape, contents, parameters: _Tensor(
            name=name, datatype=datatype, shape=shape, contents=contents, parameters=parameters
        ),
        _TEXT,
        st.one_of(st.sampled_from([datatype.wire_name for datatype in Datatype]), _TEXT),
        st.one_of(st.just([1, 4]), st.just([1, 2]), _SHAPES),
        _CONTENTS,
        _PARAMETERS,
    ),
    max_size=3,
)
_MODELS = st.one_of(st.sampled_from(["affine", "simple", "echo-BYTES", "echo-BOOL", "echo-INT8"]), _TEXT)
_OUTPUTS = st.lists(
    st.builds(
        lambda name, parameters: pb.ModelInferRequest.InferRequestedOutputTensor(name=name, parameters=parameters),
        _TEXT,
        _PARAMETERS,
    ),
    max_size=2,
)
REQUESTS = st.builds(
    lambda model, version, request_id, inputs, outputs, raw, parameters: pb.ModelInferRequest(
        model_name=model,
        model_version=version,
        id=request_id,
        inputs=inputs,
        outputs=outputs,
        raw_input_contents=raw,
        parameters=parameters,
    ),
    _MODELS,
    st.one_of(st.just(""), _TEXT),
    _TEXT,
    _INPUTS,
    _OUTPUTS,
    st.lists(st.one_of(st.just(bytes(16)), st.binary(max_size=20)), max_size=3),
    _PARAMETERS,
)
_ALLOWED = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.DEADLINE_EXCEEDED,  # a timeout of microseconds is a request like any other
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    messages=st.lists(
        st.one_of(REQUESTS.map(lambda item: item.SerializeToString()), st.binary(max_size=60)), min_size=20, max_size=20
    )
)
async def test_no_request_whatsoever_is_an_internal_error(stand: Stand, messages: list[bytes]) -> None:
    infer = plain(stand)
    answers = await asyncio.gather(*(infer(message) for message in messages), return_exceptions=True)
    for answer, message in zip(answers, messages, strict=True):
        if isinstance(answer, BaseException):
            assert isinstance(answer, grpc.aio.AioRpcError)
            assert answer.code() in _ALLOWED, (answer.code(), answer.details(), message)
        else:
            pb.ModelInferResponse.FromString(answer)
