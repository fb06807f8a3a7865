"""What a worker died of does not run again, and how much of it the log says."""

import asyncio
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from gateway.errors import Cancelled, Code, VersionNotReady
from gateway.serving.batcher import VERDICT_LOOK_S
from gateway.serving.input_digest import input_digest
from gateway.serving.line_limit import BURST, REFILL_NS, LineLimit
from gateway.serving.refusals import Refusals
from gateway.serving.run_page import UnfinishedRun, VersionKey
from gateway.serving.run_quarantine import QuarantineFile, RunQuarantine
from gateway.serving.shared_run_state import SharedRunState
from tests import models
from tests.serving.bench import Bench, row
from tests.serving.ensembles import Step, config, tensor, write_ensemble
from tests.serving.stage import floats, staged


async def test_what_a_worker_died_of_does_not_run_again(tmp_path: Path, benches: list[Bench]) -> None:
    file, quarantine = QuarantineFile(tmp_path), RunQuarantine(600)
    file.clear()
    bench = Bench(models.affine(), shared=SharedRunState(refusals=Refusals(tmp_path)))
    benches.append(bench)
    bad, good = bench.put(row(6, 6, 6, 6)), bench.put(row(1, 1, 1, 1))
    await asyncio.gather(bench.outputs(bad), bench.outputs(good))
    key = VersionKey("m", "1", "d")
    digests = tuple(input_digest(call, fixed=True) for call in (bad, good))
    quarantine.worker_died([UnfinishedRun(0, key, 0, 2, digests)], "killed by SIGABRT", time.monotonic())
    file.write(quarantine.versions)
    del bench.session.runs[:]
    for call in [bench.put(row(6, 6, 6, 6)), bench.put(row(1, 1, 1, 1)), bench.put(row(2, 2, 2, 2))]:
        await bench.outputs(call)
    assert bench.session.runs == [1, 1, 1]  # suspects run alone
    quarantine.worker_died([UnfinishedRun(0, key, 0, 1, digests[:1])], "killed by SIGABRT", time.monotonic())
    file.write(quarantine.versions)
    assert (await bench.error(bench.put(row(6, 6, 6, 6)))).code is Code.FAILED_PRECONDITION
    await bench.outputs(bench.put(row(1, 1, 1, 1)))  # the innocent are answered: the first death is explained
    quarantine.worker_died([UnfinishedRun(0, key, 0, 1, (4711,))], "killed by SIGABRT", time.monotonic())
    file.write(quarantine.versions)
    version = await bench.error(bench.put(row(2, 2, 2, 2)))
    assert isinstance(version, VersionNotReady)  # the second death within a minute that is another one
    quarantine.release("m")
    file.write(quarantine.versions)
    await bench.outputs(bench.put(row(6, 6, 6, 6)))


async def test_what_a_sibling_was_running_when_it_died_waits_for_the_verdict(
    tmp_path: Path, benches: list[Bench]
) -> None:
    """The client repeats it at once; the supervisor has not looked yet."""
    file, quarantine = QuarantineFile(tmp_path), RunQuarantine(600)
    lives = file.clear(3)
    bench = Bench(models.affine(), shared=SharedRunState(refusals=Refusals(tmp_path)))
    benches.append(bench)
    bad, good = bench.put(row(6, 6, 6, 6)), bench.put(row(1, 1, 1, 1))
    await asyncio.gather(bench.outputs(bad), bench.outputs(good))
    key = VersionKey("m", "1", "d")
    digest = input_digest(bad, fixed=True)
    for boot, verdict in (("first", False), ("second", True)):
        await die(tmp_path, boot, digest)
        assert lives.dead() == [boot]
        again, other = bench.put(row(6, 6, 6, 6)), bench.put(row(1, 1, 1, 1))
        await bench.outputs(other)
        gone = bench.put(row(6, 6, 6, 6))
        await asyncio.sleep(4 * VERDICT_LOOK_S)
        assert not again.answered
        gone.fail(Cancelled("the client went away"))
        bench.batcher.forget(gone)  # it waits for the verdict, and for no run
        assert bench.batcher.queued == 0
        if verdict:
            quarantine.worker_died([UnfinishedRun(0, key, 0, 1, (digest,))], "killed by SIGABRT", time.monotonic())
            file.write(quarantine.versions)
        lives.bury(boot)
        if verdict:
            assert (await bench.error(again)).code is Code.FAILED_PRECONDITION
        else:  # somebody killed it: that blames no request
            await bench.outputs(again)
    assert (await bench.error(bench.put(row(6, 6, 6, 6)))).code is Code.FAILED_PRECONDITION


@pytest.mark.parametrize("refused", [0, 1], ids=["first", "second"])
async def test_a_step_that_is_refused_ends_its_ensemble_and_not_the_run_of_others(refused: int, tmp_path: Path) -> None:
    """The other step was to run with calls of others; without its inputs all of them failed."""
    models.write_version(tmp_path / "models", "double", "1", models.affine(2.0))
    steps = Step("double", {"x": "a"}, {"y": "left"}), Step("double", {"x": "b"}, {"y": "right"})
    inputs, outputs = [tensor("a"), tensor("b")], [tensor("left"), tensor("right")]
    write_ensemble(tmp_path / "models", "twins", config(*steps, inputs=inputs, outputs=outputs))
    file, quarantine = QuarantineFile(tmp_path), RunQuarantine(600)
    file.clear()
    async with staged(tmp_path, shared=SharedRunState(refusals=Refusals(tmp_path))) as stage:
        await stage.catalog.poll()  # the ensemble, once its step is there
        bad = stage.begin("double")
        assert bad.version is not None
        key = VersionKey("double", "1", bad.version.digest)
        stage.submit(bad, floats(6))
        runs = [UnfinishedRun(0, key, 0, 1, (input_digest(bad, fixed=True),))]
        await stage.end(bad)
        quarantine.worker_died(runs, "killed by SIGABRT", time.monotonic())
        file.write(quarantine.versions)
        twins = stage.submit(stage.begin("twins"), *[floats(6), floats(1)][:: -1 if refused else 1])
        other = stage.submit(stage.begin("double"), floats(2))
        assert (await stage.end(other)).error is None
        assert f"step {refused + 1} (model 'double'): this request is refused" in str((await stage.end(twins)).error)


DIES = """
import os, sys
from pathlib import Path
from gateway.serving.refusals import Refusals
from gateway.serving.run_page import LOOP_SLOT, RunPage, VersionKey, page_path
directory, boot, digest = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
page, lives = RunPage(page_path(directory, boot)), Refusals(directory).lives
assert lives is not None and lives.claim(boot)
page.enter(LOOP_SLOT, page.register(VersionKey("m", "1", "d")), [digest])
os.abort()
"""


async def die(directory: Path, boot: str, digest: int) -> None:
    """A worker that dies of its own while it runs these inputs."""
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", DIES, str(directory), boot, str(digest))
    assert await child.wait() == -signal.SIGABRT


async def test_lines_of_the_log_are_bounded_and_name_the_request(
    benches: list[Bench], caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(models.fragile(8))
    benches.append(bench)
    errors = [await bench.error(bench.put(np.array([99], np.int64))) for _ in range(100)]
    lines = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(lines) == BURST
    assert "failed on request 'r0'" in lines[0]
    assert str(errors[99]) == "internal error (request r99)"


@pytest.mark.parametrize("count", [1, 25, 1000])
def test_what_was_left_out_of_the_log_is_said_with_the_next_line(count: int) -> None:
    limit = LineLimit()
    lines = [limit.take(0) for _ in range(count)]
    assert lines == [0] * min(count, BURST) + [-1] * max(0, count - BURST)
    assert limit.take(REFILL_NS) == max(0, count - BURST)
