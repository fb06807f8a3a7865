"""Metrics and alerts of performance on real data with a known answer, from requests and labels to Prometheus. The
parameters are the product's own, not fitted to either data set."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, roc_auc_score
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from typer.testing import CliRunner

from gateway.cli.app import app
from tests.drift.labelled import BEGIN_US, DAY_US, MODEL, log_answers, look, metrics, send_labels, values, watch
from tests.drift.shifted_data import california_housing, seattle_weather
from tests.telemetry.firing import firing

Array = npt.NDArray[Any]


def published(directory: Path) -> Path:
    return directory / "run" / "published"


async def pin_profile(directory: Path, moments: Array, labels: Array, outputs: dict[str, Array], inputs: Array) -> None:
    """Rows and their labels go to the lake; that window becomes the profile of version 1, by the command for it."""
    names = await log_answers(directory, moments, outputs, inputs=inputs)
    await send_labels(directory, names, labels.tolist(), received_us=int(moments[-1]))
    look(directory, int(moments[-1]))
    words = ["profile", "build", MODEL, "--version", "1", "--window", "2026-09-30..2026-10-03", "-o", "json"]
    done = CliRunner().invoke(app, [*words, "--data-dir", str(directory)])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["baseline"]["rows"] == len(labels)


@pytest.fixture(scope="module")
def weather() -> tuple[Array, Array, Array, Array]:
    """A model of 2012 answers every day of 2012 to 2015, those of 2012 from the folds that it did not see: inputs,
    chances, what came true, years."""
    table = seattle_weather()
    first = table.years == 2012
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    chances = np.empty((len(table.years), 5))
    chances[first] = cross_val_predict(model, table.inputs[first], table.labels[first], cv=5, method="predict_proba")
    model.fit(table.inputs[first], table.labels[first])
    chances[~first] = model.predict_proba(table.inputs[~first])
    return table.inputs, chances, table.labels, table.years


@pytest.mark.parametrize("year", [2013, 2014, 2015])
async def test_seattle_accuracy_drops_by_its_labels_and_no_estimate_claims_it(
    year: int, weather: tuple[Array, Array, Array, Array], tmp_path: Path
) -> None:
    """A wet day was "rain" in 2012 and is mostly "fog" in 2014: the labels changed, and nothing else."""
    inputs, chances, labels, years = weather
    classes = np.unique(labels)
    answers = {"label": classes[chances.argmax(axis=1)].astype(object), "p": chances.astype("<f4")}
    before, now = years == 2012, years == year
    moments = BEGIN_US + np.arange(before.sum()) * (DAY_US // 400)
    of = {name: values_[before] for name, values_ in answers.items()}
    await pin_profile(tmp_path, moments, labels[before], of, inputs[before].astype("<f4"))
    assert firing("AccuracyDrop", published(tmp_path)) == []

    later = BEGIN_US + 3 * DAY_US + np.arange(now.sum()) * (DAY_US // 400)
    of = {name: values_[now] for name, values_ in answers.items()}
    names = await log_answers(tmp_path, later, of, inputs=inputs[now].astype("<f4"), first=10_000)
    end_us = int(later[-1])
    look(tmp_path, end_us)
    assert firing("AccuracyDrop", published(tmp_path)) == []  # nobody can know yet
    assert firing("EstimatedPerformanceDrop", published(tmp_path)) == []  # and the answers are as sure as ever

    await send_labels(tmp_path, names, labels[now].tolist(), received_us=end_us)
    arm = look(tmp_path, end_us)
    real = accuracy_score(labels[now], of["label"])
    assert values(arm, "realised")["accuracy"] == pytest.approx(real, abs=1e-6)
    assert values(arm, "estimated")["accuracy"] > real + 0.15
    arm_of = {"model": MODEL, "version": "1", "arm": "stable", "role": "serving"}
    assert {**arm_of, "name": "accuracy"} in firing("AccuracyDrop", published(tmp_path))
    assert firing("EstimatedPerformanceDrop", published(tmp_path)) == []
    assert firing("LabelsUnknown", published(tmp_path)) == []


async def test_california_the_estimate_sees_the_fall_before_the_labels_and_is_near_it(tmp_path: Path) -> None:
    """Houses of other regions, in fifths of the window, AUC 0.91 before: labels ring where it falls, the estimate where
    it falls far, none where it rises."""
    before, now = california_housing()

    def pairs(scores: Array) -> dict[str, Array]:
        return {"p": np.column_stack([1 - scores, scores]).astype("<f4")}

    moments = BEGIN_US + np.arange(len(before.labels)) * 10_000_000
    await pin_profile(tmp_path, moments, before.labels, pairs(before.scores), before.inputs.astype("<f4"))
    assert metrics(tmp_path, "gateway_model_metric")["auc"] == pytest.approx(0.908, abs=2e-3)
    alerts = []
    for number, chosen in enumerate(np.array_split(np.arange(len(now.labels)), 5)):
        start = BEGIN_US + (3 + 2 * number) * DAY_US
        later = start + np.arange(len(chosen)) * 10_000_000
        first = 100_000 * (number + 1)
        names = await log_answers(tmp_path, later, pairs(now.scores[chosen]), first=first)
        arm = look(tmp_path, int(later[-1]))
        estimated = values(arm, "estimated")["auc"]
        told = {one["name"] for one in firing("EstimatedPerformanceDrop", published(tmp_path))}
        await send_labels(tmp_path, names, now.labels[chosen].tolist(), received_us=int(later[-1]))
        arm = look(tmp_path, int(later[-1]))
        assert arm["realised"]["rows"] == len(chosen)
        real = roc_auc_score(now.labels[chosen], now.scores[chosen])
        assert values(arm, "realised")["auc"] == pytest.approx(real, abs=2e-3)
        assert estimated == pytest.approx(real, abs=0.05)
        rung = {one["name"] for one in firing("AccuracyDrop", published(tmp_path))}
        alerts.append((round(real, 2), "auc" in told, "auc" in rung))
    assert alerts == [
        (0.81, True, True), (0.73, True, True), (0.86, False, True), (0.93, False, False), (0.88, False, True),
    ]  # fmt: skip
    worker, _ = watch(tmp_path, BEGIN_US + 30 * DAY_US)
    worker.tend(last=True)
    assert firing("PerformanceMonitorSilent", published(tmp_path), now_s=BEGIN_US / 1e6 + 30 * 86400 + 299) == []
    assert firing("PerformanceMonitorSilent", published(tmp_path), now_s=BEGIN_US / 1e6 + 30 * 86400 + 301) == [{}]


async def test_a_profile_of_a_file_takes_its_labels_from_the_log(tmp_path: Path) -> None:
    before, _ = california_housing()
    outputs = {"p": np.column_stack([1 - before.scores, before.scores]).astype("<f4")[:500]}
    moments = BEGIN_US + np.arange(500) * 1_000_000
    names = await log_answers(tmp_path, moments, outputs)
    path = tmp_path / "training.csv"
    path.write_text("\n".join(["x", *(f"{row[0]:.4f}" for row in before.inputs[:1000])]))
    words = ["profile", "build", MODEL, "--version", "1", "--from", str(path), "--tensor", "x", "--labelled"]

    def build(window: str) -> Any:
        return CliRunner().invoke(app, [*words, window, "--data-dir", str(tmp_path), "-o", "json"])

    look(tmp_path, int(moments[-1]))
    nothing = build("2026-10-01")
    assert nothing.exit_code == 2
    assert "no logged row of version '1'" in nothing.output.replace("\n", " ")
    await send_labels(tmp_path, names, before.labels[:500].tolist(), received_us=int(moments[-1]))
    look(tmp_path, int(moments[-1]))
    alerts = json.loads(build("2026-10-01").stdout)["baseline"]
    assert (alerts["rows"], alerts["estimates"]) == (500, True)
    real = accuracy_score(before.labels[:500], before.scores[:500] > 0.5)  # of two that are equal it is the first
    assert alerts["metrics"]["accuracy"]["value"] == pytest.approx(real)
    arm = look(tmp_path, int(moments[-1]) + DAY_US // 2)
    assert arm["baseline"] == "500 labelled rows: labels of logged rows of 2026-10-01 to 2026-10-02"
