"""MMD against its definition, and the test's error rates."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.drift.mmd import median_width, mmd, squared_distances


def by_definition(left: np.ndarray, right: np.ndarray, sigma: float) -> float:
    def kernel(one: np.ndarray, other: np.ndarray) -> float:
        return float(np.exp(-((one - other) ** 2).sum() / (2 * sigma**2)))

    m, n = len(left), len(right)
    same = sum(kernel(left[i], left[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    same += sum(kernel(right[i], right[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    return same - 2 * sum(kernel(a, b) for a in left for b in right) / (m * n)


@given(st.integers(2, 12), st.integers(2, 12), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_equals_the_double_sum(m: int, n: int, dimensions: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    left, right = rng.normal(size=(m, dimensions)), rng.normal(1.0, 2.0, size=(n, dimensions))
    found = mmd(left, right, rng=rng, permutations=5)
    assert found.squared == pytest.approx(by_definition(left, right, found.sigma), abs=1e-9)
    assert found.sigma == pytest.approx(median_width(squared_distances(*[np.concatenate([left, right])] * 2)))
    assert (found.reference_rows, found.current_rows) == (m, n)


def test_finds_a_small_shift_in_many_dimensions_and_nothing_where_nothing_is() -> None:
    rng = np.random.default_rng(7)
    reference = rng.normal(size=(1000, 384))
    assert mmd(reference, rng.normal(0.05, 1.0, size=(1000, 384)), rng=rng).p < 0.05
    assert mmd(reference, rng.normal(size=(1000, 384)), rng=rng).p > 0.05


def test_false_alarms_are_as_many_as_the_level_says() -> None:
    rng = np.random.default_rng(11)
    alarms = sum(
        mmd(rng.normal(size=(40, 3)), rng.normal(size=(60, 3)), rng=rng, permutations=99).p <= 0.05 for _ in range(400)
    )
    # Binomial(400, 0.05): below 8 or above 36 with probability 1e-3.
    assert 8 <= alarms <= 36


def test_the_same_seed_gives_the_same_answer_and_rows_are_bounded() -> None:
    data = np.random.default_rng(3).normal(size=(5000, 4))
    found = [mmd(data, data + 0.1, rng=np.random.default_rng(5), max_rows=200) for _ in range(2)]
    assert found[0] == found[1]
    assert (found[0].reference_rows, found[0].current_rows) == (200, 200)


def test_equal_rows_are_no_shift() -> None:
    same = np.ones((10, 2))
    found = mmd(same, same, rng=np.random.default_rng(0))
    assert (found.sigma, found.p) == (0.0, 1.0)
    assert found.squared == pytest.approx(0.0)


def test_mostly_equal_rows_still_have_a_width() -> None:
    rows = np.zeros((40, 1))
    rows[:5] = 1.0
    other = np.ones((40, 1))
    found = mmd(rows, other, rng=np.random.default_rng(0))
    assert found.sigma > 0
    assert found.p < 0.05


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
        mmd(reference, current, rng=np.random.default_rng(0))
