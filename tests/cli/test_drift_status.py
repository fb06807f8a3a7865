"""gateway drift status: what the monitor has published, for people and for programs."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from gateway.cli.app import app
from tests.drift.labelled import BEGIN_US, DAY_US, log_answers, send_labels, watch
from tests.drift.logged import BEGIN_S, HOUR_S, log_rows, save_profile, watched

RNG = np.random.default_rng(3)
LABELLED_US = BEGIN_US + DAY_US


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
    other = run(data_dir, "other", "-o", "json")
    assert (other.exit_code, other.stdout) == (1, "")
    assert "nothing is known of model 'other'" in other.stderr


async def test_each_feature_has_where_its_threshold_comes_from(data_dir: Path) -> None:
    features = json.loads(run(data_dir, "flights", "-o", "json").stdout)["arms"][0]["features"]
    assert {one["origin"] for one in features} <= {"table", "sample", "reference", "bound"}
    (missing,) = (one for one in features if one["feature"] == "x_2")
    assert (missing["origin"], missing["least_rows"]) == ("sample", 200)
    shown = run(data_dir, "flights").stdout
    assert "LIMIT FROM" in shown
    (line,) = (line for line in shown.splitlines() if line.startswith("1 ") and " x_2 " in line)
    assert " sample " in line
    assert "needed" not in shown


async def test_an_arm_with_too_few_rows_says_how_many_are_needed(tmp_path: Path) -> None:
    save_profile(tmp_path, RNG.normal(size=(4000, 4)), RNG.uniform(size=4000))
    await log_rows(tmp_path, [(BEGIN_S, RNG.normal(size=(50, 4)).astype(np.float32), RNG.uniform(size=50))])
    worker, _ = watched(tmp_path, hours=1)
    worker.step()
    worker.tend(last=True)
    (tmp_path / "run").mkdir()
    (tmp_path / "published").rename(tmp_path / "run" / "published")
    features = json.loads(run(tmp_path, "flights", "-o", "json").stdout)["arms"][0]["features"]
    assert {(one["feature"], one["n"], one["least_rows"]) for one in features} >= {("x_0", 50.0, 200)}
    lines = [line for line in run(tmp_path, "flights").stdout.splitlines() if " x_0 " in line]
    assert len(lines) == 1
    assert "insufficient" in lines[0]
    assert "50 of 200 needed" in lines[0]


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


@pytest.fixture
async def performing(data_dir: Path) -> Path:
    """Beside that a model `homes` whose version 1 has enough labels, and whose version 2 has some."""
    chances = RNG.random(400)
    actual = (RNG.random(400) < chances).astype(float)
    moments = BEGIN_US + np.arange(400) * 1_000_000
    for version, rows in (("1", 400), ("2", 100)):
        outputs = {"p": np.column_stack([1 - chances, chances])[:rows].astype("<f4")}
        first = 1000 * int(version)
        names = await log_answers(data_dir, moments[:rows], outputs, version=version, first=first)
        await send_labels(data_dir, names, actual[:rows].tolist(), received_us=LABELLED_US)
    _pin(data_dir)
    worker, _ = watch(data_dir, LABELLED_US)
    worker.step()
    worker.tend(last=True)
    return data_dir


def _pin(directory: Path) -> None:
    """A profile of version 1 of `homes` from a file with what was answered and what came true."""
    chances = RNG.random(1000)
    actual = (RNG.random(1000) < chances).astype(int)
    lines = [f"{a:.3f},{1 - c:.5f},{c:.5f},{y}" for a, c, y in zip(RNG.random(1000), chances, actual, strict=True)]
    path = directory / "holdout.csv"
    path.write_text("\n".join(["x,out.p_0,out.p_1,true", *lines]))
    words = ["profile", "build", "homes", "--version", "1", "--from", str(path), "--tensor", "x", "--label", "true"]
    done = CliRunner().invoke(app, [*words, "--data-dir", str(directory)])
    assert done.exit_code == 0, done.output
    assert "1000 labelled rows (holdout.csv): accuracy 0.7" in done.output


async def test_what_labels_say_is_shown_beside_the_estimate(performing: Path) -> None:
    shown = run(performing, "homes")
    lines = [line.split() for line in shown.stdout.splitlines() if line.startswith("1 ")]
    assert [line[2] for line in lines] == ["accuracy", "f1", "log_loss", "brier", "auc"]
    # version, arm, metric, real, ±, labels, reference, change, state, estimated, ±, rows, change, state, when
    accuracy = lines[0]
    assert accuracy[5] == accuracy[11] == "400"
    assert (accuracy[8], accuracy[13]) == ("ok", "ok")
    assert abs(float(accuracy[3]) - float(accuracy[9])) < 0.1
    assert len(lines[3]) == 10  # nothing is estimated of the Brier score
    assert "homes 2 (arm stable): no metrics: 100 labels, 200 are needed" in shown.stdout
    assert "homes 2 (arm stable): no estimate: it has no profile" in shown.stdout
    assert "cannot see concept drift" in shown.stdout
    assert "homes" in run(performing).stdout
    value = json.loads(run(performing, "homes", "-o", "json").stdout)["performance"]
    assert {(one["version"], one["realised"]["rows"]) for one in value} == {("1", 400), ("2", 100)}
    assert json.loads(run(performing, "flights", "-o", "json").stdout)["performance"] == []


async def test_a_damaged_report_on_performance_hides_nothing_else(performing: Path) -> None:
    (performing / "run" / "published" / "performance.json").write_text("{")
    assert run(performing).exit_code == 0
