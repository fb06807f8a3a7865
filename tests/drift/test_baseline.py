"""What a profile keeps of labelled rows: metrics, and the curve that estimates rest on."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, roc_auc_score

from gateway.drift.statistics.answers import Answers, Labelled, Task, find_outputs, labelled_columns, sql_kind
from gateway.drift.statistics.baseline import Baseline, build_baseline
from gateway.drift.statistics.building import build_profile
from gateway.drift.statistics.column import as_column
from gateway.drift.statistics.performance import Metric, compare, differ, measure, regressed
from gateway.drift.statistics.profile_document import profile_json, read_profile
from gateway.drift.statistics.rating import rate
from gateway.drift.statistics.verdict import DriftState
from gateway.drift.training import answer_columns
from gateway.errors import InvalidArgument

Floats = npt.NDArray[np.float64]


def labelled(chances: Floats, actual: Floats, *, confidence: bool = False) -> Labelled:
    both = np.column_stack([1 - chances, chances])
    predicted = (chances >= 0.5).astype(float)
    answers = Answers(
        Task.CLASSIFICATION, predicted, None if confidence else both, None if confidence else chances, both.max(axis=1)
    )
    rows = len(chances)
    return Labelled(answers, actual, np.ones(rows), np.zeros(rows, np.int64), np.zeros(rows))


def draw(rows: int, seed: int) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(seed)
    chances = rng.random(rows)
    return chances, (rng.random(rows) < chances).astype(float)


def build(answered: Labelled) -> Baseline:
    return build_baseline(answered, "here", rng=np.random.default_rng(0))


@pytest.mark.parametrize("confidence", [False, True])
def test_it_is_kept_with_the_profile(confidence: bool) -> None:
    chances, actual = draw(3000, 0)
    made = build(labelled(chances, actual, confidence=confidence))
    profile = build_profile("m", "1", {"f.x": chances}, {}, created_at=1.0, source="s")
    assert read_profile(profile_json(profile)).baseline is None
    again = read_profile(profile_json(replace(profile, baseline=made))).baseline
    assert again == made
    assert len(profile_json(replace(profile, baseline=made))) - len(profile_json(profile)) < 20_000
    older = json.loads(profile_json(profile))
    del older["baseline"]  # as an older release wrote it
    assert read_profile(json.dumps(older)) == read_profile(profile_json(profile))


def test_the_estimate_from_the_kept_curve_is_that_of_the_rows() -> None:
    made = build(labelled(*draw(20_000, 1)))
    chances, actual = draw(4000, 2)
    shifted = chances**0.5  # others than before: more of class 1
    actual = (np.random.default_rng(3).random(4000) < shifted).astype(float)
    answers = labelled(shifted, actual).answers
    answered = {one.name: one for one in made.estimate(answers, rng=np.random.default_rng(0))}
    assert answered["accuracy"].value == pytest.approx(accuracy_score(actual, shifted >= 0.5), abs=0.02)
    assert answered["auc"].value == pytest.approx(roc_auc_score(actual, shifted), abs=0.02)
    assert all(one.low < one.value < one.high for one in answered.values())


def test_rows_that_stand_for_more_count_for_more_and_for_less_certainty() -> None:
    made = build(labelled(*draw(20_000, 4)))
    chances = np.concatenate([np.full(900, 0.5), np.full(100, 0.99)])
    answers = labelled(chances, chances).answers
    weights = np.concatenate([np.ones(900), np.full(100, 9.0)])
    plain, weighed = (
        made.estimate(answers, rng=np.random.default_rng(0), weights=given)[0] for given in (None, weights)
    )
    assert plain.value == pytest.approx(0.9 * 0.5 + 0.1 * 0.99, abs=0.02)
    assert weighed.value == pytest.approx(0.5 * 0.5 + 0.5 * 0.99, abs=0.02)
    assert weighed.high - weighed.low > plain.high - plain.low


@pytest.mark.parametrize(
    ("answered", "note"),
    [
        (labelled(*draw(60, 5)), "100 or more"),
        (labelled(draw(200, 6)[0], np.ones(200)), "all labels are the same"),
        (replace(labelled(*draw(200, 7)), answers=Answers(Task.CLASSIFICATION, np.ones(200), None, None, None)),
         "no confidence"),
        (replace(labelled(*draw(200, 8)), answers=Answers(Task.REGRESSION, np.ones(200), None, None, None)), "numbers"),
    ],
)  # fmt: skip
def test_where_there_is_no_curve_it_says_why(answered: Labelled, note: str) -> None:
    made = build(answered)
    assert note in made.note
    assert made.curve is None
    assert made.metrics
    assert made.estimate(labelled(*draw(300, 9)).answers, rng=np.random.default_rng(0)) == ()


@pytest.mark.parametrize(
    "change",
    [
        {"scores": [0.5, 0.5]}, {"rows": [1]}, {"positives": [5, 1]}, {"rows": [0, 2]}, {"kind": "other"},
    ],
)  # fmt: skip
def test_a_damaged_curve_is_refused(change: dict[str, Any]) -> None:
    chances, actual = draw(200, 10)
    profile = build_profile("m", "1", {"f.x": chances}, {}, created_at=1.0, source="s")
    document = json.loads(profile_json(replace(profile, baseline=build(labelled(chances, actual)))))
    curve = {"kind": "score", "scores": [0.1, 0.9], "rows": [2, 2], "positives": [1, 2], **change}
    document["baseline"]["curve"] = curve
    with pytest.raises(InvalidArgument, match=r"curve|other"):
        read_profile(json.dumps(document))


@given(st.integers(0, 2**32 - 1), st.integers(200, 2000), st.integers(200, 2000))
def test_the_difference_of_two_intervals_is_that_of_the_bootstraps(seed: int, before: int, now: int) -> None:
    rng = np.random.default_rng(seed)
    made = []
    for rows in (before, now):
        actual = rng.normal(0, 1, rows)
        made.append(regressed(actual + rng.normal(0.1, 1, rows), actual))
    exact = {one.name: one for one in compare(made[0], made[1], rng=rng)}
    measured = [measure(one, rng=rng) for one in made]
    for old, new in zip(*measured, strict=True):
        change, other = differ(old, new), exact[new.name]
        assert change.current - change.reference == pytest.approx(other.current - other.reference)
        width = other.high - other.low
        assert (change.low, change.high) == pytest.approx((other.low, other.high), abs=0.25 * width)
        assert change.low <= change.current - change.reference <= change.high


SHARES = st.floats(0.0, 1.0)


@given(SHARES, SHARES, st.floats(0.0, 0.2), st.floats(0.0, 0.2), st.sampled_from(["accuracy", "rmse"]))
def test_only_what_is_worse_beyond_both_intervals_is_an_alarm(
    old: float, new: float, half_old: float, half_new: float, name: str
) -> None:
    reference = Metric(name, old, old - half_old, old + half_old, 500)
    current = Metric(name, new, new - half_new, new + half_new, 500)
    state = rate(differ(reference, current, margin=1.5))
    worse = old - new if name == "accuracy" else new - old
    sure = worse > 1.5 * float(np.hypot(half_old, half_new)) + 1e-9
    if not sure or worse <= 0:
        assert worse > 0 or state is DriftState.OK
    if state >= DriftState.WARN:
        assert worse > 1.5 * float(np.hypot(half_old, half_new)) - 1e-9
    if sure and worse > 0.05 and name == "accuracy":
        assert state is DriftState.CRIT
    assert rate(differ(reference, replace(current, rows=199))) is DriftState.INSUFFICIENT


def test_answers_in_a_file_have_their_class_and_score() -> None:
    rng = np.random.default_rng(11)
    scores = rng.dirichlet(np.ones(3), 50)
    columns = {f"out.p_{place}": as_column("p", scores[:, place]) for place in range(3)}
    answered = answer_columns({**columns, "age": as_column("age", scores[:, 0])})
    assert answered["pred_class"].values.tolist() == scores.argmax(axis=1).tolist()
    assert answered["pred_score"].values.tolist() == scores.max(axis=1).tolist()
    assert "age" not in answered
    numbers = {name: as_column("p", column.values + 1) for name, column in columns.items()}
    assert list(answer_columns(numbers)) == list(columns)  # several quantities have no largest one
    given_class = {"pred_class": as_column("c", np.arange(50))}
    assert answer_columns({**columns, **given_class})["pred_class"].values.tolist() == list(range(50))
    outputs = find_outputs({name: sql_kind(column) for name, column in answered.items()})
    rows = labelled_columns(as_column("y", scores.argmax(axis=1)), answered, outputs)
    assert rows is not None
    assert build(rows).metric("accuracy") == Metric("accuracy", 1.0, 1.0, 1.0, 50)
    with pytest.raises(InvalidArgument, match="--classes"):
        labelled_columns(as_column("y", np.array(["a"] * 50)), answered, outputs)
