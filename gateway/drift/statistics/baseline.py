"""How good the version was where it was right: the metrics of labelled reference rows, and the curve from its scores to
the chance of being right, which estimates without labels rest on. A part of the profile."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import numpy as np

from gateway.drift.statistics.answers import Answers, Labelled, Task
from gateway.drift.statistics.cbpe import Calibrator, Estimate, calibrate, estimate, estimate_accuracy
from gateway.drift.statistics.distance import Floats
from gateway.drift.statistics.performance import Metric, measure

_CELLS: Final = 200  # of the curve, so that a profile stays small


class CurveKind(StrEnum):
    """What a curve turns into a chance."""

    SCORE = "score"  # of class 1, of two: the chance that the row is of class 1
    CONFIDENCE = "confidence"  # in the answer: the chance that it is right


@dataclass(frozen=True, slots=True)
class Curve:
    """Labelled reference rows by score. Shapes: one of each per score, which ascend; `positives` at most `rows`."""

    kind: CurveKind
    scores: tuple[float, ...]
    rows: tuple[int, ...]
    positives: tuple[int, ...]

    def calibrator(self) -> Calibrator:
        """The isotonic curve of these rows."""
        return Calibrator.of(
            np.array(self.scores), np.array(self.rows, np.float64), np.array(self.positives, np.float64)
        )


@dataclass(frozen=True, slots=True)
class Baseline:
    """What the labelled rows of a reference say.

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
            found = estimate(answers.ranks, answers.predicted == 1, self.curve.calibrator(), rng=rng, weights=weights)
            return tuple(one for one in found if math.isfinite(one.value + one.low + one.high))
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
        found = calibrate(scores, positive, most=_CELLS)
    except ValueError as error:
        return None, str(error)
    scores_, rows, positives = (values.tolist() for values in (found.scores, found.weights, found.positives))
    return Curve(kind, tuple(scores_), tuple(map(round, rows)), tuple(map(round, positives))), ""


def baseline_json(baseline: Baseline) -> dict[str, object]:
    """What `read_baseline` reads back."""
    curve = baseline.curve
    return {
        "task": baseline.task.value,
        "source": baseline.source,
        "rows": baseline.rows,
        "classes": list(baseline.classes),
        "metrics": [[one.name, one.value, one.low, one.high, one.rows] for one in baseline.metrics],
        "curve": None
        if curve is None
        else {
            "kind": curve.kind.value,
            "scores": list(curve.scores),
            "rows": list(curve.rows),
            "positives": list(curve.positives),
        },
        "note": baseline.note,
    }


def read_baseline(item: Mapping[str, Any]) -> Baseline:
    """Raises: ValueError, TypeError, KeyError (no baseline)."""
    curve = item["curve"]
    return Baseline(
        task=Task(item["task"]),
        source=str(item["source"]),
        rows=int(item["rows"]),
        classes=tuple(str(name) for name in item["classes"]),
        metrics=tuple(
            Metric(str(name), float(value), float(low), float(high), int(rows))
            for name, value, low, high, rows in item["metrics"]
        ),
        curve=None if curve is None else _read_curve(curve),
        note=str(item["note"]),
    )


def _read_curve(item: Mapping[str, Any]) -> Curve:
    curve = Curve(
        CurveKind(item["kind"]),
        tuple(float(score) for score in item["scores"]),
        tuple(int(count) for count in item["rows"]),
        tuple(int(count) for count in item["positives"]),
    )
    if not len(curve.scores) == len(curve.rows) == len(curve.positives) >= 1:
        raise ValueError("a curve has as many scores as rows and positives, at least one")
    rising = all(first < second for first, second in zip(curve.scores, curve.scores[1:], strict=False))
    within = all(0 <= good <= count and count > 0 for good, count in zip(curve.positives, curve.rows, strict=True))
    if not rising or not within:
        raise ValueError("a curve has rising scores, and at each 0 to `rows` positives of at least one row")
    return curve
