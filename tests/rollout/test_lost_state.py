"""What the judge does where the store lost, damaged or never had what it needs."""

from pathlib import Path

import pytest

from gateway.errors import StoreUnavailable
from gateway.rollout.controller import RolloutController
from gateway.rollout.rollout_store import LEASE_MS, RolloutStore
from gateway.rollout.steering import paused
from gateway.routing.store.route_reader import RouteReader
from gateway.routing.store.store_rights import users
from gateway.routing.store.store_script import library
from tests.rollout.rolling import AT_ONCE, BAD, DEADLINE_S, GOOD, MODEL, Hand, Rolling, document, opened, stopped
from tests.routing.live import BY, admin_of, control_of, store_of, until, workers
from tests.valkey import Valkey

DEEP = "[" * 5000 + "]" * 5000 + "}"


async def test_where_no_host_may_judge_this_is_said_once(valkey: Valkey, caplog: pytest.LogCaptureFixture) -> None:
    async with opened(valkey) as rolling, admin_of(valkey.url) as admin:
        await admin.call(*users("default")[0].command().split())
        await admin.call("FUNCTION", "LOAD", "REPLACE", library())
        async with store_of(f"{valkey.url}?username=gateway-worker&password=worker-password") as store:
            hand = Hand(rolling.control)
            worker = RolloutController(RolloutStore(store, RouteReader(store)), hand, "another")
            await worker.step()
            assert not caplog.records, "nothing should move"
            await rolling.control.apply(document([{"weight": "10%", "hold": "1h"}]), change=BY)
            for _ in range(2):
                for _ in range(LEASE_MS // 1000):
                    await worker.step()
                await rolling.judge.step()
                await worker.step()
                await rolling.store.link.call("DEL", rolling.store.keys.judge)  # the host that judges goes
            assert not caplog.records, "another host may take over"
            for _ in range(LEASE_MS // 1000 + 3):
                await worker.step()
            assert [record.levelname for record in caplog.records] == ["WARNING"]
            for part in ("all rollouts stand still", "refused permission", "`gateway redis-acl` prints them"):
                assert part in caplog.text
            await rolling.judge.step()
            await worker.step()
            assert rolling.judge.leads
            assert not worker.leads
            assert len(caplog.records) == 1, "somebody judges"
            await rolling.store.link.call("DEL", rolling.store.keys.judge)
            for moves, told in ((True, 2), (False, 2), (True, 3)):
                if moves:
                    await rolling.control.apply(document([{"weight": "10%", "hold": "1h"}]), change=BY)
                else:
                    await rolling.control.delete(MODEL, change=BY)
                for _ in range(LEASE_MS // 1000 + 1):
                    await worker.step()
                assert len(caplog.records) == told


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
