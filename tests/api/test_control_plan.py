"""What operators are told before a change, and of changes that were made."""

import json

import grpc
import grpc.aio
import pytest

from gateway.pb import control_pb2 as pb
from gateway.routing.document.document import RouteDocument
from tests.api.operated import Operated
from tests.api.routes import ab, canary, pinned, route

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def planned(op: Operated, document: RouteDocument) -> pb.PlanResponse:
    answer: pb.PlanResponse = await op.stub.Plan(pb.PlanRequest(document_json=document.to_json()))
    return answer


def flows(answer: pb.PlanResponse | pb.DiffResponse) -> dict[tuple[str, str], int]:
    return {(flow.from_arm, flow.to_arm): flow.size for flow in answer.flows}


async def test_a_plan_of_a_first_route_counts_from_what_serves_without_one(op: Operated) -> None:
    answer = await planned(op, ab(90, 10))
    assert (answer.base_revision, answer.unchanged, answer.moved_buckets, answer.version_buckets) == (
        0,
        False,
        1_000_000,
        1_000_000,
    )
    assert flows(answer) == {("", "a"): 900_000, ("", "b"): 100_000}
    assert {flow.from_version for flow in answer.flows} == {"4"}  # the newest ready one
    told = {one.path: one.after_json for one in answer.differences}
    assert told["spec.arms.b.version"] == '"2"'
    assert {one.before_json for one in answer.differences} == {""}
    assert (answer.workers, list(answer.laggards), list(answer.obstacles)) == (1, [], [])


async def test_a_plan_says_what_an_apply_then_does(op: Operated) -> None:
    base = await op.apply(ab(90, 10))
    answer = await planned(op, ab(75, 25))
    assert answer.base_revision == base
    assert {one.path: (one.before_json, one.after_json) for one in answer.differences} == {
        "spec.strategy.ab.weights.a": ('"90%"', '"75%"'),
        "spec.strategy.ab.weights.b": ('"10%"', '"25%"'),
    }
    assert flows(answer) == {("a", "a"): 750_000, ("a", "b"): 150_000, ("b", "b"): 100_000}
    done = await op.stub.Apply(pb.ApplyRequest(document_json=ab(75, 25).to_json(), expected_revision=base))
    assert done.moved_buckets == answer.moved_buckets == answer.version_buckets == 150_000
    assert (await planned(op, ab(75, 25))).unchanged


async def test_a_plan_commits_nothing(op: Operated) -> None:
    before = (await op.store.state()).revision
    await planned(op, ab())
    assert (await op.store.state()).revision == before


async def test_a_plan_names_what_stands_in_its_way(op: Operated) -> None:
    unknown = route({"a": {"version": "9"}}, {"pinned": {"arm": "a"}})
    answer = await planned(op, unknown)
    assert [(one.version, one.state) for one in answer.versions] == [("9", "UNKNOWN")]
    assert "no version '9'" in answer.obstacles[0]
    unlike = route({"a": {"version": "1"}, "b": {"version": "4"}}, {"pinned": {"arm": "a"}})
    answer = await planned(op, unlike)
    assert not answer.versions
    assert "differ in inputs or outputs" in answer.obstacles[0]


async def test_a_new_name_of_an_arm_moves_nobody(op: Operated) -> None:
    await op.apply(ab(60, 40))
    arms = {"a": {"version": "1"}, "challenger": {"version": "2"}}
    renamed = route(arms, {"ab": {"control": "a", "weights": {"a": 60, "challenger": 40}}})
    answer = await planned(op, renamed)
    assert (answer.moved_buckets, answer.version_buckets) == (0, 0)
    assert flows(answer) == {("a", "a"): 600_000, ("b", "challenger"): 400_000}


async def test_a_kill_switch_counts_as_a_move(op: Operated) -> None:
    await op.apply(ab(60, 40))
    answer = await planned(op, ab(60, 40, killSwitch={"arm": "a", "reason": "incident"}))
    assert flows(answer) == {("a", "a"): 600_000, ("b", "a"): 400_000}


async def test_differences_follow_rules_by_name(op: Operated) -> None:
    one = {"name": "one", "match": {"id": {"exact": "1"}}, "arm": "a"}
    two = {"name": "two", "match": {"id": {"exact": "2"}}, "arm": "a"}
    await op.apply(ab(rules=[one, two]))
    answer = await planned(op, ab(rules=[two, one | {"arm": "b"}]))
    assert {item.path: (item.before_json, item.after_json) for item in answer.differences} == {
        "spec.rules[order]": ('["one","two"]', '["two","one"]'),
        "spec.rules[one].arm": ('"a"', '"b"'),
    }


async def test_a_diff_of_two_revisions_and_to_the_newest(op: Operated) -> None:
    first = await op.apply(ab(90, 10))
    second = await op.apply(ab(50, 50))
    third = await op.apply(pinned())
    answer = await op.stub.Diff(pb.DiffRequest(model="affine", from_revision=first, to_revision=second))
    assert answer.moved_buckets == 400_000
    assert len(answer.differences) == 2
    back = await op.stub.Diff(pb.DiffRequest(model="affine", from_revision=second, to_revision=first))
    assert flows(back) == {(b, a): size for (a, b), size in flows(answer).items()}
    newest = await op.stub.Diff(pb.DiffRequest(model="affine", from_revision=first))
    assert newest.to_revision == third
    assert newest.version_buckets == 100_000


async def test_a_revision_is_shown_with_who_and_why(op: Operated) -> None:
    revision = await op.apply(canary(step=1))
    shown = await op.stub.ShowRevision(pb.ShowRevisionRequest(model="affine", revision=revision))
    assert (shown.entry.actor, shown.entry.reason, shown.entry.operation) == ("tester", "test", "apply")
    assert json.loads(shown.entry.document_json)["spec"]["strategy"]["canary"]["step"] == 1
    assert shown.route.revision == revision
    gone = await op.stub.DeleteRoute(pb.DeleteRouteRequest(model="affine", change=pb.Change(actor="tester")))
    shown = await op.stub.ShowRevision(pb.ShowRevisionRequest(model="affine", revision=gone.revision))
    assert (shown.entry.operation, shown.HasField("route")) == ("delete", False)


@pytest.mark.parametrize(
    ("method", "request_", "code", "said"),
    [
        ("ShowRevision", pb.ShowRevisionRequest(model="affine", revision=0), "INVALID_ARGUMENT", "revision is 0"),
        ("ShowRevision", pb.ShowRevisionRequest(model="affine", revision=10**6), "NOT_FOUND", "no revision 1000000"),
        ("ShowRevision", pb.ShowRevisionRequest(revision=1), "INVALID_ARGUMENT", "model is empty"),
        ("Diff", pb.DiffRequest(model="affine"), "INVALID_ARGUMENT", "from_revision is 0"),
        ("Diff", pb.DiffRequest(model="affine", from_revision=1, to_revision=-1), "INVALID_ARGUMENT", "-1"),
        ("Plan", pb.PlanRequest(document_json="{"), "INVALID_ARGUMENT", "line 1"),
        ("Plan", pb.PlanRequest(document_json="{}"), "INVALID_ARGUMENT", "apiVersion"),
    ],
)
async def test_what_is_refused(op: Operated, method: str, request_: object, code: str, said: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await getattr(op.stub, method)(request_)
    assert caught.value.code() is grpc.StatusCode[code]
    assert said in str(caught.value.details())
