"""The loop stays awake for a client that makes one call after the other, and for nobody else."""

import asyncio

from gateway.rpc.busy_poll import BusyPoll

LIMIT_NS = 50_000_000
SECOND_NS = 1_000_000_000


def calls(poll: BusyPoll, count: int, *, gap_ns: int) -> int:
    """So many calls, each so long after the answer to the one before; the time of the last answer."""
    now_ns = 0
    for _ in range(count):
        now_ns += gap_ns
        poll.read(now_ns)
        poll.wrote(now_ns)
    return now_ns


async def turns_until_asleep(poll: BusyPoll) -> int:
    turns = 0
    async with asyncio.timeout(10):
        while poll.polling:
            turns += 1
            await asyncio.sleep(0)
    return turns


async def test_calls_that_follow_each_other_keep_the_loop_awake_and_then_it_sleeps() -> None:
    loop = asyncio.get_running_loop()
    poll = BusyPoll(loop, LIMIT_NS)
    calls(poll, 20, gap_ns=LIMIT_NS // 2)
    assert poll.polling
    poll.wrote(int(loop.time() * 1e9))  # asyncio's clock is the monotonic one
    started = loop.time()
    assert await turns_until_asleep(poll) > 10
    assert loop.time() - started < 5


async def test_a_few_calls_or_slow_ones_do_not() -> None:
    loop = asyncio.get_running_loop()
    for count, gap_ns in ((4, 1000), (100, 2 * LIMIT_NS)):
        poll = BusyPoll(loop, LIMIT_NS)
        calls(poll, count, gap_ns=gap_ns)
        assert not poll.polling


async def test_one_late_call_ends_it() -> None:
    loop = asyncio.get_running_loop()
    poll = BusyPoll(loop, LIMIT_NS)
    last_ns = calls(poll, 20, gap_ns=1000)
    poll.read(last_ns + SECOND_NS)
    await turns_until_asleep(poll)
    poll.wrote(last_ns + SECOND_NS)
    assert not poll.polling


async def test_it_can_be_off() -> None:
    poll = BusyPoll(asyncio.get_running_loop(), 0)
    calls(poll, 100, gap_ns=1)
    assert not poll.polling
