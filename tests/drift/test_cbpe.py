"""The estimate without labels: equal to the truth where scores are calibrated, and with a band that covers it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

from gateway.drift.statistics.cbpe import Calibrator, calibrate, estimate, estimate_accuracy


def flip(rng: np.random.Generator, chances: np.ndarray) -> np.ndarray:
    return rng.random(len(chances)) < chances


@given(st.integers(0, 2**32 - 1))
def test_the_curve_is_that_of_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 50, 300) / 50
    positive = flip(rng, scores**2)
    positive[:2] = True, False
    oracle = IsotonicRegression(out_of_bounds="clip").fit(scores, positive)
    points = np.linspace(-0.2, 1.2, 101)
    assert calibrate(scores, positive)(points) == pytest.approx(oracle.predict(points))


def test_the_estimate_is_the_expectation_over_labels() -> None:
    rng = np.random.default_rng(1)
    scores = np.sort(rng.random(200))
    exact = Calibrator(np.array([0.0, 1.0]), np.array([0.1, 0.8]), np.ones(2) * 1e6, np.array([0.1, 0.8]) * 1e6)
    predicted = scores > 0.6
    chances = exact(scores)
    accuracy, f1, auc = estimate(scores, predicted, exact, rng=rng, draws=10)
    assert accuracy.value == pytest.approx(np.where(predicted, chances, 1 - chances).mean())
    drawn = np.array([
        (accuracy_score(labels, predicted), f1_score(labels, predicted), roc_auc_score(labels, scores))
        for labels in (flip(rng, chances) for _ in range(500))
    ]).mean(axis=0)  # fmt: skip
    assert [accuracy.value, f1.value, auc.value] == pytest.approx(drawn, abs=0.01)


def test_the_band_covers_the_realised_metric_as_often_as_it_says() -> None:
    rng = np.random.default_rng(2)
    inside = np.zeros(3)
    for _ in range(60):
        reference, now = rng.beta(2, 3, 800), rng.beta(3, 2, 400)  # the scores move: covariate shift
        calibrator = calibrate(reference, flip(rng, reference**1.5))
        labels = flip(rng, now**1.5)
        predicted = now > 0.55
        estimates = estimate(now, predicted, calibrator, rng=rng, draws=100)
        real = (accuracy_score(labels, predicted), f1_score(labels, predicted), roc_auc_score(labels, now))
        inside += [item.low <= value <= item.high for item, value in zip(estimates, real, strict=True)]
    assert (inside >= 50).all()  # of 60; 57 expected


def test_many_scores_are_joined_without_moving_the_answer() -> None:
    rng = np.random.default_rng(3)
    reference, now = rng.random(5000), rng.random(50_000)
    calibrator = calibrate(reference, flip(rng, reference))
    estimates = estimate(now, now > 0.5, calibrator, rng=rng, draws=5)
    chances = calibrator(now)
    assert estimates[0].value == pytest.approx(np.where(now > 0.5, chances, 1 - chances).mean(), abs=1e-3)


def test_it_does_not_see_that_the_labels_changed() -> None:
    """The blind spot, held as a fact: labels turn to noise, scores stay, and the estimate does not move."""
    rng = np.random.default_rng(4)
    reference, now = rng.random(2000), rng.random(2000)
    calibrator = calibrate(reference, flip(rng, reference))
    accuracy = estimate(now, now > 0.5, calibrator, rng=rng)[0]
    assert accuracy.value == pytest.approx(0.75, abs=0.03)
    assert accuracy_score(flip(rng, np.full(2000, 0.5)), now > 0.5) < accuracy.low


def test_confidence_of_many_classes_gives_accuracy() -> None:
    rng = np.random.default_rng(5)
    reference, now = rng.uniform(0.3, 1.0, 3000), rng.uniform(0.3, 0.7, 3000)
    calibrator = calibrate(reference, flip(rng, reference * 0.9))
    estimates = estimate_accuracy(now, calibrator, rng=rng)
    assert estimates.low < now.mean() * 0.9 < estimates.high


def test_what_is_undefined_is_nan() -> None:
    rng = np.random.default_rng(6)
    scores = rng.random(200)
    calibrator = calibrate(scores, scores > 0.5)
    estimates = estimate(np.zeros(5), np.zeros(5, bool), calibrator, rng=rng)
    assert estimates[0].value == 1.0
    assert np.isnan(estimates[1].value)
    assert np.isnan(estimates[2].value)


@pytest.mark.parametrize(
    ("scores", "positive", "words"),
    [
        (np.zeros(99), np.zeros(99, bool), "100 or more"),
        (np.zeros(100), np.zeros(100, bool), "same"),
        (np.full(100, np.nan), np.arange(100) < 50, "finite"),
    ],
)
def test_refuses_what_gives_no_curve(scores: np.ndarray, positive: np.ndarray, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        calibrate(scores, positive)
