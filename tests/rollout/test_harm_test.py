"""The harm test: valid for any rates, share and volume of keys; fast; blind to what hits both arms."""

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.rollout.guardrail_evidence import mean_log_e
from gateway.rollout.statistics.harm_test import HarmEvidence
from gateway.rollout.statistics.rate_ratio import harm_grid, harmless_grid
from tests.rollout.simulation import Scenario, pareto_keys, seconds_to_alarm

RAMP = ((0.01, 600), (0.05, 600), (0.25, 600), (0.5, 600))
NONE = HarmEvidence.none(1.2)


def expectation(n_c: int, n_s: int, canary_rate: float, stable_rate: float, ratio: float, bound: float) -> float:
    """The exact expectation of one tick's likelihood ratio, for independent outcomes."""
    share = n_c / (n_c + n_s)
    q = share * bound / (share * bound + 1 - share)
    p = share * ratio / (share * ratio + 1 - share)
    log_e = n_c * math.log1p(canary_rate * (p / q - 1)) + n_s * math.log1p(stable_rate * ((1 - p) / (1 - q) - 1))
    return math.exp(min(50.0, log_e))


requests = st.integers(1, 2000)
rates = st.floats(1e-5, 1.0)


@given(requests, requests, rates, st.floats(0.01, 1.0), st.sampled_from([1.0, 1.2, 1.5, 3.0]), st.integers(0, 23))
@example(1, 1, 1.0, 1.0, 1.2, 0)
@example(2000, 1, 1.0, 1.0, 1.0, 23)
def test_no_harm_is_no_evidence_of_harm_at_any_rate(
    n_c: int, n_s: int, stable_rate: float, part: float, bound: float, point: int
) -> None:
    canary_rate = min(1.0, stable_rate * bound * part)
    assert expectation(n_c, n_s, canary_rate, stable_rate, harm_grid(bound)[point], bound) <= 1 + 1e-9


@given(requests, requests, rates, st.floats(1.0, 50.0), st.sampled_from([1.2, 1.5, 2.0]), st.integers(0, 11))
@example(1, 1, 1.0, 1.0, 2.0, 0)
def test_harm_is_no_evidence_of_harmlessness_at_any_rate(
    n_c: int, n_s: int, canary_rate: float, times: float, margin: float, point: int
) -> None:
    stable_rate = canary_rate / (margin * times)
    assert expectation(n_c, n_s, canary_rate, stable_rate, harmless_grid()[point], margin) <= 1 + 1e-9


def test_the_evidence_is_one_before_the_first_tick_and_without_anything_to_compare() -> None:
    assert float(NONE.log_e) == pytest.approx(0)
    evidence = NONE
    for _ in range(100):
        evidence = evidence.after([0], [500], [0], [3]).after([25], [0], [25], [0]).after([0], [0], [0], [0])
    assert float(evidence.log_e) == pytest.approx(0)
    assert evidence.ticks == 300


def test_the_evidence_of_a_tick_is_the_likelihood_ratio_of_its_share() -> None:
    evidence = NONE.after([25], [475], [5], [1])
    share, points = 25 / 500, harm_grid(1.2)
    q = share * 1.2 / (share * 1.2 + 1 - share)
    p = share * points / (share * points + 1 - share)
    expected = 0.4 * np.mean((p / q) ** 5 * ((1 - p) / (1 - q))) + 0.6
    assert float(evidence.log_e) == pytest.approx(math.log(expected))


def test_strata_are_compared_within_themselves() -> None:
    """The canary's calls run in small batches, which are faster: pooled, it looks fast and is twice as slow."""
    stratified, pooled = NONE, NONE
    for _ in range(600):
        # Small batches: 22 of the canary's, 48 of stable's, slow ones 1 % against 0.5 %; large: 4 % against 2 %.
        slow = [[0.22, 0.12], [0.24, 8.54]]
        stratified = stratified.after([22, 3], [48, 427], *slow)
        pooled = pooled.after([25], [475], [sum(slow[0])], [sum(slow[1])])
    assert stratified.log_e > pooled.log_e
    assert stratified.log_e > math.log(100)
    assert pooled.log_e < 0


def test_a_bound_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match=r"between 1 and 150, not 0\.5"):
        HarmEvidence.none(0.5)


def test_metrics_are_combined_by_the_mean_of_their_evidence() -> None:
    worse = NONE.after([25], [475], [9], [1])
    known = tuple(float(evidence.log_e) for evidence in (worse, NONE, NONE, NONE))
    assert mean_log_e(known[:1]) == pytest.approx(known[0])
    assert mean_log_e(known) == pytest.approx(math.log((math.exp(known[0]) + 3) / 4))
    assert mean_log_e(()) == -math.inf


# p50 and p90 by the reference's simulation, in seconds; ours may take 1.3 times as long.
DETECTION = [
    pytest.param(Scenario(((0.05, 60),), 0.001, 0.05), 3, 6, id="0.1 % to 5 % at once"),
    pytest.param(Scenario(((0.05, 200),), 0.001, 0.01), 25, 52, id="0.1 % to 1 % at once"),
    pytest.param(Scenario(((0.05, 900),), 0.001, 0.01, onset_s=600), 40, 72, id="after 10 good minutes"),
    pytest.param(Scenario(((0.25, 1950),), 0.005, 0.02, onset_s=1800), 18, 40, id="after 30 good minutes"),
]


@pytest.mark.parametrize(("scenario", "p50", "p90"), DETECTION)
def test_a_fault_is_found_within_seconds(scenario: Scenario, p50: float, p90: float) -> None:
    late = seconds_to_alarm(scenario, runs=300, seed=7) - scenario.onset_s
    assert (late > 0).mean() > 0.99
    assert np.quantile(late, 0.5) <= 1.3 * p50
    assert np.quantile(late, 0.9) <= 1.3 * p90


def test_equal_versions_are_rarely_stopped() -> None:
    scenario = Scenario(tuple((weight, 150) for weight, _ in RAMP), 0.01, 0.01)
    assert np.isfinite(seconds_to_alarm(scenario, runs=400, seed=1)).mean() <= 0.01


def test_a_fault_of_both_arms_stops_nothing() -> None:
    scenario = Scenario(((0.05, 300), (0.25, 300)), 0.005, 0.005)
    alarms = seconds_to_alarm(scenario, runs=300, seed=2, burst=lambda second: 100.0 if 100 <= second < 130 else 1.0)
    assert np.isfinite(alarms).mean() <= 0.01


@pytest.mark.long
@pytest.mark.parametrize("rate", [0.001, 0.01, 0.2])
def test_at_most_alpha_of_whole_rollouts_of_equal_versions_ever_fail(rate: float) -> None:
    alarms = seconds_to_alarm(Scenario(RAMP, rate, rate), runs=2000, seed=3)
    assert np.isfinite(alarms).mean() <= 0.01


@pytest.mark.long
@pytest.mark.parametrize("weight", [0.01, 0.05])
def test_keys_of_very_unequal_volume_make_no_alarm(weight: float) -> None:
    scenario = Scenario(((weight, 2400),), 0.01, 0.01)
    alarms = seconds_to_alarm(scenario, runs=2000, seed=4, share=pareto_keys(2000, 1.5, runs=2000))
    assert np.isfinite(alarms).mean() <= 0.01
