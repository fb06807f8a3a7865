"""Streams: the wrapper message, errors inside it, many requests in flight, bounded buffers."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import grpc
import grpc.aio
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.pb import inference_pb2 as pb
from gateway.routing.decision.snapshot import propose
from tests.api.conftest import fill_small
from tests.api.routes import ab
from tests.api.stand import Stand, standing
from tests.machine_load import as_loaded

pytestmark = pytest.mark.asyncio(loop_scope="session")


def request_of(value: float, *, request_id: str = "", model: str = "affine") -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name=model, id=request_id)
    request.inputs.add(name="x", datatype="FP32", shape=[1, 4])
    request.raw_input_contents.append(np.full(4, value, np.float32).tobytes())
    return request


async def sent(*requests: pb.ModelInferRequest) -> AsyncIterator[pb.ModelInferRequest]:
    for request in requests:
        yield request


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(as_loaded(10)):
        while not true():  # noqa: ASYNC110 (the engine has no event for it)
            await asyncio.sleep(0)


async def test_every_request_of_a_stream_has_its_answer(stand: Stand) -> None:
    requests = [request_of(value, request_id=str(value)) for value in range(300)]
    answers = {}
    async for answer in stand.stub.ModelStreamInfer(sent(*requests)):
        assert not answer.error_message
        response = answer.infer_response
        answers[response.id] = np.frombuffer(response.raw_output_contents[0], np.float32).tolist()
    assert answers == {str(value): [3.0 * value] * 4 for value in range(300)}


async def test_a_streamed_answer_says_what_served(stand: Stand) -> None:
    (answer,) = [answer async for answer in stand.stub.ModelStreamInfer(sent(request_of(1)))]
    parameters = answer.infer_response.parameters
    assert parameters["x-gateway-version"].string_param == "2"
    assert {"x-gateway-arm", "x-gateway-revision", "x-gateway-reason"} <= set(parameters)
    assert parameters["triton_final_response"].bool_param


async def test_a_rule_may_tell_streams_from_single_requests(stand: Stand) -> None:
    rules = [{"name": "streams", "match": {"method": {"exact": "ModelStreamInfer"}}, "arm": "b"}]
    before = stand.rules.snapshot
    stand.rules.snapshot = before.with_route(propose(ab(100, 0, rules=rules), None))
    try:
        (streamed,) = [answer async for answer in stand.stub.ModelStreamInfer(sent(request_of(1)))]
        for _ in range(3):  # the first is parsed, the others find its template
            assert (await stand.stub.ModelInfer(request_of(1))).model_version == "1"
    finally:
        stand.rules.snapshot = before
    assert streamed.infer_response.model_version == "2"
    assert streamed.infer_response.parameters["x-gateway-reason"].string_param == "RULE:streams"


async def test_an_error_is_an_answer_and_the_stream_goes_on(stand: Stand) -> None:
    requests = [
        request_of(1, request_id="a"),
        request_of(1, request_id="b", model="nobody"),
        request_of(1, request_id="c", model="simple"),
        request_of(1, request_id="d"),
    ]
    answers = {answer.infer_response.id: answer async for answer in stand.stub.ModelStreamInfer(sent(*requests))}
    assert set(answers) == {"a", "b", "c", "d"}
    assert answers["b"].error_message == "Request for unknown model: 'nobody' is not found"
    assert answers["b"].infer_response.parameters["x-gateway-code"].string_param == "NOT_FOUND"
    assert "unexpected inference input 'x'" in answers["c"].error_message
    assert answers["c"].infer_response.parameters["x-gateway-version"].string_param == "1"
    assert answers["d"].infer_response.raw_output_contents[0] == np.full(4, 3, np.float32).tobytes()


async def test_errors_end_the_stream_if_the_client_wants_that(stand: Stand) -> None:
    call = stand.stub.ModelStreamInfer(
        sent(request_of(1), request_of(1, model="nobody")), metadata=(("triton_grpc_error", "true"),)
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        _ = [answer async for answer in call]
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_stream_may_ask_for_the_final_response(stand: Stand) -> None:
    request = request_of(1)
    request.parameters["triton_enable_empty_final_response"].bool_param = True
    (answer,) = [answer async for answer in stand.stub.ModelStreamInfer(sent(request))]
    assert not answer.error_message
    assert answer.infer_response.parameters["triton_final_response"].bool_param


async def test_an_empty_stream_ends(stand: Stand) -> None:
    assert [answer async for answer in stand.stub.ModelStreamInfer(sent())] == []


def slow_request(request_id: str = "") -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name="slow", id=request_id, raw_input_contents=[bytes(256)])
    request.inputs.add(name="x", datatype="FP32", shape=[1, 64])
    return request


async def test_models_of_a_stream_do_not_wait_for_each_other(stand: Stand) -> None:
    answers = stand.stub.ModelStreamInfer(sent(slow_request("slow"), request_of(1, request_id="fast")))
    order = [answer.infer_response.id async for answer in answers]
    assert order == ["fast", "slow"]


async def test_the_requests_of_one_model_are_answered_in_the_order_in_which_they_came(stand: Stand) -> None:
    refused_at_once = pb.ModelInferRequest(model_name="slow", id="bad")
    unknown_version = pb.ModelInferRequest(model_name="slow", model_version="9", id="missing")
    too_late = slow_request("late")
    too_late.inputs[0].shape[:] = [1, 63]
    requests = [slow_request("first"), refused_at_once, unknown_version, too_late, slow_request("last")]
    answers = [answer async for answer in stand.stub.ModelStreamInfer(sent(*requests))]
    assert [answer.infer_response.id for answer in answers] == ["first", "bad", "missing", "late", "last"]
    assert [bool(answer.error_message) for answer in answers] == [False, True, True, True, False]


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(kinds=st.lists(st.sampled_from(["affine", "slow", "affine error", "slow error", "nobody"]), max_size=12))
async def test_any_mixture_keeps_the_order_of_each_model(stand: Stand, kinds: list[str]) -> None:
    requests = []
    for number, kind in enumerate(kinds):
        model = kind.partition(" ")[0]
        request = slow_request(str(number)) if model == "slow" else request_of(1, request_id=str(number), model=model)
        if kind.endswith("error"):
            request.inputs[0].name = "no-such-input"
        requests.append(request)
    answers = [answer async for answer in stand.stub.ModelStreamInfer(sent(*requests))]
    assert len(answers) == len(kinds)
    for model in {kind.partition(" ")[0] for kind in kinds}:
        asked = [request.id for request in requests if request.model_name == model]
        assert [one.infer_response.id for one in answers if one.infer_response.model_name == model] == asked
        failed = [one.infer_response.id for one in answers if one.error_message]
        assert set(failed) == {str(n) for n, kind in enumerate(kinds) if "error" in kind or kind == "nobody"}


async def test_errors_as_status_come_in_their_turn_too(stand: Stand) -> None:
    bad = slow_request("bad")
    bad.inputs[0].name = "no-such-input"
    call = stand.stub.ModelStreamInfer(sent(slow_request("first"), bad), metadata=(("triton_grpc_error", "true"),))
    assert (await call.read()).infer_response.id == "first"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_stream_that_goes_away_leaves_nothing(stand: Stand) -> None:
    async def endless() -> AsyncIterator[pb.ModelInferRequest]:
        while True:
            slow = pb.ModelInferRequest(model_name="slow", raw_input_contents=[bytes(256)])
            slow.inputs.add(name="x", datatype="FP32", shape=[1, 64])
            yield slow

    call = stand.stub.ModelStreamInfer(endless())
    await call.read()
    call.cancel()
    await until(lambda: stand.engine.in_flight == 0)


async def test_the_requests_of_a_stream_in_flight_are_bounded(tmp_path: Path, probes: Path) -> None:
    fill_small(tmp_path / "models")
    async with standing(tmp_path / "models", tmp_path, probes=probes, stream_limit=3) as small:
        most = 0

        async def many() -> AsyncIterator[pb.ModelInferRequest]:
            nonlocal most
            for value in range(100):
                most = max(most, small.engine.in_flight)
                yield request_of(value, request_id=str(value))

        seen = 0
        async for answer in small.stub.ModelStreamInfer(many()):
            assert not answer.error_message
            seen += 1
        assert seen == 100
        assert most <= 3


async def test_a_request_on_a_stream_may_limit_its_wait(stand: Stand) -> None:
    requests = [pb.ModelInferRequest(model_name="hasty", raw_input_contents=[bytes(256)]) for _ in range(4)]
    for request in requests:
        request.inputs.add(name="x", datatype="FP32", shape=[1, 64])
    requests[3].parameters["timeout"].int64_param = 1
    answers = [answer async for answer in stand.stub.ModelStreamInfer(sent(*requests))]
    codes = [answer.infer_response.parameters["x-gateway-code"].string_param for answer in answers]
    assert codes == ["", "", "", "DEADLINE_EXCEEDED"]
