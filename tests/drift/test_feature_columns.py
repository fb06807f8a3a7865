"""Files that call features by their tensors, by names and by other names, read together: places for what is counted,
names for people."""

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from gateway.cli.app import app
from gateway.drift.profile_files import ProfileFiles
from gateway.drift.report.feature_columns import FeatureNaming, by_name, by_place, naming_of
from gateway.drift.report.lake_reader import Lake
from gateway.drift.report.lake_selection import Selection
from gateway.drift.report.span import Span
from gateway.drift.statistics.building import build_profile
from gateway.records.worker.record import Record
from tests.drift.lakes import DAY_US, START_US, lake_of, write_rows
from tests.drift.test_monitor import batch, compact, reference
from tests.records.test_feature_names import named
from tests.records.traffic import LABEL, SCORES, open_log

WEEK = Span(START_US, START_US + 7 * DAY_US)
ROWS = 400
PLACES = {"f.x_0": "FLOAT", "f.x_1": "FLOAT"}


def days(first: int) -> Any:
    return START_US + first * DAY_US + np.arange(ROWS) * (DAY_US // ROWS)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Version 1 without names, then with names, then with one of them corrected; version 2 has them in another order.

    Values tell the feature: an age is below 100, a fare above 1000.
    """
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    age, fare = (rng.uniform(low, low + 50, ROWS).astype("<f4") for low in (20, 1000))
    x, turned = np.column_stack([age, fare]), np.column_stack([fare, age])
    y = {"y": age}
    for day, features in enumerate([(), ("age", "fair"), ("age", "fare")]):
        ids = [f"{day}.{row}" for row in range(ROWS)]
        write_rows(folder, days(day), {"x": x}, y, features=features, names=ids)
    write_rows(folder, days(3), {"x": turned}, y, features=("fare", "age"), version="2")
    return folder


def query(data_dir: Path, sql: str) -> list[Any]:
    with Lake(lake_of(data_dir)) as lake:
        return list(lake.query(sql, model="homes").rows)


def test_a_query_finds_features_by_the_newest_names_in_all_files(data_dir: Path) -> None:
    sql = (
        'SELECT version, count("f.age"), max("f.age") < 100, min("f.fare") > 999 FROM predictions GROUP BY 1 ORDER BY 1'
    )
    assert query(data_dir, sql) == [("1", 3 * ROWS, True, True), ("2", ROWS, True, True)]
    with Lake(lake_of(data_dir)) as lake:
        shown = lake.query("SELECT * FROM predictions", model="homes").columns
    assert [name for name in shown if name.startswith("f.")] == ["f.age", "f.fare"]


def test_a_query_of_before_there_were_names_goes_on_working(data_dir: Path) -> None:
    sql = 'SELECT count("f.x_0"), max("f.x_0") < 100, count("f.age") FROM predictions WHERE version = \'1\''
    assert query(data_dir, sql) == [(3 * ROWS, True, 3 * ROWS)]


@pytest.mark.parametrize("where", ['"f.age" < 30', '"f.x_0" < 30'])
def test_conditions_may_use_names_and_places(data_dir: Path, where: str) -> None:
    with Lake(lake_of(data_dir)) as lake:
        selection = Selection("homes", WEEK, versions=("1",), where=where)
        ages = np.asarray(lake.fetch(selection, {"x": '"f.x_0"'})["x"])
        assert len(ages) > 3 * 50
        assert ages.max() < 30
        assert lake.feature_names(selection) == {"f.x_0": "age", "f.x_1": "fare"}
        kinds = lake.columns(selection)
        assert {name: kind for name, kind in kinds.items() if name.startswith("f.")} == PLACES


def test_versions_whose_features_are_in_another_order_are_compared_by_name(data_dir: Path) -> None:
    naming = FeatureNaming("1", {"f.x_0": "f.age", "f.x_1": "f.fare"})
    with Lake(lake_of(data_dir)) as lake:
        both = lake.fetch(Selection("homes", WEEK, naming=naming), {"a": '"f.x_0"', "b": '"f.x_1"'})
        assert (len(both["a"]), both["a"].max() < 100, both["b"].min() > 999) == (4 * ROWS, True, True)
        own = lake.fetch(Selection("homes", WEEK, versions=("2",)), {"a": '"f.x_0"'})
        assert own["a"].min() > 999


def report(data_dir: Path, *words: str) -> dict[str, dict[str, Any]]:
    target = data_dir / "report.json"
    every = ["drift", "report", "homes", "--json", str(target), "--data-dir", str(data_dir), *words]
    result = CliRunner().invoke(app, every)
    assert result.exit_code == 0, result.output
    return {one["name"]: one for one in json.loads(target.read_text())["features"]}


def test_profiles_of_before_and_after_say_the_same_of_all_files(data_dir: Path, tmp_path: Path) -> None:
    """An old profile has places alone; one of a window has the names of its files."""
    window = ("--window", "2026-10-01..2026-10-04")
    rng = np.random.default_rng(1)
    inputs = {"f.x_0": rng.uniform(20, 70, 4000), "f.x_1": rng.uniform(1000, 1050, 4000)}
    for names in ({}, {"f.x_0": "age", "f.x_1": "fare"}, {"f.x_0": "years", "f.x_1": "price"}):
        old = build_profile("homes", "1", inputs, {}, created_at=1.0, source="file", names=names)
        ProfileFiles(data_dir).save(old)
        features = report(data_dir, *window, "--reference", "profile")
        called = [names.get(place, place.removeprefix("f.")) for place in inputs]
        assert {features[name]["state"] for name in called} == {"ok"}
        assert {round(features[name]["verdict"]["n"]) for name in called} == {3 * ROWS}
    words = ["profile", "build", "homes", "--version", "1", "--window", "2026-10-01..2026-10-02", "-o", "json"]
    result = CliRunner().invoke(app, [*words, "--data-dir", str(data_dir), "--server", "127.0.0.1:1"])
    assert result.exit_code == 0, result.output
    features = report(data_dir, "--window", "2026-10-03..2026-10-04", "--reference", "2026-10-01..2026-10-02")
    assert {features[name]["state"] for name in ("age", "fare")} == {"ok"}
    features = report(data_dir, "--window", "2026-10-04..2026-10-05", "--reference", "2026-10-01..2026-10-04")
    assert {features[name]["state"] for name in ("age", "fare")} == {"ok"}  # version 2, by name


async def test_the_monitor_counts_rows_with_names_for_a_profile_without(tmp_path: Path) -> None:
    reference(tmp_path)
    log = open_log(tmp_path / "wal")
    (x,) = named("height,weight,girth,age")
    stream = log.stream("flights", "1", "stable", (x,), (LABEL, SCORES), "sha256:aa")
    for hour in range(4):
        at_s, values, scores = batch(hour, 400, shift=1.5)
        append_rows(stream, at_s, values, scores)
    await log.close()
    (arm,) = (await asyncio.to_thread(compact, tmp_path, 4))["arms"]
    states = {one["feature"]: one["state"] for one in arm["features"] if not one["output"]}
    assert set(states) == {f"x_{place}" for place in range(4)}
    assert set(states.values()) == {"crit"}


def append_rows(stream: Any, at_s: int, x: Any, scores: Any) -> None:
    three = np.zeros((len(x), 3), "<f4")
    three[:, 0] = scores
    outputs = (np.zeros(len(x), "<i8").tobytes(), three.tobytes())
    stream.append(
        Record(at_s * 1_000_000, str(at_s), 0, "S", 7, 42, len(x), 1, 2, 3, None, (x.astype("<f4").tobytes(),), outputs)
    )


def test_columns_that_a_file_has_under_another_meaning_are_left_out() -> None:
    naming = FeatureNaming("1", {"f.x_0": "f.age", "f.x_1": "f.fare"})
    other = {"f.y_0": "f.X_0", "f.y_1": "f.age"}  # another version, whose first feature is called like a place
    read = by_place("2", other, ["f.X_0", "f.age", "ts"], naming)
    assert dict(read.also) == {"f.x_0": "f.age", "f.y_0": "f.X_0", "f.y_1": "f.age"}
    assert read.without == {"f.X_0"}
    none = by_place("2", {}, ["f.x_0", "f.x_1"], naming)  # without names a place is all that is known
    assert (dict(none.also), none.without) == ({"f.age": "f.x_0", "f.fare": "f.x_1"}, frozenset())
    absent = by_place("2", {"f.x_0": "f.fare", "f.x_1": "f.sex"}, ["f.fare", "f.sex"], naming)
    assert "f.x_0" not in absent.also
    assert absent.also["f.x_1"] == "f.fare"


def test_nothing_changes_where_nothing_is_named() -> None:
    assert by_place("1", {}, ["f.x_0", "ts"], FeatureNaming()) == by_name({}, ["f.x_0"], {}, places=False)
    profile = build_profile("m", "1", {"f.x": np.arange(9.0)}, {}, created_at=0.0, source="s")
    assert naming_of(profile) == FeatureNaming("1", {})
