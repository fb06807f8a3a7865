"""Tells how good predictions probably are while no label has come: confidence-based performance estimation.

A score that is calibrated on labelled reference rows says how likely each prediction is right. That holds for as long
as the same inputs mean the same labels: where that changes (concept drift), the estimate stays high and is wrong.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gateway.drift.statistics.distance import Floats, effective_rows
from gateway.drift.statistics.isotonic import rising

Flags = npt.NDArray[np.bool_]
_CELLS = 1000
_MIN_LABELLED = 100


@dataclass(frozen=True, slots=True)
class Calibrator:
    """A rising curve from score to probability; between its points it is a straight line, outside them level.

    Shapes: `scores` ascending and `chances` of the same length; `weights` the labelled rows at each score.
    """

    scores: Floats
    chances: Floats
    weights: Floats
    positives: Floats

    @classmethod
    def of(cls, scores: Floats, counts: Floats, positives: Floats) -> "Calibrator":
        """The isotonic curve of so many rows, and positives among them, at each score."""
        return cls(scores, rising(positives / counts, counts), counts, positives)

    def __call__(self, scores: Floats) -> Floats:
        return np.interp(scores, self.scores, self.chances)

    def resampled(self, rng: np.random.Generator) -> "Calibrator":
        """The curve that another draw of as many labelled rows would have given."""
        counts = rng.multinomial(int(self.weights.sum()), self.weights / self.weights.sum()).astype(np.float64)
        shares = self.positives / self.weights
        positives = rng.binomial(counts.astype(np.int64), shares).astype(np.float64)
        seen = counts > 0
        return Calibrator.of(self.scores[seen], counts[seen], positives[seen])


@dataclass(frozen=True, slots=True)
class Estimate:
    """A metric as it probably is, with the band in which the realised one would lie in 95 of 100 windows if nothing but
    chance (which rows came, which labelled rows the curve was learnt from) were at work."""

    name: str
    value: float
    low: float
    high: float


def calibrate(scores: Floats, positive: Flags, *, most: int = _CELLS) -> Calibrator:
    """The isotonic curve of the share of positives against the score; scores are joined where there are over `most`.

    Raises: ValueError (fewer than 100 rows, only one class, or scores that are not finite).
    """
    if len(scores) != len(positive) or len(scores) < _MIN_LABELLED:
        raise ValueError(f"{len(scores)} scores and {len(positive)} labels, expected {_MIN_LABELLED} or more of each")
    if not np.isfinite(scores).all():
        raise ValueError("scores are not finite, expected such rows to be left out before")
    if positive.all() or not positive.any():
        raise ValueError("all labels are the same, expected both classes")
    levels, places = _joined(scores, most)
    counts, positives = np.bincount(places), np.bincount(places, positive)
    return Calibrator.of(levels, counts.astype(np.float64), positives.astype(np.float64))


def estimate(
    scores: Floats,
    predicted: Flags,
    calibrator: Calibrator,
    *,
    rng: np.random.Generator,
    draws: int = 200,
    weights: Floats | None = None,
) -> tuple[Estimate, ...]:
    """Accuracy, F1 and AUC of predictions whose labels are not known.

    Shapes: [rows] each, at least one; finite. NaN where a metric is undefined (F1 without a positive).
    Raises: ValueError.
    Source: the method that NannyML calls CBPE: the expectation over independent labels with chance c(score).
    """
    if not len(scores) or len(scores) != len(predicted) or not np.isfinite(scores).all():
        raise ValueError(
            f"{len(scores)} scores and {len(predicted)} predictions, expected as many, at least one, finite"
        )
    cells, counts, says = _cells(scores, predicted, weights)
    expected = _metrics(counts * calibrator(cells), counts * (1 - calibrator(cells)), cells, says)
    simulated = np.empty((draws, 3))
    total = max(round(float(counts.sum())), 1)
    for draw in range(draws):
        chances = np.clip(calibrator.resampled(rng)(cells), 0.0, 1.0)
        rows = rng.multinomial(total, counts / counts.sum())
        positives = rng.binomial(rows, chances).astype(np.float64)
        simulated[draw] = _metrics(positives, rows - positives, cells, says)
    with np.errstate(invalid="ignore"):
        spread = [_interval(simulated[:, column]) for column in range(3)]
    names = ("accuracy", "f1", "auc")
    return tuple(
        Estimate(name, float(value), min(low, float(value)), max(high, float(value)))
        for name, value, (low, high) in zip(names, expected, spread, strict=True)
    )


def estimate_accuracy(
    confidences: Floats,
    calibrator: Calibrator,
    *,
    rng: np.random.Generator,
    draws: int = 200,
    weights: Floats | None = None,
) -> Estimate:
    """Accuracy of a classifier of any number of classes, from the confidence in what it answered.

    `calibrator` was made of confidences and whether the answer was right. Raises: ValueError.
    """
    every = np.ones(len(confidences), np.bool_)
    accuracy = estimate(confidences, every, calibrator, rng=rng, draws=draws, weights=weights)[0]
    return Estimate("accuracy", accuracy.value, accuracy.low, accuracy.high)


def _cells(scores: Floats, predicted: Flags, weights: Floats | None) -> tuple[Floats, Floats, Flags]:
    """Rows joined where score and prediction are the same: score, rows and prediction of each cell, by rising score.

    Weighed rows count as the number of rows of equal weight that would tell as much.
    """
    values, places = _joined(scores)
    keys, back = np.unique(places * 2 + predicted, return_inverse=True)
    counts = np.bincount(back, weights).astype(np.float64)
    if weights is not None:
        counts *= effective_rows(float(weights.sum()), float((weights**2).sum())) / weights.sum()
    return values[keys // 2], counts, keys % 2 == 1


def _joined(scores: Floats, most: int = _CELLS) -> tuple[Floats, npt.NDArray[np.int64]]:
    """The different scores in order and the place of each row's, neighbours taken together where there are very many:
    the cost of a draw does not grow with the rows."""
    values, places = np.unique(scores, return_inverse=True)
    if len(values) <= most:
        return values, np.asarray(places, np.int64)
    edges = np.quantile(scores, np.linspace(0, 1, most + 1)[1:-1])
    groups = np.searchsorted(edges, scores, side="right")
    sums, counts = np.bincount(groups, scores, most), np.bincount(groups, minlength=most)
    used = counts > 0
    return sums[used] / counts[used], np.asarray((np.cumsum(used) - 1)[groups], np.int64)


def _metrics(positives: Floats, negatives: Floats, scores: Floats, says: Flags) -> tuple[float, float, float]:
    true_positive, false_positive = positives[says].sum(), negatives[says].sum()
    false_negative, true_negative = positives[~says].sum(), negatives[~says].sum()
    total = true_positive + false_positive + false_negative + true_negative
    joined = 2 * true_positive + false_positive + false_negative
    return (
        float((true_positive + true_negative) / total),
        float(2 * true_positive / joined) if joined else float("nan"),
        _auc(positives, negatives, scores),
    )


def _auc(positives: Floats, negatives: Floats, scores: Floats) -> float:
    _, places = np.unique(scores, return_inverse=True)
    ups, downs = np.bincount(places, positives), np.bincount(places, negatives)
    pairs = ups.sum() * downs.sum()
    return float((ups * (np.cumsum(downs) - downs / 2)).sum() / pairs) if pairs else float("nan")


def _interval(values: Floats) -> tuple[float, float]:
    known = values[~np.isnan(values)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.quantile(known, (0.025, 0.975))
    return float(low), float(high)
