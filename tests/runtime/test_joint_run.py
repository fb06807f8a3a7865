"""Runs that are shared: fresh for each who asks, and few."""

import asyncio

import pytest

from gateway.runtime.joint_run import JointRun


class Runs:
    """Runs that end when they are let go; each returns its number."""

    def __init__(self) -> None:
        self.begun = 0
        self.under_way = asyncio.Event()
        self.go = asyncio.Event()
        self.error: Exception | None = None

    async def run(self) -> int:
        self.begun += 1
        number = self.begun
        self.under_way.set()
        await self.go.wait()
        if self.error is not None:
            raise self.error
        return number


async def test_who_asks_during_a_run_shares_the_next_one() -> None:
    runs = Runs()
    joint = JointRun(runs.run)
    first = [asyncio.create_task(joint.outcome()) for _ in range(3)]
    await runs.under_way.wait()
    later = [asyncio.create_task(joint.outcome()) for _ in range(3)]
    runs.go.set()
    assert await asyncio.gather(*first) == [1, 1, 1]
    assert await asyncio.gather(*later) == [2, 2, 2]
    assert await joint.outcome() == 3


async def test_who_gives_up_takes_nothing_from_others() -> None:
    runs = Runs()
    joint = JointRun(runs.run)
    gone, stays = asyncio.create_task(joint.outcome()), asyncio.create_task(joint.outcome())
    await runs.under_way.wait()
    gone.cancel()
    runs.go.set()
    assert await stays == 1
    with pytest.raises(asyncio.CancelledError):
        await gone


async def test_an_error_is_told_to_all_and_ends_with_its_run() -> None:
    runs = Runs()
    joint = JointRun(runs.run)
    runs.go.set()
    runs.error = ValueError("no")
    for outcome in await asyncio.gather(joint.outcome(), joint.outcome(), return_exceptions=True):
        assert isinstance(outcome, ValueError)
    runs.error = None
    assert await joint.outcome() == 2
