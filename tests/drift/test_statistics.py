"""Distances: closed forms, SciPy as the oracle, and what must hold for any counts."""

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats
from scipy.spatial.distance import jensenshannon

from gateway.drift.statistics import distance as statistics
from gateway.drift.statistics.distance import Counts, Floats
from gateway.drift.statistics.statistic import STATISTICS

DISTANCES = {name: one.distance for name, one in STATISTICS.items() if one.distance is not None}

counts = st.integers(2, 30).flatmap(
    lambda bins: st.tuples(
        arrays(np.int64, bins, elements=st.integers(0, 10_000)), arrays(np.int64, bins, elements=st.integers(0, 10_000))
    ).filter(lambda pair: bool(pair[0].sum() and pair[1].sum()))
)
samples = arrays(np.float64, st.integers(1, 60), elements=st.floats(-1e6, 1e6))


def test_psi_of_two_bins_is_the_closed_form() -> None:
    reference, current = np.array([500, 500]), np.array([800, 200])
    p, q = 500.5 / 1001, 800.5 / 1001
    assert statistics.psi(reference, current) == pytest.approx(2 * (q - p) * math.log(q / (1 - q)) / 2, abs=1e-12)


def test_the_vanished_carrier_of_the_reference_table() -> None:
    """A share of 7 % that goes to another carrier: the largest difference stays below 0.1, PSI does not."""
    reference, current = np.array([700, 850, 8450]), np.array([0, 1550, 8450])
    assert statistics.l_infinity(reference, current) == pytest.approx(0.07)
    assert statistics.psi(reference, current) > 0.5
    assert statistics.tvd(reference, current) == pytest.approx(0.07)


@settings(deadline=None)
@given(counts)
def test_distances_are_zero_for_equal_shares_symmetric_and_bounded(pair: tuple[Counts, Counts]) -> None:
    a, b = pair
    for distance in (statistics.js_distance, statistics.hellinger, statistics.tvd, statistics.l_infinity):
        assert distance(a, a * 3) == pytest.approx(0.0, abs=1e-7)
        assert distance(a, b) == pytest.approx(float(distance(b, a)), abs=1e-9)
        assert 0.0 <= distance(a, b) <= 1.0 + 1e-12
    assert statistics.psi(a, a) == pytest.approx(0.0, abs=1e-12)
    assert statistics.psi(a, b) == pytest.approx(float(statistics.psi(b, a)))


@pytest.mark.parametrize("of", DISTANCES)
@settings(deadline=None)
@given(pair=counts)
def test_every_distance_of_the_table_compares_many_windows_at_once(of: str, pair: tuple[Counts, Counts]) -> None:
    a, b = pair
    distance = DISTANCES[of]
    assert distance(a, np.array([a, b], np.float64)) == pytest.approx(
        [float(distance(a, a)), float(distance(a, b))], abs=1e-9
    )
    assert distance(np.append(a, 0), np.append(b, 0)) == pytest.approx(float(distance(a, b)), abs=1e-9)


@settings(deadline=None)
@given(counts, st.randoms(use_true_random=False))
def test_the_order_of_bins_does_not_matter_and_empty_bins_are_no_bins(
    pair: tuple[Counts, Counts], random: object
) -> None:
    a, b = pair
    order = np.arange(len(a))
    random.shuffle(order)  # type: ignore[attr-defined]
    for distance in (statistics.psi, statistics.debiased_psi, statistics.js_distance, statistics.tvd):
        assert distance(a[order], b[order]) == pytest.approx(float(distance(a, b)))
        padded = np.append(a, [0, 0]), np.append(b, [0, 0])
        assert distance(*padded) == pytest.approx(float(distance(a, b)))


@settings(deadline=None)
@given(counts)
def test_distances_agree_with_scipy(pair: tuple[Counts, Counts]) -> None:
    a, b = pair
    p, q = a / a.sum(), b / b.sum()
    assert statistics.js_distance(a, b) == pytest.approx(jensenshannon(p, q, base=2), abs=1e-6)
    places = np.arange(len(a), dtype=np.float64) ** 1.5
    expected = stats.wasserstein_distance(places, places, p, q)
    assert statistics.wasserstein_binned(a, b, places) == pytest.approx(expected, abs=1e-9)


@settings(deadline=None)
@example(np.zeros(1), np.zeros(1))
@example(np.ones(9), np.ones(9))
@given(samples, samples)
def test_exact_distances_of_samples_agree_with_scipy(a: Floats, b: Floats) -> None:
    if len(a) > 1 and len(b) > 1:  # SciPy divides by zero where both are one value
        assert statistics.ks_distance(a, b) == pytest.approx(stats.ks_2samp(a, b, method="asymp").statistic)
    scale = float(np.abs(np.concatenate([a, b])).max()) or 1.0
    expected = stats.wasserstein_distance(a, b)
    assert statistics.wasserstein(a, b) == pytest.approx(expected, abs=1e-9 * scale)


@settings(deadline=None)
@example(np.zeros(1), 0.0)
@example(np.ones(9), 1.0)
@given(samples, st.floats(-1e3, 1e3))
def test_a_shift_is_as_far_as_it_is_long(values: Floats, shift: float) -> None:
    assert statistics.wasserstein(values, values + shift) == pytest.approx(abs(shift), abs=1e-6)
    assert statistics.ks_distance(values, values) == 0.0


def test_an_empty_sample_is_refused() -> None:
    with pytest.raises(ValueError, match="current sample"):
        statistics.ks_distance(np.ones(3), np.empty(0))


def test_many_windows_at_once_are_each_window_alone() -> None:
    rng = np.random.default_rng(1)
    reference, windows = rng.multinomial(9000, [0.1] * 10), rng.multinomial(300, [0.1] * 10, size=(7, 3))
    for distance in (statistics.psi, statistics.debiased_psi, statistics.js_distance, statistics.l_infinity):
        together = distance(reference, windows)
        assert together.shape == (7, 3)
        assert together[4, 2] == pytest.approx(float(distance(reference, windows[4, 2])))


@pytest.mark.parametrize("rows", [200, 1000, 5000])
def test_debiased_psi_is_zero_on_average_where_nothing_changed(rows: int) -> None:
    """Mean, spread and 99th percentile under the null, for windows of any size."""
    rng = np.random.default_rng(rows)
    shares = np.full(20, 0.05)
    reference, windows = rng.multinomial(50_000, shares, size=2000), rng.multinomial(rows, shares, size=2000)
    measured = statistics.debiased_psi(reference, windows)
    sd = float(statistics.psi_null_sd(reference[0], windows[0]))
    assert abs(measured.mean()) < 0.15 * sd
    assert measured.std() == pytest.approx(sd, rel=0.15)
    noise = 1 / rows + 1 / 50_000
    assert np.quantile(statistics.psi(reference, windows), 0.99) == pytest.approx(
        stats.chi2(19).ppf(0.99) * noise, rel=0.1
    )


def test_weights_that_are_all_the_same_lose_no_rows() -> None:
    assert statistics.effective_rows(400.0, 1600.0) == 100.0
    assert statistics.effective_rows(100.0, 100.0) == 100.0
    assert statistics.effective_rows(0.0, 0.0) == 0.0
