"""gateway profile without a gateway: from files, listed, shown, refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from gateway.cli.app import app


def run(*words: str, directory: Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["profile", *words, "--data-dir", str(directory)])
    return result.exit_code, result.output


def training(directory: Path) -> Path:
    rng = np.random.default_rng(0)
    lines = [f"{a:.3f},{b},{rng.choice(['x', 'y'])}" for a, b in zip(rng.normal(size=400), range(400), strict=True)]
    path = directory / "training.csv"
    path.write_text("\n".join(["age,row,kind", *lines]))
    return path


def test_a_profile_from_a_file_is_stored_listed_and_shown(tmp_path: Path) -> None:
    path = training(tmp_path)
    words = ("build", "m", "--version", "1", "--from", str(path), "--tensor", "X", "--columns", "row,age")
    code, text = run(*words, directory=tmp_path)
    assert code == 0, text
    assert "revision 1: 400 rows from training.csv" in text
    assert run(*words, directory=tmp_path)[0] == 0
    code, text = run("list", "-o", "json", directory=tmp_path)
    assert [(one["version"], one["revision"], one["features"]) for one in json.loads(text)] == [
        ("1", 1, 2),
        ("1", 2, 2),
    ]
    code, text = run("show", "m", "--version", "1", "--revision", "1", "-o", "json", directory=tmp_path)
    features = {one["name"]: one for one in json.loads(text)["features"]}
    assert features["row"]["column"] == "f.X_0"
    assert features["age"]["least_rows"] == 200
    assert sum(features["age"]["cells"].values()) == 400


@pytest.mark.parametrize("order", ["time", "none"])
def test_a_profile_says_where_its_thresholds_come_from(tmp_path: Path, order: str) -> None:
    rng = np.random.default_rng(4)
    season = np.repeat(rng.normal(size=25), 200) + rng.normal(size=5000)
    path = tmp_path / "season.csv"
    path.write_text("\n".join(["t,same", *(f"{value:.4f},1" for value in season)]))
    words = ("build", "m", "--version", "1", "--from", str(path), "--tensor", "X", "--order", order)
    code, text = run(*words, directory=tmp_path)
    assert code == 0, text
    code, text = run("show", "m", "--version", "1", directory=tmp_path)
    assert "LIMIT FROM" in text
    (line,) = (line.split() for line in text.splitlines() if line.startswith("t "))
    code, text = run("show", "m", "--version", "1", "-o", "json", directory=tmp_path)
    (feature, _) = json.loads(text)["features"]
    assert feature["threshold_origin"] in line
    assert f"{feature['psi_threshold']:.2f}" in line
    assert feature["threshold_origin"] == "reference" or order == "none"
    assert (feature["psi_threshold"] > 0.5) == (order == "time")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("build", "m", "--version", "1"), "give one of --from, --window and --replay, not none"),
        (("build", "m", "--version", "1", "--from", "a", "--window", "7d"), "not --from and --window"),
        (("build", "m", "--version", "1", "--from", "none.csv", "--tensor", "X"), "none.csv"),
        (
            ("build", "m", "--version", "1", "--window", "7d", "--columns", "a"),
            "--columns has no meaning with --window",
        ),
        (("build", "m", "--version", "1", "--from", "a.csv", "--where", "1=1"), "--where has no meaning with --from"),
        (("build", "m", "--version", "1", "--window", "7d", "--label", "y"), "--label has no meaning with --window"),
        (
            ("build", "m", "--version", "1", "--from", "a.csv", "--label", "y", "--labelled", "7d"),
            "give one of --label and --labelled",
        ),
        (("show", "m", "--version", "1"), "has no reference profile; there are: none"),
        (("list", "m"), "model 'm' has no reference profile; there are those of: none"),
    ],
)
def test_what_cannot_be_done_is_said(words: tuple[str, ...], message: str, tmp_path: Path) -> None:
    code, text = run(*words, directory=tmp_path)
    assert code in (1, 2)
    assert message in text


def test_an_empty_list_says_where_it_looked(tmp_path: Path) -> None:
    code, text = run("list", directory=tmp_path)
    assert code == 0
    assert f"no profiles in {tmp_path}" in text.replace("\n", "")


@pytest.mark.parametrize(
    ("label", "message"),
    [("none", "has no column 'none', it has age, row, kind"), ("kind", "pred_class, pred_score or out.* beside it")],
)
def test_labels_need_a_column_and_answers_beside_it(label: str, message: str, tmp_path: Path) -> None:
    path = training(tmp_path)
    words = ("build", "m", "--version", "1", "--from", str(path), "--tensor", "X", "--label", label)
    code, text = run(*words, directory=tmp_path)
    assert code == 2
    assert message in text.replace("\n", " ")


def test_texts_as_labels_of_numbers_need_the_names_of_the_classes(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    lines = [f"{x:.3f},{1 - p:.4f},{p:.4f},{'late' if p > 0.4 else 'early'}" for x, p in rng.random((300, 2))]
    path = tmp_path / "holdout.csv"
    path.write_text("\n".join(["x,out.p_0,out.p_1,y", *lines]))
    words = ("build", "m", "--version", "1", "--from", str(path), "--tensor", "x", "--label", "y")
    code, text = run(*words, directory=tmp_path)
    assert (code, "--classes a,b,c" in text.replace("\n", " ")) == (2, True)
    code, text = run(*words, "--classes", "early,late", "-o", "json", directory=tmp_path)
    assert code == 0, text
    baseline = json.loads(text)["baseline"]
    assert baseline["classes"] == ["early", "late"]
    assert baseline["metrics"]["auc"]["value"] == pytest.approx(1.0)
    assert baseline["metrics"]["accuracy"]["value"] == pytest.approx(0.9, abs=0.05)
    assert baseline["estimates"]
