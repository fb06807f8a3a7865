"""A reference whose rows are sorted: its own windows are far apart, and must not hide drift."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from typer.testing import CliRunner

from gateway.cli.app import app
from gateway.drift.profile_files import ProfileFiles
from gateway.drift.statistics.building import build_embedding, build_feature, build_profile
from gateway.drift.statistics.calibration import RowOrder, doubt, own_limit
from gateway.drift.statistics.reference_profile import FeatureProfile
from gateway.drift.statistics.statistic import CALIBRATED, JUDGED
from gateway.drift.statistics.verdict import DriftRule, DriftState, Origin, judge, psi_threshold

RULE = DriftRule()
RNG = np.random.default_rng(4)
ROWS = 20_000
VALUES = RNG.normal(size=ROWS)
SORTED = np.sort(VALUES)
SHIFTED = RNG.normal(1.2, size=2000)  # a Kolmogorov-Smirnov distance of 0.45


def state_of(feature: FeatureProfile, values: npt.ArrayLike) -> tuple[DriftState, Origin]:
    (verdict,) = judge([feature], {feature.name: feature.bins.count(values)}, RULE)
    psi = next(one for one in verdict.evidence if one.statistic == "psi")
    return verdict.state, psi.origin


def test_a_shift_is_found_though_the_reference_is_sorted() -> None:
    feature = build_feature("x", "f.x", SORTED)
    assert feature.explained > 0.8
    assert state_of(feature, SHIFTED) == (DriftState.CRIT, Origin.BOUND)
    assert state_of(feature, RNG.normal(size=2000))[0] is DriftState.OK
    assert psi_threshold(feature, 2000, RULE) == (1.0, Origin.BOUND)
    assert "own windows" not in doubt(feature)
    assert "'x': windows of" in doubt(feature)


def test_rows_in_any_order_are_not_called_sorted() -> None:
    feature = build_feature("x", "f.x", VALUES)
    assert feature.explained < 0.01
    assert doubt(feature) == ""
    assert state_of(feature, SHIFTED)[1] in (Origin.TABLE, Origin.REFERENCE, Origin.SAMPLE)
    assert psi_threshold(feature, 2000, RULE)[0] < 0.15


@pytest.mark.parametrize("kind", ["number", "category", "text", "missing"])
def test_no_threshold_is_beyond_the_bound_of_its_statistic_whatever_the_order(kind: str) -> None:
    values: npt.NDArray[np.generic]
    if kind == "number":
        values = SORTED
    elif kind == "category":
        values = np.repeat(np.arange(4), ROWS // 4)
    elif kind == "text":
        values = np.repeat(np.array(["a", "b", "c", "d"], object), ROWS // 4)
    else:
        values = np.where(np.arange(ROWS) < ROWS // 2, np.nan, VALUES)
    feature = build_feature("x", "f.x", values)
    for one in CALIBRATED:
        for rows in (10, 200, 5000, 10**6):
            if one.thresholds is not None:
                assert own_limit(feature, one, rows).value <= one.thresholds.most
    assert any(own_limit(feature, one, 500).bounded for one in JUDGED.values() if one in CALIBRATED)
    assert doubt(feature)


def test_the_word_says_whether_the_order_counts() -> None:
    as_time = build_feature("x", "f.x", SORTED, order=RowOrder.TIME)
    assert (doubt(as_time), state_of(as_time, SHIFTED)) == ("", (DriftState.OK, Origin.REFERENCE))
    shuffled = build_feature("x", "f.x", SORTED, order=RowOrder.NONE)
    assert (doubt(shuffled), state_of(shuffled, SHIFTED)[0]) == ("", DriftState.CRIT)
    assert shuffled.explained < 0.01
    assert shuffled.counts == as_time.counts


def test_one_sorted_column_does_not_hide_the_others() -> None:
    """Rows sorted by x: y goes with x, z does not."""
    order = np.argsort(VALUES)
    columns = {"f.x": VALUES, "f.y": VALUES + RNG.normal(size=ROWS), "f.z": RNG.normal(size=ROWS)}
    profile = build_profile(
        "m", "1", {name: values[order] for name, values in columns.items()}, {}, created_at=0.0, source="test"
    )
    x, y, z = profile.features
    assert x.explained > 0.8 > y.explained > 0.05 > 0.01 > z.explained
    assert [bool(doubt(one)) for one in (x, y, z)] == [True, True, False]


def test_vectors_of_many_dimensions_without_a_direction_are_ok() -> None:
    """Components are wider on the rows that they were fitted on: those are not what a window is compared with."""
    rng = np.random.default_rng(0)
    embedding = build_embedding("in.e", rng.normal(size=(2000, 600)))
    window = embedding.project(rng.normal(size=(1000, 600)))
    counts = {
        feature.name: feature.bins.count(window[:, place])
        for feature, place in zip(embedding.features, [*range(8), 16], strict=True)
    }
    assert {verdict.state for verdict in judge(embedding.features, counts, RULE)} == {DriftState.OK}
    kept, components = np.array(embedding.sample), np.array(embedding.components)
    assert np.abs(components @ components.T - np.eye(16)).max() < 1e-3
    assert kept.std(axis=0) == pytest.approx(window[:, :16].std(axis=0), rel=0.1)


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    path = tmp_path / "training.csv"
    noise = np.random.default_rng(1).normal(size=ROWS)
    path.write_text("x,noise\n" + "".join(f"{x:.5f},{n:.5f}\n" for x, n in zip(SORTED, noise, strict=True)))
    return path


def build(csv: Path, data_dir: Path, *options: str) -> tuple[int, str]:
    words = ("profile", "build", "m", "--version", "1", "--tensor", "X")
    done = CliRunner().invoke(
        app,
        [*words, "--from", str(csv), "--data-dir", str(data_dir), *options],
    )
    return done.exit_code, done.output + (done.stderr if done.stderr_bytes else "")


def test_a_sorted_file_needs_a_word(csv: Path, tmp_path: Path) -> None:
    files = ProfileFiles(tmp_path)
    code, said = build(csv, tmp_path)
    assert (code, files.versions()) == (2, [])
    assert "looks sorted, which would hide drift" in said
    assert "'x'" in said
    assert "--order time" in said
    assert "--order none" in said
    code, said = build(csv, tmp_path, "--order", "none")
    assert (code, files.revisions("m", "1")) == (0, [1])
    code, said = build(csv, tmp_path, "--order", "time")
    assert (code, files.revisions("m", "1")) == (0, [1, 2])
    assert "reference" in said
    x, noise = files.load("m", "1").features
    assert (x.bounded, noise.bounded) == (False, False)
    assert x.explained > 0.8
    assert replace(files.load("m", "1", 1).features[0], calibration=(), explained=0.0, bounded=False) == replace(
        x, calibration=(), explained=0.0
    )
