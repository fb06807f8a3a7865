import asyncio
from time import monotonic_ns

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.rpc.deadline import DeadlineWheel, Slot, parse_timeout

TICK_NS = 1 << 24


class Member:
    def __init__(self, deadline_ns: int) -> None:
        self.deadline_ns = deadline_ns
        self.slot: Slot | None = None
        self.expired_at_ns: int | None = None
        self.now_ns = 0

    def expire(self) -> None:
        self.expired_at_ns = self.now_ns


def test_timeouts_are_read() -> None:
    read = {b"1n": 1, b"2u": 2_000, b"3m": 3_000_000, b"4S": 4 * 10**9, b"5M": 300 * 10**9, b"6H": 21_600 * 10**9}
    assert {value: parse_timeout(value) for value in read} == read
    assert parse_timeout(b"99999999H") == 99_999_999 * 3_600 * 10**9


@pytest.mark.parametrize("value", [b"", b"1", b"S", b"1s", b"-1S", b"1.5S", b"123456789S", b" 1S", b"1 S"])
def test_other_timeouts_are_refused(value: bytes) -> None:
    with pytest.raises(ValueError, match="grpc-timeout"):
        parse_timeout(value)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(-1, 200_000), st.booleans()), max_size=30), st.integers(10, 5_000))
@example([], 10)
@example([(0, False)], 10)
@example([(1000, True)] * 30, 10)
def test_members_expire_after_their_deadline_and_soon(plans: list[tuple[int, bool]], step_ms: int) -> None:
    loop = asyncio.new_event_loop()
    try:
        wheel = DeadlineWheel(loop)
        began_ns = monotonic_ns()
        members = [Member(began_ns + ms * 1_000_000) for ms, _ in plans]
        for member in members:
            wheel.add(member)
        for member, (_, leaves) in zip(members, plans, strict=True):
            if leaves:
                assert member.slot is not None
                del member.slot[member]
        for now_ns in range(began_ns, began_ns + 206_000_000_000, step_ms * 1_000_000):
            for member in members:
                member.now_ns = now_ns
            wheel.turn(now_ns)
        for member, (_, leaves) in zip(members, plans, strict=True):
            if leaves:
                assert member.expired_at_ns is None
            else:
                assert member.expired_at_ns is not None
                late_ns = member.expired_at_ns - max(member.deadline_ns, began_ns)
                assert 0 <= late_ns <= 2 * TICK_NS + step_ms * 1_000_000
        wheel.stop()
    finally:
        loop.close()


async def test_the_wheel_turns_by_itself_and_rests_when_empty() -> None:
    done = asyncio.Event()

    class Waiting(Member):
        def expire(self) -> None:
            done.set()

    wheel = DeadlineWheel(asyncio.get_running_loop())
    for _ in range(2):
        done.clear()
        member = Waiting(monotonic_ns() + 30_000_000)
        wheel.add(member)
        await asyncio.wait_for(done.wait(), 5)
        assert monotonic_ns() >= member.deadline_ns
        resting = asyncio.Event()
        asyncio.get_running_loop().call_later(4 * TICK_NS / 1e9, resting.set)
        await resting.wait()
        assert wheel._timer is None
