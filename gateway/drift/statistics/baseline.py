"""Tells how good the version was where it was right: the metrics of labelled reference rows, and the curve from its
scores to the chance of being right, which estimates without labels rest on. A part of the profile."""

import math
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import Final

import numpy as np

from gateway.drift.statistics.answers import Answers, Labelled, Task
from gateway.drift.statistics.cbpe import Calibrator, Estimate, calibrate, estimate, estimate_accuracy
from gateway.drift.statistics.distance import Floats
from gateway.drift.statistics.performance import Metric, measure

_CELLS: Final = 200  # of the curve, so that a profile stays small


class CurveKind(StrEnum):
    """Names what a curve turns into a chance."""

    SCORE = "score"  # of class 1, of two: the chance that the row is of class 1
    CONFIDENCE = "confidence"  # in the answer: the chance that it is right


@dataclass(frozen=True, slots=True)
class Curve:
    """Labelled reference rows by score. Shapes: one of each per score, which ascend; `positives` at most `rows`.

    Raises: ValueError.
    """

    kind: CurveKind
    scores: tuple[float, ...]
    rows: tuple[int, ...]
    positives: tuple[int, ...]

    def __post_init__(self) -> None:
        if not len(self.scores) == len(self.rows) == len(self.positives) >= 1:
            raise ValueError("a curve has as many scores as rows and positives, at least one")
        rising = all(first < second for first, second in pairwise(self.scores))
        within = all(0 <= good <= count and count > 0 for good, count in zip(self.positives, self.rows, strict=True))
        if not rising or not within:
            raise ValueError("a curve has rising scores, and at each 0 to `rows` positives of at least one row")

    def calibrator(self) -> Calibrator:
        """The isotonic curve of these rows."""
        return Calibrator.of(
            np.array(self.scores), np.array(self.rows, np.float64), np.array(self.positives, np.float64)
        )


@dataclass(frozen=True, slots=True)
class Baseline:
    """Tells what the labelled rows of a reference say.

    `classes` name the classes 0, 1, 2, ... where labels or answers are texts; `metrics` with 95 % intervals, those that
    are defined; `curve` None: nothing can be estimated, and `note` says why.
    """

    task: Task
    source: str
    rows: int
    classes: tuple[str, ...]
    metrics: tuple[Metric, ...]
    curve: Curve | None = None
    note: str = ""

    def metric(self, name: str) -> Metric | None:
        return next((one for one in self.metrics if one.name == name), None)

    def estimate(
        self, answers: Answers, *, rng: np.random.Generator, weights: Floats | None = None
    ) -> tuple[Estimate, ...]:
        """Metrics of answers without labels; empty where there is no curve, or answers lack what it is a curve of."""
        if self.curve is None or not len(answers.predicted):
            return ()
        if self.curve.kind is CurveKind.SCORE:
            if answers.ranks is None:
                return ()
            estimates = estimate(
                answers.ranks, answers.predicted == 1, self.curve.calibrator(), rng=rng, weights=weights
            )
            return tuple(one for one in estimates if math.isfinite(one.value + one.low + one.high))
        if answers.confidence is None:
            return ()
        return (estimate_accuracy(answers.confidence, self.curve.calibrator(), rng=rng, weights=weights),)


def build_baseline(labelled: Labelled, source: str, *, rng: np.random.Generator) -> Baseline:
    """The baseline of labelled rows, at least one. `source` says in words where they came from.

    Raises: ValueError (no rows).
    """
    curve, note = _curve(labelled)
    metrics = tuple(one for one in measure(labelled.outcomes(), rng=rng) if one.defined)
    return Baseline(labelled.answers.task, source, len(labelled), labelled.classes, metrics, curve, note)


def _curve(labelled: Labelled) -> tuple[Curve | None, str]:
    """The curve, or why there is none."""
    answers = labelled.answers
    if answers.task is Task.REGRESSION:
        return None, "numbers carry no confidence"
    if answers.ranks is not None:
        kind, scores, positive = CurveKind.SCORE, answers.ranks, labelled.actual == 1
    elif answers.confidence is not None:
        kind, scores, positive = CurveKind.CONFIDENCE, answers.confidence, answers.predicted == labelled.actual
    else:
        return None, "answers carry no confidence"
    try:
        fitted = calibrate(scores, positive, most=_CELLS)
    except ValueError as error:
        return None, str(error)
    scores_, rows, positives = (values.tolist() for values in (fitted.scores, fitted.weights, fitted.positives))
    return Curve(kind, tuple(scores_), tuple(map(round, rows)), tuple(map(round, positives))), ""
