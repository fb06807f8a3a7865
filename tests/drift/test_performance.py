"""Metrics against scikit-learn, their intervals against the truth."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, brier_score_loss, f1_score, log_loss, roc_auc_score

from gateway.drift.statistics.performance import Metric, classified, compare, delay_quantiles, measure, regressed


def by_name(result: tuple[Metric, ...]) -> dict[str, Metric]:
    return {metric.name: metric for metric in result}


def answers(rng: np.random.Generator, rows: int, classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities, answers and labels of a classifier that is right about as often as it says."""
    probabilities = rng.dirichlet(np.ones(classes), rows)
    actual = (probabilities.cumsum(axis=1) < rng.random(rows)[:, None]).sum(axis=1)
    return probabilities, probabilities.argmax(axis=1), np.minimum(actual, classes - 1)


@given(st.integers(30, 400), st.integers(0, 2**32 - 1))
def test_two_classes_as_scikit_learn(rows: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    probabilities, predicted, actual = answers(rng, rows, 2)
    predicted[:2], actual[:2] = (0, 1), (0, 1)
    result = by_name(measure(classified(predicted, actual, probabilities=probabilities), rng=rng))
    truth = {
        "accuracy": accuracy_score(actual, predicted),
        "f1": f1_score(actual, predicted),
        "log_loss": log_loss(actual, probabilities),
        "brier": brier_score_loss(actual, probabilities[:, 1]),
        "auc": roc_auc_score(actual, probabilities[:, 1]),
    }
    assert {name: metric.value for name, metric in result.items()} == pytest.approx(truth)
    assert all(metric.low <= metric.value <= metric.high for metric in result.values())


@given(st.integers(3, 6), st.integers(0, 2**32 - 1))
def test_many_classes_as_scikit_learn(classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    probabilities, predicted, actual = answers(rng, 200, classes)
    actual[:classes] = np.arange(classes)
    result = by_name(measure(classified(predicted, actual, probabilities=probabilities), rng=rng))
    assert result["accuracy"].value == pytest.approx(accuracy_score(actual, predicted))
    assert result["f1"].value == pytest.approx(f1_score(actual, predicted, average="macro"))
    assert result["log_loss"].value == pytest.approx(log_loss(actual, probabilities, labels=np.arange(classes)))
    assert "auc" not in result


@example([(0.0, 0.0)])
@example([(1.0, 2.0)] * 9)
@given(st.lists(st.tuples(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3)), min_size=1, max_size=100))
def test_regression_as_defined(pairs: list[tuple[float, float]]) -> None:
    predicted, actual = np.array(pairs).T
    result = by_name(measure(regressed(predicted, actual), rng=np.random.default_rng(0)))
    error = predicted - actual
    assert result["rmse"].value == pytest.approx(np.sqrt((error**2).mean()), abs=1e-6)
    assert result["mae"].value == pytest.approx(np.abs(error).mean(), abs=1e-6)
    assert result["bias"].value == pytest.approx(error.mean(), abs=1e-6)


def test_very_many_scores_are_joined_without_moving_the_answer() -> None:
    rng = np.random.default_rng(1)
    probabilities, predicted, actual = answers(rng, 100_000, 2)
    outcomes = classified(predicted, actual, probabilities=probabilities)
    assert len(outcomes.counts) <= 4000
    result = by_name(measure(outcomes, rng=rng))
    assert result["auc"].value == pytest.approx(roc_auc_score(actual, probabilities[:, 1]), abs=2e-4)
    assert result["log_loss"].value == pytest.approx(log_loss(actual, probabilities))
    error = rng.normal(size=100_000)
    assert by_name(measure(regressed(error, np.zeros_like(error)), rng=rng))["rmse"].value == pytest.approx(
        np.sqrt((error**2).mean())
    )


def test_intervals_cover_the_truth() -> None:
    rng = np.random.default_rng(2)
    inside = 0
    for _ in range(150):
        actual = rng.integers(0, 2, 250)
        predicted = np.where(rng.random(250) < 0.8, actual, 1 - actual)
        accuracy = by_name(measure(classified(predicted, actual), rng=rng))["accuracy"]
        inside += accuracy.low <= 0.8 <= accuracy.high
    assert inside >= 133  # of 150; 142 expected


@given(st.integers(0, 2**32 - 1))
def test_weights_stand_for_rows_that_were_not_logged(seed: int) -> None:
    rng = np.random.default_rng(seed)
    probabilities, predicted, actual = answers(rng, 60, 2)
    times = rng.integers(1, 5, 60)
    repeated = [np.repeat(values, times, axis=0) for values in (predicted, actual, probabilities)]
    weighted = classified(predicted, actual, probabilities=probabilities, weights=times.astype(float))
    whole = classified(repeated[0], repeated[1], probabilities=repeated[2])
    for name, value in whole.metrics(whole.counts).items():
        assert weighted.metrics(weighted.counts)[name] == pytest.approx(value, nan_ok=True)
    assert weighted.effective <= 60 + 1e-9


def test_a_drop_is_told_and_no_drop_is_not() -> None:
    rng = np.random.default_rng(3)

    def rows(share: float, count: int) -> tuple[np.ndarray, np.ndarray]:
        actual = rng.integers(0, 2, count)
        return np.where(rng.random(count) < share, actual, 1 - actual), actual

    before, same, less, few = (classified(*rows(s, n)) for s, n in ((0.9, 2000), (0.9, 2000), (0.7, 500), (0.5, 150)))
    assert not any(change.worse for change in compare(before, same, rng=rng))
    dropped = {change.name: change for change in compare(before, less, rng=rng)}
    assert dropped["accuracy"].worse
    assert dropped["accuracy"].low < -0.2 < dropped["accuracy"].high
    assert not any(change.worse or change.enough for change in compare(before, few, rng=rng))
    errors = regressed(rng.normal(size=500), np.zeros(500)), regressed(rng.normal(size=500) * 2, np.zeros(500))
    assert {change.name: change.worse for change in compare(*errors, rng=rng)} == {
        "rmse": True, "mae": True, "bias": False,
    }  # fmt: skip


def test_delays_are_told_as_quantiles() -> None:
    assert delay_quantiles(np.arange(101.0)) == {"p50": 50.0, "p95": 95.0, "max": 100.0}
    assert delay_quantiles(np.array([])) == {}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((np.array([], int), np.array([], int)), "at least one"),
        ((np.array([1]), np.array([1, 0])), "as many"),
        ((np.array([-1]), np.array([0])), "below 0"),
    ],
)
def test_refuses_rows_that_do_not_fit(arguments: tuple[np.ndarray, np.ndarray], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        classified(*arguments)


def test_refuses_probabilities_of_too_few_classes_and_errors_that_are_not_finite() -> None:
    with pytest.raises(ValueError, match="expected \\[1, 3\\]"):
        classified(np.array([2]), np.array([0]), probabilities=np.ones((1, 2)))
    with pytest.raises(ValueError, match="not finite"):
        regressed(np.array([np.nan]), np.array([0.0]))
