"""gateway drift status: what the monitor has published, for people and for programs."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from gateway.cli.app import app
from tests.drift.logged import BEGIN_S, HOUR_S, log_rows, save_profile, watched

RNG = np.random.default_rng(3)


def run(directory: Path, *words: str) -> Result:
    return CliRunner().invoke(app, ["drift", "status", *words, "--data-dir", str(directory)])


@pytest.fixture
async def data_dir(tmp_path: Path) -> Path:
    """Three hours in which one feature is often missing, judged by a real monitor."""
    save_profile(tmp_path, RNG.normal(size=(4000, 4)), RNG.uniform(size=4000))
    batches = []
    for hour in range(3):
        x = RNG.normal(size=(400, 4)).astype(np.float32)
        x[:60, 2] = np.nan
        batches.append((BEGIN_S + hour * HOUR_S, x, RNG.uniform(size=400)))
    await log_rows(tmp_path, batches)
    worker, _ = watched(tmp_path, hours=3)
    worker.step()
    worker.tend(last=True)
    (tmp_path / "run").mkdir()
    (tmp_path / "published").rename(tmp_path / "run" / "published")
    return tmp_path


async def test_the_worst_feature_of_each_arm_is_shown(data_dir: Path) -> None:
    shown = run(data_dir)
    assert shown.exit_code == 0
    (line,) = [line for line in shown.stdout.splitlines() if line.startswith("flights")]
    assert line.split()[2:5] == ["stable", "crit", "400"]
    assert line.split()[6:8] == ["x_2", "missing"]
    assert line.split()[-1] == "3"
    assert "IT IS SILENT" in shown.stdout  # the log is of another day


async def test_a_model_is_shown_with_all_its_features(data_dir: Path) -> None:
    shown = run(data_dir, "flights")
    lines = [line.split() for line in shown.stdout.splitlines() if line.startswith("1 ")]
    assert {line[2] for line in lines} == {"x_0", "x_1", "x_2", "x_3", "pred_class", "pred_score"}
    value = json.loads(run(data_dir, "flights", "-o", "json").stdout)
    assert value["arms"][0]["features"][0]["value"] == pytest.approx(0.15)
    assert json.loads(run(data_dir, "other", "-o", "json").stdout)["arms"] == []


@pytest.mark.parametrize(
    ("content", "message"), [(None, "is not there"), ("{", "cannot be read"), ("{}", "cannot be read")]
)
def test_what_cannot_be_shown_is_said(content: str | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "run" / "published").mkdir(parents=True)
        (tmp_path / "run" / "published" / "drift.json").write_text(content)
    shown = run(tmp_path)
    assert shown.exit_code == 1
    assert message in shown.output.replace("\n", " ")
