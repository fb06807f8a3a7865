"""Rates that follow how full buffer and disk are."""

import asyncio
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.records.worker.back_pressure import LossPolicy
from gateway.records.worker.prediction_log import LogLimits
from gateway.records.worker.sampling import LEAST_SCALE, disk_scale, relieved
from tests.records.traffic import append, balanced, compactor, lake_rows, open_log, open_stream


@given(st.lists(st.floats(0, 1.2), max_size=60))
@example([])
@example([0.8])
@example([1.2] * 60)
@example([0.0] * 60)
def test_the_factor_halves_over_four_fifths_and_doubles_back_below_a_half(fills: list[float]) -> None:
    scale = 1.0
    for fill in fills:
        before, scale = scale, relieved(scale, fill)
        assert scale == (max(before / 2, LEAST_SCALE) if fill > 0.8 else min(before * 2, 1) if fill < 0.5 else before)
    for _ in range(16):
        scale = relieved(scale, 0.0)
    assert scale == 1.0


@pytest.mark.parametrize(
    ("used", "scale"), [(0.2, 1), (0.75, 1), (0.76, 0.5), (0.81, 0.25), (0.86, 0.125), (1.0, 1 / 64)]
)
def test_the_fuller_the_disk_the_fewer_rows(used: float, scale: float) -> None:
    assert disk_scale(used, 0.75) == scale


async def test_over_four_fifths_fewer_are_kept_and_each_row_says_with_which_probability(tmp_path: Path) -> None:
    limits = LogLimits(policy=LossPolicy.SAMPLE, max_records=1000, flush_interval_s=0.01)
    log = open_log(tmp_path / "wal", limits=limits)
    stream = open_stream(log)
    for number in range(900):
        append(stream, f"r{number}")
    running = asyncio.create_task(log.run())
    await asyncio.sleep(0)  # it looks at the buffer as soon as it runs
    assert log.scale == 0.5
    for number in range(80):
        append(stream, f"s{number}")
    append(stream, "failed", code=13)
    assert 20 < log.counts().sampled_out < 60
    async with asyncio.timeout(20):
        while log.scale < 1 or log.counts().buffered:  # noqa: ASYNC110 (the truth is a counter)
            await asyncio.sleep(0.005)
    append(stream, "after")
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await log.close()
    assert balanced(log.counts())
    assert dict(log.counts().dropped) == {}
    compactor(tmp_path / "wal", tmp_path / "lake").step()
    rows = lake_rows(tmp_path / "lake", columns=["request_id", "sample_p", "sample_reason"])
    kept = {row["request_id"]: (row["sample_p"], row["sample_reason"]) for row in rows}
    assert kept["r0"] == kept["after"] == (1.0, "all")
    assert kept["failed"] == (1.0, "error")
    assert {kept[name] for name in kept if name.startswith("s")} == {(0.5, "pressure")}


async def test_a_disk_that_is_filling_up_costs_probability_first(tmp_path: Path) -> None:
    tmp_path.joinpath("wal").mkdir()
    log = open_log(tmp_path / "wal", limits=LogLimits(disk_sample=-1.0))  # whatever is in use is too much
    stream = open_stream(log)
    append(stream, "before")
    await log.flush()
    assert log.scale < 1e-6
    append(stream, "out")
    assert log.counts().sampled_out == 1
    await log.close()
    every = open_log(tmp_path / "wal", limits=LogLimits(disk_sample=-1.0, policy=LossPolicy.AUDIT))
    await every.flush()
    assert every.scale == 1.0
    await every.close()


async def test_a_worker_that_is_nearly_full_logs_fewer_where_the_policy_lets_it(tmp_path: Path) -> None:
    for policy, scale in ((LossPolicy.SAMPLE, 0.5), (LossPolicy.DROP_NEWEST, 1.0)):
        log = open_log(tmp_path / policy.value, limits=LogLimits(policy=policy, flush_interval_s=60))
        log.load = lambda: 0.81
        running = asyncio.create_task(log.run())
        await asyncio.sleep(0)  # it looks as soon as it runs
        assert log.scale == scale
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await log.close()
