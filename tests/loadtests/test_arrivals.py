"""When calls begin: the right number of them, at times that follow the rate, each sent by one sender."""

from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from loadtests.job.arrivals import Arrivals, merged, ramp, share_of, spike, steady

LOADS = st.one_of(
    st.floats(0.1, 200).map(lambda rate: steady(rate, "constant")),
    st.tuples(st.floats(0, 200), st.floats(0.1, 200)).map(lambda ends: ramp(*ends, "constant")),
    st.tuples(st.floats(0.1, 50), st.floats(0.1, 300)).map(lambda rates: spike(*rates, 0.4, 0.6, "constant")),
)


def area(arrivals: Arrivals, seconds: float) -> float:
    return sum((low + high) / 2 * (end - start) for (start, low), (end, high) in pairwise(arrivals.line)) * seconds


@settings(max_examples=25)
@given(LOADS, st.floats(0.5, 4))
@example(ramp(0, 100, "constant"), 1.0)
@example(steady(0.1, "constant"), 0.5)
def test_as_many_calls_begin_as_the_rate_says_and_in_their_order(arrivals: Arrivals, seconds: float) -> None:
    moments = list(arrivals.moments(seconds, 1))
    assert abs(len(moments) - area(arrivals, seconds)) <= 1
    assert moments == sorted(moments)
    assert all(0 <= moment <= seconds * (1 + 1e-9) for moment in moments)


def test_a_spike_lies_where_it_was_put() -> None:
    moments = list(spike(10, 100, 0.4, 0.6, "constant").moments(10, 1))
    assert len([moment for moment in moments if 4 <= moment < 6]) == 200
    assert len(moments) == 280


def test_poisson_calls_come_as_independent_users_do() -> None:
    moments = list(steady(200).moments(50, 1))
    gaps = [after - before for before, after in pairwise(moments)]
    assert len(moments) == pytest.approx(10_000, rel=0.04)
    # An exponential distribution: its standard deviation is its mean.
    mean = sum(gaps) / len(gaps)
    assert (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5 == pytest.approx(mean, rel=0.05)
    assert moments == list(steady(200).moments(50, 1))
    assert moments != list(steady(200).moments(50, 2))


@given(st.integers(1, 5))
def test_each_call_is_sent_by_one_of_the_senders(count: int) -> None:
    whole = list(enumerate(steady(30).moments(3, 7)))
    parts = [list(share_of(steady(30).moments(3, 7), index, count)) for index in range(count)]
    assert sorted(call for part in parts for call in part) == whole


def test_the_calls_of_several_traffics_are_sent_in_one_order() -> None:
    schedules = [share_of(steady(rate).moments(2, seed), 0, 1) for seed, rate in enumerate((10, 20))]
    moments = [moment for moment, _, _ in merged(schedules)]
    assert moments == sorted(moments)
    assert len(moments) > 40


def test_another_rate_keeps_the_course() -> None:
    assert spike(10, 50, 0.4, 0.6).scaled(2).highest == 100
    assert ramp(0, 100).scaled(0.5).rate_at(0.5) == 25
