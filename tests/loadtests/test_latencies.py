"""Counts in buckets say what the times themselves say, to half a percent, and are the sum of their parts."""

import json

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from loadtests.job.latencies import Latencies, joined
from loadtests.job.tally import Tally

TIMES = st.lists(st.floats(1e-5, 100), min_size=1, max_size=200)


def of(times: list[float]) -> Latencies:
    made = Latencies()
    for seconds in times:
        made.add(seconds)
    return made


@settings(max_examples=25)
@given(TIMES, st.sampled_from([0.5, 0.9, 0.99, 0.999, 1.0]))
@example([0.01], 0.5)
@example([0.01] * 50, 0.99)
def test_a_percentile_is_right_to_half_a_percent(times: list[float], share: float) -> None:
    exact = float(np.quantile(times, share, method="inverted_cdf"))
    assert of(times).at(share) == pytest.approx(exact, rel=0.0051)


@settings(max_examples=25)
@given(TIMES, TIMES)
def test_the_whole_is_the_sum_of_its_parts(one: list[float], other: list[float]) -> None:
    assert joined([of(one), of(other)]).as_json() == of(one + other).as_json()
    assert Latencies.from_json(json.loads(json.dumps(of(one).as_json()))).as_json() == of(one).as_json()


def test_of_nothing_nothing_is_known() -> None:
    assert Latencies().at(0.5) == float("inf")
    assert Latencies().mean == float("inf")


def test_a_tally_passes_a_pipe_as_it_is() -> None:
    tally = Tally(waited=3, sightings=[("m", "1", 1.0, 2.0)])
    tally.moment("calls", -1).failures["UNAVAILABLE: x"] += 2
    tally.moment("calls", 4).latencies.add(0.01)
    tally.lags.add(0.001)
    again = Tally.from_json(json.loads(json.dumps(tally.as_json())))
    assert again.as_json() == tally.as_json()
    again.merge(tally)
    assert again.moment("calls", -1).failed == 4
    assert [second for second, _ in again.measured()] == [4]
