"""A version in a process of its own: what ends the process is an answer, and it goes on; not for ever."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest

from gateway.errors import FailedPrecondition, UnknownVersion
from gateway.replay.run_message import SentTensor, arrays, sent
from gateway.replay.version_runner import RunLimits, RunnerGone, VersionRunner
from gateway.replay.version_source import VersionFiles, VersionSource
from gateway.tensor import Datatype
from tests.models import affine
from tests.replay.replayed import write_model
from tests.serving.ensembles import Step, config, write_ensemble


@pytest.fixture
def files(tmp_path: Path) -> VersionFiles:
    (tmp_path / "data").mkdir()
    write_model(tmp_path, "lines", {"1": affine(), "2": b"no model"})
    return VersionSource(tmp_path / "data", str(tmp_path / "models")).find("lines", "1")


def row(rows: int = 1) -> list[SentTensor]:
    return [sent("x", Datatype.FP32, np.ones((rows, 4), "<f4"))]


async def test_a_request_that_ends_the_process_is_an_error_and_the_next_one_is_answered(files: VersionFiles) -> None:
    async with VersionRunner(files, RunLimits(deaths=2)) as runner:
        first = await runner.run(row(2))
        assert arrays(first.outputs)["y"].tolist() == [[2.0] * 4] * 2
        assert first.run_ns > 0
        assert runner.pid is not None
        assert os.getpriority(os.PRIO_PROCESS, runner.pid) == 19
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


def test_a_model_without_a_file_says_that_it_does_not_run_alone(files: VersionFiles, tmp_path: Path) -> None:
    write_ensemble(tmp_path / "models", "whole", config(Step("lines")))
    with pytest.raises(FailedPrecondition, match="'whole' is of 'ensemble': it runs in the gateway that serves it"):
        VersionSource(tmp_path / "data", str(tmp_path / "models")).find("whole", "1")


async def test_what_is_no_model_says_why(files: VersionFiles, tmp_path: Path) -> None:
    with pytest.raises(UnknownVersion, match="'nosuch' version '1' is not found: the repository has no such model"):
        VersionSource(tmp_path / "data", str(tmp_path / "models")).find("nosuch", "1")
    bad = VersionSource(tmp_path / "data", str(tmp_path / "models")).find("lines", "2")
    with pytest.raises(FailedPrecondition, match="version '2' cannot be loaded"):
        async with VersionRunner(bad):
            pass
