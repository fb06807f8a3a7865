"""Rates and latencies from totals."""

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.errors import CLIENT_CODES, Code
from gateway.page.traffic import KEPT_POINTS, WINDOW_S, TrafficWindow, quantile_ms
from gateway.telemetry.histogram import LATENCY_BOUNDS_NS, latency_place

BINS = len(LATENCY_BOUNDS_NS) + 1


def sums(counts: dict[str, int], *, fallbacks: int = 0, slow_ns: int = 400_000) -> dict[str, Any]:
    latencies = [0] * BINS
    latencies[latency_place(slow_ns)] = sum(counts.values())
    series = {"codes": counts, "total": {"counts": latencies, "sum_ns": 0}}
    return {"series": {"m": {"1": {"a": series}}}, "fallbacks": {"m": {"a": {"error": fallbacks}}}}


def test_one_look_says_nothing() -> None:
    window = TrafficWindow()
    window.look(sums({"0": 5}), 100.0)
    assert window.now is None


def test_two_looks_say_what_came_between() -> None:
    window = TrafficWindow()
    window.look(sums({"0": 100}), 100.0)
    window.look(sums({"0": 300, "13": 20, "3": 40}, fallbacks=10), 102.0)
    assert window.now is not None
    [arm] = window.now.arms
    assert (arm.model, arm.version, arm.arm) == ("m", "1", "a")
    assert (arm.requests, arm.errors, arm.fallbacks) == (130.0, 10.0, 5.0)
    assert arm.p50_ms is not None
    assert 0.3 < arm.p50_ms <= 0.5


@pytest.mark.parametrize("code", [code for code in Code if code is not Code.OK], ids=lambda code: code.name)
def test_what_clients_caused_is_no_error(code: Code) -> None:
    window = TrafficWindow()
    window.look({}, 0.0)
    window.look(sums({str(code.value): 10}), 1.0)
    assert window.now is not None
    assert window.now.arms[0].errors == (0 if code in CLIENT_CODES else 10)


def test_the_window_forgets_and_the_points_are_bounded() -> None:
    window = TrafficWindow()
    for second in range(KEPT_POINTS + 50):
        window.look(sums({"0": min(second, 20) * 10}), float(second))
    assert len(window.points) == KEPT_POINTS
    assert window.now is not None
    assert window.now.arms[0].requests == 0.0
    assert window.now.arms[0].p99_ms is None
    busy = next(point for point in window.points if point.arms[0].requests == 0.0)
    assert busy.at_s <= 20 + WINDOW_S + 50


def test_totals_that_fell_count_from_zero() -> None:
    window = TrafficWindow()
    window.look(sums({"0": 1000}), 0.0)
    window.look(sums({"0": 30}), 1.0)
    assert window.now is not None
    assert window.now.arms[0].requests == 30.0


@given(st.lists(st.integers(0, 1000), min_size=BINS, max_size=BINS), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
@example([0] * BINS, 0.5, 0.99)
@example([0] * (BINS - 1) + [3], 0.5, 0.99)
def test_quantiles_are_in_order_and_within_the_bins(counts: list[int], one: float, other: float) -> None:
    low, high = (quantile_ms(tuple(counts), share) for share in sorted((one, other)))
    if not any(counts):
        assert low is high is None
    else:
        assert low is not None
        assert high is not None
        assert 0.0 <= low <= high <= LATENCY_BOUNDS_NS[-1] / 1e6
