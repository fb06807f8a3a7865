"""Logged requests through another version: what would change, what cannot be replayed, and what it may cost."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from gateway.cli.app import app
from gateway.errors import GatewayError
from gateway.records.worker.redaction import Redaction
from gateway.records.worker.redaction_rule import RedactionAction, RedactionRule
from gateway.records.worker.sampling import Sampling
from gateway.replay.replay_report import LOGGED, replay_verdict
from tests.drift.lakes import START_US, write_rows
from tests.models import affine
from tests.replay.batches import SIZES, write_batches
from tests.replay.replayed import ROWS, inputs, made, messages, question, report_of, softmax, write_model


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("replay"))


def run(place: Path, *words: str) -> Result:
    arguments = ["replay", *words, "--data-dir", str(place / "data"), "--model-repository", str(place / "models")]
    return CliRunner().invoke(app, [*arguments, "--window", "2026-10-01"])


def test_rows_that_get_another_class_are_counted_and_shown(place: Path) -> None:
    before, after = softmax(inputs(), 3).argmax(axis=1), softmax(inputs(), 4).argmax(axis=1)
    report = report_of(question(place, "kinds", "2", against="1", by="arm"))
    assert (report.rows, report.requests, sum(report.missing.values())) == (ROWS, ROWS, 0)
    assert report.kinds["class"] == report.changed.rows == int((before != after).sum())
    assert report.changed.low < report.changed.share < report.changed.high
    assert sum(rows for _, _, rows in report.transitions) == report.changed.rows
    assert report.bit_equal == 0  # logged by hand, with another digest: nothing may be said of bits
    assert [(one.value, one.changed.of) for one in report.segments] == [("stable", ROWS)]
    scores = softmax(inputs(), 4).max(axis=1) - softmax(inputs(), 3).max(axis=1)
    assert report.largest[0].difference == pytest.approx(scores[np.abs(scores).argmax()], abs=1e-5)
    assert set(report.largest[0].inputs) == {"x_0", "x_1", "x_2", "x_3"}
    assert report.differences.mean == pytest.approx(float(scores.mean()), abs=1e-6)
    assert sum(report.differences.counts) == ROWS
    assert [side.version for side in report.sides] == ["2", "1"]
    assert all(side.run_us["p50"] > 0 and side.peak_bytes > 0 for side in report.sides)


def test_the_same_model_changes_nothing_whatever_it_is_compared_with(place: Path) -> None:
    report = report_of(question(place, "kinds", "3", against=LOGGED))
    assert (report.rows, report.changed.rows) == (ROWS, 0)
    assert replay_verdict(report, 0.05).verdict == "pass"
    assert replay_verdict(report, 0.0001).verdict == "hold"  # too few rows to prove so little


def test_a_score_without_classes_moves_by_its_own_range(place: Path) -> None:
    write_model(place, "lines", {"1": affine(features=1), "2": affine(2.0, 0.5, features=1)})
    x = np.linspace(0, 100, ROWS).astype("<f4").reshape(ROWS, 1)
    moments = START_US + np.arange(ROWS) * 1000
    write_rows(place / "data", moments, {"x": x}, {"y": x * 2}, model="lines")
    assert report_of(question(place, "lines", "2", tolerance=0.001)).kinds["moved"] == ROWS


def test_a_version_that_fails_on_some_inputs_is_told_with_one_of_them(place: Path) -> None:
    report = report_of(question(place, "weak", "2", against="1"))
    bad = int((np.arange(ROWS) % 12 >= 8).sum())
    assert (report.kinds["failed"], report.sides[0].failed_rows, report.sides[1].failed_rows) == (bad, bad, 0)
    [failure] = report.failures
    assert (failure.version, failure.rows) == ("2", bad)
    assert failure.request_id.startswith("weak-1-")
    assert report.largest[0].after == "(failed)"


def test_what_the_log_does_not_hold_is_counted_and_fails_the_gate(place: Path) -> None:
    write_model(place, "blind", {"1": affine()})
    x = inputs()
    moments = START_US + np.arange(ROWS) * 1000
    rules = Redaction((RedactionRule("blind", "x", RedactionAction.BUCKET, 1, (0.0,)),))
    write_rows(place / "data", moments, {"x": x}, {"y": x * 2}, model="blind", redaction=rules)
    report = report_of(question(place, "blind", "1"))
    assert (report.rows, report.missing["redacted"]) == (0, ROWS)
    verdict = replay_verdict(report, 0.01)
    assert (verdict.verdict, verdict.missing) == ("nodata", ROWS)
    assert "redaction" in verdict.reason
    result = run(place, "blind", "--version", "1", "--fail-above", "1%")
    assert result.exit_code == 1
    assert f"not replayed: {ROWS} rows: redaction" in result.stdout


def test_inputs_that_are_there_as_digest_only_are_missing(place: Path) -> None:
    write_model(place, "large", {"1": affine(features=20_000)})
    x = np.ones((3, 20_000), "<f4")
    moments = START_US + np.arange(3)
    write_rows(place / "data", moments, {"x": x}, {"y": x[:, :1]}, model="large")
    report = report_of(question(place, "large", "1"))
    assert (report.rows, report.missing["digest"]) == (0, 3)


def test_another_shape_is_missing_too_and_sampled_rows_are_estimated(place: Path) -> None:
    report = report_of(question(place, "kinds", "5"))
    assert (report.rows, report.missing["absent"]) == (0, ROWS)
    write_model(place, "rare", {"1": affine()})
    moments = START_US + np.arange(400) * 1000
    x = np.ones((400, 4), "<f4")
    write_rows(place / "data", moments, {"x": x}, {"y": x * 2}, model="rare", sampling=Sampling(rate=0.25))
    report = report_of(question(place, "rare", "1"))
    assert report.rows + report.missing["sampled"] == pytest.approx(4 * report.rows, abs=2)


def test_rows_are_drawn_whole_and_the_time_is_bounded(place: Path) -> None:
    assert report_of(question(place, "kinds", "3", rows=20)).rows == 20
    stopped = report_of(question(place, "kinds", "3", limit_s=0.0))
    assert (stopped.rows, stopped.missing["left"]) == (0, ROWS)
    assert replay_verdict(stopped, 0.5).verdict == "nodata"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"where": "true; DROP TABLE x"}, "where"),
        ({"where": "x IN (SELECT * FROM read_text('/etc/passwd'))"}, "where|disabled|not allowed|Permission"),
        ({"by": "no.such"}, "no.such"),
        ({"version": "9"}, "9"),
        ({"model": "nobody"}, "nobody"),
    ],
)
def test_a_wrong_question_is_refused_with_its_reason(place: Path, changes: dict[str, Any], words: str) -> None:
    asked = {"model": "kinds", "version": "2"} | changes
    with pytest.raises(GatewayError) as refused:
        report_of(question(place, **asked))
    assert any(word.lower() in str(refused.value).lower() for word in words.split("|"))


def test_progress_is_told(place: Path) -> None:
    told = messages(question(place, "kinds", "3"))
    assert [one.total for one in told if one.total] == [ROWS] * (len(told) - 1)
    assert len(told) > 1


def test_the_command_prints_writes_and_judges(place: Path, tmp_path: Path) -> None:
    page = tmp_path / "replay.html"
    result = run(place, "kinds", "--version", "2", "--against", "1", "--fail-above", "1%", "--html", str(page))
    assert result.exit_code == 1, result.output
    assert "would change" in result.stdout
    assert "fail: " in result.stderr
    assert "<script" not in page.read_text()
    assert "another class" in page.read_text()
    result = run(place, "kinds", "--version", "3", "-o", "json", "--fail-above", "10%", "--where", '"f.x_0" > 0')
    assert result.exit_code == 0, result.output
    value = json.loads(result.stdout)
    assert value["verdict"]["verdict"] == "pass"
    assert value["rows"] == int((inputs()[:, 0] > 0).sum())
    assert run(place, "kinds", "--version", "3", "--fail-above", "much").exit_code == 2


def test_rows_that_depend_on_each_other_run_as_they_were_asked(place: Path) -> None:
    write_batches(place / "data", "whole", batches=False)
    report = report_of(question(place, "whole", "1"))
    assert (report.rows, report.changed.rows) == (len(SIZES), 0)


def test_a_condition_may_choose_some_rows_of_a_request(place: Path) -> None:
    write_model(place, "pairs", {"1": affine()})
    x = write_batches(place / "data", "pairs", batches=True)
    report = report_of(question(place, "pairs", "1", where='"f.x_0" > 0'))
    assert (report.rows, report.changed.rows) == (int((x[:, 0] > 0).sum()), 0)
    assert "chose some rows only" in " ".join(report.notes)


def test_tensors_are_those_that_were_sent_whatever_their_features_are_called(place: Path) -> None:
    write_model(place, "named", {"1": affine(features=2)})
    x = np.arange(20, dtype="<f4").reshape(10, 2)
    moments = START_US + np.arange(10) * 1000
    write_rows(place / "data", moments, {"x": x}, {"y": x * 2}, model="named", features=("near", "far"))
    later = {"version": "2", "features": ("far", "near")}  # another version has the names the other way round
    write_rows(place / "data", moments + 10**7, {"x": x}, {"y": x * 2}, model="named", **later)  # type: ignore[arg-type]
    report = report_of(question(place, "named", "1", by="f.near", where='"f.near" >= 0', tolerance=0.0))
    assert (report.rows, report.changed.rows, len(report.segments)) == (20, 0, 20)
    assert report.largest == ()
