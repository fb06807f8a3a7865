"""Tells how good labelled predictions were: metrics with bootstrap intervals, and how they differ from another set of
rows.

Rows are joined into cells in which every metric is (nearly) constant, so a draw of the bootstrap costs the same for a
thousand rows and for ten million.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from gateway.drift.statistics.distance import Floats, effective_rows

Flags = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]
MIN_LABELLED = 200
_CELLS = 1000
_DRAWS = 400
_LEAST_CHANCE = 1e-15


@dataclass(frozen=True, slots=True)
class MetricKind:
    """Tells what a metric is called, and which change of it is bad: that of a share in its own units, that of a loss
    relative to what it was. A metric without a bad side is shown and never rated. `drawn` metrics have a figure of
    their own."""

    label: str
    higher_is_better: bool | None
    warn: float = 0.0
    crit: float = 0.0
    relative: bool = False
    drawn: bool = False

    @classmethod
    def share(cls, label: str, *, drawn: bool = True) -> "MetricKind":
        """A share of right answers, or what behaves like one."""
        return cls(label, True, 0.02, 0.05, drawn=drawn)

    @classmethod
    def loss(cls, label: str, *, drawn: bool = False) -> "MetricKind":
        """A measure of error, in units of the label."""
        return cls(label, False, 0.05, 0.25, relative=True, drawn=drawn)

    def worse(self, low: float, high: float) -> bool:
        """Returns whether the interval of a change lies on the bad side of zero."""
        return self.higher_is_better is not None and (high < 0 if self.higher_is_better else low > 0)


METRICS: Final = {
    "auc": MetricKind.share("AUC"),
    "accuracy": MetricKind.share("Accuracy"),
    "f1": MetricKind.share("F1"),
    "log_loss": MetricKind.loss("Log loss"),
    "brier": MetricKind.loss("Brier score"),
    "rmse": MetricKind.loss("RMSE", drawn=True),
    "mae": MetricKind.loss("MAE"),
    "bias": MetricKind("Mean error", None),
}


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric of labelled rows with its 95 % interval; NaN where the rows do not define it."""

    name: str
    value: float
    low: float
    high: float
    rows: int

    @property
    def defined(self) -> bool:
        return math.isfinite(self.value) and math.isfinite(self.low) and math.isfinite(self.high)


@dataclass(frozen=True, slots=True)
class MetricChange:
    """A metric of two sets of rows: their difference (`current` less `reference`) with its 95 % interval.

    `worse` says that the interval lies on the bad side of zero and both sets have 200 labels or more.
    """

    name: str
    reference: float
    current: float
    low: float
    high: float
    worse: bool
    enough: bool


@dataclass(frozen=True, slots=True, eq=False)
class Classified:
    """Labelled answers of a classifier, joined into cells.

    Shapes: [cells] each; `scores`, the chance of class 1, are NaN where it was not told, as are the losses.
    """

    counts: Floats
    predicted: Integers
    actual: Integers
    scores: Floats
    log_loss: Floats
    brier: Floats
    classes: int
    rows: int
    effective: float

    def metrics(self, counts: Floats) -> dict[str, Floats]:
        """Each metric for each set of counts. Shapes: [..., cells] -> [...]."""
        total = counts.sum(axis=-1)
        values = {
            "accuracy": _share(counts[..., self.predicted == self.actual].sum(axis=-1), total),
            "f1": self._f1(counts),
        }
        if not np.isnan(self.log_loss).all():
            values["log_loss"] = _share((counts * self.log_loss).sum(axis=-1), total)
            values["brier"] = _share((counts * self.brier).sum(axis=-1), total)
        if self.classes == 2 and not np.isnan(self.scores).all():
            values["auc"] = self._auc(counts)
        return values

    def _f1(self, counts: Floats) -> Floats:
        """Of class 1 where there are two classes, else the mean over the classes that occur."""
        by_class = []
        for name in [1] if self.classes == 2 else range(self.classes):
            said, was = self.predicted == name, self.actual == name
            both = counts[..., said].sum(axis=-1) + counts[..., was].sum(axis=-1)
            by_class.append(_share(2 * counts[..., said & was].sum(axis=-1), both))
        stacked = np.stack(by_class)
        known = ~np.isnan(stacked)
        return _share(np.where(known, stacked, 0.0).sum(axis=0), known.sum(axis=0).astype(np.float64))

    def _auc(self, counts: Floats) -> Floats:
        _, places = np.unique(self.scores, return_inverse=True)
        order = np.argsort(places, kind="stable")
        starts = np.flatnonzero(np.diff(places[order], prepend=-1))
        ups = np.add.reduceat(np.where(self.actual == 1, counts, 0.0)[..., order], starts, axis=-1)
        downs = np.add.reduceat(np.where(self.actual == 0, counts, 0.0)[..., order], starts, axis=-1)
        below = np.cumsum(downs, axis=-1) - downs / 2
        return _share((ups * below).sum(axis=-1), ups.sum(axis=-1) * downs.sum(axis=-1))


@dataclass(frozen=True, slots=True, eq=False)
class Regressed:
    """Labelled answers of a regression, joined into cells of nearly equal error. Shapes: [cells] each."""

    counts: Floats
    errors: Floats
    absolute: Floats
    squared: Floats
    rows: int
    effective: float

    def metrics(self, counts: Floats) -> dict[str, Floats]:
        """Each metric for each set of counts. Shapes: [..., cells] -> [...]."""
        total = counts.sum(axis=-1)
        return {
            "rmse": np.sqrt(_share((counts * self.squared).sum(axis=-1), total)),
            "mae": _share((counts * self.absolute).sum(axis=-1), total),
            "bias": _share((counts * self.errors).sum(axis=-1), total),
        }


Outcomes = Classified | Regressed


def classified(
    predicted: Integers,
    actual: Integers,
    *,
    probabilities: Floats | None = None,
    scores: Floats | None = None,
    weights: Floats | None = None,
) -> Classified:
    """The cells of a classifier's labelled answers; classes are 0, 1, 2, ...

    `scores` rank rows by class 1 where there are no probabilities.
    Shapes: `predicted`, `actual`, `scores`, `weights` [rows]; `probabilities` [rows, classes].
    Raises: ValueError.
    """
    _check_rows(len(predicted), actual, weights)
    if min(predicted.min(), actual.min()) < 0:
        raise ValueError("a class is below 0, expected 0, 1, 2, ...")
    classes = max(int(max(predicted.max(), actual.max())) + 1, 2)
    log_loss = brier = np.full(len(predicted), np.nan)
    ranks = scores if scores is not None else log_loss
    if probabilities is not None:
        if probabilities.shape[0] != len(predicted) or probabilities.shape[1] < classes:
            raise ValueError(f"probabilities have shape {probabilities.shape}, expected [{len(predicted)}, {classes}]")
        classes = probabilities.shape[1]
        told = probabilities[np.arange(len(actual)), actual]
        log_loss = -np.log(np.clip(told, _LEAST_CHANCE, 1.0))
        brier = (probabilities**2).sum(axis=1) - 2 * told + 1
        if classes == 2:  # by convention half of the sum over both classes
            ranks, brier = probabilities[:, 1], brier / 2
    groups = _grouped(ranks if classes == 2 else log_loss)
    keys, places = np.unique((groups * classes + predicted) * classes + actual, return_inverse=True)
    counts = np.bincount(places, weights, len(keys)).astype(np.float64)
    first = np.zeros(len(keys), np.int64)
    first[places] = np.arange(len(places))
    means = [_cell_means(values, places, weights, counts) for values in (log_loss, brier)]
    return Classified(
        counts, predicted[first], actual[first], _group_means(ranks, groups)[groups[first]], means[0], means[1],
        classes, len(predicted), _effective(len(predicted), weights),
    )  # fmt: skip


def regressed(predicted: Floats, actual: Floats, *, weights: Floats | None = None) -> Regressed:
    """The cells of a regression's labelled answers. Shapes: [rows] each; finite. Raises: ValueError."""
    _check_rows(len(predicted), actual, weights)
    errors = predicted - actual
    if not np.isfinite(errors).all():
        raise ValueError("predictions or labels are not finite, expected such rows to be left out before")
    _, places = np.unique(_grouped(errors), return_inverse=True)
    counts = np.bincount(places, weights).astype(np.float64)
    means = [_cell_means(values, places, weights, counts) for values in (errors, np.abs(errors), errors**2)]
    return Regressed(counts, means[0], means[1], means[2], len(errors), _effective(len(errors), weights))


def measure(outcomes: Outcomes, *, rng: np.random.Generator) -> tuple[Metric, ...]:
    """The metrics with intervals of the bootstrap over rows."""
    metrics = []
    drawn = outcomes.metrics(_draws(outcomes, rng))
    for name, value in outcomes.metrics(outcomes.counts).items():
        low, high = _interval(drawn[name])
        metrics.append(Metric(name, float(value), min(low, float(value)), max(high, float(value)), outcomes.rows))
    return tuple(metrics)


def compare(reference: Outcomes, current: Outcomes, *, rng: np.random.Generator) -> tuple[MetricChange, ...]:
    """Returns how the metrics that both sets define differ, by independent bootstraps of the two."""
    before, now = reference.metrics(reference.counts), current.metrics(current.counts)
    drawn_before, drawn_now = reference.metrics(_draws(reference, rng)), current.metrics(_draws(current, rng))
    enough = min(reference.rows, current.rows) >= MIN_LABELLED
    changes = []
    for name in before:
        if name not in now:
            continue
        low, high = _interval(drawn_now[name] - drawn_before[name])
        worse = METRICS[name].worse(low, high)
        changes.append(MetricChange(name, float(before[name]), float(now[name]), low, high, worse and enough, enough))
    return tuple(changes)


def differ(reference: Metric, current: Metric, *, margin: float = 1.0) -> MetricChange:
    """Returns how a metric differs from that of independent rows, of which only its interval is known.

    `margin` widens the interval: 1 leaves it at 95 %. NaN where one of the two is not defined.
    Source: Zou and Donner, "Construction of confidence limits about effect measures" (2008): the distances of two
            estimates from their limits add up as squares do.
    """
    size = current.value - reference.value
    low = size - margin * math.hypot(current.value - current.low, reference.high - reference.value)
    high = size + margin * math.hypot(current.high - current.value, reference.value - reference.low)
    worse = METRICS[current.name].worse(low, high)
    enough = min(reference.rows, current.rows) >= MIN_LABELLED
    return MetricChange(current.name, reference.value, current.value, low, high, worse and enough, enough)


def auc(scores: Floats, positive: Flags) -> float:
    """The chance that a positive row scores above a negative one, ties counted half; NaN without one of each."""
    positives = int(positive.sum())
    negatives = len(positive) - positives
    if not positives or not negatives:
        return float("nan")
    _, places, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[places]
    return float((ranks[positive].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def delay_quantiles(delays_s: Floats) -> Mapping[str, float]:
    """Median, 95 % quantile and largest of how long labels took. Units: seconds."""
    if not len(delays_s):
        return {}
    middle, late, last = np.quantile(delays_s, (0.5, 0.95, 1.0))
    return {"p50": float(middle), "p95": float(late), "max": float(last)}


def _draws(outcomes: Outcomes, rng: np.random.Generator) -> Floats:
    """Shapes: [draws, cells]."""
    chances = outcomes.counts / outcomes.counts.sum()
    return rng.multinomial(max(round(outcomes.effective), 1), chances, size=_DRAWS).astype(np.float64)


def _grouped(values: Floats) -> Integers:
    """A group for each value: equal values together, and neighbours too where there are very many."""
    if np.isnan(values).all():
        return np.zeros(len(values), np.int64)
    distinct, places = np.unique(values, return_inverse=True)
    if len(distinct) <= _CELLS:
        return np.asarray(places, np.int64)
    edges = np.quantile(values, np.linspace(0, 1, _CELLS + 1)[1:-1])
    return np.searchsorted(edges, values, side="right").astype(np.int64)


def _group_means(values: Floats, groups: Integers) -> Floats:
    counts = np.bincount(groups)
    return np.asarray(np.bincount(groups, values) / np.maximum(counts, 1), np.float64)


def _cell_means(values: Floats, places: Integers, weights: Floats | None, counts: Floats) -> Floats:
    weighted = values if weights is None else values * weights
    return np.asarray(np.bincount(places, weighted) / counts, np.float64)


def _share(part: Floats, whole: Floats) -> Floats:
    """part / whole, NaN where there is no whole."""
    return np.asarray(np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) > 0))


def _interval(values: Floats) -> tuple[float, float]:
    known = values[~np.isnan(values)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.quantile(known, (0.025, 0.975))
    return float(low), float(high)


def _effective(rows: int, weights: Floats | None) -> float:
    return float(rows) if weights is None else effective_rows(float(weights.sum()), float((weights**2).sum()))


def _check_rows(rows: int, actual: npt.NDArray[np.float64] | Integers, weights: Floats | None) -> None:
    if not rows or len(actual) != rows or (weights is not None and (len(weights) != rows or not (weights > 0).all())):
        raise ValueError(f"{rows} predictions, {len(actual)} labels, expected as many, at least one, weights above 0")
