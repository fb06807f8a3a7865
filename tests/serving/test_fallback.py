"""A call whose arm cannot serve it, with real versions that are missing, broken, slow or full."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from time import monotonic_ns

import numpy as np
import pytest
import pytest_asyncio

from gateway.errors import Cancelled, Code, DeadlineExceeded, InvalidArgument, ResourceExhausted
from gateway.serving.call import Call
from gateway.serving.substitute import same_contract
from gateway.serving.version import Version
from gateway.tensor import Datatype, TensorSpec
from tests import models
from tests.serving.stage import Stage, floats, given, indices, staged, until

pytestmark = pytest.mark.asyncio(loop_scope="module")
ALL = "version_policy { all {} }\n"
CHAIN = {"order": ["old", "new"], "on": ["NOT_LOADED", "UNAVAILABLE", "INTERNAL", "DEADLINE", "RESOURCE_EXHAUSTED"]}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    directory = tmp_path_factory.mktemp("fallback")
    repository = directory / "models"

    def pair(name: str, first: bytes, second: bytes, config: str = "max_batch_size: 8\n") -> None:
        models.write_version(repository, name, "1", first)
        models.write_version(repository, name, "2", second, config=config + ALL)

    pair("affine", models.affine(2.0), models.affine(3.0))
    for name in ("gather", "budget", "breaker", "moved", "cautious", "hopeless"):
        pair(name, models.fragile(8), models.fragile(1000), config="max_batch_size: 64\n")
    models.write_version(repository, "gather", "3", models.fragile(10_000))
    pair("other", models.fragile(8), models.affine(3.0), config="")
    for name, queue in (("full", "max_queue_size: 1"), ("late", "default_timeout_microseconds: 1000")):
        config = f"max_batch_size: 1\ndynamic_batching {{ default_queue_policy {{ {queue} }} }}\n"
        first = models.affine(2.0, features=64) if name == "full" else models.slow(20_000)
        pair(name, first, models.affine(3.0, features=64), config=config)
    async with staged(directory) as made:
        yield made


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def _nothing_held(stage: Stage) -> AsyncIterator[None]:
    yield
    await until(stage.idle)


def said(call: Call) -> tuple[str, str, str]:
    """Which arm and version answered, and why."""
    assert call.decision is not None
    assert call.version is not None
    assert call.version.name == call.decision.version
    return call.decision.arm, call.decision.version, call.decision.reason


def breakers(stage: Stage, model: str) -> dict[str, str]:
    breakers = stage.gauge("breakers")
    assert isinstance(breakers, list)
    return {one["arm"]: one["state"] for one in breakers if one["model"] == model}


async def test_a_version_that_is_not_there_is_replaced_by_the_next_that_is(stage: Stage) -> None:
    arms = {"main": {"version": "7"}, "gone": {"version": "8"}, "old": {"version": "1"}}
    strategy = {"pinned": {"arm": "main"}}
    stage.route("affine", arms=arms, strategy=strategy, fallback={"order": ["gone", "old"]})
    call = await stage.infer("affine", floats(1))
    assert said(call) == ("old", "1", "FALLBACK:NOT_LOADED")
    np.testing.assert_array_equal(given(call)[0], floats(2))
    assert stage.sums("fallbacks", "affine") == {"main": {"NOT_LOADED": 1}}
    row = (await stage.rows())[-1]
    assert (row.arm, row.version, row.reason) == ("old", "1", "FALLBACK:NOT_LOADED")


async def test_a_run_that_fails_is_repeated_by_the_next_arm_with_the_same_tensors(stage: Stage) -> None:
    stage.route("gather", fallback={"order": ["old", "new"], "on": ["INTERNAL"]})
    call = await stage.infer("gather", indices(99, 3))
    assert call.error is None
    assert given(call)[0].tolist() == [99.0, 3.0]
    assert said(call) == ("new", "2", "FALLBACK:INTERNAL")
    assert stage.codes("gather", "1", "old") == {"13": 1}
    assert stage.codes("gather", "2", "new") == {"0": 1}
    assert stage.finished.count(call) == 1
    assert call.infer_ns > 0


async def test_the_others_of_the_batch_stay_where_they_are(stage: Stage) -> None:
    stage.route("gather", fallback={"order": ["new"], "on": ["INTERNAL"]})
    calls = [stage.submit(stage.begin("gather"), indices(index)) for index in (1, 99, 5)]
    arms = [said(await stage.end(call))[0] for call in calls]
    assert arms == ["old", "new", "old"]


async def test_each_arm_is_tried_once_and_the_last_error_is_the_answer(stage: Stage) -> None:
    arms = {"a": {"version": "1"}, "b": {"version": "2"}, "c": {"version": "3"}}
    chain = {"order": ["a", "b", "c"], "on": ["INTERNAL"]}
    stage.route("gather", arms=arms, strategy={"pinned": {"arm": "a"}}, fallback=chain)
    far = await stage.infer("gather", indices(5000))
    assert said(far) == ("c", "3", "FALLBACK:INTERNAL")
    nowhere = await stage.infer("gather", indices(50_000))
    assert nowhere.error is not None
    assert nowhere.error.code is Code.INTERNAL
    assert said(nowhere) == ("c", "3", "FALLBACK:INTERNAL")
    assert [stage.codes("gather", version, arm)["13"] for version, arm in (("1", "a"), ("2", "b"), ("3", "c"))] == [
        2,
        2,
        1,
    ]


async def test_a_cause_that_the_route_does_not_name_is_an_error(stage: Stage) -> None:
    stage.route("gather", fallback={"order": ["new"], "on": ["NOT_LOADED", "DEADLINE"]})
    call = await stage.infer("gather", indices(99))
    assert call.error is not None
    assert call.error.code is Code.INTERNAL
    assert said(call) == ("old", "1", "DEFAULT")


async def test_a_version_with_another_contract_is_passed_over(stage: Stage) -> None:
    stage.route("other", fallback={"order": ["new"], "on": ["INTERNAL"]})
    call = await stage.infer("other", indices(99))
    assert call.error is not None
    assert call.error.code is Code.INTERNAL
    assert said(call) == ("old", "1", "DEFAULT")
    assert "other" not in stage.sums("fallbacks")


async def test_any_shape_is_another_contract_than_a_scalar() -> None:
    first, second, third = (Version("m", name) for name in "123")
    first.inputs = second.inputs = (TensorSpec("x", Datatype.FP32, (), any_shape=True),)
    third.inputs = (TensorSpec("x", Datatype.FP32, ()),)
    assert same_contract(first, second)
    assert not same_contract(first, third)


async def test_a_full_queue_sends_the_call_on(stage: Stage) -> None:
    stage.route("full", fallback=CHAIN)
    calls = [stage.submit(stage.begin("full"), floats(1, features=64)) for _ in range(3)]
    for call in calls:
        await stage.end(call)
    assert [call.error is None and said(call)[2] for call in calls] == ["DEFAULT", "FALLBACK:RESOURCE_EXHAUSTED", False]
    assert isinstance(calls[2].error, ResourceExhausted)


async def test_an_arm_that_keeps_a_call_waiting_too_long_loses_it(stage: Stage) -> None:
    stage.route("late", fallback=CHAIN)
    running = stage.submit(stage.begin("late"), floats(1, features=64))
    await until(lambda: running.batch is not None)
    waiting = stage.submit(stage.begin("late"), floats(1, features=64))
    gone = stage.submit(stage.begin("late", deadline_ns=monotonic_ns() + 500_000), floats(1, features=64))
    for call in (running, waiting, gone):
        await stage.end(call)
    assert said(running)[2] == "DEFAULT"
    assert said(waiting) == ("new", "2", "FALLBACK:DEADLINE")
    assert waiting.error is None
    assert isinstance(gone.error, DeadlineExceeded)  # its caller does not wait any more
    assert said(gone)[2] == "DEFAULT"


async def test_a_call_that_is_cancelled_or_wrong_falls_back_nowhere(stage: Stage) -> None:
    stage.route("gather", fallback={**CHAIN, "breaker": {"consecutive": 1}})
    cancelled = stage.submit(stage.begin("gather"), indices(1))
    stage.engine.cancel(cancelled)
    overdue = stage.submit(stage.begin("gather"), indices(1))
    stage.engine.cancel(overdue, DeadlineExceeded("the deadline passed"))
    wrong = stage.begin("gather")
    wrong.fail(InvalidArgument("input 'i' has shape [0]"))
    broken = stage.begin("gather")
    broken.fail(ResourceExhausted("the edge could not decode it"))  # before it was submitted: no arm's fault
    kinds = [type((await stage.end(call)).error) for call in (cancelled, overdue, wrong, broken)]
    assert kinds == [Cancelled, DeadlineExceeded, InvalidArgument, ResourceExhausted]
    assert [said(call)[2] for call in (cancelled, overdue, wrong, broken)] == ["DEFAULT"] * 4
    assert breakers(stage, "gather") == {"old": "closed"}


async def test_no_more_than_the_budget_falls_back(stage: Stage) -> None:
    stage.route("budget", fallback={"order": ["new"], "on": ["INTERNAL"], "budget": "50%"})
    ended = [await stage.infer("budget", indices(99)) for _ in range(20)]
    fallen = [call for call in ended if call.error is None]
    # The first second of the window is still there, unless this machine stood still for 10 s.
    assert len(fallen) in (9, 10)
    assert stage.sums("fallbacks", "budget", "old") == {"INTERNAL": len(fallen)}


async def test_failures_open_the_breaker_and_a_probe_closes_it(stage: Stage) -> None:
    breaker = {"consecutive": 3, "window": "10s", "open": "300ms"}
    stage.route("breaker", fallback={"order": ["new"], "on": ["NOT_LOADED"], "breaker": breaker})
    for _ in range(3):
        assert (await stage.infer("breaker", indices(99))).error is not None
    assert breakers(stage, "breaker") == {"old": "open"}
    call = await stage.infer("breaker", indices(1))
    assert said(call) == ("new", "2", "FALLBACK:BREAKER")
    await until(lambda: breakers(stage, "breaker")["old"] == "half_open")
    probe = stage.begin("breaker")
    beside = stage.begin("breaker")
    assert [said(one)[0] for one in (probe, beside)] == ["old", "new"]
    for one in (probe, beside):
        await stage.end(stage.submit(one, indices(1)))
    assert breakers(stage, "breaker") == {"old": "closed", "new": "closed"}
    assert said(await stage.infer("breaker", indices(1)))[2] == "DEFAULT"


async def test_a_probe_that_is_cancelled_leaves_the_breaker_half_open(stage: Stage) -> None:
    breaker = {"consecutive": 1, "window": "10s", "open": "1ms"}
    stage.route("cautious", fallback={"order": ["new"], "breaker": breaker})
    assert (await stage.infer("cautious", indices(99))).error is not None
    await until(lambda: breakers(stage, "cautious")["old"] == "half_open")
    probe = stage.begin("cautious")
    stage.engine.cancel(probe)
    assert breakers(stage, "cautious")["old"] == "half_open"
    assert said(await stage.infer("cautious", indices(1)))[2] == "DEFAULT"
    assert breakers(stage, "cautious")["old"] == "closed"


async def test_where_every_breaker_is_open_the_decided_arm_is_tried(stage: Stage) -> None:
    breaker = {"consecutive": 1, "window": "10s", "open": "1h"}
    stage.route("hopeless", fallback={"order": ["new"], "on": ["INTERNAL"], "breaker": breaker})
    assert (await stage.infer("hopeless", indices(5000))).error is not None
    assert breakers(stage, "hopeless") == {"old": "open", "new": "open"}
    call = await stage.infer("hopeless", indices(1))
    assert call.error is None
    assert said(call) == ("old", "1", "DEFAULT")
    assert breakers(stage, "hopeless") == {"old": "open", "new": "open"}  # what is tried so says nothing


async def test_a_change_of_the_route_keeps_the_breaker_of_an_arm_with_the_same_version(stage: Stage) -> None:
    breaker = {"consecutive": 1, "window": "10s", "open": "1h"}
    stage.route("moved", fallback={"order": ["new"], "breaker": breaker})
    assert (await stage.infer("moved", indices(99))).error is not None
    stage.route("moved", fallback={"order": ["new"], "budget": "90%", "breaker": breaker})
    assert breakers(stage, "moved") == {"old": "open"}
    assert said(await stage.infer("moved", indices(1)))[2] == "FALLBACK:BREAKER"
    swapped = {"old": {"version": "2"}, "new": {"version": "1"}}
    stage.route("moved", arms=swapped, fallback={"order": ["new"], "breaker": breaker})
    assert breakers(stage, "moved") == {}
    assert said(await stage.infer("moved", indices(1))) == ("old", "2", "DEFAULT")
    stage.route("moved")
    assert breakers(stage, "moved") == {}


async def test_a_pin_gets_its_version_or_an_error(stage: Stage) -> None:
    stage.route("gather", fallback={"order": ["new"], "on": ["INTERNAL"]})
    call = await stage.end(stage.submit(stage.begin("gather", version="1"), indices(99)))
    assert call.error is not None
    assert said(call) == ("old", "1", "PIN")


async def test_the_lease_moves_with_the_call(stage: Stage) -> None:
    stage.route("gather", fallback={"order": ["new"], "on": ["INTERNAL"]})
    first, second = (stage.catalog.version("gather", name) for name in "12")
    call = stage.begin("gather")
    assert (first.leases, second.leases) == (1, 0)
    stage.submit(call, indices(99))
    await asyncio.sleep(0)  # the turn of the loop in which the first runs and fails; the second runs in the next
    assert (first.leases, second.leases) == (0, 1)
    await stage.end(call)


async def test_a_version_that_is_unloaded_while_its_call_fails_ends(tmp_path: Path) -> None:
    models.write_version(tmp_path / "models", "m", "1", models.fragile(8))
    models.write_version(tmp_path / "models", "m", "2", models.fragile(1000), config="max_batch_size: 64\n" + ALL)
    async with staged(tmp_path) as stage:
        stage.route("m", fallback=CHAIN)
        call = stage.begin("m")
        await stage.catalog.unload("m")
        await stage.end(stage.submit(call, indices(99)))
        assert call.error is not None  # the other version is gone as well
        assert stage.idle()
