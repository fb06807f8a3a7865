"""Whether the CPUs suffice: what is measured, what the next step makes of it, and what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.rollout.arm_counts import NOTHING, ArmCounts, WorkerLoad
from gateway.rollout.capacity import (
    LEAST_ROWS,
    CapacityForecast,
    LoadSample,
    LoadWindow,
    PresentLoad,
    cpu_seconds_per_1000,
    forecast_load,
    row_seconds,
)
from gateway.rollout.evidence import no_evidence
from gateway.rollout.ramp import Advance, Hold, RampState, Stop, next_step
from tests.rollout.test_ramp import plan

S = 1_000_000_000


def arm(rows: int, cpu_s: float, requests: int = 0) -> ArmCounts:
    """All runs of one row."""
    return ArmCounts(requests or rows, run_rows=(rows, 0, 0, 0, 0), run_cpu_ns=(int(cpu_s * S), 0, 0, 0, 0))


def sample(at_s: float, rows: int = 0, **cpu_s: float) -> LoadSample:
    return LoadSample(int(at_s * 1000), {name: WorkerLoad(int(used * S), 2.0) for name, used in cpu_s.items()}, rows)


def loaded(*samples: LoadSample) -> PresentLoad | None:
    window = LoadWindow()
    for one in samples:
        window.add(one)
    return window.load()


def test_the_load_is_that_of_the_workers_that_live() -> None:
    assert loaded() is None
    assert loaded(sample(0, a=1.0)) is None
    assert loaded(sample(0, a=1.0), sample(1, a=1.5)) is None  # too short a time
    assert loaded(sample(0), sample(10)) is None  # nobody tells
    assert loaded(sample(0, 100, a=1.0, dead=9.0), sample(10, 600, a=6.0, dead=9.0, new=1.0)) == PresentLoad(2, 0.5, 50)
    assert loaded(sample(0, 100, a=1.0, b=0.0), sample(10, 600, a=6.0, b=15.0)) == PresentLoad(4, 2.0, 50)


def test_the_load_is_that_of_the_last_ten_seconds_and_of_one_revision() -> None:
    busy = [sample(second, a=2.0 * second) for second in range(11)]
    idle = [sample(second, a=20.0 + 0.1 * (second - 10)) for second in range(11, 22)]
    present = loaded(*busy, *idle)
    assert present is not None
    assert present.used == pytest.approx(0.1)
    changed = loaded(sample(0, 500, a=1.0), sample(1), sample(2, 100, a=2.0), sample(4, 300, a=3.0))
    assert changed == PresentLoad(2, 0.5, 75)  # 300 rows of the present revision in four seconds


def test_it_is_early_until_the_load_is_known() -> None:
    window = LoadWindow()
    assert not window.is_early  # nobody tells
    window.add(sample(0))
    assert not window.is_early
    window.add(sample(1, a=1.0))
    assert window.is_early
    window.add(sample(3, a=1.5))
    assert not window.is_early
    canary = plan([{"weight": "0%", "hold": "1s"}, {"weight": "50%", "hold": "1s"}])
    assert canary.analysis is not None
    state = RampState("ramping", 0, 0, no_evidence(canary.analysis), is_early=True)
    assert next_step(canary, state, 2000) == Hold("the load of the workers is measured")


def test_a_row_is_compared_in_runs_of_about_as_many_rows() -> None:
    stable = ArmCounts(run_rows=(100, 0, 0, 0, 9900), run_cpu_ns=(S, 0, 0, 0, 10 * S))
    same = ArmCounts(run_rows=(500, 0, 0, 0, 0), run_cpu_ns=(5 * S, 0, 0, 0, 0))
    own, of_stable = row_seconds(same, stable)
    assert own == pytest.approx(of_stable)
    twice = ArmCounts(run_rows=(500, 0, 0, 0, 0), run_cpu_ns=(10 * S, 0, 0, 0, 0))
    own, of_stable = row_seconds(twice, stable)
    assert of_stable is not None
    assert own == pytest.approx(2 * of_stable)
    few = ArmCounts(run_rows=(LEAST_ROWS - 1, 0, 0, 0, 0), run_cpu_ns=(S, 0, 0, 0, 0))
    assert row_seconds(few, stable)[0] == pytest.approx(1 / (LEAST_ROWS - 1))
    assert row_seconds(NOTHING, stable)[0] is None


def test_a_dearer_version_needs_more_and_a_cheaper_one_makes_the_way_back_dear() -> None:
    present = PresentLoad(4.0, 1.0, 100.0)
    stable = arm(1000, 10.0)  # 10 ms a row
    dear = forecast_load(present, arm(1000, 40.0), stable, 0, 500_000)
    assert (dear.now, dear.at_next, dear.after_rollback) == pytest.approx((0.25, 0.25 + 1.5 / 4, 0.25))
    cheap = forecast_load(present, arm(1000, 2.0), stable, 500_000, 1_000_000)
    assert (cheap.at_next, cheap.after_rollback) == pytest.approx(((1 - 0.4) / 4, (1 + 0.4) / 4))
    unknown = forecast_load(present, NOTHING, stable, 0, 500_000)
    assert unknown.assumed
    assert unknown.at_next == unknown.now
    assert "not known" in str(unknown)


@given(st.floats(0.1, 64), st.floats(0, 64), st.floats(0, 1e4), st.integers(0, 1_000_000), st.integers(0, 1_000_000))
def test_equal_arms_change_nothing(cores: float, used: float, rows: float, now: int, after: int) -> None:
    forecast = forecast_load(PresentLoad(cores, used, rows), arm(50, 1.0), arm(70, 1.4), now, after)
    assert forecast.at_next == pytest.approx(forecast.now)
    assert forecast.after_rollback == pytest.approx(forecast.now)


@pytest.mark.parametrize(
    ("forecast", "most", "expected", "text"),
    [
        (CapacityForecast(4, 0.3, 0.5, 0.3, 500_000), "80%", Advance, "50% at 50%, 30% after a way back"),
        (CapacityForecast(4, 0.3, 0.7, 0.3, 500_000), "80%", Advance, "30% after a way back: little is left"),
        (CapacityForecast(4, 0.3, 0.81, 0.3, 500_000), "80%", Hold, "80% is the most that maxLoad allows"),
        (CapacityForecast(4, 0.3, 0.2, 0.9, 500_000), "80%", Hold, "90% after a way back: 80% is the most"),
        (CapacityForecast(4, 0.3, 0.81, 0.9, 500_000), "95%", Advance, "little is left"),
        (CapacityForecast(4, 0.3, 2.0, 2.0, 500_000), "100%", Advance, "little is left"),
        (None, "80%", Advance, "is over"),
    ],
)
def test_a_step_that_would_overload_is_not_taken(
    forecast: CapacityForecast | None, most: str, expected: type[object], text: str
) -> None:
    steps = [{"weight": "0%", "hold": "60s"}, {"weight": "50%", "hold": "60s"}]
    canary = plan(steps, None, maxLoad=most, maxHold="5m")
    assert canary.analysis is not None
    state = RampState("ramping", 0, 0, no_evidence(canary.analysis), capacity=forecast)
    step = next_step(canary, state, 60_000)
    assert isinstance(step, expected)
    assert text in step.reason
    assert isinstance(next_step(canary, state, 360_000), Stop if expected is Hold else expected)


def test_a_cost_is_of_a_thousand_requests() -> None:
    assert cpu_seconds_per_1000(NOTHING) is None
    assert cpu_seconds_per_1000(arm(400, 2.0, requests=200)) == pytest.approx(10.0)
