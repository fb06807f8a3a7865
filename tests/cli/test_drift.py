"""gateway drift report: files, exit codes, references, and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from gateway.cli.app import app
from tests.drift.lakes import DAY_US, START_US, write_labels, write_rows

ROWS = 4000


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight days from 2026-10-01; x_0 moves on the fifth. Version 1 has a profile of the first four, pinned by hand."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, 2)).astype("<f4")
    x[ROWS // 2 :, 0] += 1
    moments = START_US + np.arange(ROWS) * (8 * DAY_US // ROWS)
    chance = (1 / (1 + np.exp(-x[:, 1]))).astype("<f4")
    ids = write_rows(folder, moments, {"x": x}, {"p": np.column_stack([1 - chance, chance])})
    truth = (rng.random(ROWS) < chance).astype(float)
    write_labels(folder, ids, truth.tolist(), moments.tolist())
    pinned = CliRunner().invoke(
        app,
        [
            "profile",
            "build",
            "homes",
            "--version",
            "1",
            "--window",
            "2026-10-01..2026-10-05",
            "--data-dir",
            str(folder),
        ],
    )
    assert pinned.exit_code == 0, pinned.output
    return folder


def ask(data_dir: Path, *words: str) -> Result:
    return CliRunner().invoke(app, ["drift", "report", "homes", "--data-dir", str(data_dir), *words])


def test_a_report_is_written_as_page_and_json_and_summed_up(data_dir: Path, tmp_path: Path) -> None:
    page, document = tmp_path / "report.html", tmp_path / "report.json"
    result = ask(
        data_dir, "--reference", "2026-10-01..2026-10-05", "--window", "2026-10-05..2026-10-09", "--out", str(page),
        "--json", str(document), "--every", "12h",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "CRIT: 1 feature of 2 critical: x_0." in result.output
    assert page.read_text().startswith("<!doctype html>")
    written = json.loads(document.read_text())
    assert written["features"][0]["name"] == "x_0"
    assert len(written["features"][0]["trend"]) == 8
    assert written["performance"]["state"] == "ok"
    assert written["performance"]["estimated"]


def test_the_profile_is_the_reference_where_none_is_named(data_dir: Path) -> None:
    for words in ((), ("--reference", "profile"), ("--reference", "profile:1"), ("--versions", "1")):
        result = ask(data_dir, "--window", "2026-10-05..2026-10-09", *words)
        assert result.exit_code == 0, result.output
        assert "x_0" in result.output
        assert "CRIT" in result.output
    labelled = ask(data_dir, "--window", "2026-10-05..2026-10-09", "--labelled", "2026-10-01..2026-10-05")
    assert "no metric is worse" in labelled.output


def test_a_quiet_window_and_a_condition(data_dir: Path) -> None:
    result = ask(data_dir, "--window", "2026-10-03..2026-10-05", "--where", '"f.x_1" > -5', "--fail-on", "warn")
    assert result.exit_code == 0, result.output
    assert "No drift in any of 2 features" in result.output


def test_a_pipeline_can_fail_on_drift(data_dir: Path) -> None:
    result = ask(data_dir, "--window", "2026-10-05..2026-10-09", "--fail-on", "crit")
    assert result.exit_code == 1
    assert "the report on homes is CRIT" in result.output


def test_rows_of_a_file_are_a_reference(data_dir: Path, tmp_path: Path) -> None:
    path = tmp_path / "training.npz"
    np.savez(path, x=np.random.default_rng(1).normal(size=(3000, 2)))
    result = ask(data_dir, "--reference", str(path), "--window", "2026-10-05..2026-10-09")
    assert result.exit_code == 0, result.output
    assert "critical: x_0" in result.output


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("--window", "yesterday"), 2, "no date or time"),
        (("--window", "2026-10-05", "--where", "1; DROP"), 2, "where"),
        (("--window", "2026-10-05", "--reference", "profile:x"), 2, "profile:REVISION"),
        (("--window", "2026-10-05", "--reference", "profile:7"), 1, "revision 7"),
        (("--window", "2026-10-05", "--reference", "no.csv"), 2, "no.csv"),
        (("--window", "2026-10-05", "--every", "often"), 2, "length of time"),
        (("--window", "2026-10-05", "--split", "a"), 2, "--split"),
        (("--window", "2026-10-05", "--fail-on", "ever"), 2, "--fail-on"),
        (("--window", "2025-01-01", "--reference", "profile"), 1, "no logged rows"),
        (("--window", "2026-10-05", "--versions", "1,2", "--split", "1=1,3=1"), 2, "split"),
        (("--window", "2026-10-05", "--out", "/no/such/folder/x.html"), 2, "no folder '/no/such/folder'"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_told_with_the_right_code(
    data_dir: Path, words: tuple[str, ...], code: int, says: str
) -> None:
    result = ask(data_dir, *words)
    assert result.exit_code == code, result.output
    assert says in result.output
    assert "Traceback" not in result.output


def test_without_a_profile_it_says_how_to_get_one(tmp_path: Path) -> None:
    result = ask(tmp_path)
    assert result.exit_code == 1
    assert "gateway profile build" in result.output
