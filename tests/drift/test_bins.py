"""Bins: nothing is lost, windows add up, and the same value always falls into the same cell."""

import json

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gateway.drift.statistics.bins import NumericBins, build_categories, build_numeric, number_text
from gateway.drift.statistics.calibration import calibrated
from gateway.drift.statistics.column import Column, as_column
from gateway.drift.statistics.distance import debiased_psi
from gateway.drift.statistics.profile_document import profile_json, read_profile
from gateway.drift.statistics.reference_profile import (
    Calibration,
    EmbeddingProfile,
    FeatureKind,
    FeatureProfile,
    Profile,
)
from gateway.drift.statistics.statistic import MISSING, PSI
from gateway.errors import InvalidArgument

Floats = npt.NDArray[np.float64]
numbers = st.one_of(st.floats(-100, 100, width=32), st.sampled_from([0.0, 1.0, 7.5, np.nan, np.inf, -np.inf]))
ONE, EQUAL, NOTHING = np.array([7.5]), np.full(40, 7.5), np.full(40, np.nan)
vectors = arrays(np.float64, st.integers(1, 200), elements=numbers)
words = st.lists(st.sampled_from(["AA", "US", "DL", "WN", "ü", "", "rare"]), min_size=1, max_size=100)


@settings(max_examples=200, deadline=None)
@example(ONE, ONE, ONE)
@example(EQUAL, EQUAL, ONE)
@example(NOTHING, ONE, NOTHING)
@given(vectors, vectors, vectors)
def test_counts_of_two_windows_add_up_to_the_count_of_both(reference: Floats, a: Floats, b: Floats) -> None:
    bins = build_numeric(reference)
    together = bins.count(np.concatenate([a, b]))
    assert (bins.count(a) + bins.count(b) == together).all()
    assert together.sum() == len(a) + len(b)
    assert (together >= 0).all()
    assert bins.fold(together).sum() == together.sum()
    assert len(bins.fold(together)) == len(bins.labels)
    assert len(together) == len(bins.cells)


@settings(max_examples=100, deadline=None)
@example(ONE, EQUAL)
@example(NOTHING, ONE)
@given(vectors, vectors)
def test_many_values_are_counted_as_few_are(reference: Floats, values: Floats) -> None:
    bins = build_numeric(reference)
    times = 5000 // len(values) + 1
    assert (bins.count(np.tile(values, times)) == bins.count(values) * times).all()
    weighed = bins.count(np.tile(values, times), np.ones(len(values) * times))
    assert (weighed == bins.count(values) * times).all()


@settings(max_examples=200, deadline=None)
@example(ONE)
@example(EQUAL)
@example(NOTHING)
@given(vectors)
def test_every_value_falls_where_its_cell_says(values: Floats) -> None:
    bins = build_numeric(values)
    ends = [bins.low, *bins.edges]
    for value in values.tolist():
        (cell,) = np.flatnonzero(bins.count(np.array([value])))
        if np.isnan(value):
            assert bins.cells[cell] == "NaN"
        elif np.isinf(value):
            assert bins.cells[cell] == "infinite"
        elif value in bins.points:
            assert cell == len(bins.edges) + 3 + bins.points.index(value)
        else:
            assert cell == np.searchsorted(ends, value, side="right")


def test_values_out_of_range_are_told_and_still_belong_to_the_outermost_bins() -> None:
    bins = build_numeric(np.arange(1000.0))
    counts = bins.count(np.array([-1.0, 0.0, 999.0, 999.5, 5e9]))
    assert counts[0] == 1
    assert counts[len(bins.edges) + 2] == 2
    assert bins.special(counts)["out_of_range"] == 3
    assert bins.fold(counts)[0] == 2
    assert bins.fold(counts)[len(bins.edges)] == 3


def test_twenty_equal_bins() -> None:
    values = np.random.default_rng(0).normal(size=10_000)
    counts = build_numeric(values).count(values)
    assert (counts[1:21] == 500).all()
    assert counts[0] == counts[21:].sum() == 0


def test_a_heavy_value_has_a_cell_of_its_own() -> None:
    values = np.concatenate([np.zeros(400), np.random.default_rng(0).exponential(size=600)])
    bins = build_numeric(values)
    assert bins.points == (0.0,)
    assert bins.count(values)[-4] == 400
    assert len(bins.edges) == 11  # 60 % of the rows are worth 12 of 20 bins


def test_doubles_of_training_and_floats_of_serving_are_the_same_values() -> None:
    training = np.round(np.random.default_rng(0).uniform(size=5000), 1)
    bins = build_numeric(training)
    assert bins.precision == "f4"
    assert (bins.count(training) == bins.count(training.astype(np.float32))).all()


def test_doubles_that_float32_cannot_tell_apart_are_compared_as_doubles() -> None:
    stamps = 1.76e9 + np.arange(5000) / 100
    bins = build_numeric(stamps)
    assert bins.precision == "f8"
    assert len(bins.edges) == 19
    assert build_numeric(np.array([1.0, 1e300])).precision == "f8"


def test_null_and_nan_are_both_missing() -> None:
    bins = build_numeric(np.arange(100.0))
    counts = bins.count(np.ma.masked_array([1.0, np.nan, 3.0], mask=[True, False, False]))
    assert bins.special(counts)["missing"] == 2
    assert bins.fold(counts)[-2] == 2


def test_an_outlier_does_not_hide_a_shift() -> None:
    """Edges of the window's own data would: a single 1e6 among 20 000 rows leaves one bin for all others."""
    rng = np.random.default_rng(0)
    reference = rng.normal(size=20_000)
    bins = build_numeric(reference)
    shifted = np.append(rng.normal(0.5, size=20_000), 1e6)
    assert debiased_psi(bins.fold(bins.count(reference)), bins.fold(bins.count(shifted))) > 0.2


@settings(deadline=None)
@example(EQUAL, 1.0)
@example(NOTHING, 0.05)
@given(vectors, st.floats(0.05, 1.0))
def test_weights_are_summed_where_rows_are_counted(values: Floats, p: float) -> None:
    bins = build_numeric(values)
    weighted = bins.count(values, np.full(len(values), 1 / p))
    assert weighted == pytest.approx(bins.count(values) / p, abs=1e-9)


@settings(deadline=None)
@example([""], [""], ["ü"])
@example(["AA"] * 9, ["AA"], ["US"] * 9)
@given(words, words, words)
def test_categories_add_up_and_unknown_ones_are_told(reference: list[str], a: list[str], b: list[str]) -> None:
    bins = build_categories(np.array(reference, object), top=3)
    together = bins.count(np.array(a + b, object))
    assert (bins.count(np.array(a, object)) + bins.count(np.array(b, object)) == together).all()
    assert bins.special(together)["unseen"] == sum(word not in reference for word in a + b)
    assert bins.fold(together).sum() == len(a) + len(b)
    texts = ("AA", "US", "DL", "WN", "ü", "", "rare")
    coded = Column(np.array([texts.index(word) for word in a]), None, texts)
    assert (bins.count(coded) == bins.count(np.array(a, object))).all()


def test_where_the_tail_is_too_long_to_remember_nothing_is_called_unseen() -> None:
    bins = build_categories(np.array([f"id-{n}" for n in range(2000)], object))
    assert not bins.tail_complete
    assert bins.count(np.array(["new"], object))[-3] == 0
    assert "unseen" not in bins.special(bins.count(np.array(["new"], object)))


def test_numbers_as_categories_are_the_same_in_every_type() -> None:
    bins = build_categories(np.array([0, 1, 2, 2], np.int64))
    assert bins.categories == ("2", "0", "1")
    for kind in (np.int32, np.float32, np.float64, np.uint8):
        assert bins.count(np.array([0, 2, 2, 9], kind)).tolist() == [2, 1, 0, 0, 1, 0, 0]
    assert bins.count(np.array([0.0, np.nan])).tolist() == [0, 1, 0, 0, 0, 0, 1]
    assert bins.count(np.array(["2", "x"], object)).tolist() == [1, 0, 0, 0, 1, 0, 0]
    assert number_text(0.1) == "0.1"


def test_text_where_a_number_was_is_not_a_number() -> None:
    bins = build_numeric(np.arange(10.0))
    counts = bins.count(np.array(["7", None], object))
    assert counts[-3:].tolist() == [1, 1, 0]


@pytest.mark.parametrize("values", [np.zeros((2, 2)), np.array([1 + 2j]), np.array([{"a": 1}, "b"], object)])
def test_what_is_no_column_is_refused(values: npt.NDArray[np.generic]) -> None:
    with pytest.raises(InvalidArgument, match="'age'"):
        as_column("age", values)


def _feature(name: str, values: npt.NDArray[np.generic], kind: FeatureKind) -> FeatureProfile:
    bins = build_numeric(values) if kind is FeatureKind.NUMBER else build_categories(values)
    counts = tuple(int(count) for count in bins.count(values))
    calibration = (Calibration("psi", 200, 50, 0.01, 0.02, 0.05), Calibration("psi", 800, 12, 0.002, 0.004, 0.01))
    return FeatureProfile(
        name, f"f.{name}", kind, bins, counts, len(values), 0, 1.0, 2.0, 0.0, float("nan"), 3, calibration
    )


@settings(max_examples=30, deadline=None)
@example(ONE, [""])
@example(EQUAL, ["AA"] * 9)
@example(NOTHING, ["ü"])
@given(vectors, words)
def test_a_profile_is_its_json(values: Floats, texts: list[str]) -> None:
    features = (_feature("x", values, FeatureKind.NUMBER), _feature("ü", np.array(texts, object), FeatureKind.TEXT))
    embedding = EmbeddingProfile("e", "in.e", 2, (0.5, 0.25), ((1.0, 0.0),), ((0.125,), (3.0,)))
    profile = Profile("m", "1", 4, 1.5, "test", len(values), features, features[:1], (embedding,))
    again = read_profile(profile_json(profile))
    assert profile_json(again) == profile_json(profile)
    assert again.features[0].bins == profile.features[0].bins
    assert (again.features[0].bins.count(values) == profile.features[0].cell_counts).all()


def test_the_calibration_of_the_largest_size_that_is_not_larger() -> None:
    feature = _feature("x", np.arange(10.0), FeatureKind.NUMBER)
    sizes = [calibrated(feature, PSI, rows) for rows in (10, 200, 799, 800, 1e9)]
    assert [one.rows for one in sizes if one is not None] == [200, 200, 200, 800, 800]
    assert calibrated(feature, MISSING, 100) is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 2}', '{"format": 1, "model": "m"}'])
def test_what_is_no_profile_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        read_profile(text)


def test_counts_that_do_not_fit_the_bins_are_refused() -> None:
    document = json.loads(
        profile_json(Profile("m", "1", 1, 0.0, "", 10, (_feature("x", np.arange(10.0), FeatureKind.NUMBER),)))
    )
    document["features"][0]["counts"].append(1)
    with pytest.raises(InvalidArgument, match="'x' has"):
        read_profile(json.dumps(document))


def test_bins_without_a_number_hold_nothing() -> None:
    assert build_numeric(np.array([np.nan])) == NumericBins((), (), 0.0, 0.0)
