"""What a plan says of a canary beside its steps: the harm budget, and the CPUs."""

import re

import pytest

from gateway.cli.plan_forecast import Traffic, budget_notes, cpu_notes
from gateway.rollout.forecast import forecast
from gateway.routing.document.strategy import Canary
from tests.api.routes import route
from tests.cli.test_rollout_commands import rolled


def test_a_plan_checks_its_shares_by_the_harm_budget() -> None:
    strategy = route(
        {"stable": {"version": "1"}, "canary": {"version": "2"}},
        {"canary": {"steps": [{"weight": "1%", "hold": "1m"}, {"weight": "50%"}], "analysis": {"maxHarmed": 50}}},
    ).strategy
    assert isinstance(strategy, Canary)
    traffic = Traffic(500, 0.001)
    [note] = budget_notes(strategy, forecast(strategy, 500, 0.001), traffic)
    assert re.fullmatch(r"step 2 may harm more than the 50 of maxHarmed .*: at most [23]\.[\d]+% keeps within it", note)


@pytest.mark.parametrize(
    ("costs", "notes"),
    [
        ({}, ["what runs take of the CPUs is not known: the stable version ran nothing"]),
        (
            {"1": 0.01},
            [
                "of 2 CPUs runs take 50%, 50%, 50% in the steps and after them, 50% with the stable version alone",
                "the canary's version ran nothing: its rows are taken to cost what the stable one's do",
            ],
        ),
        ({"1": 0.01, "2": 0.013}, ["of 2 CPUs runs take 51%, 57%, 65%", "little of the CPUs is left"]),
        ({"1": 0.01, "2": 0.03}, ["of 2 CPUs runs take 55%, 100%, 150%", "that is more than the 80% of maxLoad"]),
    ],
)
def test_a_plan_says_what_runs_take_of_the_cpus(costs: dict[str, float], notes: list[str]) -> None:
    document = rolled()
    assert isinstance(document.strategy, Canary)
    told = cpu_notes(document.strategy, document, Traffic(100, 0.001, "", 100.0, costs), 2.0)
    assert [line.startswith(note) for line, note in zip(told, notes, strict=True)] == [True] * len(notes), told
