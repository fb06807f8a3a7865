"""Cumulative sums: how soon a change is found, how rarely none is."""

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.drift.statistics.cusum import Cusum, accumulate, standardised_means, standardised_shares

NILE = (
    "1120 1160 963 1210 1160 1160 813 1230 1370 1140 995 935 1110 994 1020 960 1180 799 958 1140 1100 1210 1150 1250 "
    "1260 1220 1030 1100 774 840 874 694 940 833 701 916 692 1020 1050 969 831 726 456 824 702 1120 1100 832 764 821"
)  # 1871 to 1920, in 10^8 m^3


def test_the_fall_of_the_nile_in_1898_is_found_in_1902() -> None:
    flow = [float(word) for word in NILE.split()]
    first = flow[:28]
    scores = [float((value - np.mean(first)) / np.std(first, ddof=1)) for value in flow]
    alarms = [1871 + year for year in range(len(scores)) if accumulate(scores[: year + 1]).alarm]
    assert alarms[0] == 1902
    assert accumulate(scores).direction == "lower"


def first_alarm(scores: list[float]) -> int:
    """After how many values; 0 if never."""
    return next((count for count in range(1, len(scores) + 1) if accumulate(scores[:count]).alarm), 0)


def test_a_shift_of_one_deviation_is_found_in_about_ten_windows() -> None:
    """Average run lengths of the textbook: 10.4 with a shift of one deviation, 465 without, both sides."""
    rng = np.random.default_rng(0)
    assert np.mean([first_alarm(rng.normal(1.0, size=80).tolist()) for _ in range(400)]) == pytest.approx(10.4, rel=0.1)
    quiet = [first_alarm(rng.normal(size=46).tolist()) > 0 for _ in range(300)]
    assert 0.04 < float(np.mean(quiet)) < 0.15  # 46 windows of 465


@example([])
@example([9.0])
@example([0.5] * 30)
@given(st.lists(st.floats(-10, 10), max_size=60))
def test_the_other_way_round_is_the_mirror_image(scores: list[float]) -> None:
    sums, mirrored = accumulate(scores), accumulate([-score for score in scores])
    assert (sums.up, sums.down, sums.streak) == (mirrored.down, mirrored.up, mirrored.streak)


def test_an_alarm_ends_soon_after_the_change_has_ended() -> None:
    assert accumulate([5.0] * 1000).streak >= 998
    assert not accumulate([5.0] * 1000 + [0.0] * 11).alarm
    assert accumulate([math.nan, math.inf]) == Cusum(0.0, 0.0, 0)


def test_errors_are_held_against_the_first_thirty_windows() -> None:
    rng = np.random.default_rng(1)
    rows = [1000.0] * 60
    quiet = rng.binomial(1000, 0.01, size=60).astype(float).tolist()
    assert not accumulate(standardised_shares(quiet, rows)).alarm
    broken = quiet[:50] + [30.0] * 10
    assert accumulate(standardised_shares(broken, rows)).direction == "higher"
    assert standardised_shares(quiet[:30], rows[:30]) == []
    none = standardised_shares([0.0] * 30 + [1.0], [1000.0] * 31)
    assert 0.0 < none[0] < 10.0


def test_means_are_held_against_the_spread_of_the_references_own_windows() -> None:
    assert standardised_means([0.6], [100.0], mean=0.5, sd=0.2, spread=0.0) == [pytest.approx(5.0)]
    assert standardised_means([0.6], [100.0], mean=0.5, sd=0.2, spread=0.1) == [pytest.approx(1.0)]
    assert math.isnan(standardised_means([0.6], [0.0], mean=0.5, sd=0.2, spread=0.1)[0])
