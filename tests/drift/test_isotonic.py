"""Isotonic regression held against that of SciPy."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.optimize import isotonic_regression

from gateway.drift.statistics.isotonic import rising

VALUES = st.lists(st.tuples(st.floats(-1e3, 1e3), st.integers(1, 1000)), max_size=60)


@example([])
@example([(1.0, 1)])
@example([(1.0, 3)] * 9)
@given(VALUES)
def test_it_is_the_curve_of_scipy(pairs: list[tuple[float, int]]) -> None:
    values, weights = (np.array([pair[place] for pair in pairs], np.float64) for place in (0, 1))
    curve = rising(values, weights)
    assert (np.diff(curve) >= 0).all()
    if pairs:
        assert curve == pytest.approx(isotonic_regression(values, weights=weights).x, rel=1e-9, abs=1e-9)


@example([])
@example([(1.0, 1)])
@example([(1.0, 3)] * 9)
@given(VALUES)
def test_what_rises_already_stays(pairs: list[tuple[float, int]]) -> None:
    values = np.sort([value for value, _ in pairs])
    assert rising(values, np.ones(len(values))) == pytest.approx(values)


def test_a_long_rise_with_a_deep_fall_is_one_level() -> None:
    values = np.append(np.arange(500.0), -1e9)
    assert np.ptp(rising(values, np.ones(501))) == 0
