"""The judge over a real store: what it commits, who takes over, what a person's change means, and what is counted."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from gateway.errors import StoreUnavailable
from gateway.rollout.arm_counts import ArmCounts
from gateway.rollout.controller import RolloutController
from gateway.rollout.guardrail_evidence import GuardrailEvidence
from gateway.rollout.rollout_record import RolloutRecord
from gateway.rollout.rollout_store import CountsWriter, RolloutStore
from gateway.rollout.steering import paused
from gateway.routing.document.document import RouteDocument, parse
from gateway.routing.store.amendment import Amendment, weigh
from gateway.routing.store.change import Change
from gateway.routing.store.editor import Editor
from gateway.routing.store.redis_store import RedisStore
from gateway.routing.store.route_control import RouteControl
from gateway.routing.store.route_reader import RouteReader
from gateway.runtime.rollout_hand import rollout_operation
from tests.machine_load import as_loaded
from tests.routing.documents import Plain
from tests.routing.live import BY, control_of, store_of, until, workers
from tests.valkey import Valkey

MODEL = "fraud"
DEADLINE_S = 20.0
AT_ONCE: list[Plain] = [{"weight": "10%", "hold": "0s"}, {"weight": "50%", "hold": "0s"}]
GOOD = {"completed": 5000, "errors": 5}
BAD = {"completed": 5000, "errors": 500}
DEEP = "[" * 5000 + "]" * 5000 + "}"


def document(steps: list[Plain] = AT_ONCE, version: str = "2", **canary: object) -> RouteDocument:
    fields: Plain = {"steps": steps, "analysis": {"guardrails": [{"kind": "errors"}]}, **canary}
    spec = {"arms": {"stable": {"version": "1"}, "canary": {"version": version}}, "strategy": {"canary": fields}}
    return parse({"apiVersion": "gateway/v1", "kind": "Route", "metadata": {"model": MODEL}, "spec": spec})


class Hand:
    """Commits as a worker does, without the way over a socket."""

    def __init__(self, control: RouteControl) -> None:
        self._carry_out = rollout_operation(Editor(control))

    async def advance(self, model: str, revision: int, reason: str, detail: str = "") -> None:
        await self._do("advance", model, revision, reason, detail)

    async def promote(self, model: str, revision: int, reason: str, detail: str = "") -> None:
        await self._do("promote", model, revision, reason, detail)

    async def abort(self, model: str, revision: int, reason: str, detail: str = "") -> None:
        await self._do("abort", model, revision, reason, detail)

    async def revert(self, model: str, revision: int, reason: str, detail: str = "") -> None:
        await self._do("revert", model, revision, reason, detail)

    async def reweigh(
        self, model: str, revision: int, weights: Mapping[str, str], reason: str, detail: str = ""
    ) -> None:
        await self._do("reweigh", model, revision, reason, detail, weights)

    async def _do(
        self, act: str, model: str, revision: int, reason: str, detail: str, weights: Mapping[str, str] | None = None
    ) -> None:
        payload: dict[str, object] = {"act": act, "model": model, "revision": revision}
        payload |= {"reason": reason, "detail": detail}
        await self._carry_out(payload | ({"weights": dict(weights)} if weights is not None else {}))


@dataclass
class Rolling:
    """A store with a judge, and workers that tell what they please."""

    url: str
    store: RedisStore
    control: RouteControl
    rollouts: RolloutStore
    judge: RolloutController

    def another(self, name: str) -> RolloutController:
        return RolloutController(RolloutStore(self.store, RouteReader(self.store)), Hand(self.control), name)

    async def record(self) -> RolloutRecord:
        record = await self.rollouts.record(MODEL)
        assert record is not None
        return record

    async def tell(self, worker: str = "w0", **arms: dict[str, int]) -> None:
        """A worker's totals at the active revision."""
        writer = CountsWriter(self.url, "default", worker)
        await writer.write({(await self.control.get(MODEL)).revision: arms})
        await writer.aclose()

    async def until(self, condition: Callable[[RolloutRecord], bool], judge: RolloutController | None = None) -> None:
        """Judges until the state is as it should be."""
        end = time.monotonic() + as_loaded(DEADLINE_S)
        while True:
            await (judge or self.judge).step()
            record = await self.rollouts.record(MODEL)
            if record is not None and condition(record):
                return
            assert time.monotonic() < end, record
            await asyncio.sleep(0.02)

    async def operations(self) -> list[tuple[str, str]]:
        return [(entry.operation, entry.actor) for entry in await self.store.history(MODEL)]


@asynccontextmanager
async def opened(valkey: Valkey) -> AsyncIterator[Rolling]:
    async with store_of(valkey.url) as store:
        control, rollouts = control_of(store), RolloutStore(store, RouteReader(store))
        yield Rolling(valkey.url, store, control, rollouts, RolloutController(rollouts, Hand(control), "one"))


@pytest.fixture
async def rolling(valkey: Valkey) -> AsyncIterator[Rolling]:
    async with opened(valkey) as made:
        yield made


def stopped(record: RolloutRecord) -> bool:
    return record.state.phase == "stopped"


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


async def test_while_the_store_is_away_nothing_moves_and_then_it_goes_on(valkey: Valkey) -> None:
    async with opened(valkey) as rolling:
        await rolling.control.apply(document(), change=BY)
        await rolling.until(lambda record: True)
        valkey.kill()
        with pytest.raises(StoreUnavailable):
            await rolling.judge.step()
        valkey.start()
        await rolling.tell(stable=GOOD, canary=GOOD)
        await rolling.until(lambda record: record.state.step == 1)
        assert [operation for operation, _ in await rolling.operations()] == ["promote", "apply"]


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


async def test_a_state_or_counts_that_cannot_be_read_cost_themselves(
    rolling: Rolling, caplog: pytest.LogCaptureFixture
) -> None:
    await rolling.control.apply(document(), change=BY)
    await rolling.until(lambda record: True)
    revision = (await rolling.control.get(MODEL)).revision
    await rolling.store.link.call("HSET", rolling.store.keys.rollouts, "other", "{garbage")
    await rolling.store.link.call("HSET", rolling.store.keys.counts(revision), "w9", "{garbage")
    await rolling.store.link.call("HSET", rolling.store.keys.counts(revision), "w10", '{"a": ' + DEEP)
    await rolling.store.link.call("HSET", rolling.store.keys.rollouts, "deep", '{"more": ' + DEEP)
    await rolling.tell(stable=GOOD, canary=GOOD)
    await rolling.until(lambda record: record.state.step == 1)
    assert "cannot be read" in caplog.text


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


async def test_a_lease_without_an_end_is_taken_away(rolling: Rolling) -> None:
    await rolling.control.apply(document([{"weight": "10%", "hold": "1h"}]), change=BY)
    await rolling.store.link.call("RPUSH", rolling.store.keys.judge, "garbage")
    await rolling.until(lambda record: True)
    assert rolling.judge.leads


async def test_damaged_states_are_set_aside_and_rollouts_begin_anew(rolling: Rolling) -> None:
    await rolling.control.apply(document([{"weight": "10%", "hold": "1h"}]), change=BY)
    await rolling.store.link.call("SET", rolling.store.keys.rollouts, "garbage")
    await rolling.until(lambda record: True)
    begun = (await rolling.record()).id
    unreadable = '{"sequence":7,"phase":"of another release"}'
    await rolling.store.link.call("DEL", rolling.store.keys.damaged_rollouts)
    await rolling.store.link.call("HSET", rolling.store.keys.rollouts, MODEL, unreadable)
    await rolling.until(lambda record: record.id != begun)
    aside = await rolling.store.link.call("HGET", rolling.store.keys.damaged_rollouts, MODEL)
    assert aside == unreadable.encode()


async def test_counts_of_another_type_cost_their_rollout_alone(
    rolling: Rolling, caplog: pytest.LogCaptureFixture
) -> None:
    await rolling.control.apply(document([{"weight": "10%", "hold": "1h"}]), change=BY)
    revision = (await rolling.control.get(MODEL)).revision
    await rolling.store.link.call("SET", rolling.store.keys.counts(revision), "garbage")
    await rolling.judge.step()
    assert "the rollout of model fraud stands still: StoreDamaged" in caplog.text


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


async def test_after_a_flush_and_heal_nothing_goes_on_before_somebody_says_so(valkey: Valkey, tmp_path: Path) -> None:
    async with opened(valkey) as rolling, workers(valkey.url, tmp_path, 1) as [follower]:
        await rolling.control.apply(document(), change=BY)
        await rolling.until(lambda record: True)
        await rolling.tell(stable=GOOD, canary=GOOD)
        record = await rolling.record()
        assert await rolling.rollouts.save(paused(record, "ann"), record.sequence)
        revision = (await rolling.control.get(MODEL)).revision
        await until(lambda: follower.snapshot.revision >= revision)
        await rolling.store.link.call("FLUSHALL")
        await control_of(rolling.store, follower).heal(change=BY, wait_s=DEADLINE_S)
        await rolling.tell(stable=GOOD, canary=GOOD)
        await rolling.until(lambda record: record.told == "paused by tester (restore)")
        assert (await rolling.record()).state.step == 0


async def test_a_rollout_whose_state_was_lost_is_held(rolling: Rolling) -> None:
    lost = "paused by nobody (the state of the rollout was lost)"
    await rolling.control.apply(document(), change=BY)
    await rolling.until(lambda record: True)
    await rolling.store.link.call("HSET", rolling.store.keys.rollouts, MODEL, "{garbage")
    await rolling.tell(stable=GOOD, canary=GOOD)
    await rolling.until(lambda record: record.told == lost)
    await rolling.store.link.call("DEL", rolling.store.keys.rollouts, rolling.store.keys.damaged_rollouts)
    await rolling.store.link.call("SET", rolling.store.keys.rollouts, "garbage")
    await rolling.until(lambda record: record.told == lost)
    await rolling.control.apply(document(version="3"), change=BY)  # a person's new one is not the lost one
    await rolling.until(lambda record: record.versions == ("1", "3") and not record.state.paused_by)


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


async def test_a_promoted_version_is_watched_on_though_the_state_was_lost(rolling: Rolling) -> None:
    await rolling.control.apply(document(AT_ONCE[1:], afterPromote={"watch": "1h"}), change=BY)
    await rolling.tell(stable=GOOD, canary=GOOD)
    await rolling.until(lambda record: record.state.phase == "watching")
    await rolling.until(lambda record: "watched for" in record.told)
    await rolling.store.link.call("DEL", rolling.store.keys.rollouts)
    await rolling.until(lambda record: "watched for" in record.told)
    await rolling.tell(stable=BAD)
    await rolling.until(stopped)
    assert (await rolling.control.get(MODEL)).document.version_of("stable") == "1"
    assert "failed while it was watched: errors: 500 of 5000, the limit is 0.50%" in (await rolling.record()).told
