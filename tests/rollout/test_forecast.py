"""What each step of a plan can find out: against the times to detect, and where a step finds nothing."""

import math

import pytest

from gateway.rollout.forecast import (
    REACTION_S,
    StepForecast,
    budget_traffic,
    cpu_shares,
    forecast,
    total_seconds,
    weight_within,
)
from gateway.rollout.statistics.detectability import ComparedTraffic, seconds_to_detect
from gateway.routing.document.bucket import BUCKETS
from gateway.routing.document.strategy import Canary
from tests.routing.documents import Plain, document

PAIR = {"stable": {"version": "1"}, "canary": {"version": "2"}}


def steps_of(steps: list[Plain], per_s: float = 500, rate: float = 0.001, **canary: object) -> list[StepForecast]:
    fields: Plain = {"steps": steps, "analysis": {"guardrails": [{"kind": "errors"}]}, **canary}
    strategy = document(arms=PAIR, strategy={"canary": fields}).strategy
    assert isinstance(strategy, Canary)
    return list(forecast(strategy, per_s, rate))


def test_a_step_finds_what_its_time_allows() -> None:
    [one, two] = steps_of([{"weight": "5%", "hold": "10m"}, {"weight": "50%", "hold": "10m"}])
    for step, weight in ((one, 0.05), (two, 0.5)):
        assert step.detects is not None
        needed_s = seconds_to_detect(step.detects, ComparedTraffic(500, weight, 0.001))
        assert needed_s == pytest.approx(600, rel=0.02)
        assert not step.is_blind
    assert (one.detects or 0) > (two.detects or 0)
    assert total_seconds([one, two]) == 1200


def test_a_step_that_can_find_nothing_is_named() -> None:
    [short, hopeless] = steps_of([{"weight": "1%", "hold": "1s"}, {"weight": "1%", "hold": "1h"}], per_s=0.01)
    assert short.is_blind
    assert hopeless.is_blind
    [silent] = steps_of([{"weight": "1%", "hold": "1h", "minEvents": 10}], per_s=0)
    assert silent.seconds == math.inf
    assert silent.is_blind


def test_min_events_and_people_make_a_step_longer() -> None:
    [counted] = steps_of([{"weight": "1%", "hold": "1m", "minEvents": 5000}])
    assert counted.seconds == pytest.approx(1000)
    [manual, nobody, all_of_it] = steps_of(
        [{"weight": "0%", "hold": "1m"}, {"weight": "5%"}, {"weight": "100%", "hold": "1m"}]
    )
    assert (nobody.seconds, nobody.detects) == (None, None)
    assert manual.detects is None
    assert all_of_it.detects is None
    assert total_seconds([manual, nobody]) is None


@pytest.mark.parametrize("canary", [{"analysis": {"guardrails": [{"kind": "latency"}]}}])
def test_a_plan_that_does_not_look_at_errors_compares_none(canary: Plain) -> None:
    [step] = steps_of([{"weight": "5%", "hold": "1m"}], **canary)
    assert step.detects is None


def test_harm_is_what_comes_before_it_is_found() -> None:
    [step] = steps_of([{"weight": "5%", "hold": "60s"}])
    assert step.detects is not None
    assert step.harmed == pytest.approx(60 * 500 * 0.05 * 0.001 * (step.detects - 1), rel=0.05)


def canary_of(steps: list[Plain], **analysis: object) -> Canary:
    fields: Plain = {"steps": steps, "analysis": {"guardrails": [{"kind": "errors"}], **analysis}}
    strategy = document(arms=PAIR, strategy={"canary": fields}).strategy
    assert isinstance(strategy, Canary)
    return strategy


def test_a_version_that_fails_every_call_harms_by_the_share_that_it_has() -> None:
    small, large = steps_of([{"weight": "1%", "hold": "10m"}, {"weight": "50%"}])
    assert small.at_worst is not None
    assert large.at_worst is not None
    assert 5 <= small.at_worst < 30
    assert 500 * 0.5 * REACTION_S <= large.at_worst < 2000
    [everything] = steps_of([{"weight": "100%", "hold": "1s"}])
    assert everything.at_worst is None
    [silent] = steps_of([{"weight": "5%", "hold": "1s"}], per_s=0)
    assert silent.at_worst == 0


@pytest.mark.parametrize("budget", [0, 10, 50, 500, 10**6])
def test_a_budget_says_how_large_a_share_may_be(budget: float) -> None:
    traffic = budget_traffic(canary_of([{"weight": "5%", "hold": "1m"}]), 500, 0.001)
    assert traffic is not None
    weight = weight_within(budget, traffic)
    assert 0 <= weight <= BUCKETS // 2
    for one, fits in ((weight, True), (weight + 1, False)):
        if 0 < one <= BUCKETS // 2:
            [step] = steps_of([{"weight": f"{one / 10_000:.4f}%", "hold": "1m"}])
            assert step.at_worst is not None
            assert (step.at_worst <= budget) == fits


def test_a_document_that_judges_no_errors_has_no_budget_to_check() -> None:
    assert budget_traffic(canary_of([{"weight": "5%"}], guardrails=[{"kind": "latency"}]), 500, 0.001) is None


def test_runs_take_the_mean_of_both_versions_by_their_shares() -> None:
    canary = canary_of([{"weight": "0%"}, {"weight": "25%"}])
    assert cpu_shares(canary, 100, (0.01, 0.03), 4) == pytest.approx([0.25, 0.375, 0.75])
