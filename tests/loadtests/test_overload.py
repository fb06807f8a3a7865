"""The judge of the overload scenario finds each thing that must not be, and the open loop is one."""

import asyncio
from collections import Counter
from dataclasses import replace

import pytest

from loadtests.open_loop import Outcome, Traffic, arrivals, drive
from loadtests.overload import LIMIT_BYTES, MIB, ONSET_S, Step, faults

GOOD = Outcome(1.0, Counter({"0": 100}), [0.01] * 100)


def step(factor: float, outcome: Outcome = GOOD, *, rss_mib: float = 100.0, cpu_s: float = 1.0) -> Step:
    return Step(factor, factor * 100, outcome, rss_mib, cpu_s)


def outcome(
    *, good: int = 100, late: int = 0, late_by_s: float = 0.0, refusal_s: float = 0.01, **codes: int
) -> Outcome:
    at_s = [number / 400 for number in range(400)]
    took_s = [1.0 if second < ONSET_S else refusal_s for second in at_s]
    codes_of = Counter({"0": good, "8": 400, **codes})
    return Outcome(1.0, codes_of, [0.01], took_s, late, late_by_s, refused_at_s=at_s)


def test_what_holds_is_no_fault() -> None:
    assert faults(100.0, [step(1.0), step(5.0, outcome()), step(10.0, outcome(good=91))]) == []


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        (step(5.0, outcome(good=80)), "at 5x goodput is 80/s, 80% of the highest"),
        (step(5.0, outcome(late=50, late_by_s=0.01)), "at 5x goodput is 50/s"),
        (step(2.0, outcome(refusal_s=0.2)), "at 2x refusals take 200 ms"),
        (step(2.0, outcome(late=1, late_by_s=0.3)), "at 2x 1 answers up to 300 ms after their deadline"),
        (step(2.0, outcome(none=3)), "at 2x calls ended with none"),
        (step(2.0, rss_mib=1.2 * (100 + LIMIT_BYTES / MIB) + 1), "at 2x the worker holds 428 MiB, 427 are allowed"),
    ],
)
def test_each_fault_is_named(bad: Step, text: str) -> None:
    (fault,) = faults(100.0, [step(1.0), bad])
    assert fault.startswith(text)


def test_a_worker_that_got_less_of_the_cpus_has_not_failed() -> None:
    slow = step(5.0, outcome(good=40), cpu_s=0.4)
    assert faults(100.0, [step(1.0), slow]) == []
    assert "goodput" in faults(100.0, [step(1.0), replace(slow, cpu_s=0.8)])[0]


def test_a_round_on_a_slow_cpu_is_no_fault_but_two_of_three_are() -> None:
    slow = outcome(good=60, refusal_s=0.2)
    assert faults(100.0, [step(1.0), step(5.0, slow)] + [step(1.0), step(5.0, outcome())] * 2) == []
    goodput, refusals = faults(100.0, [step(1.0), step(5.0, slow)] * 2 + [step(1.0), step(5.0, outcome())])
    assert goodput.startswith("at 5x goodput is 60/s, 60% of the highest")
    assert refusals.startswith("at 5x refusals take 200 ms")


def test_arrivals_are_a_schedule() -> None:
    moments = arrivals(1000.0, 10.0, seed=3)
    assert moments == arrivals(1000.0, 10.0, seed=3)
    assert moments == sorted(moments)
    assert 9600 < len(moments) < 10_400  # four sigmas


async def test_calls_of_a_server_that_does_not_answer_are_counted() -> None:
    """A closed loop would send one call and wait; here all are sent, and none is forgotten."""

    ended = asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        await writer.wait_closed()
        ended.set()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    async with server:
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        (seen,) = await drive(address, [Traffic(bytes(5), 200.0, deadline_s=0.05, connections=1)], 0.2)
        await ended.wait()
    assert seen.codes == Counter({"none": len(arrivals(200.0, 0.2, seed=1))})
    assert seen.goodput == 0.0
