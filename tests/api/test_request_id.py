"""The id of a request, which its caller is told with every error."""

from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import unquote

import grpc
import grpc.aio
import pytest
import pytest_asyncio

from gateway.api.answer_metadata import REQUEST_ID
from gateway.pb import inference_pb2 as pb
from gateway.records.worker.lookup import find
from tests import models
from tests.api.calls import good
from tests.api.stand import Stand, standing

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["ngh2", "grpcio"])
async def stand(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stand]:
    data = tmp_path_factory.mktemp("ids")
    models.write_version(data / "models", "affine", "1", models.affine(2.0))
    probes = tmp_path_factory.getbasetemp() / "probes"
    async with standing(data / "models", data, probes=probes, transport=request.param) as made:
        yield made


def unknown_model(request: pb.ModelInferRequest) -> None:
    request.model_name = "nobody"


def wrong_shape(request: pb.ModelInferRequest) -> None:
    request.inputs[0].shape[1] = 9


def reserved_parameter(request: pb.ModelInferRequest) -> None:
    request.parameters["triton_x"].bool_param = True


def unknown_datatype(request: pb.ModelInferRequest) -> None:
    request.inputs[0].datatype = "FP99"


WRONGS = (unknown_model, wrong_shape, reserved_parameter, unknown_datatype)


async def told(stand: Stand, request: pb.ModelInferRequest) -> str | None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stand.stub.ModelInfer(request, timeout=10)
    trailers: Any = caught.value.trailing_metadata()
    values = [str(value) for key, value in trailers if key == REQUEST_ID]
    assert len(values) <= 1
    return values[0] if values else None


@pytest.mark.parametrize("wrong", WRONGS)
@pytest.mark.parametrize("request_id", ["order-4711", "a b%c", "\u7528\u6237 7", "x" * 256])
async def test_the_id_of_the_client_comes_back(
    stand: Stand, wrong: Callable[[pb.ModelInferRequest], None], request_id: str
) -> None:
    request = good()
    wrong(request)
    request.id = request_id
    answer = await told(stand, request)
    assert answer is not None
    assert answer == request_id if request_id.isascii() else unquote(answer) == request_id


@pytest.mark.parametrize("wrong", [unknown_model, wrong_shape])
async def test_a_request_without_an_id_is_given_one(
    stand: Stand, wrong: Callable[[pb.ModelInferRequest], None]
) -> None:
    request = good()
    wrong(request)
    request.id = ""
    first, second = await told(stand, request), await told(stand, request)
    assert first
    assert second
    assert first != second


@pytest.mark.parametrize("request_id", ["x" * 257, "a\nb"])
async def test_an_id_that_is_refused_does_not_come_back(stand: Stand, request_id: str) -> None:
    request = good()
    request.id = request_id
    assert await told(stand, request) is None


async def test_an_error_on_a_stream_has_the_id_too(stand: Stand) -> None:
    async def sent() -> AsyncIterator[pb.ModelInferRequest]:
        for request_id in ("mine", ""):
            request = good()
            unknown_model(request)
            request.id = request_id
            yield request

    answers = [answer async for answer in stand.stub.ModelStreamInfer(sent())]
    ids = [answer.infer_response.parameters[REQUEST_ID].string_param for answer in answers]
    assert ids[0] == "mine"
    assert ids[1]


async def test_the_failure_of_a_served_request_is_recorded_under_the_id_that_was_told(stand: Stand) -> None:
    request = good()
    wrong_shape(request)
    request.id = ""
    answer = await told(stand, request)
    await stand.log.flush()
    assert answer is not None
    assert find(stand.repository.parent / "wal", "affine", answer).row is not None
