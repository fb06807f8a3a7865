"""p-values and intervals against SciPy and against what they promise."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import special, stats

from gateway.drift.statistics import significance


@settings(max_examples=300, deadline=None)
@example(1, 0.0)
@given(st.integers(1, 400), st.floats(0.0, 2000.0))
def test_the_tail_of_chi2_is_scipys(freedom: int, statistic: float) -> None:
    expected = stats.chi2.sf(statistic, freedom)
    assert significance.chi2_tail(statistic, freedom) == pytest.approx(expected, rel=1e-8, abs=1e-14)


@settings(max_examples=200, deadline=None)
@given(st.floats(0.05, 500.0), st.floats(0.0, 1000.0))
def test_the_tail_of_gamma_is_scipys(a: float, x: float) -> None:
    assert significance.gamma_tail(a, x) == pytest.approx(special.gammaincc(a, x), rel=1e-7, abs=1e-13)


@settings(deadline=None)
@example([(10, 10)] * 2)
@given(st.lists(st.tuples(st.integers(10, 500), st.integers(10, 500)), min_size=2, max_size=12))
def test_full_tables_have_scipys_p(cells: list[tuple[int, int]]) -> None:
    table = np.array(cells).T
    if stats.contingency.expected_freq(table).min() < 5:
        return
    result, expected = significance.chi2_test(table[0], table[1]), stats.chi2_contingency(table, correction=False)
    assert result.statistic == pytest.approx(expected.statistic)
    assert result.freedom == expected.dof
    assert result.p == pytest.approx(expected.pvalue, rel=1e-6, abs=1e-14)


def test_rare_cells_are_taken_together() -> None:
    reference = np.array([5000, 5000] + [3] * 100)
    result = significance.chi2_test(reference, np.array([150, 150] + [0] * 100))
    assert result.freedom == 2  # the hundred rare ones are one cell
    assert significance.chi2_test(np.array([5, 0]), np.array([7, 0])).p == 1.0
    assert significance.chi2_test(np.array([0, 0]), np.array([7, 0])).p == 1.0


@settings(deadline=None)
@example([0.0])
@example([1.0])
@example([0.5] * 9)
@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=50))
def test_benjamini_hochberg_is_scipys(p_values: list[float]) -> None:
    result = significance.benjamini_hochberg(p_values)
    assert result == pytest.approx(stats.false_discovery_control(p_values))


def test_no_tests_have_no_p() -> None:
    assert significance.benjamini_hochberg([]).size == 0


@settings(deadline=None)
@example(0, 1)
@example(1, 1)
@example(300, 300)
@given(st.integers(0, 300), st.integers(1, 300))
def test_wilson_is_scipys(hits: int, rows: int) -> None:
    hits = min(hits, rows)
    expected = stats.binomtest(hits, rows).proportion_ci(0.95, method="wilson")
    assert tuple(significance.wilson(hits, rows)) == pytest.approx((expected.low, expected.high), abs=1e-6)


@settings(deadline=None)
@example(0, 1, 0, 1, 2.0)
@example(300, 300, 300, 300, 2.0)
@given(st.integers(0, 300), st.integers(1, 300), st.integers(0, 300), st.integers(1, 300), st.floats(0.5, 5.0))
def test_the_least_difference_is_the_nearer_end_of_newcombes_interval(
    before: int, m: int, now: int, n: int, z: float
) -> None:
    before, now = min(before, m), min(now, n)
    low, high = significance.newcombe(before, m, now, n, z)
    least = float(significance.least_difference([before], m, [now], n, z)[0])
    assert least == pytest.approx(0.0 if low <= 0 <= high else min(abs(low), abs(high)))
    assert 0.0 <= least <= abs(now / n - before / m) + 1e-12
    assert significance.least_difference([before], 0, [now], n, z).tolist() == [0.0]


@given(st.floats(1e-6, 1 - 1e-6))
def test_the_normal_quantile_is_scipys(share: float) -> None:
    assert significance.normal_quantile(share) == pytest.approx(stats.norm.ppf(share), rel=1e-9, abs=1e-12)


def test_newcombe_is_the_published_example() -> None:
    """Newcombe 1998, table II (a): 56 of 70 against 48 of 80."""
    result = significance.newcombe(48, 80, 56, 70)
    assert (round(result.low, 4), round(result.high, 4)) == (0.0524, 0.3339)


@settings(deadline=None)
@example(0, 1, 0, 1)
@example(60, 60, 60, 60)
@given(st.integers(0, 60), st.integers(1, 400), st.integers(0, 60), st.integers(1, 400))
def test_shares_are_compared_exactly_where_counts_are_small(a: int, m: int, b: int, n: int) -> None:
    a, b = min(a, m), min(b, n)
    result = significance.share_test(a, m, b, n)
    table = [[b, n - b], [a, m - a]]
    if stats.contingency.expected_freq(np.maximum(table, 1e-9)).min() >= 24:
        return
    one_sided = min(stats.fisher_exact(table, alternative=side).pvalue for side in ("less", "greater"))
    assert result == pytest.approx(min(2 * one_sided, 1.0), rel=1e-6, abs=1e-12)


def test_large_shares_are_compared_by_the_normal_law() -> None:
    table = [[300, 9700], [200, 9800]]
    expected = stats.chi2_contingency(table, correction=False).pvalue
    assert significance.share_test(200, 10_000, 300, 10_000) == pytest.approx(expected, rel=1e-9)
    assert significance.share_test(0, 0, 3, 10) == 1.0


@settings(deadline=None)
@given(st.floats(0.0, 1.0), st.integers(20, 5000), st.integers(20, 5000))
def test_ks_p_is_near_scipys_for_samples_of_some_size(distance: float, n: int, m: int) -> None:
    expected = stats.kstwobign.sf(distance * np.sqrt(n * m / (n + m)))
    assert significance.ks_p(distance, n, m) == pytest.approx(expected, abs=0.08)


def test_p_values_are_uniform_where_nothing_changed() -> None:
    rng = np.random.default_rng(5)
    pairs = zip(
        rng.multinomial(20_000, [0.05] * 20, size=2000), rng.multinomial(500, [0.05] * 20, size=2000), strict=True
    )
    result = np.array([significance.chi2_test(a, b).p for a, b in pairs])
    assert stats.kstest(result, "uniform").pvalue > 0.001
