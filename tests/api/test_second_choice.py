"""What a client sees where another arm than the decided one answered, and the token that names the answer."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import grpc.aio
import numpy as np
import pytest
import pytest_asyncio

from gateway.api.feedback_token import KEY_BYTES, Tokens
from gateway.pb import inference_pb2 as pb
from gateway.routing.decision.route import propose
from gateway.routing.document.document import parse
from tests import models
from tests.api.stand import Stand, standing

pytestmark = pytest.mark.asyncio(loop_scope="module")
TOKENS = Tokens(bytes(KEY_BYTES))
CONFIG = "max_batch_size: 8\nversion_policy { all {} }"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stand(tmp_path_factory: pytest.TempPathFactory, probes: Path) -> AsyncIterator[Stand]:
    data = tmp_path_factory.mktemp("choice")
    repository = data / "models"
    models.write_version(repository, "gather", "1", models.fragile(8))
    models.write_version(repository, "gather", "2", models.fragile(1000), config=CONFIG)
    async with standing(repository, data, probes=probes, tokens=TOKENS) as made:
        document = parse(
            {
                "apiVersion": "gateway/v1",
                "kind": "Route",
                "metadata": {"model": "gather"},
                "spec": {
                    "arms": {"old": {"version": "1"}, "new": {"version": "2"}},
                    "strategy": {"pinned": {"arm": "old"}},
                    "fallback": {"order": ["new"], "on": ["INTERNAL"]},
                },
            }
        )
        made.rules.snapshot = made.rules.snapshot.with_route(propose(document, None))
        yield made


def request(index: int, *, request_id: str = "r1", version: str = "") -> pb.ModelInferRequest:
    message = pb.ModelInferRequest(model_name="gather", model_version=version, id=request_id)
    message.inputs.add(name="i", datatype="INT64", shape=[1])
    message.raw_input_contents.append(np.array([index], np.int64).tobytes())
    return message


async def trailers(call: Any) -> dict[str, str]:
    return {name: value for name, value in await call.trailing_metadata() if name.startswith("x-gateway-")}


@pytest.mark.parametrize("form", ["raw", "typed", "chosen"])
async def test_the_answer_names_the_version_that_gave_it(stand: Stand, form: str) -> None:
    for index, version, arm, reason in (
        (3, "1", "old", "DEFAULT"),
        (99, "2", "new", "FALLBACK:INTERNAL"),
        (4, "1", "old", "DEFAULT"),
        (98, "2", "new", "FALLBACK:INTERNAL"),
    ):
        message = request(index)
        if form == "typed":
            del message.raw_input_contents[:]
            message.inputs[0].contents.int64_contents.append(index)
        elif form == "chosen":
            message.outputs.add(name="y")
        call = stand.stub.ModelInfer(message)
        response = await call
        assert response.model_version == version
        assert response.id == "r1"
        if form == "typed":
            assert response.outputs[0].contents.fp32_contents == [index]
        else:
            assert np.frombuffer(response.raw_output_contents[0], np.float32).tolist() == [index]
        said = await trailers(call)
        assert (said["x-gateway-version"], said["x-gateway-arm"], said["x-gateway-reason"]) == (version, arm, reason)
        token = TOKENS.verify(said["x-gateway-token"])
        assert (token.model, token.version, token.arm) == ("gather", version, arm)
        assert str(token.revision) == said["x-gateway-revision"]
        assert token.is_of("r1")
    assert stand.engine.in_flight == 0


async def test_the_token_of_a_request_without_an_id_names_the_one_it_is_recorded_under(stand: Stand) -> None:
    call = stand.stub.ModelInfer(request(3, request_id=""))
    response = await call
    assert UUID(response.id).version == 7
    token = TOKENS.verify((await trailers(call))["x-gateway-token"])
    assert token.is_of(response.id)
    assert token.request_hash != TOKENS.verify((await trailers(await _again(stand)))["x-gateway-token"]).request_hash


async def _again(stand: Stand) -> Any:
    call = stand.stub.ModelInfer(request(3, request_id=""))
    await call
    return call


async def test_an_error_carries_no_token(stand: Stand) -> None:
    call = stand.stub.ModelInfer(request(5000))
    with pytest.raises(grpc.aio.AioRpcError):
        await call
    said = await trailers(call)
    assert "x-gateway-token" not in said
    assert (said["x-gateway-version"], said["x-gateway-reason"]) == ("2", "FALLBACK:INTERNAL")


async def test_a_streamed_answer_carries_its_token_among_its_parameters(stand: Stand) -> None:
    call = stand.stub.ModelStreamInfer(iter([request(3, request_id="a"), request(99, request_id="b")]))
    answers = {answer.infer_response.id: answer.infer_response async for answer in call}
    assert {name: answer.model_version for name, answer in answers.items()} == {"a": "1", "b": "2"}
    for name, answer in answers.items():
        token = TOKENS.verify(answer.parameters["x-gateway-token"].string_param)
        assert token.is_of(name)
        assert token.version == answer.model_version
