"""The domain classifier: its AUC, its optimiser and its attribution, against scikit-learn and known answers."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from gateway.drift.statistics.domain_classifier import Feature, Separation, auc_interval, logistic, separate
from gateway.drift.statistics.performance import auc
from gateway.drift.statistics.time_blocks import BlockedRows


def alone(names: list[str]) -> list[Feature]:
    return [Feature(name, (index,)) for index, name in enumerate(names)]


def told_apart(
    reference: np.ndarray, current: np.ndarray, features: list[Feature], *, rng: np.random.Generator
) -> Separation:
    return separate(BlockedRows.independent(reference), BlockedRows.independent(current), features, rng=rng)


@example([(1, True), (1, False)])
@example([(1, True)] * 5)
@example([(1, False)] * 5)
@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=60))
def test_auc_is_that_of_scikit_learn_ties_included(pairs: list[tuple[int, bool]]) -> None:
    scores = np.array([pair[0] for pair in pairs], float)
    positive = np.array([pair[1] for pair in pairs])
    if positive.all() or not positive.any():
        assert np.isnan(auc(scores, positive))
    else:
        assert auc(scores, positive) == pytest.approx(roc_auc_score(positive, scores))


def test_the_optimiser_finds_what_scikit_learn_finds() -> None:
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(500, 4))
    positive = rng.random(500) < 1 / (1 + np.exp(-(rows[:, 0] - 2 * rows[:, 1] + 1)))
    weights = logistic(np.column_stack([rows, np.ones(500)]), positive, 1.0)
    oracle = LogisticRegression(C=1.0, class_weight="balanced", tol=1e-10, max_iter=1000).fit(rows, positive)
    assert weights == pytest.approx(np.append(oracle.coef_[0], oracle.intercept_), abs=1e-4)


def test_where_nothing_tells_rows_apart_no_warning_is_near() -> None:
    for seed in range(3):
        rng = np.random.default_rng(seed)
        separation = told_apart(rng.normal(size=(800, 6)), rng.normal(size=(800, 6)), alone(list("abcdef")), rng=rng)
        # Held-out rows of the same kind score a little below a half: the folds lean away from each other.
        assert separation.auc == pytest.approx(0.5, abs=0.05)
        assert separation.attribution[0][1] < 0.03


def test_the_shifted_feature_is_named_first() -> None:
    rng = np.random.default_rng(3)
    reference, current = rng.normal(size=(1000, 5)), rng.normal(size=(1000, 5))
    current[:, 3] += 1.0
    separation = told_apart(reference, current, alone(list("abcde")), rng=rng)
    assert separation.auc == pytest.approx(0.76, abs=0.03)  # Phi(1 / sqrt(2)) = 0.76
    assert separation.attribution[0][0] == "d"
    assert separation.attribution[0][1] > 5 * separation.attribution[1][1]


def test_a_change_of_spread_alone_is_found_by_the_fourier_features() -> None:
    rng = np.random.default_rng(4)
    reference, current = rng.normal(size=(1500, 3)), rng.normal(size=(1500, 3))
    current[:, 1] *= 2.5
    separation = told_apart(reference, current, alone(list("abc")), rng=rng)
    assert separation.auc > 0.65
    assert separation.attribution[0][0] == "b"


def test_columns_that_belong_together_are_shuffled_together() -> None:
    rng = np.random.default_rng(5)
    shift = np.array([1.0, 1.0, 0.0])
    separation = told_apart(
        rng.normal(size=(600, 3)),
        rng.normal(size=(600, 3)) + shift,
        [Feature("pair", (0, 1)), Feature("still", (2,))],
        rng=rng,
    )
    assert [name for name, _ in separation.attribution] == ["pair", "still"]


def test_constant_columns_and_few_rows_are_no_trouble_and_a_seed_repeats() -> None:
    data = np.random.default_rng(6).normal(size=(24, 3))
    data[:, 2] = 1e9
    separation = [told_apart(data[:12], data[12:], alone(list("abc")), rng=np.random.default_rng(0)) for _ in range(2)]
    assert separation[0] == separation[1]
    assert 0.0 <= separation[0].auc <= 1.0


@pytest.mark.parametrize("alike", [1, 5])
def test_the_interval_covers_the_truth_also_where_rows_of_a_block_are_alike(alike: int) -> None:
    rng = np.random.default_rng(8)
    covered = 0
    positive = np.arange(100 * alike) < 40 * alike
    blocks = np.concatenate([np.arange(40).repeat(alike), np.arange(60).repeat(alike)])
    for _ in range(300):
        scores = rng.normal(size=100).repeat(alike) + positive
        low, high = auc_interval(scores, positive, blocks)
        covered += low <= 0.7602 <= high
    assert covered >= 270  # of 300; 285 expected of many blocks


def test_neighbours_that_were_learnt_do_not_tell_rows_apart() -> None:
    """Rows in runs of nearly the same values: what was learnt of a run says which side its other rows are of."""
    rng = np.random.default_rng(9)
    runs = [(rng.normal(size=(20, 3)).repeat(50, axis=0) + 0.01 * rng.normal(size=(1000, 3))) for _ in range(2)]
    by_row = told_apart(runs[0], runs[1], alone(list("abc")), rng=rng)
    by_block = separate(BlockedRows.in_order(runs[0]), BlockedRows.in_order(runs[1]), alone(list("abc")), rng=rng)
    assert by_row.auc > 0.8
    assert by_block.auc < 0.7
    assert by_block.high - by_block.low > 2 * (by_row.high - by_row.low)


@pytest.mark.parametrize(
    ("rows", "words"), [(np.zeros((4, 2)), "at least 10 rows"), (np.full((20, 2), np.inf), "not finite")]
)
def test_refuses_what_it_cannot_learn_from(rows: np.ndarray, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        told_apart(np.zeros((20, 2)), rows, [], rng=np.random.default_rng(0))
