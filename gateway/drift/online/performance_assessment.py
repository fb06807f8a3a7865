"""Assesses the performance of an arm from its sampled rows: by labels, and by what its scores lead one to expect."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from gateway.drift.online.counting import LoggedArm
from gateway.drift.online.performance_sample import MAX_SCORES, NO_LABEL_US, NO_TEXT, SampleRows
from gateway.drift.statistics.answers import Answers, Labelled, Task, read_answers
from gateway.drift.statistics.baseline import Baseline
from gateway.drift.statistics.distance import Floats
from gateway.drift.statistics.performance import METRICS, MIN_LABELLED, Metric, MetricChange, differ, measure
from gateway.drift.statistics.rating import rate
from gateway.drift.statistics.verdict import DriftState

WINDOW_US: Final = 86_400_000_000
# Beyond how many standard errors a change is no chance. Windows slide and are looked at all the time, metrics are
# several: two, as a report has them, would alarm somewhere every few weeks.
SIGMAS: Final = 3.0
_MOST_CLASSES: Final = 1000  # where nothing says how many there are
_MOST_MEASURED: Final = 5000  # rows of a model with many classes: every row may be a cell of its own
_MOSTLY: Final = 0.99
_LARGEST: Final = 1e100  # number that a label can be: squares have to be numbers
_NORMAL_95: Final = 1.959964
_LABELS_NEEDED: Final = f"{MIN_LABELLED} are needed"


@dataclass(frozen=True, slots=True)
class Judged:
    """A metric and how it differs from the baseline's, None where that has none; `state` None: it is not judged."""

    metric: Metric
    change: MetricChange | None
    state: DriftState | None


@dataclass(frozen=True, slots=True)
class Side:
    """Metrics of a window of rows. `note`: why there are none. Units: `start_us`, `end_us` of arrival."""

    rows: int
    start_us: int
    end_us: int
    judged: tuple[Judged, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class ArmPerformance:
    """The performance of an arm's answers of one version.

    `unknown`: rows of the window whose label is no class of the model (or no number), which no metric is taken over.
    `baseline` says in words what changes are measured against, "" where there is none.
    """

    model: str
    arm: LoggedArm
    task: str
    realised: Side
    estimated: Side
    unknown: int
    baseline: str


@dataclass(frozen=True, slots=True, eq=False)
class _Table:
    """Rows as `read_answers` takes them. Shapes: [rows] each; `labels` NaN where there is none or it is unknown."""

    rows: SampleRows
    columns: Mapping[str, npt.NDArray[Any]]
    labels: Floats
    has_label: npt.NDArray[np.bool_]
    weights: Floats
    names: tuple[str, ...]
    classes: int
    task: Task


def assess_arm(
    model: str,
    arm: LoggedArm,
    rows: SampleRows,
    texts: Sequence[str],
    baseline: Baseline | None,
    *,
    has_profile: bool,
    rng: np.random.Generator,
) -> ArmPerformance:
    """The assessment of the sampled rows of an arm, of type `row_type`; `texts` by their number."""
    rows = rows[np.argsort(rows["ts_us"], kind="stable")]
    table = _table(rows, texts, baseline)
    realised, unknown = _realised(table, baseline, rng)
    estimated = _estimated(table, baseline, rng, has_profile=has_profile)
    told = f"{baseline.rows} labelled rows: {baseline.source}" if baseline is not None else ""
    return ArmPerformance(model, arm, table.task.value, realised, estimated, unknown, told)


def _table(rows: SampleRows, texts: Sequence[str], baseline: Baseline | None) -> _Table:
    width = rows.dtype["scores"].shape[0]
    has_label = rows["label_us"] != NO_LABEL_US
    said = rows["said"] != NO_TEXT
    names = baseline.classes if baseline is not None else ()
    if not names and said.any():
        used = np.unique(np.concatenate([rows["said"], rows["label_text"]]))
        names = tuple(sorted(texts[code] for code in used.tolist() if code >= 0))
    numbers_of = _positions(texts, names)
    labels = np.where(np.isfinite(rows["label"]), rows["label"], numbers_of[rows["label_text"]])
    classes = len(names) or (width if width > 1 else _MOST_CLASSES)
    columns: dict[str, npt.NDArray[Any]] = {
        "pred_class": np.where((rows["pred_class"] >= 0) & (rows["pred_class"] < classes), rows["pred_class"], np.nan),
        "pred_score": rows["pred_score"].astype(np.float64),
    }
    columns |= {f"score:{place}": rows["scores"][:, place].astype(np.float64) for place in range(width)}
    if said.any():
        columns["said"] = numbers_of[rows["said"]]
    answered = columns.get("said", columns["pred_class"])
    task = baseline.task if baseline is not None else _task(labels[has_label], answered, rows["scores"])
    if task is Task.CLASSIFICATION:
        if width == 1 and not np.isfinite(answered).any():
            classes = 2
        labels = np.where((labels == np.round(labels)) & (labels >= 0) & (labels < classes), labels, np.nan)
    else:
        labels = np.where(np.abs(labels) <= _LARGEST, labels, np.nan)
    weights = np.exp2(rows["level"].astype(np.float64)) / np.maximum(rows["p"].astype(np.float64), 1e-9)
    return _Table(rows, columns, labels, has_label, weights, names, classes, task)


def _positions(texts: Sequence[str], names: Sequence[str]) -> Floats:
    """The class of each number of a text: its place among the names; without names texts are numbers or nothing. The
    two last places are those of `OTHER_TEXT` and `NO_TEXT`."""
    places = {name: float(place) for place, name in enumerate(names)}
    positions = np.full(len(texts) + 2, np.nan)
    for code, text in enumerate(texts):
        if names:
            positions[code] = places.get(text, np.nan)
        elif text.isascii() and text.isdecimal() and len(text) < 10:
            positions[code] = float(text)
    return positions


def _task(labels: Floats, answered: Floats, scores: npt.NDArray[np.float32]) -> Task:
    """Returns what the model probably does, by most of its labels and answers: some odd labels change nothing."""
    known = labels[np.isfinite(labels)]
    if not len(known):
        return Task.CLASSIFICATION if np.isfinite(answered).any() else Task.REGRESSION
    whole = (known == np.round(known)) & (known >= 0) & (known < _MOST_CLASSES)
    if np.isfinite(answered).any():
        return Task.CLASSIFICATION if whole.mean() >= _MOSTLY else Task.REGRESSION
    binary = (whole & (known <= 1)).mean() >= _MOSTLY and scores.shape[1] == 1
    given = scores[np.isfinite(scores)] if binary else scores[:0]
    inside = (given >= 0) & (given <= 1)
    return Task.CLASSIFICATION if len(given) and inside.mean() >= _MOSTLY else Task.REGRESSION


def _realised(table: _Table, baseline: Baseline | None, rng: np.random.Generator) -> tuple[Side, int]:
    """The labelled rows of the last day that has labels, or of as long as it takes to have enough, and how many of them
    have a label that is no class."""
    newest = np.flatnonzero(table.has_label)
    if not len(newest):
        return Side(0, 0, 0, note=f"no row of the last seven days has a label, {_LABELS_NEEDED}"), 0
    usable = np.isfinite(table.labels) & table.has_label
    answers, known = read_answers(
        table.columns, usable, np.unique(table.labels[usable]), classes=table.names, task=table.task
    )
    places = np.flatnonzero(known & usable)
    moments = table.rows["ts_us"]
    first = int(moments[newest[-1]]) - WINDOW_US + 1
    if len(places) >= MIN_LABELLED:
        first = min(first, int(moments[places[-MIN_LABELLED]]))
    places = places[moments[places] >= first]
    within = newest[moments[newest] >= first]
    unknown = int((~usable[within]).sum())
    start_us, end_us = int(moments[within[0]]), int(moments[within[-1]])
    if len(places) < MIN_LABELLED:
        note = _too_few(table, answered=len(places), usable=int(usable.sum()), labelled=len(newest))
        return Side(len(places), start_us, end_us, note=note), unknown
    if table.classes > 2 and table.task is Task.CLASSIFICATION and len(places) > _MOST_MEASURED:
        lowest = np.argsort(table.rows["key"][places], kind="stable")[:_MOST_MEASURED]
        places = places[np.sort(lowest)]
    labelled = Labelled(
        answers.rows(places), table.labels[places], table.weights[places], moments[places], np.zeros(len(places))
    )
    metrics = [one for one in measure(labelled.outcomes(), rng=rng) if one.defined]
    # Where nothing says how many classes there are, F1 is of class 1 or a mean, as the window happens to hold.
    vague = ("f1",) if answers.chances is None and table.classes == _MOST_CLASSES else ()
    judged = tuple(_judge(one, None if one.name in vague else baseline) for one in metrics)
    return Side(len(places), start_us, end_us, judged), unknown


def _too_few(table: _Table, *, answered: int, usable: int, labelled: int) -> str:
    if labelled < MIN_LABELLED or answered == labelled:
        return f"{answered} labels, {_LABELS_NEEDED}"
    if usable < MIN_LABELLED and (table.rows["label_text"] != NO_TEXT).any() and not table.names:
        return (
            "labels are texts and answers are class numbers: the profile has to name the classes "
            "(gateway profile build --classes a,b,c)"
        )
    if usable < MIN_LABELLED:
        return (
            f"{labelled} rows have a label, {usable} one that is a class of the model (or a number), {_LABELS_NEEDED}"
        )
    return f"{labelled} rows have a label, {answered} beside it an answer in the log that is a class or a number"


def _estimated(table: _Table, baseline: Baseline | None, rng: np.random.Generator, *, has_profile: bool) -> Side:
    """The rows of the newest day, whether they have a label or not."""
    if not len(table.rows):
        return Side(0, 0, 0, note="no rows")
    moments = table.rows["ts_us"]
    every = moments > int(moments[-1]) - WINDOW_US
    answers, known = read_answers(
        table.columns, every, np.arange(_stated(table), dtype=np.float64), classes=table.names, task=table.task
    )
    places = np.flatnonzero(known & every)
    start_us, end_us = int(moments[every][0]), int(moments[-1])
    side = Side(len(places), start_us, end_us)
    if (why := _no_estimate(baseline, len(places), has_profile)) or baseline is None:
        return Side(side.rows, start_us, end_us, note=why)
    given: Answers = answers.rows(places)
    estimates = baseline.estimate(given, rng=rng, weights=table.weights[places])
    if not estimates:
        return Side(side.rows, start_us, end_us, note="answers carry no confidence as those of the profile do")
    judged = tuple(_judge(Metric(one.name, one.value, one.low, one.high, len(places)), baseline) for one in estimates)
    return Side(side.rows, start_us, end_us, judged)


def _stated(table: _Table) -> int:
    """So many classes, as labels would tell; 1 where nothing says how many."""
    return table.classes if table.classes <= max(MAX_SCORES, len(table.names)) else 1


def _no_estimate(baseline: Baseline | None, rows: int, has_profile: bool) -> str:
    if baseline is None:
        return "its profile has no labelled rows" if has_profile else "it has no profile"
    if baseline.curve is None:
        return baseline.note
    return f"{rows} rows, {_LABELS_NEEDED}" if rows < MIN_LABELLED else ""


def _judge(metric: Metric, baseline: Baseline | None) -> Judged:
    reference = baseline.metric(metric.name) if baseline is not None else None
    if reference is None:
        return Judged(metric, None, None)
    change = differ(reference, metric, margin=SIGMAS / _NORMAL_95)
    return Judged(metric, change, None if METRICS[metric.name].higher_is_better is None else rate(change))
