"""gateway profile build --window of models that are not the usual classifier."""

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from gateway.cli.app import app
from gateway.drift.profile_files import ProfileFiles
from tests.api.stand import standing
from tests.drift.lakes import START_US, write_rows
from tests.models import affine, write_version

WINDOW = "2026-10-01..2026-10-02"


def build(directory: Path, *options: str) -> tuple[int, str]:
    words = ["profile", "build", "homes", "--version", "1", "--window", WINDOW, "-o", "json"]
    result = CliRunner().invoke(app, [*words, "--data-dir", str(directory), *options])
    return result.exit_code, result.stdout


def test_a_regressor_with_two_outputs_has_a_profile_of_each(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows, outputs = rng.normal(size=(600, 2)).astype(np.float32), rng.normal(size=(2, 600)).astype(np.float32)
    times = START_US + np.arange(600) * 1_000_000
    write_rows(tmp_path, times, {"x": rows}, {"low": outputs[0], "high": outputs[1] + 7})
    code, text = build(tmp_path)
    assert code == 0, text
    told = {one["name"]: one for one in json.loads(text)["outputs"]}
    assert {"out.low", "out.high"} <= told.keys()
    assert told["out.high"]["mean"] == pytest.approx(7, abs=0.2)
    assert all(one["n"] > 0 for one in told.values())
    profile = ProfileFiles(tmp_path).load("homes", "1")
    assert {one.name for one in profile.outputs} == told.keys()


def test_embeddings_of_more_rows_than_are_kept_have_a_profile(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    rows = 6000
    times = START_US + np.arange(rows) * 1_000_000
    inputs = {"x": rng.normal(size=rows).astype(np.float32), "e": rng.normal(size=(rows, 520)).astype(np.float32)}
    write_rows(tmp_path, times, inputs, {"y": rng.normal(size=rows).astype(np.float32)})
    code, text = build(tmp_path)
    assert code == 0, text
    profile = ProfileFiles(tmp_path).load("homes", "1")
    assert (profile.rows, profile.embeddings[0].rows) == (rows, rows)
    assert [len(profile.features), len(profile.embeddings[0].centre)] == [1, 520]


async def test_features_have_the_names_of_the_configuration(tmp_path: Path) -> None:
    """As in profiles of files; where no gateway answers they are called as the log calls them."""
    rows = np.random.default_rng(2).normal(size=(600, 2)).astype(np.float32)
    times = START_US + np.arange(600) * 1_000_000
    await asyncio.to_thread(write_rows, tmp_path, times, {"x": rows}, {"y": rows})
    named = 'parameters { key: "feature_names" value { string_value: "rooms, age" } }'
    write_version(tmp_path / "models", "homes", "1", affine(features=2), config=named)
    code, text = await asyncio.to_thread(build, tmp_path, "--server", "127.0.0.1:1")
    assert code == 0, text
    assert [one["name"] for one in json.loads(text)["features"]] == ["x_0", "x_1"]
    (tmp_path / "profiles").rename(tmp_path / "away")  # without a profile a report asks the server for the names
    async with standing(tmp_path / "models", tmp_path / "worker", probes=tmp_path / "probes") as stand:
        words = [
            "drift",
            "report",
            "homes",
            "--reference",
            WINDOW,
            "--window",
            WINDOW,
            "--json",
            str(tmp_path / "r.json"),
        ]
        words += ["--data-dir", str(tmp_path), "--server", stand.address]
        done = await asyncio.to_thread(CliRunner().invoke, app, words)
        code, text = await asyncio.to_thread(build, tmp_path, "--server", stand.address)
    assert done.exit_code == 0, done.output
    names = {one["name"] for one in json.loads((tmp_path / "r.json").read_text())["features"]}
    assert {"rooms", "age"} <= names
    assert code == 0, text
    assert [(one["name"], one["column"]) for one in json.loads(text)["features"]] == [
        ("rooms", "f.x_0"),
        ("age", "f.x_1"),
    ]
