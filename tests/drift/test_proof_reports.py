"""Reports on real data with a known answer. The parameters are the product's own, not fitted to either data set."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from gateway.drift.report.gathering import Question, gather
from gateway.drift.report.lake_reader import Lake
from gateway.drift.report.lake_selection import Selection
from gateway.drift.report.outcome import read_labelled
from gateway.drift.report.page import render
from gateway.drift.report.reference import reference_window
from gateway.drift.report.report import Report
from gateway.drift.report.span import Span
from gateway.drift.statistics.answers import find_outputs
from gateway.drift.statistics.verdict import DriftState
from tests.drift.lakes import START_US, lake_of, write_labels, write_rows
from tests.drift.shifted_data import california_housing, seattle_weather

MINUTE_US = 60_000_000  # rows keep their order; how far apart they are does not matter


def at(row: int) -> int:
    return START_US + row * MINUTE_US


def ask(data_dir: Path, reference: Span, window: Span, *, every_rows: int) -> Report:
    with Lake(lake_of(data_dir)) as lake:
        base = Selection("homes", reference)
        made = reference_window(lake, base, rng=np.random.default_rng(0), created_at=0.0)
        made = replace(made, labelled=read_labelled(lake, base, find_outputs(lake.columns(base))))
        question = Question(Selection("homes", window), 0, window.end_us, every_us=every_rows * MINUTE_US)
        return gather(question, lake, made)


@pytest.fixture(scope="module")
def housing(tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, np.ndarray, np.ndarray]:
    """The report on the part that has shifted, with its scores and what came true."""
    folder = tmp_path_factory.mktemp("housing")
    before, now = california_housing()
    scores = np.concatenate([before.scores, now.scores]).astype("<f4")
    labels = np.concatenate([before.labels, now.labels])
    inputs = np.concatenate([before.inputs, now.inputs]).astype("<f4")
    moments = np.array([at(row) for row in range(len(labels))])
    ids = write_rows(folder, moments, {"x": inputs}, {"p": np.column_stack([1 - scores, scores])})
    write_labels(folder, ids, labels.tolist(), moments.tolist())
    first = len(before.labels)
    chunk = -(-len(now.labels) // 5)
    report = ask(folder, Span(at(0), at(first)), Span(at(first), at(len(labels))), every_rows=chunk)
    return report, now.scores, now.labels


def test_california_the_shift_of_region_is_found(housing: tuple[Report, np.ndarray, np.ndarray]) -> None:
    """Houses of the window lie elsewhere: Latitude (x_6) and Longitude (x_7). The reference goes from region to region
    itself, so its own windows are far apart, and only what lies outside its range is beyond that."""
    report, _, _ = housing
    assert report.state is DriftState.CRIT
    features = {feature.name: feature for feature in report.features}
    assert features["x_6"].state is DriftState.CRIT
    assert [name for name, one in features.items() if one.state >= DriftState.WARN] == ["x_6"]
    assert min(features[name].statistics["psi"] for name in ("x_6", "x_7")) > 2
    [rows] = report.vectors
    assert rows.state is DriftState.CRIT
    assert rows.separation is not None
    assert rows.separation.attribution[0][0] == "x_7"


def test_california_the_estimated_auc_is_near_the_real_one(housing: tuple[Report, np.ndarray, np.ndarray]) -> None:
    """Of five chunks, as the truth is known for; of smaller ones the estimate is further off (see docs/drift.md)."""
    report, scores, labels = housing
    assert report.performance is not None
    steps = report.performance.trend
    assert len(steps) == 5
    starts = np.cumsum([0, *(step.rows for step in steps)])
    for step, first, last in zip(steps, starts[:-1], starts[1:], strict=True):
        real = roc_auc_score(labels[first:last], scores[first:last])
        [realised] = [metric.value for metric in step.realised if metric.name == "auc"]
        [estimated] = [one.value for one in step.estimated if one.name == "auc"]
        assert realised == pytest.approx(real, abs=1e-3)
        assert estimated == pytest.approx(real, abs=0.05)


def test_california_the_fall_is_told_with_labels_and_by_the_estimate(
    housing: tuple[Report, np.ndarray, np.ndarray],
) -> None:
    report, _, _ = housing
    assert report.performance is not None
    before = {metric.name: metric.value for metric in report.performance.reference}
    assert before["auc"] == pytest.approx(0.908, abs=1e-3)
    assert {change.name: change.worse for change in report.performance.changes}["auc"]
    estimated = {one.name: one for one in report.performance.estimated}
    assert estimated["auc"].high < before["auc"]
    assert report.performance.state is DriftState.CRIT


@pytest.fixture(scope="module")
def weather(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Span]]:
    """A model of 2012 answers every day of 2012 to 2015; its answers for 2012 come from the folds that it did not see.
    Labels are there for 2012 only in "few" and for all years in "all"."""
    folder = tmp_path_factory.mktemp("weather")
    table = seattle_weather()
    inputs, truth, years = table.inputs, table.labels, table.years
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    first = years == 2012
    chances = np.empty((len(years), 5))
    chances[first] = cross_val_predict(model, inputs[first], truth[first], cv=5, method="predict_proba")
    chances[~first] = model.fit(inputs[first], truth[first]).predict_proba(inputs[~first])
    said = model.classes_[chances.argmax(axis=1)].astype(object)
    moments = np.array([at(row) for row in range(len(years))])
    outputs = {"label": said, "p": chances.astype("<f4")}
    for name, labelled in (("few", first), ("all", np.ones(len(years), bool))):
        ids = write_rows(folder / name, moments, {"x": inputs.astype("<f4")}, outputs)
        chosen = np.flatnonzero(labelled)
        write_labels(folder / name, [ids[i] for i in chosen], truth[chosen].tolist(), moments[chosen].tolist())
    edges = [*(int(np.flatnonzero(years == year)[0]) for year in (2012, 2013, 2014, 2015)), len(years)]
    spans = {str(2012 + i): Span(at(edges[i]), at(edges[i + 1])) for i in range(4)}
    return folder, spans


@pytest.mark.parametrize("year", ["2014", "2015"])
def test_seattle_concept_drift_is_found_with_labels(weather: tuple[Path, dict[str, Span]], year: str) -> None:
    folder, spans = weather
    report = ask(folder / "all", spans["2012"], spans[year], every_rows=30)
    assert report.performance is not None
    accuracy = {change.name: change for change in report.performance.changes}["accuracy"]
    assert accuracy.current < accuracy.reference - 0.2
    assert accuracy.worse
    assert report.performance.state is DriftState.CRIT


@pytest.mark.parametrize("year", ["2013", "2014", "2015"])
def test_seattle_concept_drift_is_not_claimed_without_labels(weather: tuple[Path, dict[str, Span]], year: str) -> None:
    """The model is as sure as before, so nothing is said of its quality; in 2014, when most labels are new ones,
    nothing else is said either. (2015 was a warm year: that is a shift of the inputs, and is told as one.)"""
    folder, spans = weather
    report = ask(folder / "few", spans["2012"], spans[year], every_rows=30)
    assert report.performance is not None
    assert report.performance.labelled == 0
    [accuracy] = report.performance.estimated
    [before] = [metric for metric in report.performance.reference if metric.name == "accuracy"]
    assert accuracy.low < before.value < accuracy.high  # and so it is wrong: the page says that it can be
    assert report.performance.state is DriftState.OK
    assert not [feature.name for feature in report.features if feature.state is DriftState.CRIT]
    assert [vector.state for vector in report.vectors] == [DriftState.OK]
    if year == "2014":
        assert report.state is DriftState.OK
    page = render(report)
    assert "What the estimate cannot see" in page
    assert "concept drift" in page
