"""MMD against its definition, and the test's error rates."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import lfilter

from gateway.drift.statistics.mmd import Mmd, median_width, mmd, own_windows, squared_distances
from gateway.drift.statistics.time_blocks import BlockedRows


def by_definition(left: np.ndarray, right: np.ndarray, sigma: float) -> float:
    def kernel(one: np.ndarray, other: np.ndarray) -> float:
        return float(np.exp(-((one - other) ** 2).sum() / (2 * sigma**2)))

    m, n = len(left), len(right)
    same = sum(kernel(left[i], left[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    same += sum(kernel(right[i], right[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    return same - 2 * sum(kernel(a, b) for a in left for b in right) / (m * n)


def of_rows(left: np.ndarray, right: np.ndarray, *, rng: np.random.Generator, **options: int) -> Mmd:
    return mmd(BlockedRows.independent(left), BlockedRows.independent(right), rng=rng, **options)


def in_order(left: np.ndarray, right: np.ndarray, *, rng: np.random.Generator) -> Mmd:
    return mmd(BlockedRows.in_order(left), BlockedRows.in_order(right), rng=rng, permutations=199, max_rows=400)


def autoregressive(rows: int, memory: float, rng: np.random.Generator) -> np.ndarray:
    """Four numbers of variance 1 that each remember the one before. Shapes: [rows, 4]."""
    noise = rng.normal(size=(rows, 4)) * np.sqrt(1 - memory**2)
    noise[0] = rng.normal(size=4)
    return np.asarray(lfilter([1.0], [1.0, -memory], noise, axis=0))


@given(st.integers(2, 12), st.integers(2, 12), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_equals_the_double_sum(m: int, n: int, dimensions: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    left, right = rng.normal(size=(m, dimensions)), rng.normal(1.0, 2.0, size=(n, dimensions))
    result = of_rows(left, right, rng=rng, permutations=5)
    cut = mmd(BlockedRows.in_order(left), BlockedRows.in_order(right), rng=rng, permutations=5)
    assert cut.squared == pytest.approx(result.squared, abs=1e-12)
    assert result.squared == pytest.approx(by_definition(left, right, result.sigma), abs=1e-9)
    assert result.sigma == pytest.approx(median_width(squared_distances(*[np.concatenate([left, right])] * 2)))
    assert (result.reference_rows, result.current_rows) == (m, n)


def test_finds_a_small_shift_in_many_dimensions_and_nothing_where_nothing_is() -> None:
    rng = np.random.default_rng(7)
    reference = rng.normal(size=(1000, 384))
    assert of_rows(reference, rng.normal(0.05, 1.0, size=(1000, 384)), rng=rng).p < 0.05
    assert of_rows(reference, rng.normal(size=(1000, 384)), rng=rng).p > 0.05


def test_false_alarms_are_as_many_as_the_level_says() -> None:
    rng = np.random.default_rng(11)
    alarms = sum(
        of_rows(rng.normal(size=(40, 3)), rng.normal(size=(60, 3)), rng=rng, permutations=99).p <= 0.05
        for _ in range(400)
    )
    # Binomial(400, 0.05): below 8 or above 36 with probability 1e-3.
    assert 8 <= alarms <= 36


def test_the_same_seed_gives_the_same_answer_and_rows_are_bounded() -> None:
    data = np.random.default_rng(3).normal(size=(5000, 4))
    result = [of_rows(data, data + 0.1, rng=np.random.default_rng(5), max_rows=200) for _ in range(2)]
    assert result[0] == result[1]
    assert (result[0].reference_rows, result[0].current_rows) == (200, 200)


def test_equal_rows_are_no_shift() -> None:
    same = np.ones((10, 2))
    result = of_rows(same, same, rng=np.random.default_rng(0))
    assert (result.sigma, result.p) == (0.0, 1.0)
    assert result.squared == pytest.approx(0.0)


def test_mostly_equal_rows_still_have_a_width() -> None:
    rows = np.zeros((40, 1))
    rows[:5] = 1.0
    other = np.ones((40, 1))
    result = of_rows(rows, other, rng=np.random.default_rng(0))
    assert result.sigma > 0
    assert result.p < 0.05


@pytest.mark.parametrize(
    ("reference", "current", "words"),
    [
        (np.zeros((1, 2)), np.zeros((5, 2)), "reference has shape"),
        (np.zeros((5, 2)), np.zeros(5), "current has shape"),
        (np.zeros((5, 2)), np.zeros((5, 3)), "3"),
        (np.full((5, 2), np.nan), np.zeros((5, 2)), "not finite"),
    ],
)
def test_refuses_what_it_cannot_compare(reference: np.ndarray, current: np.ndarray, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        of_rows(reference, current, rng=np.random.default_rng(0))


def test_rows_that_remember_each_other_are_no_shift_when_blocks_are_exchanged() -> None:
    """Reference and window of one process whose rows follow each other (each remembers the last 20 or so)."""
    rng = np.random.default_rng(17)
    by_row = by_block = 0
    for _ in range(60):
        series = autoregressive(4000, 0.9, rng)
        by_row += of_rows(series[:2000], series[2000:], rng=rng, permutations=199, max_rows=400).p <= 0.01
        by_block += in_order(series[:2000], series[2000:], rng=rng).p <= 0.01
    assert by_row >= 15  # the error that is avoided
    assert by_block <= 3  # Binomial(60, 0.01): above 3 with probability 3e-3


def test_exchanging_blocks_finds_a_shift_of_independent_rows() -> None:
    rng = np.random.default_rng(19)
    result = sum(
        in_order(rng.normal(size=(2000, 4)), rng.normal([0.4, 0, 0, 0], size=(2000, 4)), rng=rng).p <= 0.01
        for _ in range(20)
    )
    assert result >= 18


def test_what_lasts_as_long_as_a_window_is_told_by_the_references_own_windows() -> None:
    """The process remembers 500 rows and a window has 1000: no exchange of blocks within it shows that."""
    rng = np.random.default_rng(23)
    alarms = beyond = 0
    for _ in range(20):
        series = autoregressive(16_000, 0.996, rng)
        reference, window = series[:15_000], series[15_000:]
        result = in_order(reference, window, rng=rng)
        own = own_windows(reference, len(window) / len(reference), rng=rng)
        assert own is not None
        assert own.windows == 12
        alarms += result.p <= 0.01
        beyond += result.p <= 0.01 and result.squared > own.mean + 3 * own.sd
    assert alarms >= 8
    assert beyond <= 1


def test_own_windows_need_eight_and_rows() -> None:
    data = np.random.default_rng(0).normal(size=(1000, 2))
    assert own_windows(data, 0.2, rng=np.random.default_rng(0)) is None
    assert own_windows(data, 0.04, rng=np.random.default_rng(0)) is None
    result = own_windows(data, 0.1, rng=np.random.default_rng(0))
    assert result is not None
    assert abs(result.mean) < 3 * result.sd < 0.05
