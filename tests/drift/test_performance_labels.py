"""Labels that are texts, no class, or of rows whose answer is not in the log: what is told of each."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, roc_auc_score

from gateway.drift.profile_files import ProfileFiles
from gateway.drift.statistics.answers import find_outputs, labelled_columns
from gateway.drift.statistics.baseline import build_baseline
from gateway.drift.statistics.building import build_profile
from gateway.drift.statistics.column import Column
from tests.drift.labelled import BEGIN_US, DAY_US, log_answers, look, metrics, send_labels, states, values
from tests.drift.performance_cases import draw, pair, spread
from tests.telemetry.firing import firing


async def test_answers_and_labels_that_are_texts_are_classes(tmp_path: Path) -> None:
    chances, labels = draw(300)
    said = np.where(chances >= 0.5, "late", "early").astype(object)
    names = await log_answers(tmp_path, spread(300), {"label": said, "p": pair(chances)})
    given = ["late" if label else "early" for label in labels]
    await send_labels(tmp_path, names, given, received_us=BEGIN_US + DAY_US)
    arm = look(tmp_path, BEGIN_US + DAY_US)
    assert values(arm, "realised")["accuracy"] == pytest.approx(accuracy_score(labels, chances >= 0.5))
    assert {"auc", "log_loss"} <= set(values(arm, "realised"))  # early is 0 and late is 1, as the scores are in order


async def test_labels_that_are_no_class_are_counted_and_spoil_nothing(tmp_path: Path) -> None:
    chances, labels = draw(400)
    names = await log_answers(tmp_path, spread(400), {"p": pair(chances)})
    given: list[float | str] = labels.tolist()
    given[10], given[20], given[30], given[40], given[50] = -1.0, 1e300, 0.5, "no idea", float("inf")
    await send_labels(tmp_path, names, given, received_us=BEGIN_US + DAY_US)
    arm = look(tmp_path, BEGIN_US + DAY_US)
    kept = np.setdiff1d(np.arange(400), [10, 20, 30, 40, 50])
    assert values(arm, "realised")["auc"] == pytest.approx(roc_auc_score(labels[kept], chances[kept]), abs=2e-3)
    assert (arm["unknown_labels"], arm["realised"]["rows"]) == (5, 395)
    assert metrics(tmp_path, "gateway_model_metric_unknown_labels") == {"": 5}
    assert firing("LabelsUnknown", tmp_path / "run" / "published") == []


async def test_labels_that_are_texts_of_a_model_that_answers_numbers_need_the_names_of_the_classes(
    tmp_path: Path,
) -> None:
    chances, labels = draw(300)
    names = await log_answers(tmp_path, spread(300), {"p": pair(chances)})
    given = ["late" if label else "early" for label in labels]
    await send_labels(tmp_path, names, given, received_us=BEGIN_US + DAY_US)
    arm = look(tmp_path, BEGIN_US + DAY_US)
    assert "--classes" in arm["realised"]["note"]
    assert arm["unknown_labels"] == 300
    assert firing("LabelsUnknown", tmp_path / "run" / "published") == [
        {"model": "homes", "version": "1", "arm": "stable", "role": "serving"}
    ]


async def test_labels_of_rows_whose_answer_is_not_in_the_log_say_so(tmp_path: Path) -> None:
    names = await log_answers(tmp_path, spread(300), {"p": np.full((300, 2), np.nan, "<f4")})
    await send_labels(tmp_path, names, [1.0] * 300, received_us=BEGIN_US + DAY_US)
    arm = look(tmp_path, BEGIN_US + DAY_US)
    assert arm["realised"]["note"].startswith("300 rows have a label, 0 beside it an answer in the log")
    assert (arm["realised"]["rows"], metrics(tmp_path, "gateway_model_metric")) == (0, {})


async def test_classes_alone_have_accuracy_judged_and_f1_told(tmp_path: Path) -> None:
    """Nothing says how many classes there are, so F1 may be of class 1 here and a mean there."""
    chances, labels = draw(1000)
    said = (chances >= 0.5).astype(np.int64)
    outputs = {"out.c": Column(said), "pred_class": Column(said)}
    profile = build_profile("homes", "1", {"f.x": chances}, outputs, created_at=1.0, source="test")
    rows = labelled_columns(Column(labels), outputs, find_outputs({}))
    assert rows is not None
    made = build_baseline(rows, "test", rng=np.random.default_rng(0))
    ProfileFiles(tmp_path).save(replace(profile, baseline=made))
    names = await log_answers(tmp_path, spread(1000), {"c": said})
    await send_labels(tmp_path, names, labels.tolist(), received_us=BEGIN_US + DAY_US)
    arm = look(tmp_path, BEGIN_US + DAY_US)
    assert states(arm, "realised") == {"accuracy": "ok", "f1": None}
    assert arm["estimated"]["note"] == "answers carry no confidence"
