"""Rollouts over a running server: what people see and do, who may approve, and what would end one."""

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import grpc
import grpc.aio
import pytest
import pytest_asyncio

from gateway.pb import control_pb2 as pb
from gateway.rollout.controller import RolloutController
from gateway.rollout.rollout_store import RolloutStore
from gateway.routing.document.document import RouteDocument
from gateway.routing.store.audit_trail import chain
from gateway.routing.store.route_reader import RouteReader
from tests.api.operated import BY, WAIT, Operated
from tests.api.routes import pinned, route

pytestmark = pytest.mark.asyncio(loop_scope="session")
STEER = pb.SteerRolloutRequest
STEPS: list[dict[str, Any]] = [{"weight": "10%", "hold": "1h", "approval": ["bob", "tester"]}, {"weight": "50%"}]


class NoHand:
    """Nothing is due in these tests."""

    async def advance(self, model: str, revision: int, reason: str, detail: str = "") -> None:
        raise AssertionError(reason)

    promote = abort = revert = advance

    async def reweigh(
        self, model: str, revision: int, weights: Mapping[str, str], reason: str, detail: str = ""
    ) -> None:
        raise AssertionError(reason)


def rolled(version: str = "2", steps: list[dict[str, Any]] = STEPS) -> RouteDocument:
    strategy = {"canary": {"steps": steps, "analysis": {}}}
    return route({"stable": {"version": "1"}, "canary": {"version": version}}, strategy)


async def judged(op: Operated, told: str = "") -> pb.RolloutState:
    """The state after the judge has looked, again and again until it tells that: it looks once a second at most."""
    judge = RolloutController(RolloutStore(op.store, RouteReader(op.store)), NoHand(), "test")
    end = time.monotonic() + 20.0
    while True:
        await judge.step()
        state: pb.RolloutState = await op.stub.GetRollout(pb.GetRolloutRequest(model="affine"))
        if told in state.told:
            return state
        assert time.monotonic() < end, state.told
        await asyncio.sleep(0.02)


async def begun(op: Operated) -> pb.RolloutState:
    await op.store.link.call("DEL", op.store.keys.rollouts)
    await op.clear()
    await op.apply(rolled())
    return await judged(op)


@pytest_asyncio.fixture(loop_scope="session", autouse=True)
async def no_rollout_is_left(op: Operated) -> AsyncIterator[None]:
    """Other tests of the same server apply what they please."""
    yield
    await op.store.link.call("DEL", op.store.keys.rollouts, op.store.keys.judge)


def by(name: str) -> pb.Change:
    return pb.Change(actor=name, reason="test", source="test")


async def steer(op: Operated, verb: Any, who: str = "ann") -> pb.RolloutState:
    state: pb.RolloutState = await op.stub.SteerRollout(STEER(model="affine", verb=verb, change=by(who)))
    return state


async def refusal(call: "grpc.aio.UnaryUnaryCall[object, object]") -> tuple[str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code().name, str(caught.value.details())


async def test_a_rollout_shows_where_it_is_and_by_which_numbers(op: Operated) -> None:
    state = await begun(op)
    assert (state.phase, state.step, state.steps) == ("ramping", 0, 2)
    assert (state.stable_version, state.canary_version) == ("1", "2")
    assert state.left_ms > 3_500_000
    assert list(state.approvers) == ["bob", "tester"]
    assert [(finding.kind, finding.verdict) for finding in state.findings] == [
        ("errors", "nodata"),
        ("latency", "nodata"),
    ]
    assert state.bound == pytest.approx(100)
    listed = await op.stub.ListRollouts(pb.ListRolloutsRequest())
    assert [one.model for one in listed.rollouts] == ["affine"]
    assert (await refusal(op.stub.GetRollout(pb.GetRolloutRequest(model="other"))))[0] == "NOT_FOUND"


async def test_a_pause_holds_and_is_in_the_audit_trail(op: Operated) -> None:
    await begun(op)
    assert (await steer(op, STEER.PAUSE)).paused_by == "ann"
    await judged(op, "paused by ann")
    assert (await steer(op, STEER.RESUME)).paused_by == ""
    await judged(op, "are left")
    entries = (await op.stub.Audit(pb.AuditRequest(limit=2))).entries
    assert [(entry.operation, entry.actor) for entry in entries] == [
        ("rollout.resume", "ann"),
        ("rollout.pause", "ann"),
    ]
    code, text = await refusal(op.stub.SteerRollout(STEER(model="affine", verb=STEER.RESUME, change=BY)))
    assert (code, "is not held by anybody" in text) == ("FAILED_PRECONDITION", True)
    assert (await refusal(op.stub.SteerRollout(STEER(model="affine", change=BY))))[0] == "INVALID_ARGUMENT"


async def test_resume_takes_away_a_share_that_was_set_by_hand(op: Operated) -> None:
    await begun(op)
    await op.stub.SetWeights(pb.SetWeightsRequest(model="affine", weights={"canary": "30%"}, change=BY, wait=WAIT))
    await judged(op, "set by hand")
    await steer(op, STEER.RESUME)
    await judged(op, "are left")
    assert '"weight":"30%"' not in await op.document()


async def test_only_who_is_named_and_did_not_begin_it_approves(op: Operated) -> None:
    await begun(op)

    def ask(who: str, step: int = 0) -> Any:
        return op.stub.ApproveStep(pb.ApproveStepRequest(model="affine", step=step, change=by(who)))

    code, text = await refusal(ask("mallory"))
    assert (code, "approved by one of bob, tester, not by 'mallory'" in text) == ("PERMISSION_DENIED", True)
    code, text = await refusal(ask("tester"))
    assert (code, "'tester' began the rollout" in text) == ("PERMISSION_DENIED", True)
    code, text = await refusal(ask("bob", 1))
    assert (code, "it is at step 1, and step 2 was to be approved" in text) == ("FAILED_PRECONDITION", True)
    assert (await ask("bob")).approved_by == "bob"
    newest = (await op.stub.Audit(pb.AuditRequest(limit=1))).entries[0]
    assert (newest.operation, newest.actor, newest.model) == ("rollout.approve", "bob", "affine")


async def test_abort_and_retry(op: Operated) -> None:
    first = await begun(op)
    state = await steer(op, STEER.ABORT)
    assert (state.phase, state.told) == ("stopped", "test")  # the answer is what is in force now
    state = await judged(op)
    assert (state.phase, state.told) == ("stopped", "test")
    code, text = await refusal(op.stub.SteerRollout(STEER(model="affine", verb=STEER.ABORT, change=BY)))
    assert (code, "its rollout is over (stopped" in text) == ("FAILED_PRECONDITION", True)
    await steer(op, STEER.RETRY)
    again = await judged(op)
    assert (again.phase, again.id != first.id) == ("ramping", True)
    assert (await refusal(op.stub.SteerRollout(STEER(model="affine", verb=STEER.RETRY, change=BY))))[0] == (
        "FAILED_PRECONDITION"
    )


async def test_an_abort_ends_it_also_where_the_canary_had_no_share(op: Operated) -> None:
    await begun(op)
    await op.stub.SetWeights(pb.SetWeightsRequest(model="affine", weights={"canary": "0%"}, change=BY, wait=WAIT))
    await judged(op, "set by hand")
    assert (await steer(op, STEER.ABORT)).phase == "stopped"
    assert (await judged(op)).phase == "stopped"
    newest = (await op.stub.Audit(pb.AuditRequest(limit=1))).entries[0]
    assert (newest.operation, newest.actor) == ("rollout.abort", "ann")
    await op.stub.Apply(pb.ApplyRequest(document_json=pinned().to_json(), change=BY))


async def test_a_kill_switch_is_named_where_it_holds(op: Operated) -> None:
    await begun(op)
    await op.stub.Kill(pb.KillRequest(model="affine", change=BY, wait=WAIT))
    code, text = await refusal(op.stub.SteerRollout(STEER(model="affine", verb=STEER.RESUME, change=BY)))
    assert (code, "its kill switch is on (test); unkill it" in text) == ("FAILED_PRECONDITION", True)


async def test_a_promotion_after_a_retry_is_carried_out(op: Operated) -> None:
    await begun(op)
    await steer(op, STEER.ABORT)
    await steer(op, STEER.RETRY)
    answer = await op.stub.Promote(pb.PromoteRequest(model="affine", change=by("ann"), wait=WAIT))
    assert not answer.change.unchanged
    assert (await judged(op)).step == 1


async def test_a_second_rollout_is_refused_while_one_is_running(op: Operated) -> None:
    await begun(op)
    for other in (rolled("3"), pinned()):
        code, text = await refusal(op.stub.Apply(pb.ApplyRequest(document_json=other.to_json(), change=BY)))
        assert (code, "a rollout of version 2 is running (ramping, step 1)" in text) == ("FAILED_PRECONDITION", True)
    override = pb.ApplyRequest(document_json=rolled("3").to_json(), change=BY, override=True)
    await op.stub.Apply(override)
    assert (await judged(op)).canary_version == "3"


async def test_the_same_document_again_keeps_the_step(op: Operated) -> None:
    await begun(op)
    await op.stub.Promote(pb.PromoteRequest(model="affine", change=BY, wait=WAIT))
    assert (await judged(op)).step == 1
    again = await op.stub.Apply(pb.ApplyRequest(document_json=rolled().to_json(), change=BY))
    assert again.change.unchanged
    assert (await judged(op)).step == 1


async def test_the_same_idempotency_key_leaves_no_change_unrecorded(op: Operated) -> None:
    await begun(op)
    change = pb.Change(actor="ann", reason="test", idempotency_key="once")
    for verb in (STEER.PAUSE, STEER.RESUME, STEER.PAUSE):
        await op.stub.SteerRollout(STEER(model="affine", verb=verb, change=change))
    entries = (await op.stub.Audit(pb.AuditRequest(limit=3))).entries
    assert [entry.operation for entry in entries] == ["rollout.pause", "rollout.resume", "rollout.pause"]


async def test_what_would_end_a_rollout_is_refused_by_every_door(op: Operated) -> None:
    """Deleting the route, a draft's last approval and a label that moves an arm, as applying another document."""
    await begun(op)
    draft = await op.stub.Draft(pb.DraftRequest(document_json=rolled("3").to_json(), change=by("ann")))
    approval = pb.ApproveRequest(id=draft.id, change=by("bob"))
    deletion = pb.DeleteRouteRequest(model="affine", change=BY)
    doors: list[tuple[Any, Any]] = [(op.stub.DeleteRoute, deletion), (op.stub.Approve, approval)]
    for call, request in doors:
        code, text = await refusal(call(request))
        assert (code, "a rollout of version 2 is running (ramping, step 1)" in text) == ("FAILED_PRECONDITION", True)
    assert (await judged(op)).canary_version == "2"
    approval.override = True  # the approval was taken: who gave it may apply the draft all the same
    assert (await op.stub.Approve(approval)).draft.state == "applied"
    assert (await judged(op)).canary_version == "3"
    deletion.override = True
    await op.stub.DeleteRoute(deletion)


async def test_a_label_that_moves_an_arm_does_not_begin_another_rollout(op: Operated) -> None:
    await begun(op)
    arms = {"stable": {"version": "1"}, "canary": {"label": "next"}}
    labelled = route(arms, {"canary": {"steps": STEPS, "analysis": {}}}, labels={"next": "2"})
    await op.stub.Apply(pb.ApplyRequest(document_json=labelled.to_json(), change=BY, override=True))
    await judged(op)
    beside = pb.SetLabelsRequest(model="affine", labels={"old": "1"}, change=BY, wait=WAIT)
    await op.stub.SetLabels(beside)
    moving = pb.SetLabelsRequest(model="affine", labels={"next": "3"}, change=BY, wait=WAIT)
    code, text = await refusal(op.stub.SetLabels(moving))
    assert (code, "a rollout of version 2 is running" in text) == ("FAILED_PRECONDITION", True)
    moving.override = True
    await op.stub.SetLabels(moving)
    assert (await judged(op)).canary_version == "3"


async def test_a_canary_that_only_people_move_goes_back_to_its_first_step(op: Operated) -> None:
    """Its file applied again leaves it where it is."""
    await op.store.link.call("DEL", op.store.keys.rollouts)
    await op.clear()
    document = route(
        {"stable": {"version": "1"}, "canary": {"version": "2"}},
        {"canary": {"steps": [{"weight": "10%"}, {"weight": "50%"}]}},
    )
    await op.apply(document)
    await op.stub.Promote(pb.PromoteRequest(model="affine", change=BY, wait=WAIT))
    await op.apply(document)
    shown: pb.RolloutState = await op.stub.GetRollout(pb.GetRolloutRequest(model="affine"))
    assert (shown.phase, shown.step, shown.told.partition(";")[0]) == ("manual", 1, "50% by step 2 of 2")
    again = await steer(op, STEER.RETRY)
    assert (again.step, again.told.partition(";")[0]) == (0, "10% by step 1 of 2")
    await op.stub.SetWeights(pb.SetWeightsRequest(model="affine", weights={"canary": "30"}, change=BY, wait=WAIT))
    assert (await steer(op, STEER.RESUME)).told.startswith("10% by step 1")
    assert (await steer(op, STEER.ABORT)).told.startswith("0%, set by hand at step 1")
    code, text = await refusal(
        op.stub.SteerRollout(pb.SteerRolloutRequest(model="affine", verb=STEER.PAUSE, change=BY))
    )
    assert (code, "there is nothing to pause" in text) == ("FAILED_PRECONDITION", True)
    active: pb.Route = await op.stub.GetRoute(pb.GetRouteRequest(model="affine"))
    assert active.document_json == document.to_json()


async def test_a_flip_waits_until_every_live_worker_has_the_preview(op: Operated) -> None:
    """Also by hand: on another host the version may still be loading."""
    await op.store.link.call("DEL", op.store.keys.rollouts)
    await op.clear()
    arms = {"blue": {"version": "1"}, "green": {"version": "2"}}
    plan = {"active": "blue", "preview": "green", "promote": "manual", "postPromotion": {"watch": "1h"}}
    await op.apply(route(arms, {"blueGreen": plan}))
    [live] = await op.store.workers()
    keys, late = op.store.keys, dataclasses.replace(live, id="late", head=0, revision=0)
    fields = [word for pair in late.to_fields().items() for word in pair]
    await op.store.link.call("HSET", keys.worker("late"), *fields)
    await op.store.link.call("PEXPIRE", keys.worker("late"), 60_000)
    await op.store.link.call("ZADD", keys.workers, 0, "late")
    ask = pb.PromoteRequest(model="affine", change=BY, wait=WAIT)
    try:
        code, text = await refusal(op.stub.Promote(ask))
        assert (code, "version 2 is not loaded by every worker: late" in text) == ("FAILED_PRECONDITION", True)
        assert (await refusal(op.stub.Flip(pb.FlipRequest(model="affine", change=BY))))[0] == "FAILED_PRECONDITION"
    finally:
        await op.store.link.call("DEL", keys.worker("late"))
        await op.store.link.call("ZREM", keys.workers, "late")
    assert (await op.stub.Promote(ask)).change.revision
    assert (await judged(op, "watched for")).phase == "watching"
    await op.stub.DeleteRoute(pb.DeleteRouteRequest(model="affine", change=BY, override=True))


async def test_a_blue_green_rollout_is_steered_like_a_canary(op: Operated) -> None:
    await op.store.link.call("DEL", op.store.keys.rollouts)
    await op.clear()
    arms = {"blue": {"version": "1"}, "green": {"version": "2"}}
    plan = {"active": "blue", "preview": "green", "prePromotion": {"shadow": "10%", "for": "1h"}}
    document = route(arms, {"blueGreen": plan | {"postPromotion": {"watch": "1h"}}})
    await op.apply(document)
    assert (await judged(op, "are left")).phase == "previewing"
    assert (await steer(op, STEER.PAUSE)).paused_by == "ann"
    await judged(op, "paused by ann")
    assert (await steer(op, STEER.RESUME)).paused_by == ""
    assert (await steer(op, STEER.ABORT)).phase == "stopped"
    active: pb.Route = await op.stub.GetRoute(pb.GetRouteRequest(model="affine"))
    assert (active.document_json, '"halted":true' in active.in_force_json) == (document.to_json(), True)
    await judged(op)
    await steer(op, STEER.RETRY)
    await judged(op, "are left")
    other = route({"blue": {"version": "1"}, "green": {"version": "3"}}, {"blueGreen": plan})
    code, text = await refusal(op.stub.Apply(pb.ApplyRequest(document_json=other.to_json(), change=BY)))
    assert (code, "a rollout of version 2 is running" in text) == ("FAILED_PRECONDITION", True)
    for asked in (
        op.stub.Promote(pb.PromoteRequest(model="affine", change=BY, wait=WAIT)),
        op.stub.Flip(pb.FlipRequest(model="affine", change=BY)),
    ):
        code, text = await refusal(asked)
        assert code == "FAILED_PRECONDITION"
        assert "before version 2 gets everybody: 1h of 1h are left; wait for it, or give --override" in text
    flipped: pb.ApplyResponse = await op.stub.Promote(
        pb.PromoteRequest(model="affine", change=BY, wait=WAIT, override=True)
    )
    assert flipped.change.warnings == ["--override skipped what stands before a promotion: 1h of 1h are left"]
    newest = (await chain(op.store)).entries[-1]
    assert (newest.operation, newest.detail) == ("promote", "override: 1h of 1h are left")
    assert (await judged(op, "watched for")).phase == "watching"
    assert (await steer(op, STEER.ABORT)).phase == "stopped"
    code, text = await refusal(op.stub.Promote(pb.PromoteRequest(model="affine", change=BY)))
    assert (code, "it was stopped: " in text) == ("FAILED_PRECONDITION", True)
    back: pb.Route = await op.stub.GetRoute(pb.GetRouteRequest(model="affine"))
    assert [(part.start, part.end, part.arm) for part in back.table] == [(0, 1_000_000, "blue")]
    assert (await judged(op)).stable_version == "1"
    await op.stub.DeleteRoute(pb.DeleteRouteRequest(model="affine", change=BY))
