"""Bandits over a real store: what the judge commits, what a person's change means, and what the log makes of it."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from gateway.rollout.bandit_record import BanditRecord, followed_bandit
from gateway.rollout.bandit_story import bandit_event, told_bandit
from gateway.rollout.bandit_weights import BanditEvidence, BanditPhase, NewWeights, next_weights
from gateway.rollout.recorded_weights import weights_again, weights_in
from gateway.rollout.results.experiment import RevisionSplit
from gateway.rollout.rollout_store import CountsWriter
from gateway.routing.decision.route import Route, propose
from gateway.routing.document.bandit_plan import BanditPlan
from gateway.routing.document.bucket import BUCKETS
from gateway.routing.document.document import RouteDocument, parse
from gateway.routing.document.quantity import percent_text
from gateway.routing.document.route_status import RouteStatus
from gateway.routing.store.amendment import Amendment, kill, unkill, weigh
from gateway.routing.store.audit_trail import chain
from gateway.routing.store.editor import Editor
from gateway.telemetry.event_types import EventType
from tests.drift.lakes import START_US
from tests.machine_load import as_loaded
from tests.rollout.experiments import HOUR_US, MODEL, Requests, split_document, write_requests
from tests.rollout.rolling import DEADLINE_S, Rolling
from tests.rollout.test_off_policy import asked
from tests.routing.live import BY

PLAN = {"interval": "1s", "minEvents": 20, "posterior": "beta", "floor": "10%"}


def document(version: str = "2", **bandit: object) -> RouteDocument:
    value = split_document({"a": 40, "b": 30, "c": 30}, bandit={**PLAN, **bandit})
    value["spec"]["arms"]["b"]["version"] = version
    return parse(value)


async def record_of(rolling: Rolling) -> BanditRecord:
    record = await rolling.rollouts.bandits.record(MODEL)
    assert record is not None
    return record


async def until(rolling: Rolling, condition: Callable[[BanditRecord], bool]) -> BanditRecord:
    """Judges until the state is as it should be."""
    end = time.monotonic() + as_loaded(DEADLINE_S)
    while True:
        await rolling.judge.step()
        record = await rolling.rollouts.bandits.record(MODEL)
        if record is not None and condition(record):
            return record
        assert time.monotonic() < end, record
        await asyncio.sleep(0.02)


async def tell(rolling: Rolling, revision: int, worker: str = "w0", **arms: dict[str, object]) -> None:
    writer = CountsWriter(rolling.url, "default", worker)
    await writer.write({revision: arms})
    await writer.aclose()


def paid(n: int, total: int, **counts: int) -> dict[str, object]:
    return {"completed": n, "means": {"reward": [n, total, total]}, **counts}


async def shares(rolling: Rolling) -> dict[str, int]:
    return (await rolling.control.get(MODEL)).table.weights()


async def edit(rolling: Rolling, operation: str, change: Callable[[RouteDocument], RouteDocument]) -> None:
    await Editor(rolling.control).amend(MODEL, Amendment(operation, change), change=BY)  # type: ignore[arg-type]


async def test_rewards_move_weights_by_commits_that_are_judged_again_from_the_trail(rolling: Rolling) -> None:
    await rolling.control.apply(document(), change=BY)
    begun = await until(rolling, lambda record: True)
    first = (await rolling.control.get(MODEL)).revision
    assert (begun.phase, begun.told) == ("learning", "1s until weights may move")
    await until(rolling, lambda record: record.told.startswith("no data: no reward is known"))
    await tell(rolling, first, "host-a-0", a=paid(100, 10), b=paid(50, 5), c=paid(50, 30))
    await tell(rolling, first, "host-b-0", a=paid(100, 10), b=paid(50, 5))
    moved = await until(rolling, lambda record: record.revision > first)
    assert await shares(rolling) == {"a": 100_000, "b": 100_000, "c": 800_000}
    assert moved.evidence.phases[0].sums["a"][0] == 200
    active = await rolling.control.get(MODEL)
    assert active.spec == document()  # what was applied stays as it was applied
    assert active.status == RouteStatus(weights=(("a", 100_000), ("b", 100_000), ("c", 800_000)))
    assert Route.from_json(active.to_json()) == active
    newest, *_ = await rolling.store.history(MODEL)
    assert (newest.operation, newest.actor, newest.source) == ("weights", "judge", "rollout")
    assert newest.reason.startswith("beta: a 10%, best with 0.0%, reward 0.1 of 200; ")
    [entry] = [one for one in (await chain(rolling.store)).entries if one.actor == "judge"]
    recorded = weights_in(entry.detail)
    assert recorded is not None
    assert weights_again(recorded, entry.reason) == ()
    forged = msgspec.structs.replace(recorded, weights={"a": "100%"}, rewards={})
    assert [fault.partition(":")[0] for fault in weights_again(forged, "so")] == ["weights", "rewards", "reason"]
    assert weights_again(msgspec.structs.replace(recorded, state="AAAA"), "")[0].startswith("state: ")
    assert weights_in('{"form":1}') is None

    # A reward that comes late counts for the revision of its answer, and the present weights wait for their own.
    await tell(rolling, first, "host-a-0", a=paid(100, 10), b=paid(50, 5), c=paid(70, 50))
    late = await until(rolling, lambda record: record.evidence.phases[0].sums["c"][0] == 70)
    assert late.evidence.rewards == {"a": 0, "b": 0, "c": 0}
    await until(rolling, lambda record: record.told.startswith("no data"))
    assert (await rolling.control.get(MODEL)).revision == active.revision
    # The same file again changes nothing.
    await rolling.control.apply(document(), change=BY)
    assert (await rolling.control.get(MODEL)).revision == active.revision


async def test_an_arm_that_fails_is_stopped_whatever_it_is_paid_and_by_whomever_it_is_held(rolling: Rolling) -> None:
    await rolling.control.apply(document(guardrails=[{"kind": "errors"}], interval="1h"), change=BY)
    await until(rolling, lambda record: True)
    first = (await rolling.control.get(MODEL)).revision
    record = await record_of(rolling)
    held = msgspec.structs.replace(record, paused_by="alice")
    assert await rolling.rollouts.bandits.save(held, record.sequence)
    good, bad = paid(2000, 100, errors=2), paid(2000, 2000, errors=300)
    await tell(rolling, first, a=good, b=good, c=bad)
    stopped = await until(rolling, lambda record: "c" in record.out and record.revision > first)
    assert stopped.out["c"].startswith("c is stopped: errors: canary 300 of 2000")
    assert (await shares(rolling)).get("c", 0) == 0
    assert (await shares(rolling))["a"] == 571_429  # a and b as they were to each other
    assert stopped.phase == "learning"
    await tell(rolling, stopped.revision, a=good, b=bad)
    over = await until(rolling, lambda record: record.phase == "stopped")
    assert await shares(rolling) == {"a": BUCKETS}
    assert set(over.out) == {"b", "c"}
    assert "b is stopped" in over.told
    again = (await rolling.control.get(MODEL)).revision
    await rolling.another("two").step()
    assert (await rolling.control.get(MODEL)).revision == again


async def test_what_a_person_sets_stays_until_somebody_resumes(rolling: Rolling) -> None:
    await rolling.control.apply(document(), change=BY)
    begun = await until(rolling, lambda record: True)
    await edit(rolling, "weights", lambda d: weigh(d, {"a": "20", "b": "40", "c": "40"}))
    by_hand = await until(rolling, lambda record: record.told == "paused by tester (weights)")
    revision = by_hand.revision
    await tell(rolling, revision, a=paid(100, 10), b=paid(100, 10), c=paid(100, 90))
    counted = await until(rolling, lambda record: record.evidence.rewards["c"] == 100)
    assert (await rolling.control.get(MODEL)).revision == revision
    await edit(rolling, "kill", lambda d: kill(d, "incident"))
    await until(rolling, lambda record: record.told == "the kill switch is on")
    await edit(rolling, "unkill", unkill)
    await until(rolling, lambda record: record.told.startswith("paused by"))
    assert (await record_of(rolling)).evidence.spans[-1].sums == counted.evidence.spans[-1].sums
    # An arm that comes back has shown nothing: everything is learnt anew.
    await edit(rolling, "weights", lambda d: weigh(d, {"a": "50", "b": "50", "c": "0"}))
    without = await until(rolling, lambda record: record.evidence.arms == ("a", "b"))
    await edit(rolling, "weights", lambda d: weigh(d, {"a": "20", "b": "40", "c": "40"}))
    back = await until(rolling, lambda record: record.evidence.arms == ("a", "b", "c"))
    assert len({begun.id, without.id, back.id}) == 2
    assert back.evidence.rewards["c"] == 0
    assert back.paused_by == "tester (weights)"


async def test_a_lost_state_begins_anew_and_is_held_and_another_plan_is_another_bandit(rolling: Rolling) -> None:
    await rolling.control.apply(document(), change=BY)
    begun = await until(rolling, lambda record: True)
    keys = rolling.store.keys
    await rolling.store.link.call("HSET", keys.bandits, MODEL, "garbage")
    lost = await until(rolling, lambda record: True)
    assert lost.id != begun.id
    assert lost.paused_by == "nobody (the state of the bandit was lost)"
    await rolling.control.apply(document("9"), change=BY)
    other = await until(rolling, lambda record: record.id != lost.id)
    assert not other.paused_by
    await rolling.store.link.call("DEL", keys.bandits)
    await rolling.store.link.call("SET", keys.bandits, "garbage")
    await until(rolling, lambda record: record.id != other.id)  # what stood there is set aside
    await rolling.control.delete(MODEL, change=BY)
    gone = await until(rolling, lambda record: record.phase == "stopped")
    assert "its route was deleted" in gone.told


def test_events_tell_what_is_new_and_the_end_of_a_bandit() -> None:
    route = propose(document(), None)
    first = followed_bandit(None, Route(MODEL, 3, route.document, route.table, 1, 0), None, 1000, "x")
    assert first is not None
    assert bandit_event(None, first) is EventType.ROLLOUT_BEGUN
    held = msgspec.structs.replace(first, told="no data: so")
    assert bandit_event(first, held) is EventType.ROLLOUT_HELD
    assert bandit_event(held, msgspec.structs.replace(held, told="no data: such")) is None
    assert bandit_event(held, msgspec.structs.replace(held, told="too few rewards: b 3")) is None
    pinned = parse(split_document({"a": 40, "b": 30, "c": 30}))
    after = followed_bandit(first, Route(MODEL, 4, pinned, route.table, 1, 0), None, 2000, "y")
    assert after is not None
    assert bandit_event(first, after) is EventType.ROLLOUT_STOPPED
    assert told_bandit(after)["told"] == "the route has no bandit any more"
    assert followed_bandit(None, Route(MODEL, 4, pinned, route.table, 1, 0), None, 2000, "y") is None


def test_the_log_of_a_bandit_says_what_another_split_would_have_been_worth(tmp_path: Path) -> None:
    """NewWeights move by rewards, keys stay as the table allows, and the propensity of each row is its revision's."""
    rng, plan = np.random.default_rng(11), BanditPlan(interval_ms=60_000, least_events=30, posterior="beta")
    rates, buckets = {"a": 0.35, "b": 0.45, "c": 0.3}, np.unique(rng.integers(0, BUCKETS, size=900))
    weights = {"a": 340_000, "b": 330_000, "c": 330_000}
    splits: list[RevisionSplit] = []
    parts: list[Requests] = []
    evidence, active = BanditEvidence(), None
    for number in range(1, 5):
        shown = {arm: percent_text(weight) for arm, weight in weights.items()}
        value = split_document(dict.fromkeys("abc", 0), bandit={"minEvents": 30, "posterior": "beta"})
        value["spec"]["strategy"]["ab"]["weights"] = shown
        before, active = active, propose(parse(value), active)
        moved = sum(before.table.arm_of(int(one)) != active.table.arm_of(int(one)) for one in buckets) if before else 0
        if before is not None:
            grown = sum(max(0, size - before.table.weights()[arm]) for arm, size in active.table.weights().items())
            assert moved / len(buckets) == pytest.approx(grown / BUCKETS, abs=0.05)
        places = active.table.intervals
        split = RevisionSplit(
            number,
            START_US + number * 24 * HOUR_US,
            active.document,
            tuple(one.start for one in places),
            tuple(one.arm for one in places),
        )
        part = Requests(split, buckets)
        drawn = part.arms()
        part.rewards = (rng.random(len(drawn)) < [rates[arm] for arm in drawn]).astype(float)
        splits.insert(0, split)
        parts.append(part)
        sums = dict.fromkeys("abc", (0, 0.0, 0.0))
        for arm in "abc":
            own = part.rewards[[one == arm for one in drawn]]
            sums[arm] = (len(own), float(own.sum()), float(own.sum()))
        phase = BanditPhase(number, number * 60_000, weights, (number + 1) * 60_000, sums)
        evidence = BanditEvidence((*evidence.phases, phase))
        step = next_weights(plan, evidence, (number + 1) * 60_000, rng)
        weights = step.weights if isinstance(step, NewWeights) else weights
    assert len({tuple(split.starts) for split in splits}) > 2
    write_requests(tmp_path, parts)
    made = asked(tmp_path, splits, split_document({"a": 20, "b": 20, "c": 60}))
    assert made.policy is not None
    told = made.policy.value
    known = 0.2 * 0.35 + 0.2 * 0.45 + 0.6 * 0.3
    for one in (told.propensity, told.normalised, told.robust):
        assert one.low < known < one.high
    assert told.normalised.value == pytest.approx(known, abs=0.06)
    assert not [check for check in made.checks if check.mismatch]
