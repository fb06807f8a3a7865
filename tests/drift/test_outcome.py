"""What outputs say: classes, chances, numbers and texts of real logs, held against labels of every kind."""

from pathlib import Path

import numpy as np
import pytest

from gateway.drift.report.lake_reader import Lake
from gateway.drift.report.lake_selection import Selection
from gateway.drift.report.outcome import read_labelled
from gateway.drift.report.span import Span
from gateway.drift.statistics.answers import (
    Labelled,
    Outputs,
    Task,
    estimate_performance,
    find_outputs,
    reference_curve,
    sampled_answers,
)
from gateway.drift.statistics.performance import measure
from gateway.errors import InvalidArgument
from tests.drift.lakes import DAY_US, START_US, lake_of, write_labels, write_rows

ROWS = 400
DAY = Selection("homes", Span(START_US, START_US + DAY_US))
CHANCES = np.random.default_rng(0).random(ROWS)
TRUTH = (np.random.default_rng(1).random(ROWS) < CHANCES).astype(float)


def read(
    folder: Path, outputs: dict[str, np.ndarray], labels: list[float | str | None], *, classes: tuple[str, ...] = (),
    most: int = 10**6,
) -> Labelled | None:  # fmt: skip
    moments = START_US + np.arange(ROWS) * 1000
    ids = write_rows(folder, moments, {"x": np.zeros((ROWS, 1), "<f4")}, outputs)
    write_labels(folder, ids[: len(labels)], labels, moments[: len(labels)].tolist())
    with Lake(lake_of(folder)) as lake:
        return read_labelled(lake, DAY, find_outputs(lake.columns(DAY)), classes=classes, most=most)


def accuracy(labelled_rows: Labelled | None) -> float:
    assert labelled_rows is not None
    return next(
        metric.value
        for metric in measure(labelled_rows.outcomes(), rng=np.random.default_rng(0))
        if metric.name == "accuracy"
    )


EXPECTED = float(((CHANCES.astype("<f4") >= 0.5) == TRUTH).mean())


def test_one_chance_is_a_classifier_of_two_classes(tmp_path: Path) -> None:
    labelled_rows = read(tmp_path, {"p": CHANCES.astype("<f4")}, TRUTH.tolist())
    assert labelled_rows is not None
    assert labelled_rows.answers.task is Task.CLASSIFICATION
    assert labelled_rows.answers.chances is not None
    assert accuracy(labelled_rows) == pytest.approx(EXPECTED)
    assert {metric.name for metric in measure(labelled_rows.outcomes(), rng=np.random.default_rng(0))} >= {
        "auc",
        "log_loss",
    }


def test_one_number_with_other_labels_is_a_regression(tmp_path: Path) -> None:
    labelled_rows = read(tmp_path, {"p": CHANCES.astype("<f4")}, (CHANCES * 7).tolist())
    assert labelled_rows is not None
    assert labelled_rows.answers.task is Task.REGRESSION


def test_scores_that_are_no_chances_give_ranks_only(tmp_path: Path) -> None:
    logits = np.column_stack([np.zeros(ROWS), np.log(CHANCES / (1 - CHANCES))]).astype("<f4")
    labelled_rows = read(tmp_path, {"p": logits}, TRUTH.tolist())
    assert labelled_rows is not None
    names = {metric.name for metric in measure(labelled_rows.outcomes(), rng=np.random.default_rng(0))}
    assert names == {"accuracy", "f1", "auc"}
    curve = reference_curve(labelled_rows, labelled_rows.answers)
    estimated = {
        one.name: one
        for one in estimate_performance(labelled_rows, labelled_rows.answers, curve, rng=np.random.default_rng(0))
    }
    assert estimated["accuracy"].value == pytest.approx(EXPECTED, abs=0.05)


def test_classes_without_scores_have_accuracy_and_no_estimate(tmp_path: Path) -> None:
    labelled_rows = read(tmp_path, {"c": (CHANCES >= 0.5).astype("<i8")}, TRUTH.tolist())
    assert accuracy(labelled_rows) == pytest.approx(EXPECTED, abs=0.01)
    assert labelled_rows is not None
    assert reference_curve(labelled_rows, labelled_rows.answers) is None
    assert estimate_performance(labelled_rows, labelled_rows.answers, None, rng=np.random.default_rng(0)) == ()


def test_labels_that_are_texts_need_the_names_of_the_classes(tmp_path: Path) -> None:
    texts = ["late" if value else "early" for value in TRUTH]
    pair = np.column_stack([1 - CHANCES, CHANCES]).astype("<f4")
    with pytest.raises(InvalidArgument, match="--classes"):
        read(tmp_path / "a", {"p": pair}, list(texts))
    labelled_rows = read(tmp_path / "b", {"p": pair}, list(texts), classes=("early", "late"))
    assert accuracy(labelled_rows) == pytest.approx(EXPECTED, abs=0.01)
    wrong = read(tmp_path / "c", {"p": pair}, list(texts), classes=("late", "early"))
    assert accuracy(wrong) == pytest.approx(1 - EXPECTED, abs=0.01)


def test_labels_that_are_numbers_as_text_are_numbers(tmp_path: Path) -> None:
    pair = np.column_stack([1 - CHANCES, CHANCES]).astype("<f4")
    labelled_rows = read(tmp_path, {"p": pair}, [str(int(value)) for value in TRUTH])
    assert accuracy(labelled_rows) == pytest.approx(EXPECTED, abs=0.01)


def test_answers_that_are_texts_are_the_classes(tmp_path: Path) -> None:
    said = np.where(CHANCES >= 0.5, "late", "early").astype(object)
    labelled_rows = read(tmp_path, {"label": said}, ["late" if value else "early" for value in TRUTH])
    assert labelled_rows is not None
    assert labelled_rows.classes == ("early", "late")
    assert accuracy(labelled_rows) == pytest.approx(EXPECTED, abs=0.01)


def test_of_very_many_labelled_rows_a_part_is_held_and_all_are_counted(tmp_path: Path) -> None:
    labelled_rows = read(tmp_path, {"p": CHANCES.astype("<f4")}, TRUTH[:300].tolist(), most=100)
    assert labelled_rows is not None
    assert labelled_rows.total == 300
    assert 60 < len(labelled_rows) < 140
    assert (np.diff(labelled_rows.moments_us) >= 0).all()


def test_without_labels_there_is_nothing(tmp_path: Path) -> None:
    assert read(tmp_path, {"p": CHANCES.astype("<f4")}, []) is None


def test_labels_of_rows_whose_answer_was_not_logged_say_nothing(tmp_path: Path) -> None:
    assert read(tmp_path, {"p": np.full(ROWS, np.nan, "<f4")}, TRUTH.tolist()) is None


def test_answers_without_labels_are_read_like_those_with(tmp_path: Path) -> None:
    labelled_rows = read(tmp_path, {"p": CHANCES.astype("<f4")}, TRUTH.tolist())
    assert labelled_rows is not None
    rows = {
        "pred_class": np.full(3, np.nan),
        "pred_score": np.array([0.2, 0.7, np.nan]),
        "score:0": np.array([0.2, 0.7, np.nan]),
    }
    answers, known = sampled_answers(rows, labelled_rows)
    assert known.tolist() == [True, True, False]
    assert answers.predicted.tolist() == [0.0, 1.0]


def test_outputs_are_found_by_their_columns() -> None:
    kinds = {
        "f.x_0": "FLOAT", "out.small": "FLOAT", "out.p_0": "FLOAT", "out.p_1": "FLOAT", "out.p_2": "FLOAT",
        "out.name": "VARCHAR", "out.list": "FLOAT[]", "out.list.shape": "INTEGER[]",
    }  # fmt: skip
    assert find_outputs(kinds) == Outputs(("out.p_0", "out.p_1", "out.p_2"), "out.name")
    assert find_outputs({"f.x": "FLOAT"}) == Outputs(())
