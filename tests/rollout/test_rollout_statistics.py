"""Pass test, intervals, detectability, sample ratio, means, shift: against exact values and simulations."""

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.errors import InvalidArgument
from gateway.rollout.statistics.detectability import (
    ComparedTraffic,
    excess_events,
    harmed_before_found,
    seconds_to_detect,
    smallest_ratio,
)
from gateway.rollout.statistics.harmless_test import PASS_LOG_E, HarmlessEvidence, zero_events_bound
from gateway.rollout.statistics.mean_difference import (
    LEAST_UNITS,
    MeanDifference,
    MeanEstimate,
    UnitSums,
    adjusted_estimates,
    difference,
    mean_estimate,
    ratio_estimate,
)
from gateway.rollout.statistics.prediction_shift import ShiftEvidence
from gateway.rollout.statistics.rate_limit import RateLimitEvidence
from gateway.rollout.statistics.ratio_interval import RatioInterval
from gateway.rollout.statistics.sample_ratio import is_mismatch, largest_deviation, mismatch_log_e
from tests.rollout.simulation import Scenario


@pytest.mark.parametrize(("weight", "margin", "events"), [(0.05, 2.0, 220), (0.25, 2.0, 64), (0.5, 1.5, 192)])
def test_an_equal_version_passes_after_the_reference_s_number_of_events(
    weight: float, margin: float, events: int
) -> None:
    evidence = HarmlessEvidence.none(margin, side_by_side=(200,))
    first = np.full(200, np.inf)
    total = np.zeros(200)
    for traffic in Scenario(((weight, 400),), 0.01, 0.01).seconds(200, seed=5):
        evidence = evidence.after(*traffic.counts())
        total += (traffic.canary_errors + traffic.stable_errors)[:, 0]
        first = np.where((evidence.log_e >= PASS_LOG_E) & np.isinf(first), total, first)
    assert np.median(first) <= 1.3 * events


def test_a_version_at_the_margin_seldom_passes() -> None:
    evidence = HarmlessEvidence.none(2.0, side_by_side=(500,))
    passed = np.zeros(500, bool)
    for traffic in Scenario(((0.25, 300),), 0.01, 0.02).seconds(500, seed=6):
        evidence = evidence.after(*traffic.counts())
        passed |= evidence.log_e >= PASS_LOG_E
    assert passed.mean() <= 0.05


def test_a_margin_of_one_is_refused() -> None:
    with pytest.raises(ValueError, match="more than 1, not 1"):
        HarmlessEvidence.none(1.0)


def test_no_event_says_that_the_rate_is_below_about_three_by_n() -> None:
    assert zero_events_bound(1000) == pytest.approx(3 / 1000, rel=0.01)
    assert zero_events_bound(0) == 1.0


@pytest.mark.parametrize("ratio", [0.5, 1.0, 2.0])
def test_intervals_of_the_ratio_hold_at_all_looks_together(ratio: float) -> None:
    interval = RatioInterval.none(side_by_side=(300,))
    missed = np.zeros(300, bool)
    low, high = interval.bounds()
    for second, traffic in enumerate(Scenario(((0.05, 400),), 0.01, 0.01 * ratio).seconds(300, seed=8)):
        interval = interval.after(*traffic.counts())
        if second % 10 == 0:
            low, high = interval.bounds(alpha=0.05)
            missed |= (ratio < low) | (ratio > high)
    assert missed.mean() <= 0.05
    assert np.median(high / low) < 4
    assert np.median(interval.likeliest) == pytest.approx(ratio, rel=0.35)


def test_an_interval_without_events_is_everything() -> None:
    low, high = RatioInterval.none().after([10], [90], [0], [0]).bounds()
    assert (float(low), float(high)) == (0.0, math.inf)
    assert float(RatioInterval.none().likeliest) == 1.0


@pytest.mark.parametrize(
    ("per_s", "weight", "stable", "canary", "seconds"),
    [
        (500, 0.01, 0.001, 0.05, 9.9),
        (500, 0.05, 0.001, 0.05, 2.5),
        (500, 0.05, 0.001, 0.01, 23.5),
        (500, 0.5, 0.001, 0.002, 277),
        (500, 0.05, 0.001, 0.002, 1224),
        (20, 0.05, 0.001, 0.05, 62),
    ],
)
def test_the_time_to_detect_is_the_reference_s(
    per_s: float, weight: float, stable: float, canary: float, seconds: float
) -> None:
    found_s = seconds_to_detect(canary / stable, ComparedTraffic(per_s, weight, stable))
    assert found_s == pytest.approx(seconds, rel=0.02)


@given(st.floats(1, 1e5), st.floats(0.001, 0.9), st.floats(1e-5, 0.3), st.floats(1, 1e5))
def test_the_smallest_ratio_is_the_one_that_takes_the_time(
    per_s: float, weight: float, stable: float, within_s: float
) -> None:
    ratio = smallest_ratio(within_s, ComparedTraffic(per_s, weight, stable))
    if math.isinf(ratio):
        most = min(300.0, 1 / stable)
        assert seconds_to_detect(most, ComparedTraffic(per_s, weight, stable)) > within_s
        return
    assert seconds_to_detect(ratio, ComparedTraffic(per_s, weight, stable)) <= within_s
    smaller = ratio / 1.01
    assert smaller <= 1.2 or seconds_to_detect(smaller, ComparedTraffic(per_s, weight, stable)) > 0.95 * within_s


def test_a_step_without_traffic_or_beyond_the_bound_detects_nothing() -> None:
    assert math.isinf(seconds_to_detect(1.1, ComparedTraffic(500, 0.05, 0.01)))
    assert math.isinf(smallest_ratio(600, ComparedTraffic(0, 0.05, 0.01)))
    assert math.isinf(smallest_ratio(600, ComparedTraffic(500, 0.05, 0.9)))
    assert math.isinf(harmed_before_found(1.0, ComparedTraffic(500, 0.05, 0.01)))
    assert harmed_before_found(50, ComparedTraffic(500, 0.05, 0.001)) == pytest.approx(3.0, rel=0.1)
    with pytest.raises(ValueError, match="between 0 and 1, not 1"):
        seconds_to_detect(2, ComparedTraffic(1, 1.0, 0.1))


def test_harm_is_what_the_canary_had_beyond_its_share() -> None:
    assert excess_events(100, 900, 30, 70) == pytest.approx(20)
    assert excess_events(100, 900, 1, 99) == 0
    assert excess_events(0, 900, 0, 99) == 0


def test_shares_as_the_route_says_are_no_mismatch_and_others_are() -> None:
    rng = np.random.default_rng(9)
    alarmed = 0
    for _ in range(300):
        counts = np.zeros(2, int)
        worst = -math.inf
        for _ in range(60):
            counts += rng.multinomial(500, [0.95, 0.05])
            worst = max(worst, mismatch_log_e(counts.tolist(), [0.95, 0.05]))
        alarmed += worst >= math.log(1000)
    assert alarmed <= 2
    skewed = [49_000, 51_000]
    assert is_mismatch(mismatch_log_e(skewed, [0.5, 0.5]), largest_deviation(skewed, [0.5, 0.5]))
    # Certain, and too small to matter.
    slight = [5_010_000, 4_990_000]
    assert mismatch_log_e(slight, [0.5, 0.5]) > math.log(1000)
    assert not is_mismatch(mismatch_log_e(slight, [0.5, 0.5]), largest_deviation(slight, [0.5, 0.5]))


def test_an_arm_without_weight_has_no_keys() -> None:
    assert mismatch_log_e([10, 0], [1.0, 0.0]) == pytest.approx(0)
    assert mismatch_log_e([10, 1], [1.0, 0.0]) == math.inf
    assert mismatch_log_e([0, 0], [0.5, 0.5]) == 0
    assert largest_deviation([0, 0], [0.5, 0.5]) == 0
    with pytest.raises(ValueError, match="sum to 1"):
        mismatch_log_e([1, 1], [0.5, 0.4])


def sums(values: np.ndarray, others: np.ndarray | None = None) -> UnitSums:
    other = np.zeros_like(values) if others is None else others
    return UnitSums(
        len(values),
        float(values.sum()),
        float((values**2).sum()),
        float(other.sum()),
        float((other**2).sum()),
        float((values * other).sum()),
    )


@given(st.lists(st.tuples(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3)), min_size=2, max_size=30), st.data())
@example([(0.0, 0.0), (0.0, 0.0)], None)
def test_sums_of_parts_add_up_to_the_whole(units: list[tuple[float, float]], data: st.DataObject | None) -> None:
    cut = data.draw(st.integers(0, len(units))) if data is not None else 1
    parts = [sum((UnitSums.of(*unit) for unit in part), UnitSums()) for part in (units[:cut], units[cut:])]
    whole = parts[0] + parts[1]
    y, x = (np.array(column) for column in zip(*units, strict=True))
    assert whole.n == len(units)
    assert whole.mean == pytest.approx(y.mean(), abs=1e-6)
    assert whole.var_y == pytest.approx(y.var(ddof=1), rel=1e-6, abs=1e-4)
    assert whole.cov == pytest.approx(np.cov(y, x)[0, 1], rel=1e-6, abs=1e-4)


def test_intervals_of_means_hold_when_one_looks_at_each_hundred_units() -> None:
    rng = np.random.default_rng(10)
    wrong = 0
    for _ in range(200):
        canary, stable = rng.exponential(size=5000), rng.exponential(size=5000)
        looks = (
            difference(mean_estimate(sums(canary[:n])), mean_estimate(sums(stable[:n]))) for n in range(100, 5001, 100)
        )
        wrong += any(look is not None and not look.low <= 0 <= look.high for look in looks)
    assert wrong <= 10


def test_a_ratio_of_sums_has_the_spread_that_its_units_have() -> None:
    rng = np.random.default_rng(11)
    estimates = []
    for _ in range(400):
        requests = rng.integers(1, 20, size=300).astype(float)
        clicks = rng.binomial(requests.astype(int), rng.beta(2, 8, size=300)).astype(float)
        estimates.append(ratio_estimate(sums(clicks, requests)))
    assert np.mean([estimate.value for estimate in estimates]) == pytest.approx(0.2, rel=0.02)
    spread = np.var([estimate.value for estimate in estimates])
    assert np.mean([estimate.variance for estimate in estimates]) == pytest.approx(spread, rel=0.2)
    with pytest.raises(InvalidArgument, match="denominators sum to 0"):
        ratio_estimate(UnitSums.of(1.0, 0.0))


def test_a_covariate_takes_its_share_of_the_variance_and_leaves_the_difference() -> None:
    rng = np.random.default_rng(12)
    before = rng.normal(size=(2, 4000))
    after = 0.9 * before + rng.normal(scale=math.sqrt(1 - 0.81), size=(2, 4000))
    after[0] += 0.1
    arms = [sums(after[arm], before[arm]) for arm in (0, 1)]
    canary, stable = adjusted_estimates(arms[0], arms[1])
    plain = [mean_estimate(arm) for arm in arms]
    assert canary.variance / plain[0].variance == pytest.approx(1 - 0.81, rel=0.1)
    assert canary.value - stable.value == pytest.approx(0.1, abs=0.03)
    flat = adjusted_estimates(sums(after[0]), sums(after[1]))
    assert flat[0].value == pytest.approx(plain[0].value)


def test_too_few_units_give_no_interval() -> None:
    few, many = MeanEstimate(0.0, 0.1, LEAST_UNITS - 1), MeanEstimate(0.0, 0.1, LEAST_UNITS)
    assert difference(few, many) is None
    assert isinstance(difference(many, many), MeanDifference)


def test_equal_predictions_are_no_shift_and_others_are() -> None:
    rng = np.random.default_rng(14)
    stable_classes = [0.6, 0.3, 0.1]
    alarms = 0
    for _ in range(200):
        evidence = ShiftEvidence.none(3)
        worst = 0.0
        for _ in range(60):
            canary, stable = rng.multinomial(25, stable_classes), rng.multinomial(475, stable_classes)
            evidence = evidence.after(canary, stable)
            worst = max(worst, evidence.log_e)
        alarms += worst >= math.log(100)
    assert alarms <= 2
    shifted = ShiftEvidence.none(3)
    for _ in range(60):
        shifted = shifted.after(rng.multinomial(25, [0.2, 0.3, 0.5]), rng.multinomial(475, stable_classes))
    assert shifted.is_shift
    slight = ShiftEvidence.none(3)
    for _ in range(300):
        slight = slight.after(rng.multinomial(2500, [0.58, 0.31, 0.11]), rng.multinomial(47_500, stable_classes))
    assert slight.log_e > math.log(100)
    assert not slight.is_shift
    assert ShiftEvidence.none(2).psi == 0
    with pytest.raises(ValueError, match="2 to 32 bins, not 33"):
        ShiftEvidence.none(33)


def test_a_rate_above_its_limit_is_found_and_one_at_it_is_not() -> None:
    rng = np.random.default_rng(15)
    at_limit = RateLimitEvidence.none(0.02, side_by_side=(500,))
    above = RateLimitEvidence.none(0.02)
    alarmed = np.zeros(500, bool)
    for _ in range(100):
        at_limit = at_limit.after(np.full(500, 50.0), rng.binomial(50, 0.02, size=500).astype(float))
        above = above.after(50, int(rng.binomial(50, 0.08)))
        alarmed |= at_limit.log_e >= math.log(100)
    assert alarmed.mean() <= 0.01
    assert float(above.log_e) > math.log(100)
    assert float(RateLimitEvidence.none(0.5).after(0, 0).log_e) == pytest.approx(0)
    with pytest.raises(ValueError, match="3 events of 2"):
        above.after(2, 3)
    with pytest.raises(ValueError, match="between 0 and 1, not 1"):
        RateLimitEvidence.none(1.0)


def test_a_rate_below_its_limit_is_proven_and_one_at_it_is_not() -> None:
    rng = np.random.default_rng(16)
    at_limit = RateLimitEvidence.none(0.02, below=True, side_by_side=(500,))
    proven = np.zeros(500, bool)
    for _ in range(100):
        at_limit = at_limit.after(np.full(500, 50.0), rng.binomial(50, 0.02, size=500).astype(float))
        proven |= at_limit.log_e >= PASS_LOG_E
    assert proven.mean() <= 0.05
    # Without an event about 4 / limit trials are enough.
    assert float(RateLimitEvidence.none(0.02, below=True).after(250, 0).log_e) > PASS_LOG_E
