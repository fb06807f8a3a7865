import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np

from gateway.records.worker.prediction_log import LogLimits
from gateway.records.worker.record import Record
from gateway.records.worker.tail import Row, Tailer, tail
from gateway.records.worker.wal import SegmentLimits
from gateway.tensor import Datatype, TensorSpec
from tests.records.traffic import NOW_US, append, compactor, open_log, open_stream


async def _take(rows: AsyncIterator[Row], count: int) -> list[Row]:
    async with asyncio.timeout(10):
        return [await anext(rows) for _ in range(count)]


async def _aclose(rows: Any) -> None:
    await rows.aclose()


async def test_the_backlog_is_the_last_rows_of_all_workers_by_time(tmp_path: Path) -> None:
    logs = [open_log(tmp_path, worker=f"w{index}") for index in range(2)]
    for number in range(100):
        append(open_stream(logs[number % 2]), f"r{number}", ts_us=NOW_US + number)
        if number % 10 == 0:
            await logs[number % 2].flush()
    await logs[0].close()
    await logs[1].flush()
    rows = [row async for row in tail(tmp_path, backlog=7, follow=False)]
    assert [row.request_id for row in rows] == [f"r{number}" for number in range(93, 100)]
    assert {row.worker for row in rows} == {"w0", "w1"}
    assert [row async for row in tail(tmp_path, backlog=0, follow=False)] == []
    await logs[1].close()


async def test_rows_follow_through_rotation_and_compaction_once_each(tmp_path: Path) -> None:
    log = open_log(tmp_path / "wal", limits=LogLimits(segment=SegmentLimits(max_bytes=3000)))
    stream = open_stream(log)
    append(stream, "before")
    await log.flush()
    tailer = Tailer(tmp_path / "wal")
    assert tailer.start(0) == []
    worker = compactor(tmp_path / "wal", tmp_path / "lake")
    shown: list[str] = []
    for turn in range(20):
        for number in range(10):
            append(stream, f"r{turn * 10 + number}", ts_us=NOW_US + turn * 10 + number)
        await log.flush()
        if turn % 3 == 0:
            shown += [row.request_id for row in tailer.poll(500)]
            worker.step()
    await log.close()
    shown += [row.request_id for row in tailer.poll(500)]
    assert tailer.poll(500) == []
    # A segment sealed and compacted between two polls is only in Parquet; here the compactor runs right after a poll.
    assert shown == [f"r{number}" for number in range(200)]
    tailer.close()


async def test_one_model_can_be_followed_live(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    flights, digits = open_stream(log), open_stream(log, model="digits")
    append(flights, "old")
    await log.flush()
    rows = tail(tmp_path, model="digits", backlog=5, poll_s=0.01)
    waiting = asyncio.create_task(_take(rows, 2))
    append(flights, "not this")
    for name in ("a", "b"):
        append(digits, name)
        await log.flush()
    assert [row.request_id for row in await waiting] == ["a", "b"]
    await _aclose(rows)
    await log.close()


async def test_what_comes_too_fast_is_skipped_and_said(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    tailer = Tailer(tmp_path)
    tailer.start(0)
    stream = open_stream(log)
    for number in range(1000):
        append(stream, f"r{number}", ts_us=NOW_US + number)
    await log.flush()
    rows = tailer.poll(10)
    assert [row.request_id for row in rows] == [f"r{number}" for number in range(990, 1000)]
    assert [row.skipped for row in rows] == [990] + [0] * 9
    tailer.close()
    await log.close()


async def test_tensors_are_cut_to_a_readable_length_and_say_so(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    wide, text = TensorSpec("wide", Datatype.FP32, (-1, 100)), TensorSpec("text", Datatype.BYTES, (-1, 1))
    stream = log.stream("m", "1", "a", (wide, text), (TensorSpec("y", Datatype.FP32, (-1, 1)),), "d")
    long = np.array([["word" * 100]], object)
    nan = np.array([[np.nan]], "<f4")
    stream.append(Record(NOW_US, "r", 3, "SPLIT", 9, 1, 1, 4, 5, 6, None, (np.arange(100, dtype="<f4"), long), (nan,)))
    await log.close()
    (row,) = [row async for row in tail(tmp_path, backlog=1, follow=False)]
    inputs = json.loads(row.inputs_json)
    assert inputs["wide"] == {"shape": [1, 100], "first": [float(value) for value in range(16)]}
    assert inputs["text"] == [("word" * 16) + "…"]
    assert json.loads(row.outputs_json) == {"y": ["nan"]}
    assert (row.code, row.revision, row.reason, row.queue_us, row.infer_us, row.total_us) == (3, 9, "SPLIT", 4, 5, 6)


async def test_a_frame_still_being_written_waits_and_a_damaged_one_is_passed_over(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    stream = open_stream(log)
    for name in ("a", "b", "c"):
        append(stream, name)
        await log.flush()
    (path,) = (tmp_path / "gw").iterdir()
    whole = path.read_bytes()
    half = tmp_path / "copy" / "gw" / path.name
    half.parent.mkdir(parents=True)
    half.write_bytes(whole[:-20])
    tailer = Tailer(tmp_path / "copy")
    assert [row.request_id for row in tailer.poll(10)] == ["a", "b"]
    with half.open("ab") as file:
        file.write(whole[-20:])
    assert [row.request_id for row in tailer.poll(10)] == ["c"]
    tailer.close()
    damaged = bytearray(whole)
    damaged[len(whole) * 3 // 4] ^= 1
    half.write_bytes(damaged)
    again = Tailer(tmp_path / "copy")
    shown = [row.request_id for row in again.poll(10)]
    again.close()
    assert len(shown) == 2
    assert shown[0] == "a"
    await log.close()


def test_a_worker_never_loads_pyarrow() -> None:
    modules = "gateway.records.worker.prediction_log, gateway.records.worker.tail, gateway.records.worker.redaction"
    script = f"import sys, {modules}; print(sorted(name for name in sys.modules if 'pyarrow' in name))"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
