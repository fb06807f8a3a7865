"""What a large model costs a host: the arithmetic, and a small one measured as a large one is."""

import mmap
import os
from pathlib import Path

import pytest

from loadtests.bench import h2load
from loadtests.bench.bystander import Beside, CallTimes
from loadtests.bench.cases import Case
from loadtests.bench.processes import pss_mib
from loadtests.bench.weight_cost import WeightCost, measure, wide_model

CALLS = {
    Beside.NOTHING: CallTimes(8000, 0.14, 0.4),
    Beside.COUNTING: CallTimes(8000, 0.14, 0.5),
    Beside.HALTED: CallTimes(4000, 0.14, 0.5),
    Beside.PREPARATION: CallTimes(4500, 0.15, 0.6),
}


def test_the_goal_counts_the_weights_once_and_each_worker() -> None:
    cost = WeightCost(2, 400.0, 150.0, 1000.0, 550.0, (900.0,), (5000.0,), (300.0, 310.0), (540.0, 560.0), CALLS)
    assert cost.goal_mib == pytest.approx(620e6 / 2**20)
    first, second, *calls = cost.lines()
    assert "PSS 550 MiB together, 1000 with weights of their own" in first
    assert "AVAILABLE after 300 310 ms in each worker, 540 560 at a start, 900 with weights" in second
    assert [line.partition(":")[0].removeprefix("another model's calls ") for line in calls] == list(CALLS)
    assert "p99 0.40 ms (8000 calls)" in calls[0]
    assert "1.25 times that alone)" in calls[1]
    assert "p99 0.50 ms (4000 calls)" in calls[2]
    assert "1.50 times that alone; 1.20 times that beside a process that only counts; 1.20 times that while" in calls[3]


def test_the_model_has_the_weights_that_are_asked_for() -> None:
    assert len(wide_model(2).serialized("1")) == pytest.approx(2e6, rel=0.02)


def test_memory_is_counted_where_it_is_held() -> None:
    before = pss_mib(os.getpid())
    with mmap.mmap(-1, 32 << 20) as held:
        for page in range(0, len(held), mmap.PAGESIZE):
            held[page] = 1
        assert pss_mib(os.getpid()) - before == pytest.approx(32, abs=4)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.skipif(not h2load.installed(), reason="needs h2load")
def test_two_workers_hold_the_weights_once(tiny: Case, tmp_path: Path) -> None:
    cost = measure(tiny, tmp_path, workers=2, megabytes=60, begun=lambda title: None)
    assert cost.own_mib - cost.idle_mib > 1.8 * cost.weights_mb * 1e6 / 2**20
    assert cost.shared_mib - cost.idle_mib < 1.4 * cost.weights_mb * 1e6 / 2**20
    assert len(cost.shared_ms) == len(cost.start_ms) == 2
    assert {Beside.NOTHING, Beside.COUNTING} <= cost.calls.keys()
