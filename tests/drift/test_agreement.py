"""Agreement of two versions on the same rows."""

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.drift.statistics.agreement import Agreement, KeyedAnswers, compare
from gateway.drift.statistics.verdict import DriftState

answers = st.dictionaries(
    st.tuples(st.integers(0, 20), st.integers(0, 2)), st.tuples(st.integers(-1, 3), st.floats(0, 1)), max_size=40
)


def of(rows: dict[tuple[int, int], tuple[int, float]]) -> KeyedAnswers:
    keys, values = list(rows), list(rows.values())
    return KeyedAnswers(
        np.array([key[0] for key in keys], np.uint64),
        np.array([key[1] for key in keys], np.int64),
        np.array([value[0] for value in values], np.int64),
        np.array([value[1] for value in values], np.float64),
    )


@example({}, {})
@example({(0, 0): (1, 0.5)}, {(0, 0): (1, 0.5)})
@example({(0, 0): (1, 0.5)}, {})
@given(answers, answers)
def test_pairs_are_the_rows_that_both_have(
    a: dict[tuple[int, int], tuple[int, float]], b: dict[tuple[int, int], tuple[int, float]]
) -> None:
    compared = compare(of(a), of(b))
    both = a.keys() & b.keys()
    assert compared.pairs == compared.scores == len(both)
    assert compared.classes == sum(a[key][0] >= 0 and b[key][0] >= 0 for key in both)
    assert compared.same == sum(a[key][0] == b[key][0] >= 0 for key in both)
    assert compared.difference == pytest.approx(sum(abs(a[key][1] - b[key][1]) for key in both))
    assert compare(of(b), of(a)) == compared


def test_counts_of_two_windows_add_up() -> None:
    a, b = Agreement(10, 10, 9, 10, 1, 0.5, 0.4), Agreement(20, 20, 20, 20, 0, 0.1, 0.1)
    assert a + b == Agreement(30, 30, 29, 30, 1, 0.6, 0.4)
    assert Agreement() + a == a


@pytest.mark.parametrize(
    ("same", "pairs", "state"),
    [(10, 10, -1), (1000, 1000, 0), (995, 1000, 0), (960, 1000, 1), (900, 1000, 2), (94, 100, -1)],
)
def test_the_upper_end_of_the_interval_decides(same: int, pairs: int, state: int) -> None:
    compared = Agreement(pairs, pairs, same, pairs, 0)
    assert compared.state == DriftState(state)
    assert compared.interval.low < compared.ratio <= compared.interval.high


def test_without_classes_scores_decide() -> None:
    rng = np.random.default_rng(0)
    scores = rng.uniform(size=1000)
    keys, places, none = np.arange(1000, dtype=np.uint64), np.zeros(1000, np.int64), np.full(1000, -1)
    first = KeyedAnswers(keys, places, none, scores)
    assert compare(first, KeyedAnswers(keys, places, none, scores + 1e-5)).state is DriftState.OK
    assert compare(first, KeyedAnswers(keys, places, none, scores + 0.01)).state is DriftState.CRIT
    assert math.isnan(Agreement().ratio)
