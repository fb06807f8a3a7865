"""Versions on demand: what a first request gets, what makes room, what stays, and what a call is told that waits."""

import asyncio
import gc
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic_ns, process_time

import numpy as np
import pytest
from onnx import helper

from gateway.errors import InvalidArgument, ResourceExhausted, Unavailable
from gateway.runtime.sections import ModelOptions
from gateway.serving.call import Call
from gateway.serving.demand_loads import COLD
from gateway.serving.preparer import Preparer
from gateway.serving.residence import LEAST_BYTES, Residence
from gateway.serving.version import Version, VersionState
from gateway.tensor import Datatype
from tests import models
from tests.serving.ensembles import Step, chain, config, tensor, write_ensemble
from tests.serving.stage import Stage, floats, given, staged, until

STAY_S = 600.0


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models a to d, whose trials are over: a test opens a copy and tries nothing."""
    directory = tmp_path_factory.mktemp("demand")
    for place, name in enumerate("abcd"):
        models.write_version(directory / "models", name, "1", models.affine(2.0 + place))
    models.write_version(directory / "models", "d", "2", models.affine(7.0))
    models.write_version(directory / "models", "slow", "1", models.slow(10_000))
    asyncio.run(_opened_once(directory))
    return directory


async def _opened_once(directory: Path) -> None:
    async with staged(directory, residence=Residence()):
        pass


@asynccontextmanager
async def on_demand(tried: Path, directory: Path, *, room: int = 0, stay_s: float = 0.0) -> AsyncIterator[Stage]:
    """An engine with room for any so many versions at a time, and no more; 0: for all."""
    shutil.copytree(tried, directory, dirs_exist_ok=True)
    async with staged(directory, residence=Residence()) as stage:
        sizes = sorted(max(version.memory_bytes, LEAST_BYTES) for version in versions(stage))
    limit_bytes = sum(sizes[-room:]) if room else 0
    assert sum(sizes[: room + 1]) > limit_bytes
    async with staged(directory, residence=Residence(limit_bytes, stay_s)) as stage:
        yield stage


def versions(stage: Stage) -> list[Version]:
    return [stage.catalog.version(status.model, status.version) for status in stage.catalog.states()]


def warm(stage: Stage) -> str:
    """The models in memory, each with its version where that is not 1."""
    names = [f"{version.model}{version.name.removeprefix('1')}" for version in versions(stage) if not version.is_cold]
    return " ".join(sorted(names))


def asked(stage: Stage, model: str, *, within_s: float = 0.0) -> Call:
    """A call that is on its way."""
    deadline_ns = monotonic_ns() + int(within_s * 1e9) if within_s else 0
    return stage.submit(stage.begin(model, deadline_ns=deadline_ns), floats(1.0))


async def test_a_version_is_known_before_it_is_loaded_and_loaded_once_for_all_who_ask(
    tried: Path, tmp_path: Path
) -> None:
    async with on_demand(tried, tmp_path) as stage:
        assert warm(stage) == ""
        status = stage.catalog.states("a")[0]
        assert (status.state, status.reason) == (VersionState.AVAILABLE, COLD)
        assert stage.catalog.version("a", "1").inputs[0].shape == (-1, 4)
        calls = [asked(stage, "a") for _ in range(5)]
        assert stage.engine.queued(stage.catalog.version("a", "1")) == 5
        ended = [await stage.end(call) for call in calls]
        assert [given(call)[0].tolist() for call in ended] == [[[2.0] * 4]] * 5
        assert warm(stage) == "a"
        assert stage.catalog.states("a")[0].reason == ""
        assert stage.catalog.demand_counts()["loaded"] == 1
        assert stage.catalog.residence()["cold"] == len(versions(stage)) - 1
        assert stage.idle()


async def test_the_least_recently_used_makes_room(tried: Path, tmp_path: Path) -> None:
    async with on_demand(tried, tmp_path, room=2) as stage:
        for model in "ababc":
            assert (await stage.infer(model, floats(1.0))).error is None
            stage.catalog.note_use()
        assert warm(stage) == "b c"
        assert stage.catalog.demand_counts()["unloaded"] == 1
        assert (await stage.infer("a", floats(1.0))).error is None
        assert warm(stage) == "a c"
        residence = stage.catalog.residence()
        assert residence["bytes"] <= residence["limit_bytes"]


async def test_a_version_that_runs_is_not_unloaded(tried: Path, tmp_path: Path) -> None:
    async with on_demand(tried, tmp_path, room=1) as stage:
        running = stage.submit(stage.begin("slow"), floats(1.0, features=64))
        await until(lambda: warm(stage) == "slow")
        waiting = asked(stage, "a")
        ended = [await stage.end(running), await stage.end(waiting)]
        assert [call.error for call in ended] == [None, None]
        assert warm(stage) == "a"


async def test_what_routes_need_and_what_they_would_roll_back_to_stays(tried: Path, tmp_path: Path) -> None:
    async with on_demand(tried, tmp_path, room=2) as stage:
        await stage.catalog.require("d", ["1"])
        await stage.catalog.require("d", ["2"])
        assert warm(stage) == "d d2"
        (refused,) = [await stage.end(asked(stage, "a"))]
        assert isinstance(refused.error, ResourceExhausted)
        assert "for versions that routes need" in str(refused.error)
        assert refused.error.retry_after_ms is not None
        assert stage.catalog.demand_counts()["no_room"] == 1
        await stage.catalog.require("a", ["1"])  # what routes need is there whatever it needs
        assert warm(stage) == "a d d2"
        stage.catalog.release_unrouted(())
        stage.catalog.note_use()
        assert len(warm(stage).split()) == 2


async def test_after_a_restart_routed_versions_are_loaded_and_no_others(tried: Path, tmp_path: Path) -> None:
    async with on_demand(tried, tmp_path) as stage:
        await stage.catalog.require("d", ["1", "2"])
        await stage.infer("a", floats(1.0))
    async with staged(tmp_path, residence=Residence()) as stage:
        assert warm(stage) == "d d2"
        assert stage.catalog.require_available("d", frozenset({"2"}))
        assert not stage.catalog.require_available("a", frozenset({"1"}))  # loaded first, by `require`
        await stage.catalog.require("a", ["1"])
        assert warm(stage) == "a d d2"


async def test_a_call_that_cannot_wait_so_long_is_told_at_once_and_the_version_is_loaded(
    tried: Path, tmp_path: Path
) -> None:
    async with on_demand(tried, tmp_path) as stage:
        version = stage.catalog.version("a", "1")
        call = await stage.end(asked(stage, "a", within_s=version.load_ns / 1e9))
        assert isinstance(call.error, Unavailable)
        assert "is being loaded now" in str(call.error)
        assert (call.error.retry_after_ms or 0) >= version.load_ns // 1_000_000
        await until(lambda: warm(stage) == "a")
        assert (await stage.infer("a", floats(1.0))).error is None


async def test_a_call_that_waits_for_room_is_told_before_its_deadline(tried: Path, tmp_path: Path) -> None:
    async with on_demand(tried, tmp_path, room=1, stay_s=STAY_S) as stage:
        await stage.infer("a", floats(1.0))
        call = asked(stage, "b", within_s=1.0)
        await stage.end(call)
        assert monotonic_ns() < call.deadline_ns
        assert isinstance(call.error, ResourceExhausted)
        assert "model-memory-bytes" in str(call.error)
        assert "less than 600 s ago" in str(call.error)
        assert warm(stage) == "a"  # nothing was unloaded in vain
        assert stage.idle()


async def test_a_call_that_goes_away_leaves_nothing(tried: Path, tmp_path: Path) -> None:
    async with on_demand(tried, tmp_path, room=1, stay_s=STAY_S) as stage:
        await stage.infer("a", floats(1.0))
        call = asked(stage, "b", within_s=60.0)
        stage.engine.cancel(call)
        await stage.end(call)
        await until(lambda: stage.catalog.demand_counts()["no_room"] == 1)
        assert stage.engine.queued(stage.catalog.version("b", "1")) == 0
        assert stage.idle()


async def test_two_steps_that_wait_in_vain_for_the_same_version_leave_its_queue_empty(
    tried: Path, tmp_path: Path
) -> None:
    async with on_demand(tried, tmp_path, room=1, stay_s=STAY_S) as stage:
        steps = Step("b", {"x": "x"}, {"y": "y"}), Step("b", {"x": "x"}, {"y": "z"})
        write_ensemble(tmp_path / "models", "twins", config(*steps, outputs=[tensor("y"), tensor("z")]))
        await stage.catalog.load("twins")
        await stage.infer("a", floats(1.0))  # it stays, so that b has no room
        call = asked(stage, "twins", within_s=1.0)
        version = stage.catalog.version("b", "1")
        assert stage.engine.queued(version) == 2
        await stage.end(call)
        assert isinstance(call.error, ResourceExhausted)
        assert stage.engine.queued(version) == 0


@pytest.mark.parametrize("model", ["b", "slow"], ids=["cold", "running"])
async def test_calls_that_come_and_go_while_nothing_moves_are_not_kept(model: str, tried: Path, tmp_path: Path) -> None:
    async with on_demand(tried, tmp_path, room=1, stay_s=STAY_S) as stage:
        if model == "b":
            await stage.infer("a", floats(1.0))  # it stays, so that b has no room

        def called() -> Call:
            deadline_ns = monotonic_ns() + 600_000_000_000
            return stage.submit(stage.begin(model, deadline_ns=deadline_ns), floats(1.0, features=64))

        stays = [called() for _ in range(8)]
        if model == "slow":
            await until(lambda: stays[0].batch is not None)
        before = sum(isinstance(one, Call) for one in gc.get_objects())
        for _ in range(1200):
            stage.engine.cancel(called())
            stage.forget()
        assert sum(isinstance(one, Call) for one in gc.get_objects()) < before + 100
        for call in stays:
            stage.engine.cancel(call)
        await until(stage.idle)


async def test_what_cannot_be_loaded_is_told_and_tried_again_later(tried: Path, tmp_path: Path) -> None:
    async with on_demand(tried, tmp_path) as stage:
        shutil.move(tmp_path / "data" / "store", tmp_path / "gone")
        shutil.move(tmp_path / "models" / "a", tmp_path / "a")
        texts = [str((await stage.end(asked(stage, "a"))).error) for _ in range(2)]
        assert texts[0].startswith("model 'a' version '1'")
        assert "could not be loaded on demand" in texts[0]
        assert texts[1] == texts[0]
        assert stage.catalog.demand_counts()["failed"] == 1  # the second was told what the first had found
        assert "could not be loaded" in stage.catalog.states("a")[0].reason
        shutil.move(tmp_path / "gone", tmp_path / "data" / "store")
        shutil.move(tmp_path / "a", tmp_path / "models" / "a")
        await stage.catalog.load("a")  # whoever loads it by hand does not wait
        assert warm(stage) == "a"


async def test_what_was_tried_before_is_not_tried_again_when_it_is_loaded(tried: Path, tmp_path: Path) -> None:
    async with on_demand(tried, tmp_path) as stage:
        version = stage.catalog.version("slow", "1")
        run_s = version.run_us / 1e6
        begin_s = process_time()
        stage.catalog.wake(version)
        await until(lambda: not version.is_cold)
        assert process_time() - begin_s < 8 * run_s + 0.05  # a trial has seventy runs
        assert version.run_us == run_s * 1e6


async def test_new_content_is_in_memory_where_the_old_was(tried: Path, tmp_path: Path) -> None:
    async with on_demand(tried, tmp_path) as stage:
        await stage.infer("a", floats(1.0))
        for model in "ab":
            models.write_version(tmp_path / "models", model, "1", models.affine(9.0))
        await stage.catalog.poll()
        assert warm(stage) == "a"
        for model in "ab":
            assert given(await stage.infer(model, floats(1.0)))[0].tolist() == [[9.0] * 4]


def table(rows: int) -> bytes:
    """`y = weights[x]`; four floats in a row."""
    model = models.model_of(
        [helper.make_node("Gather", ["w", "x"], ["y"])],
        [models.tensor_value("x", Datatype.INT64, (-1,))],
        [models.tensor_value("y", Datatype.FP32, (-1, 4))],
        [models.weight("w", np.ones((rows, 4), np.float32))],
    )
    return bytes(model.SerializeToString())


async def test_of_weights_that_the_host_has_once_each_worker_counts_a_part_before_they_are_loaded(
    tmp_path: Path,
) -> None:
    """What has no room by itself has it where the others hold the rest, and is not refused for what it lacks."""
    weight_bytes = 16 << 20
    models.write_version(tmp_path / "models", "m", "1", table(weight_bytes // 16))
    preparer = Preparer(tmp_path / "prepared", min_bytes=1 << 20, max_bytes=1 << 30)
    async with staged(tmp_path, residence=Residence()) as stage:
        memory_bytes = stage.catalog.version("m", "1").memory_bytes
    assert memory_bytes > weight_bytes
    part_bytes = memory_bytes - weight_bytes + weight_bytes // 4
    room = Residence(part_bytes, 0.0, workers=4)
    async with staged(tmp_path, residence=room) as stage:
        refused = await stage.infer("m", np.array([1]))
        assert isinstance(refused.error, ResourceExhausted)
        assert f"it needs {memory_bytes} bytes" in str(refused.error)
    async with staged(tmp_path, residence=room, preparer=preparer) as stage:
        version = stage.catalog.version("m", "1")
        assert (version.is_cold, version.shared_bytes) == (True, weight_bytes)
        assert (await stage.infer("m", np.array([1]))).error is None
        assert (version.weights, version.shared_bytes) == ("shared", weight_bytes)
        assert stage.catalog.residence()["bytes"] == part_bytes
    preparer = Preparer(tmp_path / "prepared", min_bytes=2 * weight_bytes, max_bytes=1 << 30)
    async with staged(tmp_path, residence=room, preparer=preparer) as stage:
        assert stage.catalog.version("m", "1").shared_bytes == 0


def test_a_limit_without_loads_on_demand_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="set load-on-demand too"):
        ModelOptions(model_memory_bytes=1 << 30).proven()
    assert ModelOptions(load_on_demand=True, model_memory_bytes=1 << 30).proven().load_on_demand


async def test_the_steps_of_an_ensemble_are_loaded_by_the_first_request_for_it(tried: Path, tmp_path: Path) -> None:
    async with on_demand(tried, tmp_path) as stage:
        write_ensemble(tmp_path / "models", "both", config(*chain("a", "b")))
        await stage.catalog.load("both")
        assert warm(stage) == "both"  # it has nothing to load
        call = await stage.end(asked(stage, "both"))
        assert call.error is None
        assert given(call)[0][0, 0] == 6.0
        assert warm(stage) == "a b both"


async def test_the_warm_up_of_an_ensemble_loads_nothing(
    tried: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    x = 'inputs { key: "x" value { data_type: TYPE_FP32 dims: 4 random_data: true } }'
    more = f'model_warmup {{ name: "w" batch_size: 2 count: 3 {x} }}'
    async with on_demand(tried, tmp_path, room=1) as stage:
        assert (await stage.end(asked(stage, "c"))).error is None
        caplog.set_level("INFO", "gateway.serving.ensemble_warm_up")
        for name, steps in (("within", chain("c", "a")), ("without", chain("within", "c"))):
            write_ensemble(tmp_path / "models", name, config(*steps, more=more))
            await stage.catalog.load(name)
            assert "version '1' of step 2 (model 'a') is not in memory" in caplog.text
            caplog.clear()
        assert warm(stage) == "c within without"
        assert (await stage.end(asked(stage, "c"))).error is None
        await until(stage.idle)


async def test_an_ensemble_that_failed_is_not_tried_again_because_a_step_came_into_memory(
    tried: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with on_demand(tried, tmp_path, room=1) as stage:
        write_ensemble(tmp_path / "models", "unfit", config(*chain("a", "b"), outputs=[tensor("y", "TYPE_INT64")]))
        await stage.catalog.poll()
        assert stage.catalog.states("unfit")[0].state is VersionState.FAILED
        caplog.clear()
        for model in "abab":
            assert (await stage.end(asked(stage, model))).error is None
        await until(stage.idle)
        assert "unfit" not in caplog.text
