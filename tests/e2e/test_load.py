"""The load tests against the running product: short runs, the same gates."""

from pathlib import Path

import pytest

from loadtests import budgets
from loadtests.movement import STEPS
from tests.e2e.conftest import Demo
from tests.e2e.load_run import load
from tests.e2e.product import Product

pytestmark = pytest.mark.usefixtures("no_routes")
ROOT = Path(__file__).parents[2]


def counted(product: Product) -> float:
    samples = product.metrics()
    return sum(value for name, value in samples.items() if name.startswith("gateway_requests_total{"))


def test_versions_are_flipped_under_load_and_no_answer_is_wrong(product: Product, demo: Demo) -> None:
    before = counted(product)
    code, verdict, text = load(product, demo, "flips", "--seconds", "5", "--flips", "12")
    assert (code, verdict["failures"], verdict["found"]) == (0, 0, []), text
    assert verdict["flips"] >= 12
    assert verdict["requests"] > 300
    # Flips are calls of locust, not of a model; and locust drops the calls that run when it ends, one per user at most.
    unseen = counted(product) - before - (verdict["requests"] - verdict["flips"])
    assert 0 <= unseen <= budgets.USERS


@pytest.mark.parametrize("scenario", ["sticky", "canary"])
def test_shares_are_right_under_load(product: Product, demo: Demo, scenario: str) -> None:
    code, verdict, text = load(product, demo, scenario, "--seconds", "4")
    assert (code, verdict["failures"], verdict["found"]) == (0, 0, []), text
    assert verdict["requests"] > 200
    assert "NOT_FOUND" in product.cli("routes", "get", "digits").stderr  # the load test has tidied up


def test_keys_move_no_more_than_the_weights_ask_and_come_back(product: Product, demo: Demo) -> None:
    code, verdict, text = load(product, demo, "movement", "--keys", "500")
    assert (code, verdict["failures"], verdict["found"]) == (0, 0, []), text
    assert verdict["requests"] == 500 * len(STEPS)
    assert "NOT_FOUND" in product.cli("routes", "get", "digits").stderr  # it has tidied up


def test_a_gate_that_does_not_hold_fails_the_run(product: Product, demo: Demo) -> None:
    code, verdict, text = load(product, demo, "flips", "--seconds", "2", "--flips", "2", "--model", "flight_delay")
    assert code == 0, text
    code, verdict, text = load(
        product, demo, "flips", "--seconds", "2", "--flips", "1000000", "--calls-per-second", "2", "--users", "2"
    )
    assert code == 1, text
    assert "1000000 had to be" in verdict["found"][0]
