"""The tables of statistics and of metrics: everything that is derived from them, drawn from them."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gateway.drift.online.drift_publication import _SHARES
from gateway.drift.report.feature_table import _statistics
from gateway.drift.report.page import metric, statistic
from gateway.drift.statistics.building import build_feature
from gateway.drift.statistics.calibration import calibrated
from gateway.drift.statistics.column import as_column
from gateway.drift.statistics.performance import METRICS, MetricChange, classified, regressed
from gateway.drift.statistics.rating import rate
from gateway.drift.statistics.reference_profile import FeatureProfile
from gateway.drift.statistics.statistic import (
    CALIBRATED,
    JUDGED,
    MEAN,
    PSI,
    STATISTICS,
    ExportedAs,
    Statistic,
    Thresholds,
)
from gateway.drift.statistics.verdict import DriftRule, DriftState, Origin, judge

RULE = DriftRule()
RNG = np.random.default_rng(11)
NUMBERS = np.where(RNG.random(20_000) < 0.1, 0.0, RNG.normal(size=20_000))
NUMBERS[::50], NUMBERS[1::50] = np.nan, np.inf
NUMBER = build_feature("x", "f.x", NUMBERS)
LETTERS = RNG.choice(["a", "b", "c"], 20_000).astype(object)
LETTERS[::20] = None
TEXT = build_feature("t", "f.t", LETTERS)
FEATURES = (NUMBER, TEXT)


def documented() -> dict[str, tuple[float, float]]:
    """The thresholds as docs/drift.md has them."""
    text = Path(__file__).parents[2].joinpath("docs", "drift.md").read_text("utf-8")
    rows = text.split("| statistic | warn | crit | |")[1].split("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip() for cell in row.split("|")] for row in rows]
    return {name: (float(row[2]), float(row[3])) for row in cells for name in re.findall("`([a-z_]+)`", row[1])}


def test_the_document_has_the_thresholds_of_the_table() -> None:
    table = {name: one.thresholds for name, one in JUDGED.items()}
    assert documented() == {name: (one.warn, one.crit) for name, one in table.items() if one is not None}


@pytest.mark.parametrize("feature", FEATURES, ids=["number", "text"])
def test_each_statistic_is_judged_where_it_is_defined_and_by_its_own_thresholds(feature: FeatureProfile) -> None:
    (verdict,) = judge([replace(feature, calibration=())], {feature.name: feature.cell_counts}, RULE)
    expected = [one for one in JUDGED.values() if one.applies(feature.bins)]
    expected = [one for one in expected if one.name != "l_infinity" or feature is TEXT]
    assert [one.statistic for one in verdict.evidence] == [one.name for one in expected]
    for evidence, one in zip(verdict.evidence, expected, strict=True):
        assert one.thresholds is not None
        assert evidence.threshold >= one.thresholds.warn + evidence.error - 1e-12
        assert evidence.origin in (Origin.TABLE, Origin.SAMPLE)


@pytest.mark.parametrize("feature", FEATURES, ids=["number", "text"])
def test_a_calibrated_profile_is_judged_by_no_statistic_that_it_lacks(feature: FeatureProfile) -> None:
    """A statistic that is newer than the profile has no own windows: at 0 it would alarm for nothing."""
    for lacking in (one for one in JUDGED.values() if not one.rare):
        known = tuple(one for one in feature.calibration if one.statistic != lacking.name)
        older = replace(feature, calibration=known)
        (verdict,) = judge([older], {feature.name: feature.cell_counts}, RULE)
        assert verdict.evidence
        assert lacking.name not in {one.statistic for one in verdict.evidence}


def test_every_calibrated_statistic_is_calibrated() -> None:
    known = {one.statistic for feature in FEATURES for one in feature.calibration}
    assert known >= {one.name for one in CALIBRATED if not one.rare} | {MEAN.name, "missing", "infinite"}
    assert known <= {one.name for one in CALIBRATED}
    for one in STATISTICS.values():
        if one not in CALIBRATED:
            with pytest.raises(ValueError, match=f"{one.name!r} is not calibrated"):
                calibrated(NUMBER, one, 1000)


def test_a_statistic_has_thresholds_if_it_is_measured() -> None:
    with pytest.raises(ValueError, match="'new' has a measure or thresholds"):
        Statistic("new", "New", measure=PSI.measure)
    with pytest.raises(ValueError, match="'new' has a measure or thresholds"):
        Statistic("new", "New", thresholds=Thresholds(0.1, 0.2))
    with pytest.raises(ValueError, match="'new' is judged, expected `own`"):
        Statistic("new", "New", measure=PSI.measure, thresholds=Thresholds(0.1, 0.2))
    with pytest.raises(ValueError, match="'new' is judged, expected `gauge`"):
        Statistic("new", "New", measure=PSI.measure, thresholds=Thresholds(0.1, 0.2), own=PSI.own)


@pytest.mark.parametrize("feature", FEATURES, ids=["number", "text"])
def test_reports_print_every_statistic_that_is_defined(feature: FeatureProfile) -> None:
    values = NUMBERS[np.isfinite(NUMBERS)] if feature is NUMBER else LETTERS
    sample = as_column(feature.name, values[:2000])
    printed = _statistics(feature, feature.cell_counts, sample, sample)
    skipped = {one.name for one in JUDGED.values() if one.distance is None}  # printed as shares, or as evidence
    assert list(printed) == [
        name for name, one in STATISTICS.items() if one.applies(feature.bins) and name not in skipped
    ]
    assert all(statistic(name) == STATISTICS[name].label for name in printed)


def test_an_unknown_name_is_an_error() -> None:
    with pytest.raises(KeyError):
        statistic("energy")
    with pytest.raises(KeyError):
        metric("recall")
    with pytest.raises(KeyError):
        rate(MetricChange("recall", 0.9, 0.5, -0.5, -0.3, True, True))


def test_every_share_has_a_metric() -> None:
    assert _SHARES.keys() == {one.name for one in JUDGED.values() if one.gauge is ExportedAs.SHARE}


def test_every_metric_is_in_the_table_and_rated_by_it() -> None:
    rng = np.random.default_rng(0)
    chances, actual = rng.random(500), rng.integers(0, 2, 500)
    told = classified((chances > 0.5).astype(np.int64), actual, probabilities=np.column_stack([1 - chances, chances]))
    measured = {**told.metrics(told.counts), **(off := regressed(chances, chances + 0.1)).metrics(off.counts)}
    assert measured.keys() == METRICS.keys()
    for name, kind in METRICS.items():
        for size, state in ((0.9, DriftState.OK), (1.01, DriftState.WARN)):
            change = size * kind.warn * (-1 if kind.higher_is_better else 1)
            worse = kind.worse(change - 1e-9, change + 1e-9)
            rated = rate(MetricChange(name, 1.0, 1.0 + change, change, change, worse, True))
            assert rated is (state if kind.higher_is_better is not None else DriftState.OK)
        assert metric(name) == kind.label
