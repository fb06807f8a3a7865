"""The queue of a version: who leaves it before the run, who comes into it, and who waits no longer."""

import asyncio
import gc
import time
from time import monotonic_ns
from typing import Any

import numpy as np
import pytest

from gateway.errors import Cancelled, DeadlineExceeded, ResourceExhausted
from gateway.serving.call import Call
from gateway.tensor import Array
from tests import models
from tests.machine_load import as_loaded
from tests.serving.bench import Bench, row


async def test_expired_and_answered_calls_leave_before_the_run(benches: list[Bench]) -> None:
    bench = Bench(models.affine())
    benches.append(bench)
    late = bench.put(row(1, 1, 1, 1), deadline_ns=monotonic_ns() - 1)
    gone = bench.put(row(2, 2, 2, 2))
    good = bench.put(row(3, 3, 3, 3))
    gone.fail(Cancelled("the client went away"))
    bench.batcher.forget(gone)
    assert float((await bench.outputs(good))[0][0, 0]) == 6.0
    assert isinstance(await bench.error(late), DeadlineExceeded)
    assert isinstance(await bench.error(gone), Cancelled)
    assert bench.session.runs == [1]
    assert bench.batcher.queued == 0
    assert len(bench.outcomes) == 3


async def test_a_full_queue_refuses(benches: list[Bench]) -> None:
    bench = Bench(models.affine(), max_queue_size=2)
    benches.append(bench)
    calls = [bench.put(row(1, 2, 3, 4)) for _ in range(2)]
    with pytest.raises(ResourceExhausted, match="max_queue_size is 2") as refused:
        bench.put(row(1, 2, 3, 4))
    assert refused.value.retry_after_ms is not None
    assert 50 <= refused.value.retry_after_ms < 250
    for call in calls:
        await bench.outputs(call)


def turning(count: int) -> tuple[Array, Array]:
    return np.ones((1, 64), np.float32), np.array([count], np.int64)


async def test_a_call_that_waits_too_long_is_told_then_not_when_the_run_ends(benches: list[Bench]) -> None:
    bench = Bench(models.turns(), max_batch_size=0, run_us=50_000.0, default_timeout_us=500_000)
    benches.append(bench)
    running = bench.put(*turning(1_000_000_000))
    await asyncio.to_thread(bench.session.began.wait, 10)
    waiting = [bench.put(*turning(1)) for _ in range(3)]
    began = time.monotonic()
    for call in waiting:
        error = await bench.error(call)
        assert isinstance(error, DeadlineExceeded)
        assert "waited in the queue" in str(error)
    assert time.monotonic() - began < as_loaded(5)
    assert not running.answered  # the limit is of the queue: what runs, runs on
    assert bench.batcher.queued == 0
    running.fail(Cancelled("enough"))
    assert running.batch is not None
    running.batch.abandon()
    assert (await bench.outputs(bench.put(*turning(1))))[0].shape == (1, 64)


async def test_calls_that_waited_too_long_are_not_kept_behind_a_long_run(benches: list[Bench]) -> None:
    bench = Bench(models.turns(), max_batch_size=0, run_us=50_000.0, allow_timeout_override=True)
    benches.append(bench)
    running = bench.put(*turning(1_000_000_000))
    await asyncio.to_thread(bench.session.began.wait, 10)
    before = sum(isinstance(one, Call) for one in gc.get_objects())
    calls = [bench.call(*turning(1)) for _ in range(100)]
    for call in calls:
        call.queue_limit_ns = 20_000_000
        bench.batcher.put(call)
    assert {type(await bench.error(call)) for call in calls} == {DeadlineExceeded}
    calls.clear()
    bench.forget()
    kept = sum(isinstance(one, Call) for one in gc.get_objects()) - before
    running.fail(Cancelled("enough"))
    assert running.batch is not None
    running.batch.abandon()
    assert kept < 10


class Elsewhere:
    """The receiver of calls that go on to another version as soon as one has failed them."""

    def __init__(self) -> None:
        self.left = asyncio.Event()

    def submitted(self, call: Call) -> None:
        pass

    def withdrawn(self, call: Call) -> None:
        pass

    def answered(self, call: Call) -> None:
        call.renew()
        self.left.set()


async def test_a_call_that_went_on_to_another_version_does_not_run_here_as_well(benches: list[Bench]) -> None:
    bench = Bench(models.turns(), max_batch_size=0, run_us=50_000.0, allow_timeout_override=True)
    benches.append(bench)
    running = bench.put(*turning(1_000_000_000))
    await asyncio.to_thread(bench.session.began.wait, 10)
    call, elsewhere = bench.call(*turning(1)), Elsewhere()
    call.receiver, call.queue_limit_ns = elsewhere, 20_000_000
    bench.batcher.put(call)
    await elsewhere.left.wait()
    running.fail(Cancelled("enough"))
    assert running.batch is not None
    running.batch.abandon()
    async with asyncio.timeout(as_loaded(5)):
        await bench.outputs(bench.put(*turning(1)))
    assert (len(bench.session.runs), bench.batcher.queued) == (2, 0)


@pytest.mark.parametrize(
    ("config", "limits_us", "told"),
    [
        ({}, (1_000, 0), []),  # nothing allows a request to set a limit
        ({"default_timeout_us": 3_600_000_000}, (1_000, 0), []),
        ({"allow_timeout_override": True}, (1_000, 0), [0]),
        ({"allow_timeout_override": True, "default_timeout_us": 3_600_000_000}, (2_000, 1_000, 0), [0, 1]),
        ({"allow_timeout_override": True, "default_timeout_us": 500_000}, (3_600_000_000, 0), [0, 1]),  # no longer one
        ({"allow_timeout_override": True, "delays_expired": True, "default_timeout_us": 1_000}, (1_000, 0), []),
    ],
)
async def test_a_request_may_shorten_the_limit_of_the_queue_where_the_configuration_says_so(
    benches: list[Bench], config: dict[str, Any], limits_us: tuple[int, ...], told: list[int]
) -> None:
    bench = Bench(models.turns(), max_batch_size=0, run_us=50_000.0, **config)
    benches.append(bench)
    running = bench.put(*turning(20_000 if not told else 1_000_000_000))
    await asyncio.to_thread(bench.session.began.wait, 10)
    calls = [bench.call(*turning(1)) for _ in limits_us]
    for call, limit_us in zip(calls, limits_us, strict=True):
        call.queue_limit_ns = limit_us * 1000
        bench.batcher.put(call)
    for index in told:
        assert isinstance(await bench.error(calls[index]), DeadlineExceeded)
    if told:
        running.fail(Cancelled("enough"))
        assert running.batch is not None
        running.batch.abandon()
    for index, call in enumerate(calls):
        if index not in told:
            assert (await bench.outputs(call))[0].shape == (1, 64)
    assert [index for index, call in enumerate(calls) if call.error is not None] == told
