"""Blue-green rollouts over a real store: what the preview must show, who flips, and what is flipped back."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.errors import Code
from gateway.rollout.ramp import Hold, next_step
from gateway.rollout.recorded_verdict import judged_again, verdict_in
from gateway.rollout.rollout_record import RolloutRecord, begun
from gateway.rollout.steering import ends
from gateway.routing.decision.decision import Decision
from gateway.routing.decision.snapshot import Snapshot, propose
from gateway.routing.document.document import RouteDocument, parse
from gateway.routing.document.strategy import BlueGreen, ramp_of
from gateway.routing.store.amendment import Amendment, abort, flip, promote, retry
from gateway.routing.store.audit_trail import chain
from gateway.routing.store.editor import Editor
from gateway.serving.arm_tally import JudgedRoutes
from tests.rollout.rolling import BAD, GOOD, MODEL, Rolling, opened, stopped
from tests.routing.documents import Plain
from tests.routing.live import BY, workers
from tests.valkey import Valkey

ERRORS: Plain = {"guardrails": [{"kind": "errors"}]}
WATCH: Plain = {"watch": "1h"}
NO_PREVIEW = {"completed": 0, "errors": 0}


def blue_green(**plan: object) -> RouteDocument:
    fields: Plain = {"active": "blue", "preview": "green", "analysis": ERRORS, **plan}
    spec = {"arms": {"blue": {"version": "1"}, "green": {"version": "2"}}, "strategy": {"blueGreen": fields}}
    return parse({"apiVersion": "gateway/v1", "kind": "Route", "metadata": {"model": MODEL}, "spec": spec})


@pytest.fixture
async def rolling(valkey: Valkey, tmp_path: Path) -> AsyncIterator[Rolling]:
    """A judge, and one live worker that has loaded whatever is applied."""
    async with opened(valkey) as made, workers(valkey.url, tmp_path, 1):
        yield made


async def active_arm(rolling: Rolling) -> str:
    strategy = (await rolling.control.get(MODEL)).document.strategy
    assert isinstance(strategy, BlueGreen)
    return strategy.active


def watching(record: RolloutRecord) -> bool:
    return record.state.phase == "watching"


async def test_a_preview_that_passes_in_the_shadow_gets_everybody_and_stays(rolling: Rolling) -> None:
    document = blue_green(
        promote="auto", prePromotion={"shadow": "10%", "minEvents": 1000}, postPromotion={"watch": "0s"}
    )
    await rolling.control.apply(document, change=BY)
    await rolling.tell(blue=GOOD, green={"completed": 900, "errors": 0})
    await rolling.until(lambda record: "900 of the 1000 requests" in record.told)
    assert (await rolling.record()).told_phase == "previewing"
    assert "a rollout of version 2 is running (previewing), and this would end it" in str(
        ends(await rolling.record(), "this")
    )
    await rolling.tell(blue=GOOD, green=GOOD)
    await rolling.until(lambda record: record.state.phase == "promoted")
    assert await active_arm(rolling) == "green"
    assert (await rolling.control.get(MODEL)).spec == document
    newest = (await rolling.store.history(MODEL))[0]
    assert (newest.operation, newest.actor) == ("promote", "judge")
    assert newest.reason.startswith("the preview is ready; errors: canary 5 of 5000")


async def test_a_preview_that_fails_in_the_shadow_never_answers(rolling: Rolling) -> None:
    await rolling.control.apply(blue_green(promote="auto", prePromotion={"shadow": "10%", "for": "1h"}), change=BY)
    await rolling.until(lambda record: True)
    await rolling.tell(blue=GOOD, green=BAD)
    await rolling.until(stopped)
    active = await rolling.control.get(MODEL)
    assert (await active_arm(rolling), active.document.effective_mirrors()) == ("blue", ())
    await Editor(rolling.control).amend(MODEL, Amendment("retry", retry), change=BY)
    await rolling.until(lambda record: record.state.phase == "ramping")
    assert (await rolling.control.get(MODEL)).document.effective_mirrors()


async def test_a_person_flips_and_what_is_worse_is_flipped_back(rolling: Rolling) -> None:
    await rolling.control.apply(blue_green(promote="manual", postPromotion=WATCH), change=BY)
    await rolling.tell(blue=GOOD)
    await rolling.until(lambda record: record.told.startswith("waits for gateway promote: the preview is ready"))
    await Editor(rolling.control).amend(MODEL, Amendment("promote", promote), change=BY)
    await rolling.until(watching)
    await rolling.tell(green=GOOD)
    await rolling.until(lambda record: record.watch is not None and record.watch.metrics[0].requests == 5000)
    assert await active_arm(rolling) == "green"
    await rolling.tell(green={"completed": 10_000, "errors": 505})
    await rolling.until(stopped)
    assert await active_arm(rolling) == "blue"
    assert "failed while it was watched: errors: 505 of 10000" in (await rolling.record()).told
    assert [one for one, _ in await rolling.operations()] == ["abort", "promote", "apply"]


async def test_a_harmful_version_that_is_to_be_held_stays(rolling: Rolling) -> None:
    await rolling.control.apply(blue_green(promote="auto", postPromotion={**WATCH, "onFail": "hold"}), change=BY)
    await rolling.tell(blue=GOOD)
    await rolling.until(watching)
    await rolling.tell(green=BAD)
    await rolling.until(lambda record: "failed while it was watched" in record.told)
    assert await active_arm(rolling) == "green"


async def test_nothing_flips_before_every_worker_is_ready(valkey: Valkey) -> None:
    async with opened(valkey) as rolling:  # no worker lives
        await rolling.control.apply(blue_green(promote="auto"), change=BY)
        await rolling.until(
            lambda record: record.told == "the preview is not loaded by every worker: no worker is known"
        )
        assert await active_arm(rolling) == "blue"


def test_an_abort_and_a_pause_hold_it() -> None:
    canary = ramp_of(abort(blue_green(promote="auto")).strategy)
    assert canary is not None
    record = begun("id", blue_green(promote="auto"), 1, 0, 0)
    step = next_step(canary, record.state, 10**9)
    assert isinstance(step, Hold)
    assert step.reason == "it is halted; promote or resume goes on"


def test_what_the_active_arm_answers_and_the_preview_mirrors_is_compared() -> None:
    judged = JudgedRoutes()
    judged.follow(Snapshot.of("e", 0, [propose(blue_green(prePromotion={"shadow": "10%"}), None)]))
    blue = judged.compared(Decision("blue", "1", 0, "DEFAULT"))
    assert blue is not None
    assert judged.compared(Decision("green", "2", 0, "RULE:preview")) is None
    assert judged.compared(Decision("blue", "1", 0, "FALLBACK:INTERNAL")) is None
    green = judged.shadowed(0, "green")
    assert green is not None
    for code in (Code.OK, Code.INTERNAL, Code.INTERNAL, Code.CANCELLED):
        green.shadow(code)
    assert (green.completed, green.errors, sum(green.latency)) == (3, 2, 0)
    judged.follow(Snapshot.of("e", 1, []))
    assert judged.shadowed(0, "green") is None


async def test_what_a_person_decides_after_the_judge_is_not_undone(rolling: Rolling) -> None:
    """Neither a version that is promoted though it failed, nor one that is flipped back though it was good."""
    await rolling.control.apply(blue_green(promote="auto", prePromotion={"shadow": "10%", "for": "1h"}), change=BY)
    await rolling.until(lambda record: True)
    await rolling.tell(blue=GOOD, green=BAD)
    await rolling.until(stopped)
    await Editor(rolling.control).amend(MODEL, Amendment("promote", promote), change=BY)
    await rolling.until(lambda record: record.told.startswith("promoted by tester though it was stopped: failed"))
    await rolling.tell(green=BAD)
    await rolling.judge.step()
    assert ((await rolling.record()).state.phase, await active_arm(rolling)) == ("promoted", "green")
    await Editor(rolling.control).amend(MODEL, Amendment("flip", flip), change=BY)
    await rolling.until(lambda record: record.told == "flip by tester: it is halted")
    assert (stopped(await rolling.record()), await active_arm(rolling)) == (True, "blue")
    await rolling.control.apply(blue_green(promote="auto", keepWarm="1h"), change=BY)  # nothing stands in its way
    await rolling.until(lambda record: record.state.phase == "promoted")


async def test_the_verdicts_of_a_flip_and_of_its_way_back_are_judged_again_from_the_trail(rolling: Rolling) -> None:
    plan = {"prePromotion": {"shadow": "10%", "minEvents": 1000}, "postPromotion": WATCH, "promote": "auto"}
    await rolling.control.apply(blue_green(**plan), change=BY)
    await rolling.tell(blue=GOOD, green=GOOD)
    await rolling.until(watching)
    await rolling.tell(green=BAD)
    await rolling.until(stopped)
    verdicts = [(entry, verdict_in(entry.detail)) for entry in (await chain(rolling.store)).entries]
    told = [(entry, verdict) for entry, verdict in verdicts if verdict is not None]
    assert [verdict.act for _, verdict in told] == ["promote", "stop"]
    for entry, verdict in told:
        assert judged_again(verdict, entry.reason).faults == ()
