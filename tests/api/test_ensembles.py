"""Ensembles as clients see them, over each transport and by REST."""

from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import grpc
import grpc.aio
import numpy as np
import pytest
import pytest_asyncio
import tritonclient.grpc.aio as tritonclient

from gateway.pb import inference_pb2 as pb
from gateway.routing.decision.route import propose
from gateway.routing.decision.snapshot import Snapshot
from gateway.serving.tracer import Tracer
from tests import models
from tests.api.calls import good
from tests.api.routes import ab
from tests.api.stand import Stand, standing
from tests.rest.asking import ask, told
from tests.serving.ensembles import Step, chain, config, tensor, write_ensemble
from tests.serving.stage import until

pytestmark = pytest.mark.asyncio(loop_scope="session")
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def fill(repository: Path) -> None:
    models.write_version(repository, "affine", "1", models.affine(2.0))
    models.write_version(repository, "affine", "2", models.affine(3.0))
    models.write_version(repository, "fragile", "1", models.fragile())
    models.write_version(repository, "turns", "1", models.turns())
    write_ensemble(repository, "twice", config(*chain("affine", "affine")))
    step = Step("fragile", {"i": "i"}, {"y": "y"})
    scalars = [tensor("i", "TYPE_INT64", (-1,))], [tensor("y", dims=(-1,))]
    write_ensemble(repository, "failing", config(step, inputs=scalars[0], outputs=scalars[1], batch=0))
    long = [tensor("x", dims=(1, 64)), tensor("n", "TYPE_INT64", (1,))], [tensor("y", dims=(1, 64))]
    step = Step("turns", {"x": "x", "n": "n"})
    write_ensemble(repository, "long", config(step, inputs=long[0], outputs=long[1], batch=0))


@pytest_asyncio.fixture(scope="module", loop_scope="session", params=["ngh2", "grpcio"])
async def stand(
    tmp_path_factory: pytest.TempPathFactory, probes: Path, request: pytest.FixtureRequest
) -> AsyncIterator[Stand]:
    data = tmp_path_factory.mktemp("ensembles")
    fill(data / "models")
    tracer, transport = Tracer(0.0, Random(7)), request.param
    async with standing(data / "models", data, probes=probes, transport=transport, rest=True, tracer=tracer) as made:
        yield made


async def test_the_answer_says_which_versions_ran_and_each_step_follows_the_rules_of_its_model(stand: Stand) -> None:
    routed = ab(key={"from": ["metadata:x-user-id"]})
    stand.rules.snapshot = Snapshot.of("tests", 1, (propose(routed, None),))
    seen = set()
    for user in range(20):
        metadata = (("x-user-id", str(user)),)
        for _ in range(2):
            call = stand.stub.ModelInfer(good(2, model="twice"), timeout=10, metadata=metadata)
            values = np.frombuffer((await call).raw_output_contents[0], np.float32)
            trailers = dict(await call.trailing_metadata() or ())
            assert trailers["x-gateway-version"] == "1"
            steps = str(trailers["x-gateway-steps"]).split(",")
            assert steps[0] == steps[1]  # both steps read the same key
            slope = {"affine:1:a": 4, "affine:2:b": 9}[steps[0]]
            assert values.tolist() == (np.arange(8) * slope).tolist()
            seen.add((user, slope))
    stand.rules.snapshot = Snapshot.of("tests", 0, ())
    assert len(seen) == 20  # a key gets the same arm again
    assert {slope for _, slope in seen} == {4, 9}


async def test_an_error_names_the_step_and_keeps_its_code(stand: Stand) -> None:
    request = pb.ModelInferRequest(model_name="failing", id="mine")
    request.inputs.add(name="i", datatype="INT64", shape=[1])
    request.raw_input_contents.append(np.array([99], np.int64).tobytes())
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stand.stub.ModelInfer(request, timeout=10)
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert caught.value.details() == "step 1 (model 'fragile'): internal error (request mine)"


async def test_a_client_that_leaves_ends_the_step_that_runs(stand: Stand) -> None:
    request = pb.ModelInferRequest(model_name="long")
    request.inputs.add(name="x", datatype="FP32", shape=[1, 64])
    request.inputs.add(name="n", datatype="INT64", shape=[1])
    request.raw_input_contents.extend([bytes(256), np.array([10_000_000], np.int64).tobytes()])
    call = stand.stub.ModelInfer(request, timeout=60)
    await until(lambda: stand.engine.in_flight == 1)
    call.cancel()
    await until(lambda: not stand.engine.in_flight)
    await until(lambda: not any(status.in_flight for status in stand.catalog.states()), 10)


async def test_a_sampled_request_has_a_span_for_each_step(stand: Stand) -> None:
    assert stand.engine.tracer is not None
    stand.engine.tracer.take()
    await stand.stub.ModelInfer(good(model="twice"), timeout=10, metadata=(("traceparent", f"00-{TRACE}-{PARENT}-01"),))
    await until(lambda: not stand.engine.in_flight)
    first, second, whole = stand.engine.tracer.take()
    assert {trace.trace_id for trace in (first, second, whole)} == {TRACE}
    assert [trace.method for trace in (first, second)] == ["step affine"] * 2
    assert (first.parent_id, second.parent_id, whole.parent_id) == (whole.span_id, whole.span_id, PARENT)
    assert (first.request_id, first.model, first.version, first.batch_calls) == ("good", "affine", "2", 1)
    assert (whole.model, whole.infer_ns, whole.batch_calls) == ("twice", 0, 0)


async def test_it_is_described_as_triton_describes_it(stand: Stand) -> None:
    answer = await stand.stub.ModelMetadata(pb.ModelMetadataRequest(name="twice"))
    assert (answer.platform, [list(tensor.shape) for tensor in answer.inputs]) == ("ensemble", [[-1, 4]])
    told_config = (await stand.stub.ModelConfig(pb.ModelConfigRequest(name="twice"))).config
    assert [step.model_name for step in told_config.ensemble_scheduling.step] == ["affine", "affine"]
    assert (told_config.backend, len(told_config.instance_group)) == ("", 0)
    statistics = await stand.stub.ModelStatistics(pb.ModelStatisticsRequest(name="twice"))
    before = statistics.model_stats[0].inference_stats.success.count
    await stand.stub.ModelInfer(good(model="twice"), timeout=10)
    (whole,) = (await stand.stub.ModelStatistics(pb.ModelStatisticsRequest(name="twice"))).model_stats
    assert whole.inference_stats.success.count == before + 1
    assert whole.inference_stats.compute_infer.ns > 0


async def test_it_is_asked_by_rest_and_in_a_stream(stand: Stand) -> None:
    body = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}
    answer = await ask(stand, "POST", "/v2/models/twice/infer", body)
    assert told(answer)["outputs"][0]["data"] == [9, 18, 27, 36]
    assert answer.fields["x-gateway-steps"] == "affine:2:,affine:2:"
    stream = stand.stub.ModelStreamInfer(timeout=10)
    await stream.write(good(model="twice"))
    await stream.done_writing()
    (streamed,) = [part.infer_response async for part in stream]
    assert np.frombuffer(streamed.raw_output_contents[0], np.float32).tolist() == [0, 9, 18, 27]


async def test_tritons_client_asks_it_and_reads_its_configuration(stand: Stand) -> None:
    async with tritonclient.InferenceServerClient(stand.address) as client:
        rows = np.ones((2, 4), np.float32)
        given = tritonclient.InferInput("x", [2, 4], "FP32")
        given.set_data_from_numpy(rows)
        answer = await client.infer("twice", [given])
        assert answer.as_numpy("y").tolist() == (rows * 9).tolist()
        told_config = await client.get_model_config("twice", as_json=True)
        steps = told_config["config"]["ensemble_scheduling"]["step"]
        assert [(step["model_name"], step["model_version"]) for step in steps] == [("affine", "-1")] * 2
        assert await client.is_model_ready("twice")
