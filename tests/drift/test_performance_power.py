"""Employment in Massachusetts, where a model is as good in each year: no alarm, until labels are turned round."""

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest

from gateway.drift.online.counting import LoggedArm
from gateway.drift.online.performance_assessment import assess_arm
from gateway.drift.online.performance_sample import NO_TEXT, SampleRows, row_type
from gateway.drift.statistics.answers import Answers, Labelled, Task
from gateway.drift.statistics.baseline import Baseline, build_baseline
from gateway.drift.statistics.verdict import DriftState
from tests.drift.reference_data import census, folder

Floats = npt.NDArray[np.float64]


@cache
def later_years() -> tuple[Floats, Floats]:
    """Scores and labels of 2016 to 2018, shuffled: within a year rows are in the order of households."""
    table = census("analysis")
    truth = pq.read_table(folder("nannyml") / "datasets" / "data" / "employment_MA_analysis_target.pq")
    known = dict(zip(truth.column("id").to_pylist(), truth.column("employed").to_pylist(), strict=True))
    labels = np.array([known[name] for name in table["id"].tolist()], np.float64)
    order = np.random.default_rng(0).permutation(len(labels))
    return table["predicted_probability"][order], labels[order]


@cache
def baseline() -> Baseline:
    """Of 4000 people of 2015."""
    table = census("reference")
    chosen = np.random.default_rng(1).permutation(len(table["employed"]))[:4000]
    scores, labels = table["predicted_probability"][chosen], table["employed"][chosen].astype(np.float64)
    both = np.column_stack([1 - scores, scores])
    answers = Answers(Task.CLASSIFICATION, (scores >= 0.5).astype(float), both, scores, both.max(axis=1))
    rows = len(labels)
    made = Labelled(answers, labels, np.ones(rows), np.zeros(rows, np.int64), np.zeros(rows))
    return build_baseline(made, "2015", rng=np.random.default_rng(0))


def rows_of(scores: Floats, labels: Floats) -> SampleRows:
    made: Any = np.zeros(len(scores), row_type(1))
    made["key"], made["ts_us"], made["p"] = np.arange(len(scores)), np.arange(len(scores)), 1.0
    made["pred_class"], made["pred_score"], made["scores"][:, 0] = np.nan, scores, scores
    made["said"], made["label"], made["label_text"], made["label_us"] = NO_TEXT, labels, NO_TEXT, 1
    rows: SampleRows = made
    return rows


def alarms(size: int, windows: int, *, turned: float) -> tuple[int, int]:
    """In how many windows of so many labels, of which that share is turned round, there is an alarm: by labels, and by
    the estimate."""
    scores, labels = later_years()
    rng = np.random.default_rng(2)
    made = [0, 0]
    for number in range(windows):
        part = slice(number * size, (number + 1) * size)
        given = np.where(rng.random(size) < turned, 1 - labels[part], labels[part])
        arm = assess_arm(
            "m", LoggedArm("1", "a", False), rows_of(scores[part], given), (), baseline(), has_profile=True,
            rng=np.random.default_rng(0),
        )  # fmt: skip
        for place, (side, metrics) in enumerate(((arm.realised, 5), (arm.estimated, 3))):
            states = [one.state for one in side.judged if one.state is not None]
            assert len(states) == metrics
            made[place] += max(states) >= DriftState.WARN
    return made[0], made[1]


@pytest.mark.parametrize("size", [300, 3000])
def test_of_forty_windows_of_later_years_next_to_none_is_an_alarm(size: int) -> None:
    assert sum(alarms(size, 40, turned=0.0)) <= 1


def test_labels_that_are_turned_round_are_an_alarm_and_no_estimate_sees_them() -> None:
    by_labels, by_estimate = alarms(1000, 20, turned=0.1)
    assert (by_labels >= 18, by_estimate) == (True, 0)
