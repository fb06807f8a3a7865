"""Explain and simulate over a running server: a decision before it is made, and one that was served."""

import asyncio
import json
import time
from collections import Counter

import grpc
import grpc.aio
import numpy as np
import pytest

from gateway.pb import control_pb2 as pb
from gateway.pb import inference_pb2
from tests.api.operated import Operated
from tests.api.routes import ab, canary, pinned

pytestmark = pytest.mark.asyncio(loop_scope="session")
KEYED = {"from": ["metadata:x-user-id", "id"], "salt": "s1"}
BETA = {"name": "beta", "match": {"metadata": {"x-channel": {"prefix": "beta-"}}}, "arm": "b"}
DEADLINE_S = 10.0


async def infer(op: Operated, request_id: str, version: str = "", **metadata: str) -> tuple[str, dict[str, str]]:
    """The version that answered, and the trailing metadata."""
    request = inference_pb2.ModelInferRequest(model_name="affine", model_version=version, id=request_id)
    request.inputs.add(name="x", datatype="FP32", shape=[1, 4])
    request.raw_input_contents.append(np.ones(4, np.float32).tobytes())
    call = op.stand.stub.ModelInfer(request, metadata=tuple((k.replace("_", "-"), v) for k, v in metadata.items()))
    answer = await call
    return answer.model_version, {str(k): str(v) for k, v in await call.trailing_metadata()}


async def explained(op: Operated, **given: object) -> pb.ExplainResponse:
    answer: pb.ExplainResponse = await op.stub.Explain(pb.ExplainRequest(model="affine", **given))  # type: ignore[arg-type]
    return answer


async def logged(op: Operated, request_id: str) -> pb.ExplainResponse:
    """The explanation of a request that was served, as soon as its record is written."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            return await explained(op, request_id=request_id)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND or time.monotonic() > deadline:
                raise
        await asyncio.sleep(0.01)


async def refusal(call: "grpc.aio.UnaryUnaryCall[object, object]") -> tuple[str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code().name, str(caught.value.details())


async def test_a_key_is_explained_as_it_is_served(op: Operated) -> None:
    await op.apply(ab(50, 50, key=KEYED, rules=[BETA]))
    for number in range(20):
        user = f"user-{number}"
        version, said = await infer(op, f"k-{number}", x_user_id=user)
        answer = await explained(op, key=user)
        assert (answer.decision.version, answer.decision.arm) == (version, said["x-gateway-arm"])
        assert answer.decision.reason == said["x-gateway-reason"] == "SPLIT"
        same = await explained(op, metadata={"X-User-Id": user})
        assert same.decision == answer.decision
    assert [step.stage for step in answer.steps] == ["route", "kill switch", "client pin", "key", "rule beta", "table"]


async def test_rules_pins_and_refusals_are_explained(op: Operated) -> None:
    pin = {"metadata": "x-pin", "allow": {"metadata": {"x-role": {"exact": "tester"}}}}
    await op.apply(ab(key=KEYED, rules=[BETA], clientPin=pin))
    answer = await explained(op, metadata={"x-channel": "beta-1"})
    assert (answer.decision.arm, answer.decision.reason) == ("b", "RULE:beta")
    answer = await explained(op, metadata={"x-role": "tester"}, requested_version="2")
    assert (answer.decision.version, answer.decision.reason) == ("2", "PIN")
    streams = {"name": "streams", "match": {"method": {"exact": "ModelStreamInfer"}}, "arm": "b"}
    await op.apply(ab(key=KEYED, rules=[streams], clientPin=pin))
    assert (await explained(op, method="ModelStreamInfer")).decision.reason == "RULE:streams"
    assert (await explained(op)).decision.reason == "DEFAULT"
    with pytest.raises(grpc.aio.AioRpcError, match="method is 'Predict', allowed: ModelInfer"):
        await explained(op, method="Predict")
    answer = await explained(op, requested_version="2")
    assert (answer.error_code, answer.HasField("decision")) == ("PERMISSION_DENIED", False)
    assert answer.steps[-1].outcome == "refused"


async def test_without_a_key_a_bucket_may_be_named(op: Operated) -> None:
    await op.apply(ab(90, 10))
    assert (await explained(op, bucket=899_999)).decision.arm == "a"
    answer = await explained(op, bucket=900_000, key="ignored")
    assert (answer.decision.arm, answer.decision.bucket) == ("b", 900_000)
    assert answer.steps[-1].detail == "given, but this route reads none"


async def test_an_earlier_revision_can_be_asked(op: Operated) -> None:
    first = await op.apply(pinned("stable"))
    await op.apply(pinned("canary"))
    assert (await explained(op)).decision.version == "2"
    assert (await explained(op, revision=first)).decision.version == "1"


async def test_a_model_without_a_route_serves_its_newest_version(op: Operated) -> None:
    answer = await explained(op)
    assert (answer.decision.version, answer.decision.reason) == ("4", "DEFAULT")


async def test_a_logged_request_gives_what_was_served_whatever_the_route_is_now(op: Operated) -> None:
    await op.apply(ab(50, 50, key=KEYED, rules=[BETA]))
    served = {}
    for number in range(10):
        served[f"split-{number}"] = await infer(op, f"split-{number}", x_user_id=f"user-{number}")
    served["by-rule"] = await infer(op, "by-rule", x_channel="beta-2")
    served["by-pin"] = await infer(op, "by-pin", "2")
    await op.apply(pinned("canary", killSwitch={"arm": "stable", "reason": "x"}))
    served["killed"] = await infer(op, "killed")
    await op.clear()
    served["unrouted"] = await infer(op, "unrouted", "3")
    await op.apply(canary())
    for request_id, (version, said) in served.items():
        answer = await logged(op, request_id)
        assert answer.agrees, answer
        assert (answer.served.version, answer.served.reason) == (version, said["x-gateway-reason"])
        assert (answer.decision.version, answer.decision.reason) == (version, said["x-gateway-reason"])
        assert answer.decision.arm == said.get("x-gateway-arm", "")
        assert (answer.row.request_id, answer.row.code) == (request_id, "OK")
    assert "Parquet" in answer.searched[1]


async def test_a_record_that_the_caller_has_is_replayed_as_the_log_s_own_is(op: Operated) -> None:
    await op.apply(ab(50, 50, key=KEYED))
    await infer(op, "elsewhere", x_user_id="user-7")
    own = await logged(op, "elsewhere")
    await op.apply(ab(0, 100, key=KEYED))
    answer = await op.stub.Explain(pb.ExplainRequest(model="affine", record=own.row))
    assert answer.agrees
    assert (answer.served, answer.decision, answer.steps) == (own.served, own.decision, own.steps)
    assert list(answer.searched) == []
    own.row.bucket = 999_999 - own.row.bucket
    assert not (await op.stub.Explain(pb.ExplainRequest(model="affine", record=own.row))).agrees


async def test_a_request_that_nobody_logged_says_where_was_looked(op: Operated) -> None:
    code, said = await refusal(op.stub.Explain(pb.ExplainRequest(model="affine", request_id="never")))
    assert code == "NOT_FOUND"
    assert "write-ahead logs of the answering host" in said
    assert "Parquet" in said


async def test_keys_are_simulated_as_they_are_then_served(op: Operated) -> None:
    base = await op.apply(ab(80, 20, key=KEYED))
    keys = [f"user-{number}" for number in range(4000)]
    draft = ab(60, 40, key=KEYED)
    answer = await op.stub.Simulate(pb.SimulateRequest(document_json=draft.to_json(), keys=keys))
    assert (answer.base_revision, answer.counted) == (base, 4000)
    assert abs(answer.moved / 4000 - 0.2) < 0.03
    assert answer.moved == answer.other_version
    before = {key: (await explained(op, key=key)).decision.arm for key in keys[:200]}
    await op.apply(draft)
    after = {key: (await explained(op, key=key)).decision.arm for key in keys[:200]}
    part = await op.stub.Simulate(pb.SimulateRequest(document_json=draft.to_json(), keys=keys[:200]))
    assert {flow.to_arm: flow.size for flow in part.flows} == Counter(after.values())
    assert not any(before[key] == "b" and after[key] == "a" for key in before)


async def test_logged_requests_are_simulated(op: Operated) -> None:
    first = await op.apply(ab(100, 0, key=KEYED))
    for number in range(30):
        await infer(op, f"sim-{first}-{number}", x_user_id=f"user-{number}")
    await infer(op, f"sim-{first}-last", x_user_id="user-last")
    await logged(op, f"sim-{first}-last")
    all_moved = pb.SimulateRequest(document_json=ab(0, 100, key=KEYED).to_json(), logged=31)
    answer = await op.stub.Simulate(all_moved)
    assert (answer.counted, answer.moved, answer.left_out) == (31, 31, 0)
    half = pb.SimulateRequest(document_json=ab(50, 50, key=KEYED).to_json(), logged=31)
    answer = await op.stub.Simulate(half)
    assert 5 <= answer.moved <= 26
    assert (await op.stub.GetRoute(pb.GetRouteRequest(model="affine"))).revision == first
    other = ab(50, 50, key=KEYED | {"salt": "s2"}).to_json()
    code, said = await refusal(op.stub.Simulate(pb.SimulateRequest(document_json=other, logged=31)))
    assert (code, "another salt" in said) == ("FAILED_PRECONDITION", True)


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (pb.ExplainRequest(model="affine", request_id="x", key="k"), "by it alone, without ['key']"),
        (pb.ExplainRequest(model="affine", record=pb.LogRow(), identity="k"), "by it alone, without ['identity']"),
        (pb.ExplainRequest(model="affine", record=pb.LogRow(), request_id="x"), "by it alone, without ['record']"),
        (pb.ExplainRequest(model="affine", record=pb.LogRow(model="other")), "it is of model 'other', not of 'affine'"),
        (pb.ExplainRequest(model="affine", bucket=1_000_000), "bucket is 1000000"),
        (pb.ExplainRequest(model="affine", parameters={"p": pb.Parameter()}), "parameters.p: no value"),
        (pb.ExplainRequest(model="affine", request_id="x" * 300), "300 characters"),
        (pb.ExplainRequest(), "model is empty"),
        (pb.SimulateRequest(document_json=ab().to_json()), "exactly one of them"),
        (pb.SimulateRequest(document_json=ab().to_json(), logged=-1), "logged is -1"),
        (pb.SimulateRequest(document_json=json.dumps({}), keys=["a"]), "apiVersion"),
    ],
)
async def test_what_is_refused(op: Operated, request_: object, said: str) -> None:
    method = op.stub.Explain if isinstance(request_, pb.ExplainRequest) else op.stub.Simulate
    code, details = await refusal(method(request_))
    assert (code, said in details) == ("INVALID_ARGUMENT", True), details


async def test_an_unknown_model_is_not_found(op: Operated) -> None:
    code, _ = await refusal(op.stub.Explain(pb.ExplainRequest(model="nobody", key="k")))
    assert code == "NOT_FOUND"
