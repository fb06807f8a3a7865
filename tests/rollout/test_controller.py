"""The judge over a real store: what it commits, who takes over, what a person's change means, and what is counted."""

import msgspec
import pytest

from gateway.rollout.arm_counts import ArmCounts
from gateway.rollout.guardrail_evidence import GuardrailEvidence
from gateway.routing.document.document import parse
from gateway.routing.store.amendment import Amendment, weigh
from gateway.routing.store.change import Change
from gateway.routing.store.editor import Editor
from tests.rollout.rolling import AT_ONCE, BAD, GOOD, MODEL, Rolling, document, stopped
from tests.routing.documents import Plain
from tests.routing.live import BY


async def test_a_good_canary_is_promoted_by_commits_of_the_judge(rolling: Rolling) -> None:
    await rolling.control.apply(document(), change=BY)
    await rolling.tell(stable=GOOD, canary=GOOD)
    await rolling.until(lambda record: record.state.step == 1)
    await rolling.tell(stable=GOOD, canary=GOOD)
    await rolling.until(lambda record: record.state.phase == "promoted")
    active = await rolling.control.get(MODEL)
    assert active.document.version_of("stable") == "2"
    assert await rolling.operations() == [("promote", "judge"), ("promote", "judge"), ("apply", "tester")]
    newest = (await rolling.store.history(MODEL))[0]
    assert "errors: canary 10 of 10000, stable 10 of 10000" in newest.reason
    assert newest.source == "rollout"


async def test_a_bad_canary_has_no_share_and_is_not_begun_again(rolling: Rolling) -> None:
    await rolling.control.apply(document(), change=BY)
    await rolling.until(lambda record: True)
    await rolling.tell(stable=GOOD, canary=BAD)
    await rolling.until(stopped)
    assert (await rolling.control.get(MODEL)).table.weights().get("canary", 0) == 0
    assert "failed: errors: canary 500 of 5000" in (await rolling.record()).told
    await rolling.another("two").step()
    assert stopped(await rolling.record())
    assert [operation for operation, _ in await rolling.operations()] == ["abort", "apply"]


async def test_counts_of_all_workers_add_up_and_a_second_telling_counts_nothing(rolling: Rolling) -> None:
    await rolling.control.apply(document([{"weight": "10%", "hold": "1h"}]), change=BY)
    await rolling.until(lambda record: True)
    for worker in ("host-a-0", "host-a-1", "host-b-0"):
        for _ in range(2):
            await rolling.tell(worker, stable=GOOD, canary={"completed": 100, "errors": 1})
    await rolling.until(lambda record: record.state.evidence.whole[0].completed == 300)
    sequence = (await rolling.record()).sequence
    await rolling.until(lambda record: record.sequence > sequence)
    canary, stable = (await rolling.record()).state.evidence.whole
    assert (canary.completed, canary.errors, stable.completed) == (300, 3, 15_000)


async def test_another_judge_goes_on_with_the_same_evidence(rolling: Rolling) -> None:
    await rolling.control.apply(document([{"weight": "10%", "hold": "1h"}]), change=BY)
    await rolling.tell(stable=GOOD, canary=GOOD)
    await rolling.until(lambda record: record.state.evidence.whole[0].completed == 5000)
    begun = (await rolling.record()).id
    other = rolling.another("two")
    await other.step()
    assert not other.leads
    await rolling.store.link.call("DEL", rolling.store.keys.judge)  # the lease of one that was killed ends
    await rolling.tell(stable=GOOD, canary={"completed": 6000, "errors": 6})
    await rolling.until(lambda record: record.state.evidence.whole[0].completed == 6000, other)
    assert other.leads
    assert (await rolling.record()).id == begun
    await rolling.judge.step()
    assert not rolling.judge.leads


async def test_two_that_judge_the_same_tick_count_it_once(rolling: Rolling) -> None:
    await rolling.control.apply(document([{"weight": "10%", "hold": "1h"}]), change=BY)
    await rolling.until(lambda record: True)
    record = await rolling.record()
    later = msgspec.structs.replace(record, told="counted")
    assert await rolling.rollouts.save(later, record.sequence)
    assert not await rolling.rollouts.save(later, record.sequence)
    assert (await rolling.record()).sequence == record.sequence + 1


async def test_what_a_person_does_to_the_route_is_followed(rolling: Rolling) -> None:
    await rolling.control.apply(document([{"weight": "10%", "hold": "1h"}, {"weight": "50%"}]), change=BY)
    await rolling.until(lambda record: True)
    by_hand = Amendment("weights", lambda active: weigh(active, {"canary": "30%"}))
    await Editor(rolling.control).amend(MODEL, by_hand, change=BY)
    await rolling.until(lambda record: "was set by hand" in record.told)
    await rolling.control.rollback(MODEL, change=Change(actor="ann", reason="no"))
    await rolling.until(lambda record: record.told == "paused by ann (rollback)")
    await rolling.control.apply(document([{"weight": "10%", "hold": "1h"}], "3"), change=BY)
    await rolling.until(lambda record: record.versions == ("1", "3"))
    await rolling.control.rollback(MODEL, change=Change(actor="bob", reason="no"))
    await rolling.until(lambda record: record.told == "paused by bob (rollback)")
    assert (await rolling.record()).versions == ("1", "2")


async def test_what_a_rollback_brings_back_is_judged_and_does_not_go_on(rolling: Rolling) -> None:
    await rolling.control.apply(document(), change=BY)
    await rolling.tell(stable=GOOD, canary=GOOD)
    await rolling.until(lambda record: record.state.step == 1)
    await rolling.control.rollback(MODEL, change=Change(actor="ann", reason="no"))
    await rolling.tell(stable=GOOD, canary=GOOD)
    await rolling.until(lambda record: record.told == "paused by ann (rollback)" and record.state.step == 0)
    await rolling.tell(stable={"completed": 10_000, "errors": 10}, canary={"completed": 10_000, "errors": 505})
    await rolling.until(stopped)
    assert [operation for operation, _ in await rolling.operations()] == ["abort", "rollback", "promote", "apply"]


async def test_a_rollback_passes_over_all_that_the_judge_made_of_a_rollout(rolling: Rolling) -> None:
    """Who presses it in an incident wants the version that was there before, not the canary at its last share."""
    spec = {"arms": {"stable": {"version": "1"}}, "strategy": {"pinned": {"arm": "stable"}}}
    pinned = parse({"apiVersion": "gateway/v1", "kind": "Route", "metadata": {"model": MODEL}, "spec": spec})
    before = (await rolling.control.apply(pinned, change=BY)).change.revision
    await rolling.control.apply(document([*AT_ONCE, {"weight": "70%", "hold": "0s"}]), change=BY)
    for step in (1, 2):
        await rolling.tell(stable=GOOD, canary=GOOD)
        await rolling.until(lambda record, step=step: record.state.step == step)  # type: ignore[misc]
    back = await rolling.control.rollback(MODEL, change=Change(actor="ann", reason="no"))
    assert back.restored_revision == before
    assert (await rolling.control.get(MODEL)).document == pinned


async def test_a_harmful_version_goes_back_while_it_is_watched(rolling: Rolling) -> None:
    await rolling.control.apply(document(AT_ONCE[1:], afterPromote={"watch": "1h"}), change=BY)
    await rolling.tell(stable=GOOD, canary=GOOD)
    await rolling.until(lambda record: record.state.phase == "watching")
    await rolling.tell(stable=BAD)
    await rolling.until(stopped)
    active = await rolling.control.get(MODEL)
    assert active.document.version_of("stable") == "1"
    assert active.table.weights().get("canary", 0) == 0
    assert "failed while it was watched: errors: 500 of 5000" in (await rolling.record()).told


async def test_a_rollout_that_cannot_be_judged_costs_itself_and_is_said_once(
    rolling: Rolling, caplog: pytest.LogCaptureFixture
) -> None:
    await rolling.control.apply(document([{"weight": "10%", "hold": "1h"}]), change=BY)
    await rolling.until(lambda record: True)
    record = await rolling.record()
    evidence = msgspec.structs.replace(record.state.evidence, guardrails=(GuardrailEvidence(),))  # of another release
    state = msgspec.structs.replace(record.state, evidence=evidence)
    assert await rolling.rollouts.save(msgspec.structs.replace(record, state=state, tick_ms=0), record.sequence)
    for _ in range(3):
        await rolling.judge.step()
    assert caplog.text.count("the rollout of model fraud stands still") == 1


def test_counts_are_read_as_workers_write_them() -> None:
    from gateway.errors import Code
    from gateway.serving.arm_tally import ArmTally

    tally = ArmTally()
    tally.observe(Code.OK, 1_000_000, 7)
    tally.observe(Code.INTERNAL, 1_000_000, 7)
    tally.observe(Code.INTERNAL, 1_000_000, 7)  # the same key again within the minute
    tally.observe(Code.INTERNAL, 1_000_000, -1)
    tally.observe(Code.INVALID_ARGUMENT, 1_000_000, 8)  # the client's
    tally.run(12, 2_000_000, 1_000_000)
    read = msgspec.convert(tally.snapshot(), ArmCounts)
    assert (read.completed, read.errors, sum(read.latency)) == (4, 2, 1)
    assert [sum(histogram) for histogram in read.runs] == [0, 0, 0, 1, 0]


async def test_a_route_that_is_deleted_ends_its_rollout(rolling: Rolling) -> None:
    steps: list[Plain] = [{"weight": "10%", "hold": "1h"}]
    await rolling.control.apply(document(steps), change=BY)
    await rolling.until(lambda record: True)
    begun = (await rolling.record()).id
    await rolling.control.delete(MODEL, change=BY)
    await rolling.until(stopped)
    assert "its route was deleted" in (await rolling.record()).told
    await rolling.control.apply(document(steps), change=Change(actor="bob", reason="again"))
    await rolling.until(lambda record: record.id != begun)
    assert (await rolling.record()).begun_by == "bob"


async def test_the_judge_leaves_the_document_as_it_was_applied(rolling: Rolling) -> None:
    watched = document(AT_ONCE, afterPromote={"watch": "0s"})
    await rolling.control.apply(watched, change=BY)
    for _ in range(2):
        await rolling.tell(stable=GOOD, canary=GOOD)
        revision = (await rolling.control.get(MODEL)).revision
        await rolling.until(lambda record, at=revision: record.revision > at or record.state.phase == "watching")  # type: ignore[misc]
    await rolling.until(lambda record: record.state.phase == "promoted")
    active = await rolling.control.get(MODEL)
    assert (active.spec, active.document.version_of("stable")) == (watched, "2")
    again = await rolling.control.apply(watched, change=BY)  # by a pipeline that applies its files every minute
    assert again.change.unchanged
    reworded = document(AT_ONCE, afterPromote={"watch": "1h"})
    await rolling.control.apply(reworded, change=BY)
    await rolling.until(lambda record: record.revision > active.revision)
    assert ((await rolling.record()).state.phase, (await rolling.control.get(MODEL)).spec) == ("promoted", reworded)
    assert (await rolling.control.get(MODEL)).document.version_of("stable") == "2"
