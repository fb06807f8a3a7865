"""Calls that are sampled, from the client's metadata to what is kept of them, over each transport."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import grpc
import grpc.aio
import pytest
import pytest_asyncio

from gateway.errors import Code
from gateway.pb import inference_pb2 as pb
from gateway.serving.tracer import Tracer
from gateway.telemetry.finished_trace import FinishedTrace
from tests import models
from tests.api.calls import good, until
from tests.api.stand import Stand, standing
from tests.rest.asking import as_rest, ask

pytestmark = pytest.mark.asyncio(loop_scope="session")
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00"


def fill(repository: Path) -> None:
    models.write_version(repository, "affine", "1", models.affine(2.0))
    models.write_version(repository, "gather", "1", models.fragile())
    delay = "max_batch_size: 8\ndynamic_batching { max_queue_delay_microseconds: 300000 }"
    models.write_version(repository, "merged", "1", models.affine(2.0), config=delay)


@pytest_asyncio.fixture(scope="module", loop_scope="session", params=["ngh2", "grpcio"])
async def traced(
    tmp_path_factory: pytest.TempPathFactory, probes: Path, request: pytest.FixtureRequest
) -> AsyncIterator[Stand]:
    data = tmp_path_factory.mktemp("traced")
    fill(data / "models")
    transport, tracer = request.param, Tracer(0.0, Random(7))
    async with standing(data / "models", data, probes=probes, transport=transport, rest=True, tracer=tracer) as made:
        yield made


async def kept(stand: Stand) -> list[FinishedTrace]:
    """What is kept of the calls up to now, all of which have ended."""
    await until(lambda: stand.engine.in_flight == 0)
    assert stand.engine.tracer is not None
    return stand.engine.tracer.take()


async def call(stand: Stand, request: pb.ModelInferRequest, *metadata: tuple[str, str]) -> pb.ModelInferResponse:
    answer: pb.ModelInferResponse = await stand.stub.ModelInfer(request, timeout=10, metadata=metadata)
    return answer


async def test_a_call_is_sampled_as_its_parent_is(traced: Stand) -> None:
    await call(traced, good(2))
    await call(traced, good(2), ("traceparent", UNSAMPLED))
    await call(traced, good(2), ("traceparent", SAMPLED.upper()))
    assert await kept(traced) == []
    await call(traced, good(2), ("traceparent", SAMPLED), ("tracestate", "vendor=1"))
    (trace,) = await kept(traced)
    assert (trace.trace_id, trace.parent_id, trace.state) == (TRACE, PARENT, "vendor=1")
    assert trace.span_id not in (PARENT, "0" * 16)
    assert trace.method == "inference.GRPCInferenceService/ModelInfer"
    assert (trace.model, trace.version, trace.request_id) == ("affine", "1", "good")
    assert (trace.code, trace.rows, trace.batch_calls, trace.batch_rows, trace.links) == (0, 2, 1, 2, [])
    assert trace.received_ns <= trace.queued_ns
    assert 0 < trace.infer_ns < trace.total_ns
    assert trace.queued_ns + trace.queue_ns + trace.input_ns + trace.infer_ns <= trace.received_ns + trace.total_ns


async def test_a_streamed_request_is_a_child_of_its_stream(traced: Stand) -> None:
    stream = traced.stub.ModelStreamInfer(metadata=(("traceparent", SAMPLED),), timeout=10)
    for _ in range(2):
        await stream.write(good(1))
    await stream.done_writing()
    async for answer in stream:
        assert not answer.error_message
    traces = await kept(traced)
    assert [trace.method for trace in traces] == ["inference.GRPCInferenceService/ModelStreamInfer"] * 2
    assert {trace.parent_id for trace in traces} == {PARENT}
    assert len({trace.span_id for trace in traces}) == 2


async def test_calls_that_ran_together_are_linked(traced: Stand) -> None:
    def one(number: int, flags: str) -> "asyncio.Future[pb.ModelInferResponse]":
        parent = f"00-{number:032x}-{PARENT}-{flags}"
        return asyncio.ensure_future(call(traced, good(1, model="merged"), ("traceparent", parent)))

    await asyncio.gather(one(1, "01"), one(2, "01"), one(3, "00"))
    first, second = sorted(await kept(traced), key=lambda trace: trace.trace_id)
    assert (first.batch_calls, first.batch_rows) == (3, 3)
    assert first.links == [(second.trace_id, second.span_id)]
    assert second.links == [(first.trace_id, first.span_id)]


async def test_a_call_that_fails_tells_by_what_code(traced: Stand) -> None:
    unknown = pb.ModelInferRequest(model_name="nowhere", id="u")
    failing = pb.ModelInferRequest(model_name="gather", id="f", raw_input_contents=[(99).to_bytes(8, "little")])
    failing.inputs.add(name="i", datatype="INT64", shape=[1])
    undecodable = pb.ModelInferRequest(model_name="affine", id="d", raw_input_contents=[b"123"])
    undecodable.inputs.add(name="x", datatype="FP32", shape=[1, 4])
    for request in (unknown, failing, undecodable):
        with pytest.raises(grpc.aio.AioRpcError):
            await call(traced, request, ("traceparent", SAMPLED))
    told = {trace.request_id: trace for trace in await kept(traced)}
    codes = {name: Code(trace.code) for name, trace in told.items()}
    assert codes == {"u": Code.NOT_FOUND, "f": Code.INTERNAL, "d": Code.INVALID_ARGUMENT}
    assert (told["u"].version, told["u"].queued_ns) == ("", 0)
    assert told["f"].infer_ns == 0


async def test_rest_takes_the_same_header(traced: Stand) -> None:
    path, body, headers = as_rest(good(2))
    answer = await ask(traced, "POST", path, body, {**headers, "traceparent": SAMPLED})
    assert answer.status == 200
    (trace,) = await kept(traced)
    assert (trace.trace_id, trace.parent_id, trace.method) == (TRACE, PARENT, "REST inference")


async def test_an_exemplar_is_kept_of_each_bucket(traced: Stand) -> None:
    await call(traced, good(2), ("traceparent", SAMPLED))
    await kept(traced)
    assert traced.engine.tracer is not None
    exemplars = [one for one in traced.engine.tracer.exemplars() if one["trace_id"] == TRACE]
    assert {(one["model"], one["version"]) for one in exemplars} >= {("affine", "1")}
