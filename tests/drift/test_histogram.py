"""Histograms of reports: the real shape, each value where it lies, and nothing lost."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gateway.drift.report.feature_table import _report
from gateway.drift.report.figure import _bars, histogram
from gateway.drift.report.report import FeatureReport
from gateway.drift.report.span import Span
from gateway.drift.report.survey import Survey
from gateway.drift.statistics.building import build_feature
from gateway.drift.statistics.column import as_column
from gateway.drift.statistics.verdict import DriftRule, judge

Floats = npt.NDArray[np.float64]


def report_of(reference: Floats, window: Floats) -> FeatureReport:
    feature = build_feature("x", "f.x", reference)
    counts = feature.bins.count(window)
    span = Span(0, 1_000_000)
    rows = np.array([len(window)], np.int64)
    survey = Survey(
        len(window), (span,), rows, rows.astype(float), {"x": counts[None, :]}, {"x": as_column("x", window)},
        np.zeros(len(window), np.int64),
    )  # fmt: skip
    (verdict,) = judge([feature], {"x": counts}, DriftRule())
    return _report(feature, survey, verdict, [], None)


def test_a_bell_is_a_bell_and_what_became_wider_is_lower_in_the_middle() -> None:
    rng = np.random.default_rng(0)
    report = report_of(rng.normal(size=20_000), rng.normal(scale=2.0, size=20_000))
    bars = _bars(report)
    middle, third = bars[len(bars) // 2], bars[len(bars) // 8]
    assert middle.reference > 3 * third.reference
    assert middle.window < 0.7 * middle.reference
    assert third.window > third.reference
    assert report.verdict.direction == "wider"


@pytest.mark.parametrize(("scale", "shift", "words"), [(0.5, 0, "narrower"), (1, 0.8, "higher"), (1, -0.8, "lower")])
def test_the_direction_is_that_of_the_change(scale: float, shift: float, words: str) -> None:
    rng = np.random.default_rng(1)
    report = report_of(rng.normal(size=20_000), rng.normal(shift, scale, size=5000))
    assert report.verdict.direction == words


def test_a_single_value_stands_where_it_lies() -> None:
    rng = np.random.default_rng(0)
    values = np.where(rng.random(20_000) < 0.3, 0.0, rng.normal(size=20_000))
    bars = _bars(report_of(values, values))
    tallest = max(range(len(bars)), key=lambda place: bars[place].reference)
    assert "with = 0" in bars[tallest].label
    assert abs(tallest - len(bars) / 2) <= 1
    assert [bar.mark for bar in bars] == [bar.mark for bar in sorted(bars, key=lambda bar: float(bar.mark))]


def test_what_is_missing_has_a_bar_of_its_own() -> None:
    rng = np.random.default_rng(0)
    window = np.where(rng.random(2000) < 0.2, np.nan, rng.normal(size=2000))
    bars = _bars(report_of(rng.normal(size=2000), window))
    assert (bars[-1].label, bars[-1].reference) == ("missing", 0.0)
    assert bars[-1].window == pytest.approx(0.2, abs=0.03)


NUMBERS = arrays(np.float64, st.integers(1, 60), elements=st.floats(allow_nan=True, allow_infinity=True))


@example(np.array([7.5]), np.array([7.5]))
@example(np.full(9, 7.5), np.full(9, 8.0))
@example(np.full(9, np.nan), np.array([1.0]))
@example(np.array([-1.7e308, 1.7e308]), np.array([0.0]))
@example(np.array([0.5, 1.0, -1e292, 2.0, 0.0, 1.79769313e308]), np.array([0.0]))
@given(NUMBERS, NUMBERS)
def test_bars_hold_every_row(reference: Floats, window: Floats) -> None:
    report = report_of(reference, window)
    if not report.bounds:
        return  # few different numbers are categories
    bars = _bars(report)
    assert sum(bar.reference for bar in bars) == pytest.approx(1.0)
    assert sum(bar.window for bar in bars) == pytest.approx(1.0)
    assert "<svg" in histogram(report)
