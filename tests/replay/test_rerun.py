"""A logged request run again: bit-equal or not, by how much, and what is otherwise than it was."""

import asyncio
from pathlib import Path
from time import time
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import helper
from typer.testing import CliRunner, Result

from gateway.cli.app import app
from gateway.errors import FailedPrecondition, GatewayError, NotFound
from gateway.replay.logged_rerun import rerun
from gateway.replay.replay_question import RerunQuestion
from gateway.replay.rerun_report import RerunReport
from gateway.replay.run_files import VersionFiles
from gateway.replay.version_source import VersionSource
from gateway.serving.run_environment import RunEnvironment, environment_at, note_environment, present_environment
from gateway.tensor import Datatype
from loaders.loader import LocalVersion
from tests.drift.lakes import START_US, write_rows
from tests.models import affine, model_of, tensor_value, weight
from tests.replay.batches import write_batches
from tests.replay.replayed import question, report_of, write_model
from tests.serving.ensembles import Step, config, write_ensemble

X = np.random.default_rng(2).normal(size=(6, 4)).astype("<f4")


def fetched(place: Path, model: str) -> LocalVersion:
    """The version's copy in the content store, as a gateway has it that has served it."""
    files = VersionSource(place / "data", str(place / "models")).find(model, "1")
    assert isinstance(files, VersionFiles)
    return files.probe.local


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("rerun")
    (directory / "data").mkdir()
    write_model(directory, "lines", {"1": affine()})
    digest = fetched(directory, "lines").digest
    moments = START_US + np.arange(len(X)) * 1000
    answers = X * 2
    answers[1] += np.float32(0.5)
    names = ["same", "other", "same", "failed", "third", "last"]
    codes = [0, 0, 0, 13, 0, 0]
    given = {"model": "lines", "names": names, "codes": codes, "digest": digest}
    write_rows(directory / "data", moments, {"x": X}, {"y": answers}, **given)  # type: ignore[arg-type]
    return directory


def times_rows() -> bytes:
    """`y = x * rows`, FP32 [-1, 4]."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "first"], ["rows"], axis=0),
        helper.make_node("Cast", ["rows"], ["factor"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Mul", ["x", "factor"], ["y"]),
    ]
    tensors = [tensor_value(name, Datatype.FP32, (-1, 4)) for name in ("x", "y")]
    model = model_of(nodes, tensors[:1], tensors[1:], [weight("first", np.array(0, np.int64))])
    return bytes(model.SerializeToString())


def again(place: Path, model: str, request_id: str, **changes: Any) -> RerunReport:
    question = RerunQuestion(str(place / "data"), model, request_id, START_US + 10**9, repository=str(place / "models"))
    return asyncio.run(rerun(msgspec.structs.replace(question, **changes)))


def test_the_same_version_answers_to_the_bit(place: Path) -> None:
    report = again(place, "lines", "same")
    assert (report.outcome, report.records, report.rows) == ("bit-equal", 2, 1)
    assert report.ts_us == START_US + 2000  # the newest of the two
    assert [(one.name, one.equal) for one in report.outputs] == [("y", True)]


def test_a_difference_is_told_with_its_size(place: Path) -> None:
    report = again(place, "lines", "other")
    [output] = report.outputs
    assert (report.outcome, output.differing, output.elements) == ("differs", 4, 4)
    assert output.largest == pytest.approx(0.5, abs=1e-5)
    assert report.equal_in_run_of is None


@pytest.mark.parametrize(("request_id", "words"), [("nobody", "not in the log"), ("failed", "INTERNAL")])
def test_what_was_not_answered_cannot_be_compared(place: Path, request_id: str, words: str) -> None:
    with pytest.raises(NotFound, match=words):
        again(place, "lines", request_id)


def test_the_content_that_answered_then_is_run_although_its_directory_changed(place: Path) -> None:
    write_model(place, "lines", {"1": affine(3.0)})
    assert again(place, "lines", "third").outcome == "bit-equal"
    with pytest.raises(GatewayError):
        again(place, "lines", "third", data_dir=str(place / "models"))
    write_model(place, "lines", {"1": affine()})


def test_content_that_is_nowhere_any_more_is_said_to_be(place: Path) -> None:
    write_model(place, "gone", {"1": affine()})
    write_rows(place / "data", START_US + np.arange(1), {"x": X[:1]}, {"y": X[:1]}, model="gone", digest="0" * 64)
    with pytest.raises(FailedPrecondition, match=r"as it was then \(content 000000000000\) is not here any more"):
        again(place, "gone", "gone-1-0")


def test_an_answer_of_a_larger_run_is_known_as_one(place: Path) -> None:
    """This model answers x times the rows of the run: a caricature of kernels that round otherwise for another size."""
    write_model(place, "sizes", {"1": times_rows()})
    (place / "models" / "sizes" / "config.pbtxt").write_text("max_batch_size: 16\ndynamic_batching {}\n")
    digest = fetched(place, "sizes").digest
    moments = START_US + np.arange(2)
    x = X[:2]
    write_rows(place / "data", moments, {"x": x}, {"y": x * 8}, model="sizes", digest=digest)
    report = again(place, "sizes", "sizes-1-0")
    assert (report.outcome, report.equal_in_run_of) == ("differs", 8)


def test_requests_of_several_rows_are_run_whole(place: Path) -> None:
    write_model(place, "pairs", {"1": affine()})
    write_batches(place / "data", "pairs", batches=True, digest=fetched(place, "pairs").digest)
    report = again(place, "pairs", "b2")
    assert (report.outcome, report.rows, report.outputs[0].elements) == ("bit-equal", 5, 20)


@pytest.fixture(scope="module")
def whole(place: Path) -> str:
    """The digest of the ensemble "whole", whose only step was logged of its request "both", and not of "alone"."""
    write_model(place, "double", {"1": affine(2.0), "2": affine(3.0)})
    write_ensemble(place / "models", "whole", config(Step("double")))
    whole = VersionSource(place / "data", str(place / "models")).find("whole", "1").digest
    moments = START_US + np.arange(2) * 10_000_000
    write_rows(
        place / "data", moments, {"x": X[:2]}, {"y": X[:2] * 2}, model="whole", digest=whole, names=["both", "alone"]
    )
    step = {"model": "double", "digest": fetched(place, "double").digest, "names": ["both"]}
    write_rows(place / "data", moments[:1] + 3, {"x": X[:1]}, {"y": X[:1] * 2}, **step)  # type: ignore[arg-type]
    return whole


def test_a_request_of_an_ensemble_runs_with_the_steps_that_the_log_has(place: Path, whole: str) -> None:
    report = again(place, "whole", "both")
    assert (report.outcome, report.error, report.digest) == ("bit-equal", "", whole)
    text = config(Step("double"), batch=8)
    write_ensemble(place / "models", "other", text)
    write_rows(place / "data", START_US + np.arange(1), {"x": X[:1]}, {"y": X[:1]}, model="other", digest=whole)
    with pytest.raises(FailedPrecondition, match="the configuration of model 'other' was another one then"):
        again(place, "other", "other-1-0")


@pytest.mark.long
def test_steps_that_nobody_logged_are_the_newest_and_that_is_told(place: Path, whole: str) -> None:
    report = again(place, "whole", "alone")
    assert report.outcome == "differs"
    assert report.environment == (
        "step 1 (model 'double') is version '2', the newest: the log does not tell which one ran",
    )
    replayed = report_of(question(place, "whole", "1", end_us=START_US + 60_000_000))
    assert (replayed.rows, replayed.failures) == (2, ())
    [note] = replayed.notes
    assert note == "version 1 ran with these versions, the newest ones: step 1 (model 'double') is version '2'"


def test_what_runs_depended_on_is_known_by_time(tmp_path: Path, place: Path) -> None:
    then = RunEnvironment(1_000, "1.0", "old cpu", ("avx2", "sse4_1"), 2)
    now = present_environment(1, 5_000)
    for environment in (then, then, now, now):
        note_environment(tmp_path, environment)
    assert (tmp_path / "environments.jsonl").read_bytes().count(b"\n") == 2  # only changes
    assert environment_at(tmp_path, 999 - 60_000_000) is None
    assert environment_at(tmp_path, 999) == then  # the clock was set back after the worker's start
    assert environment_at(tmp_path, 4_999) == then
    assert environment_at(tmp_path, 5_000) == now
    words = " ".join(then.differences(now))
    assert "ONNX Runtime was 1.0" in words
    assert "CPU was old cpu" in words
    assert "threads of a run was 2" in words
    assert now.runtime
    (place / "data" / "log" / "environments.jsonl").write_bytes(msgspec.json.encode(then) + b'\n{"\xff": 1}\n{cut')
    report = again(place, "lines", "other")
    assert report.environment_known
    assert "ONNX Runtime was 1.0" in report.environment[0]


def test_the_command_says_it_and_ends_with_one_where_it_differs(place: Path) -> None:
    def run(*words: str) -> Result:
        options = ["--data-dir", str(place / "data"), "--model-repository", str(place / "models")]
        return CliRunner().invoke(app, ["rerun", "lines", *words, *options])

    assert time() > START_US / 1e6  # the log is of the past
    result = run("last")
    assert (result.exit_code, "bit-equal" in result.stdout) == (0, True), result.output
    result = run("other", "-o", "json")
    assert result.exit_code == 1
    assert msgspec.json.decode(result.stdout)["outputs"][0]["differing"] == 4
