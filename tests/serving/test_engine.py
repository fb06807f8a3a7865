"""What an edge may rely on: whatever way a call ends, it is answered once, and nothing of it stays held."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from time import monotonic

import numpy as np
import pytest
import pytest_asyncio

from gateway.errors import (
    Cancelled,
    Code,
    DeadlineExceeded,
    GatewayError,
    InvalidArgument,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
    UnknownModel,
    UnknownVersion,
    VersionNotReady,
)
from gateway.records.worker.reading import read
from gateway.records.worker.segment import entries
from gateway.serving.call import Call
from gateway.serving.refusals import Refusals
from gateway.serving.run_page import LOOP_SLOT, UnfinishedRun, VersionKey
from gateway.serving.run_quarantine import KILLS, QuarantineFile, RunQuarantine
from gateway.serving.shared_run_state import SharedRunState
from gateway.serving.version import VersionState
from gateway.tensor import Datatype
from tests import models
from tests.serving.stage import Nobody, Request, Stage, floats, given, indices, staged, until

pytestmark = pytest.mark.asyncio(loop_scope="module")
ALL = "max_batch_size: 8\nversion_policy { all {} }"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    directory = tmp_path_factory.mktemp("engine")
    for name in ("plain", "routed", "dying"):
        models.write_version(directory / "models", name, "1", models.affine(2.0))
        models.write_version(directory / "models", name, "2", models.affine(3.0), config=ALL)
    models.write_version(directory / "models", "broken", "1", b"not a model")
    models.write_version(directory / "models", "gather", "1", models.fragile(8))
    shapeless = models.without_shapes(models.identity(Datatype.FP32))
    models.write_version(directory / "models", "shapeless", "1", shapeless)
    models.write_version(directory / "models", "slow", "1", models.slow(50_000))
    queue = "max_batch_size: 8\ndynamic_batching { default_queue_policy { max_queue_size: 1 } }"
    models.write_version(directory / "models", "narrow", "1", models.affine(2.0), config=queue)
    QuarantineFile(directory).clear()
    shared = SharedRunState(refusals=Refusals(directory))
    async with staged(directory, max_requests=8, max_bytes=1000, shared=shared) as made:
        yield made


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def _nothing_held(stage: Stage) -> AsyncIterator[None]:
    yield
    await until(stage.idle)


async def test_a_call_is_answered_counted_and_recorded(stage: Stage) -> None:
    call = stage.begin("plain", version="1", request_id="first", size_bytes=70)
    assert call.version is not None
    assert (call.version.leases, stage.engine.in_flight, stage.admission.bytes) == (1, 1, 70)
    await stage.end(stage.submit(call, floats(1, 5)))
    np.testing.assert_array_equal(given(call)[0], floats(2, 10))
    assert stage.codes("plain", "1", "") == {"0": 1}
    row = (await stage.rows())[-1]
    assert (row.request_id, row.model, row.version, row.reason, row.code, row.rows) == (
        "first", "plain", "1", "PIN", 0, 2,
    )  # fmt: skip


async def test_without_a_route_the_newest_version_answers(stage: Stage) -> None:
    call = await stage.infer("plain", floats(1))
    assert call.version is not None
    assert call.decision is not None
    assert (call.version.name, call.decision.reason) == ("2", "DEFAULT")


async def test_a_route_decides_and_a_client_may_pin(stage: Stage) -> None:
    stage.route("routed", clientPin={"metadata": "x-pin", "allow": {"metadata": {"role": {"exact": "tester"}}}})
    decided = await stage.infer("routed", floats(1))
    pinned = await stage.infer("routed", floats(1), headers={"x-pin": "2", "role": "tester"})
    assert [call.version and call.version.name for call in (decided, pinned)] == ["1", "2"]
    assert [call.decision and (call.decision.arm, call.decision.reason) for call in (decided, pinned)] == [
        ("old", "DEFAULT"),
        ("new", "PIN"),
    ]
    with pytest.raises(PermissionDenied):
        stage.begin("routed", version="2")


@pytest.mark.parametrize(
    ("model", "version", "kind"),
    [
        ("nothing", "", UnknownModel),
        ("plain", "7", UnknownVersion),
        ("broken", "1", GatewayError),
        ("a/b", "", InvalidArgument),
    ],
)
async def test_a_refused_call_holds_nothing_and_is_counted(
    stage: Stage, model: str, version: str, kind: type[GatewayError]
) -> None:
    before = sum(value for value in stage.sums("refused").values() if isinstance(value, int))
    with pytest.raises(kind):
        stage.begin(model, version=version)
    assert stage.idle()
    assert sum(value for value in stage.sums("refused").values() if isinstance(value, int)) == before + 1


async def test_admission_refuses_by_count_and_by_bytes_and_takes_again(stage: Stage) -> None:
    calls = [stage.begin("plain") for _ in range(8)]
    with pytest.raises(ResourceExhausted, match="the limit is 8") as refused:
        stage.begin("plain")
    assert 50 <= (refused.value.retry_after_ms or 0) < 250
    assert stage.admission.load == 1.0
    for call in calls:
        await stage.end(stage.submit(call, floats(1)))
    with pytest.raises(ResourceExhausted, match="1001 bytes never fits") as refused:
        stage.begin("plain", size_bytes=1001)
    assert refused.value.retry_after_ms == -1
    half = stage.begin("plain", size_bytes=600)
    with pytest.raises(ResourceExhausted, match="600 bytes does not fit: 600 of 1000"):
        stage.begin("plain", size_bytes=600)
    await stage.end(stage.submit(half, floats(1)))
    assert (await stage.infer("plain", floats(1))).error is None


async def test_a_fault_of_the_model_is_an_internal_error_of_that_call(stage: Stage) -> None:
    bad = stage.submit(stage.begin("gather"), indices(99))
    good = stage.submit(stage.begin("gather"), indices(3))
    assert (await stage.end(bad)).error is not None
    assert bad.error is not None
    assert bad.error.code is Code.INTERNAL
    assert float(given(await stage.end(good))[0][0]) == 3.0
    assert stage.codes("gather", "1", "") == {"0": 1, "13": 1}


async def test_a_full_queue_answers_at_once(stage: Stage) -> None:
    first = stage.submit(stage.begin("narrow"), floats(1))
    second = stage.submit(stage.begin("narrow"), floats(1))
    assert isinstance(second.error, ResourceExhausted)
    assert not first.answered
    await stage.end(first)


async def test_a_call_that_is_cancelled_before_it_is_submitted_or_while_it_waits_is_answered_once(stage: Stage) -> None:
    unsubmitted = stage.begin("plain")
    stage.engine.cancel(unsubmitted)
    waiting = stage.submit(stage.begin("plain"), floats(1))
    stage.engine.cancel(waiting)
    stage.engine.cancel(waiting)
    for call in (unsubmitted, waiting):
        assert isinstance((await stage.end(call)).error, Cancelled)
    other = await stage.infer("plain", floats(1))
    assert other.error is None
    stage.engine.cancel(other, DeadlineExceeded("too late"))
    assert other.error is None
    assert [stage.finished.count(call) for call in (unsubmitted, waiting, other)] == [1, 1, 1]


async def test_a_running_call_that_is_cancelled_ends_its_run(stage: Stage) -> None:
    call = stage.submit(stage.begin("slow"), floats(1, features=64))
    await until(lambda: call.batch is not None)
    batch = call.batch
    stage.engine.cancel(call, DeadlineExceeded("too late"))
    assert isinstance(call.error, DeadlineExceeded)
    assert batch is not None
    assert batch.termination is not None
    assert batch.termination.stopped
    await until(stage.idle)  # the run itself holds a lease


async def test_the_lease_keeps_a_version_that_is_unloaded(stage: Stage) -> None:
    call = stage.begin("dying", version="1")
    version = call.version
    assert version is not None
    await stage.catalog.unload("dying")
    states = [version.state]
    await stage.end(stage.submit(call, floats(4)))
    np.testing.assert_array_equal(given(call)[0], floats(8))
    states.append(version.state)
    assert states == [VersionState.UNLOADING, VersionState.END]
    with pytest.raises(GatewayError):
        stage.begin("dying", version="1")


async def test_the_list_of_versions_says_why_one_is_quarantined(tmp_path: Path) -> None:
    models.write_version(tmp_path / "models", "m", "1", models.affine(2.0))
    file, quarantine = QuarantineFile(tmp_path), RunQuarantine(600)
    file.clear()
    shared = SharedRunState(refusals=Refusals(tmp_path))
    async with staged(tmp_path, shared=shared) as stage:
        version = stage.catalog.version("m", "1")
        key = VersionKey("m", "1", version.digest)
        for digest in range(KILLS):
            runs = [UnfinishedRun(LOOP_SLOT, key, 0, 1, (digest,))]
            quarantine.worker_died(runs, "killed", monotonic(), is_proven=False, for_memory=True)
        file.write(quarantine.versions)
        stage.engine.show_quarantine()
        assert version.reason == "quarantined: 4 workers were killed for want of memory while it alone ran"
        quarantine.release("m")
        file.write(quarantine.versions)
        stage.engine.show_quarantine()
        assert version.reason == ""


async def test_requests_without_an_id_are_recorded_under_different_ones(stage: Stage) -> None:
    calls = [stage.begin("plain", request_id="") for _ in range(2)]
    early = stage.engine.name(calls[0])
    for call in calls:
        await stage.end(stage.submit(call, floats(1)))
    ids = [row.request_id for row in (await stage.rows())[-2:]]
    assert len({*ids}) == 2
    assert early in ids
    assert calls[0].request_id == ""  # the answer carries what the client sent: nothing


async def test_finish_is_for_calls_that_were_begun(stage: Stage) -> None:
    with pytest.raises(ValueError, match="not begun"):
        stage.engine.finish(Call("plain", "", "", Nobody()), Code.OK)


async def test_a_draining_engine_answers_what_was_begun_and_begins_nothing(tmp_path: Path) -> None:
    models.write_version(tmp_path / "models", "m", "1", models.affine(2.0))
    async with staged(tmp_path) as stage:
        calls = [stage.submit(stage.begin("m"), floats(value)) for value in (1, 2)]
        stage.engine.drain()
        with pytest.raises(Unavailable):
            stage.engine.enter(Call("m", "", "", Nobody()), Request({}, "", ""))
        ended = await asyncio.gather(*map(stage.end, calls))
        assert [float(given(call)[0][0, 0]) for call in ended] == [2.0, 4.0]
        assert stage.idle()


async def test_a_version_that_is_released_serves_again_though_nothing_else_ran(stage: Stage) -> None:
    file, quarantine = QuarantineFile(stage.wal.parent), RunQuarantine(600)
    key = VersionKey("plain", "1", stage.catalog.version("plain", "1").digest)
    for _ in range(2):
        quarantine.worker_died([UnfinishedRun(LOOP_SLOT, key, 1, 1, (5,))], "killed by SIGFPE", monotonic())
    file.write(quarantine.versions)
    call = await stage.end(stage.submit(stage.begin("plain", version="1"), floats(1)))
    assert isinstance(call.error, VersionNotReady)  # the run reads what became known
    with pytest.raises(VersionNotReady, match="quarantined"):
        stage.begin("plain", version="1")
    quarantine.release("plain")
    file.write(quarantine.versions)
    call = await stage.end(stage.submit(stage.begin("plain", version="1"), floats(1)))
    assert call.error is None


async def test_tensors_without_a_declared_shape_are_logged_in_the_shapes_sent(stage: Stage) -> None:
    sent = [np.array(7, np.float32), np.arange(4, dtype=np.float32), np.arange(6, dtype=np.float32).reshape(2, 3)]
    for values in sent:
        call = await stage.infer("shapeless", values)
        assert call.error is None
        assert [array.shape for array in given(call)] == [values.shape]
    await stage.log.flush()
    logged = [
        (block.inputs[0].shape(index), block.outputs[0].shape(index), block.inputs[0].elements(index, 10), int(rows))
        for entry in entries(stage.wal)
        if entry.segment is not None
        for block in read(entry.path.read_bytes(), entry.segment).blocks()
        if block.schema.model == "shapeless"
        for index, rows in enumerate(block.table["rows"])
    ]
    assert logged == [(values.shape, values.shape, values.ravel().tolist(), 1) for values in sent]
