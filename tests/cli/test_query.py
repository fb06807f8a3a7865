"""gateway log query: its forms, and what it refuses."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from gateway.cli.app import app
from tests.drift.lakes import START_US, write_labels, write_rows


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    scores = np.array([[0.25, 0.75]] * 3, "<f4")
    texts = np.array(["a", "b|[c]", "ü"], object)
    ids = write_rows(folder, START_US + np.arange(3), {"x": np.ones((3, 2), "<f4"), "t": texts}, {"p": scores})
    write_labels(folder, ids[:2], [1.0, 0.0], [START_US] * 2)
    return folder


def ask(data_dir: Path, sql: str, *words: str, text: str | None = None) -> Result:
    return CliRunner().invoke(app, ["log", "query", sql, "--data-dir", str(data_dir), *words], input=text)


@pytest.mark.parametrize(
    "words", [["log", "query", "SELECT 1"], ["drift", "report", "m", "--window", "7d", "--out", "x.html"]]
)
def test_a_data_directory_that_is_not_there_is_no_empty_log(tmp_path: Path, words: list[str]) -> None:
    result = CliRunner().invoke(app, [*words, "--data-dir", str(tmp_path / "nosuch")])
    assert result.exit_code == 1
    assert "there is no data directory" in result.output


def test_a_table_for_people(data_dir: Path) -> None:
    result = ask(data_dir, 'SELECT "f.t" AS town, pred_score, pred_class FROM predictions ORDER BY ts')
    assert result.exit_code == 0, result.output
    assert next(line.split() for line in result.output.splitlines() if line.strip()) == [
        "town",
        "pred_score",
        "pred_class",
    ]
    assert "b|[c]" in result.output
    assert "0.75" in result.output


def test_csv_json_and_lines_for_programs(data_dir: Path) -> None:
    sql = """SELECT ts, "f.t" AS town, [1, NULL] AS list, is_shadow, boot, 1.5::DECIMAL(3, 1) AS d,
             'nan'::DOUBLE AS nan, NULL AS none, {'a': 1} AS struct FROM predictions ORDER BY ts LIMIT 2"""
    one = {
        "ts": "2026-10-01T00:00:00Z", "town": "a", "list": [1, None], "is_shadow": False, "d": "1.5", "nan": None,
        "none": None, "struct": {"a": 1},
    }  # fmt: skip
    records = json.loads(ask(data_dir, sql, "-o", "json").output)
    assert len(records[0].pop("boot")) == 32
    assert records[0] == one
    assert len(records) == 2
    lines = ask(data_dir, sql, "-o", "jsonl").output.splitlines()
    assert [json.loads(line)["town"] for line in lines] == ["a", "b|[c]"]
    table = list(csv.DictReader(io.StringIO(ask(data_dir, sql, "-o", "csv").output)))
    assert (table[0]["town"], table[0]["list"], table[0]["none"]) == ("a", "[1, null]", "")
    assert ask(data_dir, "SELECT 1 AS a WHERE false", "-o", "json").output == "[]\n"


def test_labels_are_joined_and_sql_comes_from_standard_input(data_dir: Path) -> None:
    sql = """SELECT count(*) AS rows, count(label_num) AS labelled, avg(label_num) AS share
             FROM predictions LEFT JOIN labels USING (model, request_hash, row_index)"""
    result = ask(data_dir, "-", "-o", "json", "--model", "homes", text=sql)
    assert json.loads(result.output) == [{"rows": 3, "labelled": 2, "share": 0.5}]


def test_a_long_table_is_cut_and_says_so(data_dir: Path) -> None:
    result = ask(data_dir, "SELECT * FROM range(1500)")
    assert "more than 1000 rows" in result.output
    assert "1001" not in result.output
    assert len(ask(data_dir, "SELECT * FROM range(1500)", "-o", "csv").output.splitlines()) == 1501


@pytest.mark.parametrize(
    ("sql", "words"),
    [("DROP VIEW predictions", "allowed is one SELECT"), ("SELECT nothing FROM predictions", "nothing"),
     ("SELECT * FROM read_text('/etc/hostname')", "Cannot access file")],
)  # fmt: skip
def test_what_is_no_query_of_the_log_is_refused(data_dir: Path, sql: str, words: str) -> None:
    result = ask(data_dir, sql)
    assert result.exit_code == 2
    assert words in result.output
    assert "Traceback" not in result.output


def test_a_data_directory_without_a_log_has_no_rows(tmp_path: Path) -> None:
    assert json.loads(ask(tmp_path, "SELECT count(*) AS n FROM predictions", "-o", "json").output) == [{"n": 0}]


@pytest.mark.parametrize("command", [("log", "query", "SELECT 1"), ("replay", "m", "--version", "1")])
def test_without_the_extra_it_says_what_to_install(tmp_path: Path, command: tuple[str, ...]) -> None:
    """A folder that comes first and has no duckdb in it stands for an installation without the extra."""
    (tmp_path / "duckdb.py").write_text("raise ModuleNotFoundError(\"No module named 'duckdb'\", name='duckdb')")
    program = "from gateway.cli import main; main()"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(tmp_path), os.environ.get("PYTHONPATH", "")))}
    words = [sys.executable, "-c", program, *command]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 2
    assert "pip install 'model-serving-gateway[analysis]'" in done.stderr
