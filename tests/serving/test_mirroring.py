"""Real calls mirrored on real versions: compared and logged, bounded, and never in the way."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from gateway.errors import Code
from gateway.records.worker.sampling import CHOSEN_COPY, Sampling
from gateway.serving.mirroring import REASON
from tests import models
from tests.records.traffic import balanced
from tests.serving.stage import Stage, floats, indices, staged, until

pytestmark = pytest.mark.asyncio(loop_scope="module")
ALL = "version_policy { all {} }\n"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    directory = tmp_path_factory.mktemp("mirror")
    repository = directory / "models"

    def pair(name: str, first: bytes, second: bytes, config: str = "max_batch_size: 64\ndynamic_batching {}\n") -> None:
        models.write_version(repository, name, "1", first)
        models.write_version(repository, name, "2", second, config=config + ALL)

    for name in ("same", "bounded", "busy", "cpu", "gone", "bytes", "lease"):
        pair(name, models.affine(2.0), models.affine(2.0, 1e-9))
    for name in ("shifted", "tolerant", "quiet", "everything", "kept"):
        pair(name, models.affine(2.0), models.affine(2.0, 0.25))
    pair("turned", models.affine(2.0), models.affine(-1.0))
    pair("failing", models.fragile(100), models.fragile(8))
    pair("other", models.affine(2.0), models.affine(2.0, features=5))
    pair("late", models.affine(2.0, features=64), models.slow(100_000))
    async with staged(directory, max_requests=10) as made:
        yield made


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def _nothing_held(stage: Stage) -> AsyncIterator[None]:
    yield
    await until(stage.idle)


def mirrored(stage: Stage, model: str, **mirror: object) -> None:
    stage.route(model, mirrors=[{"arm": "new", "percent": "100%", **mirror}])


def outcomes(stage: Stage, model: str) -> dict[str, object]:
    return dict(stage.sums("shadows", model, "new", "outcomes"))


async def until_all(stage: Stage, model: str, count: int) -> dict[str, object]:
    """What became of mirrored calls, when that many have an outcome."""
    await until(lambda: sum(int(str(n)) for n in outcomes(stage, model).values()) == count)
    return outcomes(stage, model)


def largest(stage: Stage, model: str) -> object:
    gauge = stage.gauge("shadow_differences")
    assert isinstance(gauge, list)
    return next(one["value"] for one in gauge if one["model"] == model)


def steps(*values: float) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """One row whose highest value is the last."""
    return np.array([values], np.float32)


async def test_a_mirror_runs_after_the_answer_and_agrees(stage: Stage) -> None:
    mirrored(stage, "same")
    call = await stage.infer("same", steps(1, 2, 3, 4))
    assert outcomes(stage, "same") == {}  # the caller has its answer; the mirror has not begun
    assert call.version is not None
    assert call.version.name == "1"
    assert await until_all(stage, "same", 1) == {"agree": 1}
    assert stage.codes("same", "1", "old") == {"0": 1}
    assert stage.codes("same", "2", "new") == {}  # a mirrored call is no request
    assert "1" in stage.sums("series", "same", "2", "new", "batches")  # but its runs are runs


async def test_mirrored_calls_of_one_turn_run_together(stage: Stage) -> None:
    mirrored(stage, "lease")
    calls = [stage.submit(stage.begin("lease"), steps(1, 2, 3, value)) for value in range(4, 8)]
    await asyncio.gather(*map(stage.end, calls))
    assert await until_all(stage, "lease", 4) == {"agree": 4}
    assert list(stage.sums("series", "lease", "2", "new", "batches")) == ["4"]


async def test_highest_scores_are_compared_and_the_largest_difference_is_kept(stage: Stage) -> None:
    mirrored(stage, "shifted")
    await stage.infer("shifted", floats(1, 3))
    assert await until_all(stage, "shifted", 1) == {"agree": 1}
    assert largest(stage, "shifted") == 0.25
    mirrored(stage, "turned")
    await stage.infer("turned", steps(1, 2, 3, 4))
    assert await until_all(stage, "turned", 1) == {"differ": 1}
    assert largest(stage, "turned") == 12.0
    counts = stage.sums("shadows", "turned", "new")
    assert (counts["rows"], counts["same_rows"]) == (1, 0)


async def test_tolerances_decide_where_the_mirror_has_some(stage: Stage) -> None:
    mirrored(stage, "tolerant", compare={"y": {"abs": 0.2}})
    await stage.infer("tolerant", floats(1))
    assert await until_all(stage, "tolerant", 1) == {"differ": 1}
    mirrored(stage, "tolerant", compare={"y": {"abs": 0.3}})
    await stage.infer("tolerant", floats(1))
    assert await until_all(stage, "tolerant", 2) == {"differ": 1, "agree": 1}


@pytest.mark.parametrize(
    ("model", "log", "expected"), [("quiet", "none", 0), ("quiet", "diffs", 1), ("everything", "all", 2)]
)
async def test_the_log_gets_what_the_mirror_asks_for(stage: Stage, model: str, log: str, expected: int) -> None:
    mirrored(stage, model, log=log, compare={"y": {"abs": 0.3}})
    before = sum(int(str(n)) for n in outcomes(stage, model).values())
    reason = REASON if log == "all" else CHOSEN_COPY  # what is chosen because it differs is no sample
    logged = len([row for row in await stage.rows() if row.model == model and row.reason == reason])
    await stage.infer(model, floats(1))
    await until_all(stage, model, before + 1)
    mirrored(stage, model, log=log, compare={"y": "exact"})
    await stage.infer(model, floats(1))
    await until_all(stage, model, before + 2)
    rows = [row for row in await stage.rows() if row.model == model and row.reason == reason][logged:]
    assert [(row.arm, row.version, row.code, row.request_id) for row in rows] == [("new", "2", 0, "r")] * expected
    assert all("2.25" in row.outputs_json for row in rows)


async def test_an_answer_that_the_mirror_disagrees_with_is_kept_with_its_own(stage: Stage) -> None:
    stage.log.follow({"kept": Sampling(0.0, keep_disagreement=True)})
    for count, limit in ((1, 0.3), (2, 0.2)):  # the mirror's answers are 0.25 off
        mirrored(stage, "kept", log="diffs", compare={"y": {"abs": limit}})
        await stage.infer("kept", floats(1))
        await until_all(stage, "kept", count)
    rows = [row for row in await stage.rows() if row.model == "kept"]
    assert [(row.arm, row.reason == CHOSEN_COPY) for row in rows] == [("old", False), ("new", True)]
    assert balanced(stage.log.counts())
    stage.log.follow({})


async def test_an_error_of_the_mirror_is_counted_and_logged(stage: Stage) -> None:
    mirrored(stage, "failing", log="diffs")
    call = await stage.infer("failing", indices(50))
    assert call.error is None
    assert await until_all(stage, "failing", 1) == {"error": 1}
    row = next(row for row in await stage.rows() if row.reason == CHOSEN_COPY and row.model == "failing")
    assert row.code == Code.INTERNAL.value
    bad = await stage.infer("failing", indices(5000))
    assert bad.error is not None
    assert outcomes(stage, "failing") == {"error": 1}  # there is nothing to compare with


async def test_what_does_not_fit_in_flight_or_in_the_queue_is_dropped(stage: Stage) -> None:
    mirrored(stage, "bounded", maxInflight=1, queue=2)
    calls = [stage.submit(stage.begin("bounded"), floats(1)) for _ in range(5)]
    await asyncio.gather(*map(stage.end, calls))
    assert await until_all(stage, "bounded", 5) == {"agree": 3, "dropped_full": 2}


async def test_nothing_is_mirrored_while_the_worker_is_nearly_full(stage: Stage) -> None:
    mirrored(stage, "busy")
    held = [stage.begin("busy") for _ in range(9)]
    await stage.end(stage.submit(held.pop(), floats(1)))
    assert outcomes(stage, "busy") == {"dropped_busy": 1}
    for call in held:
        stage.engine.cancel(call)
    await stage.infer("busy", floats(1))
    assert await until_all(stage, "busy", 2) == {"dropped_busy": 1, "agree": 1}


async def test_nothing_is_mirrored_above_the_cpu_share(stage: Stage) -> None:
    mirrored(stage, "cpu", shedAboveCpu=0)
    await stage.infer("cpu", floats(1))
    assert await until_all(stage, "cpu", 1) == {"agree": 1}  # nothing is known yet
    async with asyncio.timeout(20):
        while "dropped_cpu" not in outcomes(stage, "cpu"):  # it takes two samples, a second apart
            await stage.infer("cpu", floats(1))


async def test_a_version_with_another_contract_or_none_at_all_gets_no_calls(stage: Stage) -> None:
    mirrored(stage, "other")
    await stage.infer("other", floats(1))
    assert outcomes(stage, "other") == {"dropped_contract": 1}
    stage.route(
        "gone",
        arms={"old": {"version": "1"}, "new": {"version": "9"}},
        mirrors=[{"arm": "new", "percent": 100}],
    )
    await stage.infer("gone", floats(1))
    assert outcomes(stage, "gone") == {"dropped_not_loaded": 1}


async def test_a_mirrored_call_that_takes_too_long_is_stopped_and_the_others_are_dropped(stage: Stage) -> None:
    mirrored(stage, "late", deadline="20ms", maxInflight=1)
    calls = [stage.submit(stage.begin("late"), floats(1, features=64)) for _ in range(3)]
    await asyncio.gather(*map(stage.end, calls))
    assert await until_all(stage, "late", 3) == {"dropped_deadline": 3}


async def test_calls_do_not_wait_for_the_long_runs_of_mirrors(stage: Stage) -> None:
    mirrored(stage, "late", deadline="10s")
    before = outcomes(stage, "late")
    await stage.infer("late", floats(1, features=64))
    first = await stage.infer("late", floats(1, features=64))
    pinned = stage.submit(stage.begin("late", version="2"), floats(1, features=64))
    await until(
        lambda: pinned.batch is not None
    )  # it has a thread, though a mirrored call is running on the same version
    assert outcomes(stage, "late") == before
    assert first.error is None
    await stage.end(pinned)
    await until(lambda: outcomes(stage, "late") != before)


async def test_a_route_that_lost_its_mirror_mirrors_nothing_more(stage: Stage) -> None:
    mirrored(stage, "bytes")
    call = stage.submit(stage.begin("bytes"), floats(1))
    stage.route("bytes")
    await stage.end(call)
    assert stage.sums("shadows", "bytes") == {}


async def test_no_more_bytes_are_held_than_allowed(stage: Stage) -> None:
    mirrored(stage, "bytes")
    call = stage.begin("bytes", size_bytes=70 << 20)
    await stage.end(stage.submit(call, floats(1)))
    assert outcomes(stage, "bytes") == {"dropped_bytes": 1}


async def test_what_is_left_when_the_worker_ends_is_let_go(tmp_path: Path) -> None:
    models.write_version(tmp_path / "models", "m", "1", models.affine(2.0))
    models.write_version(tmp_path / "models", "m", "2", models.affine(3.0), config="max_batch_size: 8\n" + ALL)
    async with staged(tmp_path) as stage:
        mirrored(stage, "m")
        await stage.infer("m", floats(1))
        stage.engine.close()
        assert outcomes(stage, "m") == {"dropped_closed": 1}
        assert stage.idle()


async def test_a_version_that_is_unloaded_takes_its_mirrored_calls_with_it(tmp_path: Path) -> None:
    models.write_version(tmp_path / "models", "m", "1", models.affine(2.0))
    models.write_version(tmp_path / "models", "m", "2", models.affine(3.0), config="max_batch_size: 8\n" + ALL)
    async with staged(tmp_path) as stage:
        mirrored(stage, "m", deadline="1h")
        await stage.infer("m", floats(1))
        await stage.catalog.unload("m")
        assert await until_all(stage, "m", 1) in ({"dropped_not_loaded": 1}, {"agree": 1})
        assert stage.idle()
