"""A version in a process of its own: what ends the process is an answer, and it goes on; not for ever."""

import os
import re
import signal
from pathlib import Path

import numpy as np
import pytest

from gateway.errors import FailedPrecondition, UnknownVersion
from gateway.replay.ensemble_runner import runner_of
from gateway.replay.run_files import EnsembleFiles, VersionFiles
from gateway.replay.run_message import SentTensor, arrays, sent
from gateway.replay.version_runner import RunLimits, RunnerGone, VersionRunner
from gateway.replay.version_source import VersionSource, version_files
from gateway.tensor import Datatype
from loaders.filesystem import FilesystemLoader
from loaders.store import ContentStore
from tests.autogroups import session_niceness
from tests.models import affine
from tests.replay.replayed import write_model
from tests.serving.ensembles import Step, chain, config, tensor, write_ensemble


@pytest.fixture
def files(tmp_path: Path) -> VersionFiles:
    (tmp_path / "data").mkdir()
    write_model(tmp_path, "lines", {"1": affine(), "2": b"no model"})
    files = VersionSource(tmp_path / "data", str(tmp_path / "models")).find("lines", "1")
    assert isinstance(files, VersionFiles)
    return files


def row(rows: int = 1) -> list[SentTensor]:
    return [sent("x", Datatype.FP32, np.ones((rows, 4), "<f4"))]


async def test_a_request_that_ends_the_process_is_an_error_and_the_next_one_is_answered(files: VersionFiles) -> None:
    async with VersionRunner(files, RunLimits(deaths=2)) as runner:
        first = await runner.run(row(2))
        assert arrays(first.outputs)["y"].tolist() == [[2.0] * 4] * 2
        assert first.run_ns > 0
        assert runner.pid is not None
        assert os.getpriority(os.PRIO_PROCESS, runner.pid) == 19
        assert not session_niceness(runner.pid)  # a run has 30 s, and its time is told
        os.kill(runner.pid, signal.SIGKILL)
        assert "killed by signal 9" in (await runner.run(row())).error
        assert not (await runner.run(row())).error
        os.kill(runner.pid, signal.SIGKILL)
        with pytest.raises(RunnerGone, match="2 times"):
            await runner.run(row())
    assert runner.pid is None


async def test_a_run_that_takes_too_long_is_ended(files: VersionFiles) -> None:
    async with VersionRunner(files, RunLimits(run_s=0.0)) as runner:
        assert "took longer than 0 s" in (await runner.run(row())).error


@pytest.fixture
def whole(files: VersionFiles, tmp_path: Path) -> EnsembleFiles:
    """An ensemble of one version, an ensemble within, and that version again."""
    repository = tmp_path / "models"
    write_model(tmp_path, "threes", {"1": b"", "4": affine(5.0), "5": b""})
    write_ensemble(repository, "inner", config(Step("threes")))
    write_ensemble(repository, "whole", config(*chain("lines", "inner", "lines"), batch=8).replace("-1", "1", 1))
    ran = {"threes": ("4", ""), "lines": ("1", files.digest)}
    found = VersionSource(tmp_path / "data", str(repository)).find("whole", "1", ran=ran)
    assert isinstance(found, EnsembleFiles)
    return found


def test_steps_are_the_versions_that_ran_or_the_newest(whole: EnsembleFiles) -> None:
    assert [files.candidate.version for files in whole.versions()] == ["1", "4", "1"]
    assert whole.models == {"lines", "inner", "threes"}
    assert whole.chosen(["lines", "threes"]) == ("step 2 (model 'inner') is version '1'",)
    assert "step 2 (model 'inner'): step 1 (model 'threes') is version '4'" in whole.chosen()


@pytest.mark.long
async def test_an_ensemble_runs_the_versions_that_its_steps_name(whole: EnsembleFiles) -> None:
    async with runner_of(whole) as runner:
        answer = await runner.run(row(2))
        assert [(one.name, one.shape) for one in answer.outputs] == [("y", (2, 4))]
        assert arrays(answer.outputs)["y"].tolist() == [[20.0] * 4] * 2  # 2 * 5 * 2
        assert answer.run_ns > 0
        assert (runner.contract.batches, runner.contract.max_rows) == (True, 8)
        wrong = await runner.run([sent("x", Datatype.FP32, np.ones((2, 3), "<f4"))])
        assert wrong.error.startswith("step 1 (model 'lines' version '1'): ")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (config(Step("absent")), "step 1 (model 'absent'): Request for unknown model: 'absent'"),
        (config(Step("whole")), "step 1 (model 'whole'): the ensemble is a step within itself: whole > whole"),
        (config(*chain("lines", "view")), "step 2 (model 'view') looks its answers up in a feature store"),
        ('backend: "features" input { name: "k" data_type: TYPE_INT64 dims: 1 } '
         'output { name: "f" data_type: TYPE_FP32 dims: 1 }', "model 'whole' looks its answers up in a feature store"),
    ],
)  # fmt: skip
def test_what_cannot_be_run_again_says_why(text: str, reason: str, files: VersionFiles, tmp_path: Path) -> None:
    view = f'backend: "features" max_batch_size: 64 input {tensor("x")} output {tensor("y")}'
    write_ensemble(tmp_path / "models", "view", view)
    write_ensemble(tmp_path / "models", "whole", text)
    with pytest.raises(FailedPrecondition, match=re.escape(reason)):
        VersionSource(tmp_path / "data", str(tmp_path / "models")).find("whole", "1")


def test_ensembles_that_multiply_are_refused_soon(tmp_path: Path) -> None:
    view = f'backend: "features" max_batch_size: 64 input {tensor("x")} output {tensor("y")}'
    write_ensemble(tmp_path, "level0", view)
    for level in (1, 2):
        write_ensemble(tmp_path, f"level{level}", config(*chain(*[f"level{level - 1}"] * 24)))
    loader = FilesystemLoader(tmp_path, ContentStore(tmp_path / ".content"))
    with pytest.raises(FailedPrecondition, match="one request would make more than 512 calls"):
        version_files(loader, "level2", "1", steps=loader)


async def test_steps_that_do_not_fit_are_told_before_anything_runs(tmp_path: Path) -> None:
    view = f'backend: "features" max_batch_size: 64 input {tensor("x")} output {tensor("y")}'
    write_ensemble(tmp_path, "view", view)
    write_ensemble(tmp_path, "whole", config(Step("view"), outputs=[tensor("y", dims=[5])]))
    loader = FilesystemLoader(tmp_path, ContentStore(tmp_path / ".content"))
    found = version_files(loader, "whole", "1", steps=loader)
    assert isinstance(found, EnsembleFiles)
    with pytest.raises(FailedPrecondition, match=r"output 'y' of the ensemble has shape \[-1, 5\]"):
        async with runner_of(found):
            pass


async def test_what_is_no_model_says_why(files: VersionFiles, tmp_path: Path) -> None:
    with pytest.raises(UnknownVersion, match="'nosuch' version '1' is not found: the repository has no such model"):
        VersionSource(tmp_path / "data", str(tmp_path / "models")).find("nosuch", "1")
    bad = VersionSource(tmp_path / "data", str(tmp_path / "models")).find("lines", "2")
    with pytest.raises(FailedPrecondition, match="version '2' cannot be loaded"):
        async with runner_of(bad):
            pass
