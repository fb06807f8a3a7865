"""Tests between two versions, against SciPy and by their error rates."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats

from gateway.drift.statistics.version_comparison import mcnemar, paired_loss, reward_gap, spearman, split_test


@given(st.lists(st.integers(1, 5000), min_size=2, max_size=6), st.data())
def test_the_split_test_is_pearsons(counts: list[int], data: st.DataObject) -> None:
    weights = data.draw(st.lists(st.integers(1, 90), min_size=len(counts), max_size=len(counts)))
    names = [f"arm{index}" for index in range(len(counts))]
    result = split_test(dict(zip(names, counts, strict=True)), dict(zip(names, weights, strict=True)))
    expected = np.array(weights) / sum(weights) * sum(counts)
    oracle = stats.chisquare(counts, expected)
    assert result.chi2 == pytest.approx(oracle.statistic)
    assert result.p == pytest.approx(oracle.pvalue, abs=1e-12)
    assert result.mismatch == (oracle.pvalue < 0.001)


def test_a_lost_percent_of_one_arm_is_a_mismatch_and_chance_is_not() -> None:
    assert split_test({"a": 100_000, "b": 98_000}, {"a": 50, "b": 50}).mismatch
    assert not split_test({"a": 100_000, "b": 99_500}, {"a": 50, "b": 50}).mismatch
    assert not split_test({"a": 90_100, "b": 9_900}, {"a": 90.0, "b": 10.0}).mismatch


@pytest.mark.parametrize(
    ("observed", "shares", "words"),
    [
        ({"a": 1}, {"a": 1.0, "b": 1.0}, "expected the same"),
        ({"a": 1, "b": 1}, {"a": 1.0, "b": 0.0}, "above 0"),
        ({"a": 0, "b": 0}, {"a": 1.0, "b": 1.0}, "at least one"),
    ],
)
def test_refuses_arms_that_do_not_fit(observed: dict[str, int], shares: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        split_test(observed, shares)


@example([])
@example([(True, False)])
@example([(True, True)] * 9)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=80))
def test_mcnemar_is_the_binomial_test_of_where_they_differ(pairs: list[tuple[bool, bool]]) -> None:
    right = np.array(pairs, bool).reshape(-1, 2)
    result = mcnemar(right[:, 0], right[:, 1])
    discordant = result.only_a + result.only_b
    oracle = stats.binomtest(result.only_a, discordant, 0.5).pvalue if discordant else 1.0
    assert result.p == pytest.approx(oracle)
    assert result.rows == len(pairs)


@example(1, 0)
@given(st.integers(1, 3000), st.integers(0, 2**32 - 1))
def test_paired_loss_is_the_mean_difference(rows: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    loss_a, loss_b = rng.random(rows), rng.random(rows)
    result = paired_loss(loss_a, loss_b, rng=rng)
    assert result.mean == pytest.approx((loss_b - loss_a).mean(), abs=1e-12)
    assert result.low <= result.high
    if rows > 500:
        half = 1.96 * (loss_b - loss_a).std() / np.sqrt(rows)
        assert (result.high - result.low) / 2 == pytest.approx(half, rel=0.25)


def test_paired_loss_needs_rows() -> None:
    with pytest.raises(ValueError, match="at least one"):
        paired_loss(np.array([]), np.array([]), rng=np.random.default_rng(0))


@example([(1, 1)] * 9)
@example([(0, 1), (1, 0)])
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=2, max_size=60))
def test_rank_correlation_is_spearmans(pairs: list[tuple[int, int]]) -> None:
    first, second = np.array(pairs, float).T
    result = spearman(first, second)
    if len(set(first)) == 1 or len(set(second)) == 1:
        assert np.isnan(result)
    else:
        assert result == pytest.approx(stats.spearmanr(first, second).statistic)


def test_the_gap_of_rewards_is_welchs() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(1.0, 2.0, 900), rng.normal(1.5, 0.5, 300)
    result = reward_gap((900, a.mean(), a.std(ddof=1)), (300, b.mean(), b.std(ddof=1)))
    assert result is not None
    oracle = stats.ttest_ind(b, a, equal_var=False).confidence_interval(0.95)
    assert (result.low, result.high) == pytest.approx((oracle.low, oracle.high), abs=2e-3)
    assert reward_gap((1, 1.0, float("nan")), (300, 1.0, 1.0)) is None
