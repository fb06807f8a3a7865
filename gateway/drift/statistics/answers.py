"""Tells what a model's outputs say, whichever way they are read: classes with their chances, or numbers; and labels
beside them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import groupby
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from gateway.drift.statistics.cbpe import Calibrator, Estimate, calibrate, estimate, estimate_accuracy
from gateway.drift.statistics.column import Column
from gateway.drift.statistics.distance import Floats
from gateway.drift.statistics.performance import Outcomes, classified, regressed
from gateway.errors import InvalidArgument

Array = npt.NDArray[Any]
Integers = npt.NDArray[np.int64]
_SUM_TOLERANCE: Final = 0.02
_BY_CHANCE: Final = 0.05  # share of rows whose numbers may look like chances though they are none


class Task(StrEnum):
    """Names what a model does."""

    CLASSIFICATION = "classification"
    REGRESSION = "regression"


@dataclass(frozen=True, slots=True)
class Outputs:
    """Tells which columns of the lake are the model's answer.

    `scores` are the columns of one number per class, or of the only number; `said` the column of a class as text.
    """

    scores: tuple[str, ...]
    said: str = ""

    @property
    def columns(self) -> dict[str, str]:
        """The columns of the numbers that the answer consists of, by name."""
        columns = {"pred_class": "pred_class", "pred_score": "pred_score"}
        return columns | {f"score:{index}": column for index, column in enumerate(self.scores)}


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """Tells what a model answered.

    Shapes: [rows] each; `predicted` are classes, or numbers of a regression; `chances` [rows, classes] or None;
            `ranks`, which order rows by class 1, None where there are not two; `confidence` in the answer, or None.
    """

    task: Task
    predicted: Floats
    chances: Floats | None
    ranks: Floats | None
    confidence: Floats | None

    def rows(self, chosen: Array) -> "Answers":
        parts = [None if part is None else part[chosen] for part in (self.chances, self.ranks, self.confidence)]
        return Answers(self.task, self.predicted[chosen], parts[0], parts[1], parts[2])


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """Rows with a label: what was answered and what came true. Units: `moments_us` since the epoch, `delays_s`.

    `total` is how many rows have a label, of which these may be a part, drawn evenly.
    """

    answers: Answers
    actual: Floats
    weights: Floats
    moments_us: Integers
    delays_s: Floats
    classes: tuple[str, ...] = ()
    total: int = 0

    def __len__(self) -> int:
        return len(self.actual)

    def rows(self, chosen: Array) -> "Labelled":
        return replace(
            self, answers=self.answers.rows(chosen), actual=self.actual[chosen], weights=self.weights[chosen],
            moments_us=self.moments_us[chosen], delays_s=self.delays_s[chosen],
        )  # fmt: skip

    def outcomes(self) -> Outcomes:
        """Returns what metrics are taken of. Raises: ValueError (no rows)."""
        weights = None if bool((self.weights == 1).all()) else self.weights
        if self.answers.task is Task.REGRESSION:
            return regressed(self.answers.predicted, self.actual, weights=weights)
        return classified(
            self.answers.predicted.astype(np.int64), self.actual.astype(np.int64),
            probabilities=self.answers.chances, scores=self.answers.ranks, weights=weights,
        )  # fmt: skip


def find_outputs(kinds: Mapping[str, str]) -> Outputs:
    """The answer among the columns of the lake: the widest output of numbers, and a text output of one element."""
    floats = [name for name, kind in kinds.items() if name.startswith("out.") and kind in ("FLOAT", "DOUBLE")]
    groups = [list(members) for _, members in groupby(floats, key=lambda name: name.rpartition("_")[0] or name)]
    scores = max(groups, key=len, default=[])
    texts = [name for name, kind in kinds.items() if name.startswith("out.") and kind == "VARCHAR"]
    return Outputs(tuple(scores), texts[0] if len(texts) == 1 else "")


def sql_kind(column: Column) -> str:
    """The SQL type that `find_outputs` knows such a column by, "" where it is none of an answer."""
    return "VARCHAR" if column.texts is not None else "FLOAT" if column.values.dtype.kind == "f" else ""


def labelled_columns(
    label: Column, columns: Mapping[str, Column], outputs: Outputs, classes: Sequence[str] = ()
) -> Labelled | None:
    """Labelled rows that are columns already, by the names of the log; None where nothing was answered in them.

    Raises: InvalidArgument (labels and answers that cannot be compared).
    """
    said = columns.get(outputs.said)
    texts = {*(label.texts or ()), *((said.texts or ()) if said is not None else ())}
    names = tuple(classes) or (tuple(sorted(texts)) if said is not None else ())
    actual = _codes(label, names)
    known = np.isfinite(actual)
    if not known.any():
        raise InvalidArgument(
            "labels are texts and answers are class numbers: name the classes in order with --classes a,b,c"
        )
    nothing = np.full(len(label), np.nan)
    numbers_of: dict[str, Array] = {
        name: _codes(columns[name], ()) if name in columns else nothing for name in ("pred_class", "pred_score")
    }
    numbers_of |= {f"score:{index}": _codes(columns[name], ()) for index, name in enumerate(outputs.scores)}
    if said is not None:
        numbers_of["said"] = _codes(said, names)
    answers, known = read_answers(numbers_of, known, np.unique(actual[known]), classes=names)
    order = np.flatnonzero(known)
    if not len(order):
        return None
    return Labelled(
        answers.rows(order),
        actual[order],
        np.ones(len(order)),
        np.zeros(len(order), np.int64),
        np.zeros(len(order)),
        names,
        len(order),
    )


def _codes(column: Column, names: Sequence[str]) -> Floats:
    """Numbers; of texts the place among the names, NaN where there is none."""
    if column.texts is None:
        values = column.values.astype(np.float64)
    else:
        places = {name: place for place, name in enumerate(names)}
        of_text = np.array([float(places.get(text, np.nan)) for text in column.texts] or [np.nan])
        values = of_text[column.values.astype(np.int64)]
    return values if column.missing is None else np.where(column.missing, np.nan, values)


def sampled_answers(columns: Mapping[str, Array], like: Labelled) -> tuple[Answers, Array]:
    """The answers of rows without labels, read as those of `like`, and which of the rows have one."""
    every = np.ones(len(columns["pred_score"]), np.bool_)
    answers, known = read_answers(columns, every, np.unique(like.actual), classes=like.classes, task=like.answers.task)
    return answers.rows(np.flatnonzero(known)), known


def reference_curve(reference: Labelled, answers: Answers) -> Calibrator | None:
    """Returns what answers like these are estimated with: the labelled reference rows, by score of class 1 or by
    confidence. None for a regression, or where answers carry no confidence.

    Raises: ValueError (too few labelled rows, or of one class only).
    """
    known = reference.answers
    if known.task is Task.REGRESSION or not len(answers.predicted):
        return None
    if known.ranks is not None and answers.ranks is not None:
        return calibrate(known.ranks, reference.actual == 1)
    if known.confidence is None or answers.confidence is None:
        return None
    return calibrate(known.confidence, known.predicted == reference.actual)


def estimate_performance(
    reference: Labelled, answers: Answers, curve: Calibrator | None, *, rng: np.random.Generator
) -> tuple[Estimate, ...]:
    """Metrics of answers without labels; empty where there is no curve, or no answer.

    `curve` is the `reference_curve` of these answers or of others of the same model.
    """
    if curve is None or not len(answers.predicted):
        return ()
    if reference.answers.ranks is not None and answers.ranks is not None:
        return estimate(answers.ranks, answers.predicted == 1, curve, rng=rng)
    assert answers.confidence is not None  # or there were no curve
    return (estimate_accuracy(answers.confidence, curve, rng=rng),)


def read_answers(
    given: Mapping[str, Array], known: Array, labels: Floats, *, classes: Sequence[str], task: Task | None = None
) -> tuple[Answers, Array]:
    """Returns what was answered, and which of the known rows have an answer."""
    columns = sorted((name for name in given if name.startswith("score:")), key=lambda name: int(name[6:]))
    scores = np.column_stack([numbers(given[name]) for name in columns]) if columns else None
    single = scores[:, 0] if scores is not None and scores.shape[1] == 1 else None
    predicted = numbers(given["said"]) if "said" in given else numbers(given["pred_class"])
    whole = bool(len(labels)) and bool((labels == np.round(labels)).all()) and labels.min() >= 0
    threshold = single is not None and not np.isfinite(predicted).any()
    if threshold and single is not None and task is not Task.REGRESSION:
        # One number and no class: the chance of class 1, if labels and numbers look like it.
        inside = single[known & np.isfinite(single)]
        if whole and labels.max() <= 1 and len(inside) and inside.min() >= 0 and inside.max() <= 1:
            predicted = np.where(np.isfinite(single), (single >= 0.5).astype(np.float64), np.nan)
    confidence = numbers(given["pred_score"])
    named = np.isfinite(predicted).mean() if len(predicted) else 0.0
    if (
        task is not Task.REGRESSION
        and named <= _BY_CHANCE
        and whole
        and scores is not None
        and labels.max() < scores.shape[1] > 1
    ):
        # Nobody called these numbers scores of classes, but the labels are classes that they have a place for.
        complete = np.isfinite(scores).all(axis=1)
        best = np.where(np.isfinite(scores), scores, -np.inf)
        predicted = np.where(complete, best.argmax(axis=1), np.nan)
        confidence = np.where(complete, best.max(axis=1), np.nan)
    if task is Task.REGRESSION or not whole or not np.isfinite(predicted).any():
        values = single if single is not None else numbers(given["pred_score"])
        return Answers(Task.REGRESSION, values, None, None, None), known & np.isfinite(values)
    known = known & np.isfinite(predicted)
    if single is not None:
        scores = np.column_stack([1 - single, single]) if threshold else None
    width = max(int(np.nanmax(predicted)), int(labels.max()) if len(labels) else 0) + 1
    if scores is None or scores.shape[1] < width or (classes and scores.shape[1] != len(classes)):
        usable = bool(np.isfinite(confidence[known]).any())
        return Answers(Task.CLASSIFICATION, predicted, None, None, confidence if usable else None), known
    known = known & np.isfinite(scores).all(axis=1)
    chances = scores if _are_chances(scores[known]) else None
    ranks = scores[:, 1] - scores[:, 0] if scores.shape[1] == 2 and chances is None else None
    if chances is not None and scores.shape[1] == 2:
        ranks = scores[:, 1]
    top = scores.max(axis=1) if threshold else confidence
    return Answers(Task.CLASSIFICATION, predicted, chances, ranks, top), known


def _are_chances(scores: Floats) -> bool:
    if not len(scores) or scores.min() < -1e-6 or scores.max() > 1 + 1e-6:
        return False
    return bool((np.abs(scores.sum(axis=1) - 1) < _SUM_TOLERANCE).all())


def numbers(values: Array) -> Floats:
    """Floats, NaN where there is none."""
    if isinstance(values, np.ma.MaskedArray):
        return np.where(np.ma.getmaskarray(values), np.nan, np.ma.getdata(values).astype(np.float64))
    return np.asarray(values, np.float64)
