"""Inference over a real connection: what is good is answered right."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
import pytest_asyncio

from gateway.errors import Code
from gateway.pb import inference_pb2 as pb
from gateway.routing.decision.route import propose
from gateway.routing.document.document import parse
from gateway.tensor import Datatype
from tests.api.calls import fails, good, is_well
from tests.api.conftest import ECHOED, NUMBERS
from tests.api.requests import floats
from tests.api.stand import Stand

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(autouse=True, loop_scope="session")
async def _well_after(stand: Stand) -> AsyncIterator[None]:
    yield
    await is_well(stand)


# ---- what is right ----


async def test_every_number_comes_back_as_it_went(stand: Stand) -> None:
    request = pb.ModelInferRequest(model_name="echo")
    for datatype in reversed(NUMBERS):
        request.inputs.add(name=f"x-{datatype.wire_name}", datatype=datatype.wire_name, shape=[2, 2])
        request.outputs.add(name=f"y-{datatype.wire_name}")
        request.raw_input_contents.append(bytes(range(4 * datatype.size)))
    for _ in range(3):  # learned after the first
        response = await stand.stub.ModelInfer(request)
        assert response.raw_output_contents == request.raw_input_contents
        assert [item.datatype for item in response.outputs] == [item.datatype for item in request.inputs]


@pytest.mark.parametrize("datatype", ECHOED)
async def test_every_datatype_comes_back_as_it_went(stand: Stand, datatype: Datatype) -> None:
    data = bytes(range(4 * datatype.size))
    if datatype is Datatype.BOOL:
        data = b"\0\1\1\0"
    elif datatype is Datatype.BYTES:
        data = b"\0\0\0\0" + b"\3\0\0\0a\0b" + b"\2\0\0\0" + "ü".encode() + b"\1\0\0\0\n"
    request = pb.ModelInferRequest(model_name=f"echo-{datatype.wire_name}", raw_input_contents=[data])
    request.inputs.add(name="x", datatype=datatype.wire_name, shape=[2, 2])
    for _ in range(3):  # learned after the first
        response = await stand.stub.ModelInfer(request)
        assert response.raw_output_contents[0] == data
        assert response.outputs[0].datatype == datatype.wire_name
        assert response.outputs[0].shape == [2, 2]
        assert response.model_version == "1"


@pytest.mark.parametrize("shape", [(), (4,), (2, 3), (0, 3), (1, 2, 3)])
async def test_an_input_without_a_shape_takes_any(stand: Stand, shape: tuple[int, ...]) -> None:
    values = np.arange(np.prod(shape, dtype=int), dtype=np.float32)
    request = pb.ModelInferRequest(model_name="shapeless", raw_input_contents=[values.tobytes()])
    request.inputs.add(name="x", datatype="FP32", shape=shape)
    for _ in range(3):  # learned after the first
        response = await stand.stub.ModelInfer(request)
        assert tuple(response.outputs[0].shape) == shape
        assert response.raw_output_contents[0] == values.tobytes()


async def test_an_input_without_a_shape_needs_the_bytes_of_the_one_sent(stand: Stand) -> None:
    request = pb.ModelInferRequest(model_name="shapeless", raw_input_contents=[bytes(8)])
    request.inputs.add(name="x", datatype="FP32", shape=[4])
    assert await fails(stand, request) == (
        Code.INVALID_ARGUMENT,
        "input byte size mismatch for input 'x' for model 'shapeless'. Expected 16, got 8",
    )


async def test_a_scalar_stays_a_scalar(stand: Stand) -> None:
    request = pb.ModelInferRequest(model_name="scalar", raw_input_contents=[bytes(4)])
    request.inputs.add(name="x", datatype="FP32", shape=[])
    assert list((await stand.stub.ModelInfer(request)).outputs[0].shape) == []
    request.inputs[0].shape.append(1)
    code, details = await fails(stand, request)
    assert code is Code.INVALID_ARGUMENT
    assert details.endswith("Expected [], got [1]")


async def test_metadata_tell_no_shape_from_a_scalar(stand: Stand) -> None:
    for model, shape in (("shapeless", [-1]), ("scalar", [])):
        metadata = await stand.stub.ModelMetadata(pb.ModelMetadataRequest(name=model))
        assert [list(tensor.shape) for tensor in (*metadata.inputs, *metadata.outputs)] == [shape, shape]
        config = (await stand.stub.ModelConfig(pb.ModelConfigRequest(name=model))).config
        assert [list(tensor.dims) for tensor in (*config.input, *config.output)] == [shape, shape]
        assert config.max_batch_size == 0
        assert not config.HasField("dynamic_batching")


async def test_many_callers_at_once_each_get_their_own(stand: Stand) -> None:
    async def one(index: int) -> None:
        request = pb.ModelInferRequest(model_name="affine", id=str(index))
        rows = index % 3 + 1
        values = np.full((rows, 4), index, np.float32)
        request.inputs.add(name="x", datatype="FP32", shape=[rows, 4])
        request.raw_input_contents.append(values.tobytes())
        response = await stand.stub.ModelInfer(request)
        assert response.id == str(index)
        assert response.raw_output_contents[0] == (values * 3).tobytes()

    await asyncio.gather(*(one(index) for index in range(200)))


async def test_the_trailing_metadata_say_what_served(stand: Stand) -> None:
    call = stand.stub.ModelInfer(good(version=""))
    response = await call
    assert response.model_version == "2"
    metadata = {name: value for name, value in await call.trailing_metadata() if name.startswith("x-gateway-")}
    assert metadata["x-gateway-version"] == "2"
    assert set(metadata) == {"x-gateway-version", "x-gateway-arm", "x-gateway-revision", "x-gateway-reason"}


async def test_a_request_refused_after_the_decision_says_which_version_refused_it(stand: Stand) -> None:
    call = stand.stub.ModelInfer(good(9))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    metadata: Any = caught.value.trailing_metadata()
    assert dict(metadata)["x-gateway-version"] == "1"


async def test_rules_read_metadata_parameters_and_inputs(stand: Stand) -> None:
    document = parse(
        {
            "apiVersion": "gateway/v1",
            "kind": "Route",
            "metadata": {"model": "affine"},
            "spec": {
                "arms": {"old": {"version": "1"}, "new": {"version": "2"}},
                "strategy": {"pinned": {"arm": "old"}},
                "rules": [
                    {"name": "by-metadata", "match": {"metadata": {"tier": {"exact": "beta"}}}, "arm": "new"},
                    {"name": "by-parameter", "match": {"parameters": {"tier": {"exact": "beta"}}}, "arm": "new"},
                ],
            },
        }
    )
    before = stand.rules.snapshot
    stand.rules.snapshot = before.with_route(propose(document, None))
    try:
        request = good(version="")
        assert (await stand.stub.ModelInfer(request)).model_version == "1"
        response = await stand.stub.ModelInfer(request, metadata=(("tier", "beta"),))
        assert response.model_version == "2"
        request.parameters["tier"].string_param = "beta"
        call = stand.stub.ModelInfer(request)
        assert (await call).model_version == "2"
        metadata = dict(await call.trailing_metadata())
        assert metadata["x-gateway-arm"] == "new"
        assert metadata["x-gateway-reason"] == "RULE:by-parameter"
    finally:
        stand.rules.snapshot = before


async def test_typed_contents_are_answered_typed(stand: Stand) -> None:
    request = pb.ModelInferRequest(model_name="affine", model_version="1")
    request.inputs.add(
        name="x", datatype="FP32", shape=[1, 4], contents=pb.InferTensorContents(fp32_contents=[1, 2, 3, 4])
    )
    response = await stand.stub.ModelInfer(request)
    assert response.outputs[0].contents.fp32_contents == [2, 4, 6, 8]
    assert not response.raw_output_contents


async def test_only_the_outputs_asked_for_are_sent(stand: Stand) -> None:
    data = np.arange(16, dtype=np.int32)
    request = pb.ModelInferRequest(model_name="simple", raw_input_contents=[data.tobytes()] * 2)
    for name in ("INPUT1", "INPUT0"):
        request.inputs.add(name=name, datatype="INT32", shape=[1, 16])
    request.outputs.add(name="OUTPUT1")
    response = await stand.stub.ModelInfer(request)
    assert [output.name for output in response.outputs] == ["OUTPUT1"]
    assert response.raw_output_contents[0] == bytes(64)
    request.outputs.add(name="OUTPUT0")
    response = await stand.stub.ModelInfer(request)
    assert response.raw_output_contents[1] == (data * 2).tobytes()


async def test_classes_come_with_their_labels(stand: Stand) -> None:
    request = pb.ModelInferRequest(model_name="classifier", raw_input_contents=[floats(0, 9, 1, 0).tobytes()])
    request.inputs.add(name="x", datatype="FP32", shape=[1, 4])
    request.outputs.add(name="scores").parameters["classification"].int64_param = 2
    response = await stand.stub.ModelInfer(request)
    assert response.outputs[0].datatype == "BYTES"
    assert response.outputs[0].shape == [1, 2]
    assert b":1:versicolor" in response.raw_output_contents[0]
    assert b":2:virginica" in response.raw_output_contents[0]


async def test_not_a_number_and_infinity_are_data(stand: Stand) -> None:
    request = good()
    request.raw_input_contents[0] = floats(np.nan, np.inf, -np.inf, 1e-45).tobytes()
    response = await stand.stub.ModelInfer(request)
    answer = np.frombuffer(response.raw_output_contents[0], np.float32)
    assert np.isnan(answer[0])
    assert answer[1:3].tolist() == [np.inf, -np.inf]


async def test_without_a_configured_limit_a_request_may_have_any_number_of_rows(stand: Stand) -> None:
    data = np.arange(4000, dtype="<f4").tobytes()
    request = pb.ModelInferRequest(model_name="wide", raw_input_contents=[data])
    request.inputs.add(name="x", datatype="FP32", shape=[2000, 2])
    for _ in range(2):
        response = await stand.stub.ModelInfer(request)
        assert response.outputs[0].shape == [2000, 2]
        assert response.raw_output_contents[0] == data


async def test_no_rows_are_answered_with_no_rows(stand: Stand) -> None:
    response = await stand.stub.ModelInfer(good(0))
    assert response.outputs[0].shape == [0, 4]
    assert response.raw_output_contents[0] == b""
