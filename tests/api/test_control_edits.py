"""The verbs over a running server: what they commit, who is served then, and who loses a race."""

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest

import gateway
from gateway.pb import control_pb2 as pb
from gateway.pb import inference_pb2
from gateway.routing.document.document import RouteDocument
from tests.api.operated import BY, WAIT, Operated
from tests.api.routes import ab, blue_green, canary, pinned, route

pytestmark = pytest.mark.asyncio(loop_scope="session")

MANY = {str(place): "1" for place in range(1001)}


async def served(op: Operated, request_id: str = "") -> str:
    """The version that answers one request."""
    request = inference_pb2.ModelInferRequest(model_name="affine", id=request_id)
    request.inputs.add(name="x", datatype="FP32", shape=[1, 4])
    request.raw_input_contents.append(np.ones(4, np.float32).tobytes())
    answer: inference_pb2.ModelInferResponse = await op.stand.stub.ModelInfer(request)
    return answer.model_version


async def last(op: Operated) -> pb.HistoryEntry:
    history = await op.stub.History(pb.HistoryRequest(model="affine", limit=1))
    entry: pb.HistoryEntry = history.entries[0]
    return entry


async def refusal(call: "grpc.aio.UnaryUnaryCall[object, object]") -> tuple[str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code().name, str(caught.value.details())


async def test_a_flip_is_in_force_when_the_call_returns(op: Operated) -> None:
    await op.apply(blue_green())
    assert await served(op) == "1"
    answer = await op.stub.Flip(pb.FlipRequest(model="affine", change=BY))
    assert (answer.change.applied_by, answer.moved_buckets) == (["w0"], 1_000_000)
    assert await served(op) == "2"
    assert (await last(op)).operation == "flip"
    await op.stub.Flip(pb.FlipRequest(model="affine", arm="red", change=BY))
    assert await served(op) == "3"
    again = await op.stub.Flip(pb.FlipRequest(model="affine", arm="red", change=BY))
    assert again.change.unchanged
    back = await op.stub.Rollback(pb.RollbackRequest(model="affine", change=BY))
    assert back.restored_revision
    assert await served(op) == "2"


async def test_a_label_moves_to_a_version_that_is_available_and_to_no_other(op: Operated) -> None:
    def labelled(version: str) -> RouteDocument:
        return route({"main": {"label": "stable"}}, {"pinned": {"arm": "main"}}, labels={"stable": version})

    for version in ("1", "2"):
        await op.apply(labelled(version))
        assert await served(op) == version
    request = pb.ApplyRequest(document_json=labelled("9").to_json(), change=BY, wait=WAIT)
    code, said = await refusal(op.stub.Apply(request))
    assert (code, "no version '9'" in said) == ("FAILED_PRECONDITION", True)
    assert await served(op) == "2"


async def test_weights_move_the_least(op: Operated) -> None:
    await op.apply(ab(90, 10))
    request = pb.SetWeightsRequest(model="affine", weights={"a": "80", "b": "20%"}, change=BY)
    assert (await op.stub.SetWeights(request)).moved_buckets == 100_000
    assert (await last(op)).operation == "weights"


async def test_a_pin_is_undone_by_a_rollback_with_its_table(op: Operated) -> None:
    await op.apply(ab(90, 10))
    await op.apply(ab(70, 30))
    table = (await op.stub.GetRoute(pb.GetRouteRequest(model="affine"))).table
    await op.stub.Pin(pb.PinRequest(model="affine", arm="b", change=BY))
    assert await served(op) == "2"
    await op.stub.Rollback(pb.RollbackRequest(model="affine", change=BY))
    assert (await op.stub.GetRoute(pb.GetRouteRequest(model="affine"))).table == table


async def test_a_kill_switch_needs_a_reason_and_is_logged(op: Operated, caplog: pytest.LogCaptureFixture) -> None:
    await op.apply(pinned("canary"))
    code, said = await refusal(op.stub.Kill(pb.KillRequest(model="affine", change=pb.Change(actor="tester"))))
    assert (code, "needs a reason" in said) == ("INVALID_ARGUMENT", True)
    with caplog.at_level(logging.WARNING):
        change = pb.Change(actor="tester", reason="incident 4711", source="cli")
        await op.stub.Kill(pb.KillRequest(model="affine", arm="stable", change=change))
    assert "break-glass: kill of affine by tester" in caplog.text
    assert await served(op) == "1"
    entry = await last(op)
    assert (entry.operation, entry.actor, entry.reason) == ("kill", "tester", "incident 4711")
    await op.stub.Unkill(pb.UnkillRequest(model="affine", change=BY))
    assert await served(op) == "2"
    assert (await op.stub.Unkill(pb.UnkillRequest(model="affine", change=BY))).change.unchanged


async def test_a_canary_goes_up_its_steps_and_becomes_stable(op: Operated) -> None:
    revision = await op.apply(canary())
    shares = []
    for _ in range(2):
        request = pb.PromoteRequest(model="affine", change=BY, expected_revision=revision)
        answer = await op.stub.Promote(request)
        shares.append(answer.moved_buckets)
        revision = answer.change.revision
    assert shares == [40_000, 200_000]
    again = pb.PromoteRequest(model="affine", change=BY, expected_revision=revision)
    code, said = await refusal(op.stub.Promote(again))
    assert (code, "no step is beyond" in said) == ("FAILED_PRECONDITION", True)
    await op.stub.Promote(pb.PromoteRequest(model="affine", full=True, change=BY))
    assert [await served(op) for _ in range(20)] == ["2"] * 20
    entry = await last(op)
    assert entry.operation == "promote"


async def test_a_dry_run_commits_nothing(op: Operated) -> None:
    revision = await op.apply(blue_green())
    answer = await op.stub.Flip(pb.FlipRequest(model="affine", dry_run=True, change=BY))
    assert (answer.moved_buckets, answer.change.revision) == (1_000_000, revision)
    assert (await last(op)).revision == revision


async def test_an_expected_revision_is_kept_to(op: Operated) -> None:
    revision = await op.apply(blue_green())
    await op.stub.Flip(pb.FlipRequest(model="affine", change=BY, expected_revision=revision))
    request = pb.PromoteRequest(model="affine", change=BY, expected_revision=revision - 1)
    code, said = await refusal(op.stub.Promote(request))
    assert (code, f"revision {revision + 1}, not {revision - 1}" in said) == ("ABORTED", True)
    pinned_ = pb.PinRequest(model="affine", change=BY, arm="blue", expected_revision=revision)
    code, said = await refusal(op.stub.Pin(pinned_))
    assert (code, f"revision {revision + 1}, not {revision}" in said) == ("ABORTED", True)


async def test_the_same_key_again_is_one_flip(op: Operated) -> None:
    await op.apply(blue_green())
    change = pb.Change(actor="tester", idempotency_key=f"flip-{await op.apply(blue_green())}")
    first = await op.stub.Flip(pb.FlipRequest(model="affine", change=change))
    second = await op.stub.Flip(pb.FlipRequest(model="affine", change=change))
    assert first.change.revision == second.change.revision
    assert await served(op) == "2"
    code, said = await refusal(op.stub.Pin(pb.PinRequest(model="affine", arm="red", change=change)))
    assert (code, "was used for flip" in said) == ("INVALID_ARGUMENT", True)


async def test_racing_edits_are_all_made_each_on_the_newer_document(op: Operated) -> None:
    first = await op.apply(ab(50, 50))
    arms = ["a", "b"] * 4
    pins = [op.stub.Pin(pb.PinRequest(model="affine", arm=arm, change=BY)) for arm in arms]
    answers = await asyncio.gather(*pins)
    made = [answer.change.revision for answer in answers if not answer.change.unchanged]
    assert sorted(made) == list(range(first + 1, first + 1 + len(made)))


ONE_STEP = [
    pytest.param(blue_green, "Flip", pb.FlipRequest(), id="flip"),
    pytest.param(blue_green, "Promote", pb.PromoteRequest(), id="promote-blue-green"),
    pytest.param(canary, "Promote", pb.PromoteRequest(), id="promote"),
    pytest.param(canary, "Promote", pb.PromoteRequest(full=True), id="promote-full"),
    pytest.param(canary, "Rollback", pb.RollbackRequest(), id="rollback"),
]


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize(("start", "method", "request_"), ONE_STEP)
async def test_twenty_who_mean_the_same_step_take_one(
    op: Operated, start: Callable[[], RouteDocument], method: str, request_: Any, named: bool
) -> None:
    for share in (1, 2, 3):
        await op.apply(ab(100 - share, share))
    left = await op.apply(start())
    requests = []
    for number in range(20):
        request = type(request_)()
        request.CopyFrom(request_)
        request.model = "affine"
        request.change.CopyFrom(pb.Change(actor=f"operator-{number}", reason="the same", source="cli"))
        if named:
            request.expected_revision = left
        requests.append(request)
    answers = await asyncio.gather(*(getattr(op.stub, method)(request) for request in requests))
    changes = [answer if method == "Rollback" else answer.change for answer in answers]
    [made] = [change for change in changes if not change.HasField("already")]
    assert made.revision == left + 1
    newest = await last(op)
    assert newest.revision == left + 1
    for change in changes:
        assert change.revision == left + 1
        if change.HasField("already"):
            assert (change.already.actor, change.unchanged) == (newest.actor, True)
            assert 0 <= change.already_ms_ago < 10_000


async def test_one_who_pressed_before_another_change_must_see_it_first(op: Operated) -> None:
    await op.apply(ab(99, 1))
    await op.apply(ab(90, 10))
    slow = pb.Change(actor="slow", reason="a long walk", source="cli", given_ms_ago=600_000)
    code, said = await refusal(op.stub.Rollback(pb.RollbackRequest(model="affine", change=slow)))
    assert (code, "read it again" in said) == ("ABORTED", True)
    back = await op.stub.Rollback(pb.RollbackRequest(model="affine", change=BY))
    late = await op.stub.Rollback(pb.RollbackRequest(model="affine", change=slow))
    assert (late.already.actor, late.revision) == ("tester", back.revision)
    before = pb.Change(actor="x", given_ms_ago=-1)
    code, said = await refusal(op.stub.Rollback(pb.RollbackRequest(model="affine", change=before)))
    assert (code, "given_ms_ago is -1" in said) == ("INVALID_ARGUMENT", True)


async def test_dry_runs_of_a_rollback_and_a_deletion_say_who_would_answer(op: Operated) -> None:
    first = await op.apply(ab(99, 1))
    revision = await op.apply(ab(60, 40))
    plan = await op.stub.Rollback(pb.RollbackRequest(model="affine", change=BY, dry_run=True))
    assert (plan.revision, plan.restored_revision, plan.version_buckets) == (revision, first, 390_000)
    plan = await op.stub.DeleteRoute(pb.DeleteRouteRequest(model="affine", change=BY, dry_run=True))
    assert {flow.to_version for flow in plan.flows} == {"4"}  # the newest ready one
    assert (plan.revision, plan.version_buckets) == (revision, 1_000_000)
    assert (await last(op)).revision == revision
    with_wrong = pb.RollbackRequest(model="affine", change=BY, dry_run=True, expected_revision=first)
    code, _said = await refusal(op.stub.Rollback(with_wrong))
    assert code == "ABORTED"


async def test_every_change_of_routes_can_be_tried_and_can_name_what_it_leaves() -> None:
    service = pb.DESCRIPTOR.services_by_name["Control"]
    for method in service.methods:
        if method.output_type.name in ("ApplyResponse", "ApproveResponse", "ChangeResponse", "HealResponse"):
            assert {"change", "wait", "dry_run", "expected_revision"} <= set(method.input_type.fields_by_name), (
                method.name
            )


@pytest.mark.parametrize(
    ("method", "request_", "code", "said"),
    [
        ("Flip", pb.FlipRequest(model="affine"), "FAILED_PRECONDITION", "flip needs blueGreen"),
        ("Flip", pb.FlipRequest(model="nobody"), "NOT_FOUND", "no route"),
        ("Flip", pb.FlipRequest(), "INVALID_ARGUMENT", "model is empty"),
        ("SetWeights", pb.SetWeightsRequest(model="affine", weights={"a": "99"}), "INVALID_ARGUMENT", "sum to 99 %"),
        ("SetWeights", pb.SetWeightsRequest(model="affine", weights=MANY), "INVALID_ARGUMENT", "at most 1000 can be"),
        ("SetLabels", pb.SetLabelsRequest(model="affine", labels=MANY), "INVALID_ARGUMENT", "at most 1000 can be"),
        (
            "SetWeights",
            pb.SetWeightsRequest(model="affine", weights={"c": "9"}),
            "INVALID_ARGUMENT",
            "'c' is not an arm",
        ),
        ("Pin", pb.PinRequest(model="affine"), "INVALID_ARGUMENT", "arm: empty"),
        ("Kill", pb.KillRequest(model="affine", arm="c", change=BY), "INVALID_ARGUMENT", "'c' is not an arm"),
        ("Promote", pb.PromoteRequest(model="affine"), "FAILED_PRECONDITION", "promote needs canary"),
        (
            "Pin",
            pb.PinRequest(model="affine", arm="a", wait=pb.WaitFor(applied=True, timeout_ms=-1)),
            "INVALID_ARGUMENT",
            "-1",
        ),
    ],
)
async def test_what_is_refused_changes_nothing(
    op: Operated, method: str, request_: object, code: str, said: str
) -> None:
    revision = await op.apply(ab())
    refused, details = await refusal(getattr(op.stub, method)(request_))
    assert (refused, said in details) == (code, True), details
    assert (await op.stub.GetRoute(pb.GetRouteRequest(model="affine"))).revision == revision


async def test_labels_are_set_and_taken_away(op: Operated) -> None:
    await op.apply(ab(90, 10))
    await op.stub.SetLabels(pb.SetLabelsRequest(model="affine", labels={"stable": "1", "next": "2"}, change=BY))
    await op.stub.SetLabels(pb.SetLabelsRequest(model="affine", labels={"next": ""}, change=BY))
    assert json.loads(await op.document())["spec"]["labels"] == {"stable": "1"}
    assert (await last(op)).operation == "label"


async def test_the_server_says_what_it_is(op: Operated) -> None:
    answer = await op.stub.ServerVersion(pb.ServerVersionRequest())
    assert (answer.version, answer.worker, answer.transport) == (gateway.__version__, "w0", "grpcio")
