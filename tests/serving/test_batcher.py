"""Micro-batching with real sessions: who runs together, who leaves before, and whose answer is whose."""

import asyncio
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from gateway.errors import Cancelled, Code
from gateway.serving.batcher import COMPANY_NS, LONELY_RUNS, Batcher
from gateway.tensor import Datatype
from tests import models
from tests.machine_load import as_loaded
from tests.serving.bench import Bench, row


async def test_calls_of_one_turn_run_together_and_each_gets_its_rows(benches: list[Bench]) -> None:
    bench = Bench(models.affine(2.0, 1.0))
    benches.append(bench)
    inputs = [np.full((rows, 4), rows, np.float32) for rows in (1, 3, 2)]
    calls = [bench.put(x) for x in inputs]
    for x, call in zip(inputs, calls, strict=True):
        (y,) = await bench.outputs(call)
        np.testing.assert_array_equal(y, x * 2 + 1)
    assert bench.session.runs == [6]


async def test_a_batch_never_exceeds_the_limit(benches: list[Bench]) -> None:
    bench = Bench(models.affine(), max_batch_size=4)
    benches.append(bench)
    calls = [bench.put(np.ones((3, 4), np.float32)) for _ in range(3)]
    for call in calls:
        await bench.outputs(call)
    assert bench.session.runs == [3, 3, 3]


async def test_a_version_that_does_not_batch_runs_each_call_alone(benches: list[Bench]) -> None:
    bench = Bench(models.affine(), max_batch_size=0)
    benches.append(bench)
    calls = [bench.put(np.full((2, 4), i, np.float32)) for i in range(3)]
    answers = [(await bench.outputs(call))[0] for call in calls]
    assert [float(y[0, 0]) for y in answers] == [0.0, 2.0, 4.0]
    assert bench.session.runs == [2, 2, 2]


async def test_requested_outputs_come_in_the_order_asked_for(benches: list[Bench]) -> None:
    bench = Bench(models.add_sub())
    benches.append(bench)
    a, b = np.full((1, 16), 5, np.int32), np.full((1, 16), 3, np.int32)
    swapped = bench.put(a, b, wanted=(1, 0))
    everything = bench.put(a, b)
    second = bench.put(a, b, wanted=(1,))
    for call, expected in ((swapped, [2, 8]), (everything, [8, 2]), (second, [2])):
        assert [int(y[0, 0]) for y in await bench.outputs(call)] == expected
    alone = bench.put(a, b, wanted=(1, 0))
    assert [int(y[0, 0]) for y in await bench.outputs(alone)] == [2, 8]


async def test_one_calls_fault_stays_its_own(benches: list[Bench]) -> None:
    bench = Bench(models.fragile(8))
    benches.append(bench)
    calls = [bench.put(np.array([index], np.int64)) for index in (1, 99, 3)]
    assert float((await bench.outputs(calls[0]))[0][0]) == 1.0
    assert (await bench.error(calls[1])).code is Code.INTERNAL
    assert float((await bench.outputs(calls[2]))[0][0]) == 3.0


async def test_long_runs_leave_the_loop_free(benches: list[Bench]) -> None:
    bench = Bench(models.slow(20_000), run_us=50_000.0)
    benches.append(bench)
    call = bench.put(np.ones((1, 64), np.float32))
    await asyncio.to_thread(bench.session.began.wait, 10)
    turns = 0
    while not call.answered:
        await asyncio.sleep(0)
        turns += 1
    assert turns > 10
    assert threading.get_ident() not in bench.session.threads
    assert bench.version.leases == 0


async def test_what_arrives_during_a_run_goes_together(benches: list[Bench]) -> None:
    bench = Bench(models.slow(2_000), run_us=4_000.0)
    benches.append(bench)
    first = bench.put(np.ones((1, 64), np.float32))
    await asyncio.to_thread(bench.session.began.wait, 10)
    others = [bench.put(np.ones((1, 64), np.float32)) for _ in range(2)]
    for call in (first, *others):
        await bench.outputs(call)
    assert bench.session.runs == [1, 2]


async def test_long_runs_stay_apart_once_a_merged_row_was_measured_dearer(benches: list[Bench]) -> None:
    bench = Bench(models.slow(1_000), run_us=4_000.0)
    benches.append(bench)
    bench.session.costs = {2: 0.05, 3: 0.05, 4: 0.05}  # beside the model's own: CPU seconds of a run, by its rows
    for _ in range(4):
        calls = [bench.put(np.ones((1, 64), np.float32)) for _ in range(3)]
        for call in calls:
            await bench.outputs(call)
    assert max(bench.session.runs[:6]) > 1
    assert bench.session.runs[-3:] == [1, 1, 1]


async def test_a_run_that_nobody_waits_for_is_stopped(benches: list[Bench]) -> None:
    bench = Bench(models.endless(), run_us=1e6)
    benches.append(bench)
    call = bench.put(np.ones((1, 64), np.float32))
    await asyncio.to_thread(bench.session.began.wait, 10)
    batch = call.batch
    assert batch is not None
    call.fail(Cancelled("the client went away"))
    batch.abandon()
    bench.threads.shutdown(wait=True)  # returns only if the endless run has ended
    assert isinstance(await bench.error(call), Cancelled)
    for _ in range(100):
        await asyncio.sleep(0)
    assert bench.version.leases == 0


async def test_calls_of_different_shapes_do_not_mix(benches: list[Bench]) -> None:
    bench = Bench(models.identity(Datatype.FP32, (-1, -1)))
    benches.append(bench)
    calls = [bench.put(np.ones((1, width), np.float32)) for width in (2, 3, 2)]
    for call, width in zip(calls, (2, 3, 2), strict=True):
        assert (await bench.outputs(call))[0].shape == (1, width)
    assert bench.session.runs == [2, 1]


async def test_a_configured_reshape_is_undone_for_the_client(benches: list[Bench]) -> None:
    bench = Bench(models.affine(features=4))
    benches.append(bench)
    offered = replace(
        bench.version.config,
        inputs=(replace(bench.session.inputs[0], shape=(-1, 2, 2)),),
        outputs=(replace(bench.session.outputs[0], shape=(-1, 2, 2)),),
        input_reshapes={"x": (4,)},
        output_reshapes={"y": (2, 2)},
    )
    bench.version.equip(bench.session, offered, digest="d", run_us=5.0)
    bench.batcher = Batcher(bench.version, loop=asyncio.get_running_loop(), threads=bench.threads, parallel=1)
    calls = [bench.put(np.full((1, 2, 2), value, np.float32)) for value in (1, 2)]
    for call, value in zip(calls, (1, 2), strict=True):
        np.testing.assert_array_equal((await bench.outputs(call))[0], np.full((1, 2, 2), 2 * value))


async def test_rows_that_depend_on_each_other_are_kept_apart_where_the_configuration_says_so(
    benches: list[Bench],
) -> None:
    bench = Bench(models.row_mixing(), merges=False)
    benches.append(bench)
    calls = [bench.put(row(value, value, value, value)) for value in (1.0, 5.0)]
    for call in calls:
        np.testing.assert_array_equal((await bench.outputs(call))[0], np.zeros((1, 4)))
    assert bench.session.runs == [1, 1]


async def test_text_joins_a_batch(benches: list[Bench]) -> None:
    bench = Bench(models.identity(Datatype.BYTES, (-1, 1)))
    benches.append(bench)
    calls = [bench.put(np.array([[text]], dtype=object)) for text in (b"a", "ö".encode())]
    assert [(await bench.outputs(call))[0][0, 0] for call in calls] == [b"a", "ö".encode()]
    assert bench.session.runs == [2]


async def test_a_configured_delay_waits_for_company_and_a_full_batch_does_not(benches: list[Bench]) -> None:
    bench = Bench(models.affine(), max_batch_size=2, max_queue_delay_us=30_000_000)
    benches.append(bench)
    first = bench.put(row(1, 1, 1, 1))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not first.answered
    second = bench.put(row(2, 2, 2, 2))
    assert float((await bench.outputs(first))[0][0, 0]) == 2.0
    assert float((await bench.outputs(second))[0][0, 0]) == 4.0
    assert bench.session.runs == [2]


async def test_a_call_that_is_always_alone_runs_at_once_until_it_has_company(benches: list[Bench]) -> None:
    at_once = []
    for _ in range(20):  # a version goes to a thread whose run the machine has held up for 50 ms
        bench = Bench(models.affine())
        benches.append(bench)
        for value in range(LONELY_RUNS):
            call = bench.put(row(value, 0, 0, 0))
            assert not call.answered
            assert (await bench.outputs(call))[0][0, 0] == value * 2
        await asyncio.sleep(COMPANY_NS / 1e9)
        call = bench.put(row(1, 0, 0, 0))
        answered = call.answered
        await bench.outputs(call)
        if bench.session.threads == {threading.get_ident()}:
            at_once.append(answered)
        if len(at_once) == 3:
            break
    assert at_once == [True] * 3
    several = [bench.put(row(value, 0, 0, 0)) for value in range(200)]
    for value, call in enumerate(several):
        assert (await bench.outputs(call))[0][0, 0] == value * 2
    assert max(bench.session.runs) > 1


async def test_a_run_that_holds_up_the_loop_is_ended_and_repeated_on_a_thread(benches: list[Bench]) -> None:
    """What a run costs may be in its data: the version is taken for long after the first that cost too much."""
    bench = Bench(models.turns(), max_batch_size=0)
    benches.append(bench)
    ones = np.ones((1, 64), np.float32)
    short = bench.put(ones, np.array([1], np.int64))
    await bench.outputs(short)
    assert bench.session.threads == {threading.get_ident()}
    before = time.monotonic()
    call = bench.put(ones, np.array([1_000_000], np.int64))
    await asyncio.sleep(0)  # the flush; it returns when the watch has ended the run
    held_s = time.monotonic() - before
    assert 0.04 < held_s < as_loaded(1.0)
    assert not call.answered
    others = bench.session.threads - {threading.get_ident()}
    while not others:
        await asyncio.sleep(0)
        others = bench.session.threads - {threading.get_ident()}
    assert call.batch is not None
    call.fail(Cancelled("nobody waits for it"))
    call.batch.abandon()  # its deadline reaches it there
    count = len(bench.session.runs)
    await bench.outputs(bench.put(ones, np.array([1], np.int64)))
    assert len(bench.session.runs) == count + 1
    assert bench.session.run_threads[-1] != threading.get_ident()


async def test_a_short_run_after_one_that_was_ended_is_whole(benches: list[Bench]) -> None:
    bench = Bench(models.turns(), max_batch_size=0)
    quick = Bench(models.affine(), shared=bench.shared)
    benches += [bench, quick]
    ones = np.ones((1, 64), np.float32)
    long = bench.put(ones, np.array([100_000], np.int64))
    await asyncio.sleep(0)
    for value in range(20):
        assert float((await quick.outputs(quick.put(row(value, 0, 0, 0))))[0][0, 0]) == 2.0 * value
    assert (await bench.outputs(long))[0].shape == (1, 64)


async def test_requests_without_rows_run_by_themselves(benches: list[Bench]) -> None:
    bench = Bench(models.affine())
    benches.append(bench)
    calls = [bench.put(row(1, 1, 1, 1)), bench.put(np.zeros((0, 4), np.float32)), bench.put(row(2, 2, 2, 2))]
    assert [(await bench.outputs(call))[0].shape[0] for call in calls] == [1, 0, 1]
    assert bench.session.runs == [1, 0, 1]


@pytest.mark.parametrize("rows", [0, 1, 3])
async def test_reshapes_with_a_free_size_take_requests_without_rows(benches: list[Bench], rows: int) -> None:
    bench = Bench(models.identity(Datatype.FP32, (-1, 4)), output_reshapes={"y": (-1, 2)})
    benches.append(bench)
    call = bench.put(np.ones((rows, 4), np.float32))
    (output,) = await bench.outputs(call)
    assert output.shape == (rows, 2, 2)


async def test_a_model_that_cannot_take_no_rows_says_so_to_the_client(benches: list[Bench]) -> None:
    """It is not the version's fault: a breaker would else let one client shut a route."""
    bench = Bench(models.largest_row(), max_batch_size=0)
    benches.append(bench)
    error = await bench.error(bench.put(np.zeros((0, 4), np.float32)))
    assert error.code is Code.INVALID_ARGUMENT
    assert "cannot take inputs without rows or elements" in str(error)
    assert "/onnx" not in str(error)
