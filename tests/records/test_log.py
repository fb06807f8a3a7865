import asyncio
import errno
import gc
import random
import shutil
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.records.worker.prediction_log import LogLimits, PredictionLog
from gateway.records.worker.reading import read
from gateway.records.worker.record import Record
from gateway.records.worker.sampling import Sampling
from gateway.records.worker.segment import OPEN, SEALED, entries
from gateway.records.worker.wal import Durability, SegmentLimits, reason
from gateway.tensor import Datatype, TensorSpec
from tests.records.traffic import (
    LABEL,
    NOW_US,
    SCORES,
    X,
    append,
    balanced,
    compactor,
    lake_rows,
    open_log,
    open_stream,
)


async def test_a_running_log_writes_by_itself_and_close_seals(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    stream = open_stream(log)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(log.run())
        for number in range(100):
            append(stream, f"r{number}")
        assert log.counts().buffered == 100
        async with asyncio.timeout(5):
            while log.counts().written < 100:  # noqa: ASYNC110 (the truth is a counter)
                await asyncio.sleep(0.005)
        assert [entry.suffix for entry in entries(tmp_path)] == [OPEN]
        append(stream, "last")
        task.cancel()
    await log.close()
    counts = log.counts()
    assert (counts.seen, counts.written, counts.buffered, dict(counts.dropped)) == (101, 101, 0, {})
    (entry,) = entries(tmp_path)
    assert entry.suffix == SEALED
    assert entry.segment is not None
    content = read(entry.path.read_bytes(), entry.segment)
    assert sum(len(block.table) for block in content.blocks()) == 101
    assert content.seal is not None
    assert content.seal["seen"] == 101


async def test_an_append_after_close_is_dropped_and_counted(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    stream = open_stream(log)
    await log.close()
    append(stream, "late")
    assert dict(log.counts().dropped) == {"closed": 1}
    assert balanced(log.counts())


async def test_over_four_fifths_of_the_buffer_the_newest_are_dropped(tmp_path: Path) -> None:
    log = open_log(tmp_path, limits=LogLimits(max_records=100))
    stream = open_stream(log)
    for number in range(100):
        append(stream, f"r{number}")
    counts = log.counts()
    assert (counts.buffered, dict(counts.dropped)) == (80, {"buffer": 20})
    await log.flush()
    append(stream, "again")
    await log.close()
    assert log.counts().written == 81
    assert balanced(log.counts())


async def test_a_view_counts_as_the_batch_it_keeps_alive(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    spec = TensorSpec("y", Datatype.FP32, (-1, 1024))
    stream = log.stream("m", "1", "a", (spec,), (spec,), "d")
    batch = np.zeros((64, 1024), "<f4")
    for row in range(2):
        stream.append(
            Record(NOW_US, f"r{row}", 0, "SPLIT", 1, 1, 1, 0, 0, 0, None, (bytes(4096),), (batch[row : row + 1],))
        )
    held = log.counts().buffered_bytes
    assert batch.nbytes + 2 * 4096 <= held < batch.nbytes + 2 * 4096 + 2000
    await log.close()


async def test_a_record_over_the_limit_is_dropped_as_oversize(tmp_path: Path) -> None:
    log = open_log(tmp_path, limits=LogLimits(max_bytes=1 << 20, max_record_bytes=1 << 20))
    spec = TensorSpec("x", Datatype.UINT8, (-1, -1))
    stream = log.stream("m", "1", "a", (spec,), (), "d")
    stream.append(Record(NOW_US, "big", 0, "SPLIT", 1, 1, 1, 0, 0, 0, [(1, 8 << 20)], (bytes(8 << 20),), ()))
    assert dict(log.counts().dropped) == {"oversize": 1}
    await log.close()


async def test_append_never_raises_whatever_it_is_given(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    stream: Any = open_stream(log)
    nothing: Any = None
    stream.append(Record(NOW_US, "nothing", 0, "SPLIT", 1, 1, 1, 0, 0, 0, None, nothing, nothing))
    stream.append(Record(NOW_US, "\ud800", 0, "SPLIT", 1, 1, 1, 0, 0, 0, None, (bytes(16),), ()))
    stream.append(Record(NOW_US, "short", 0, "SPLIT", 1, 1, 1, 0, 0, 0, None, (b"123",), ()))
    stream.append(Record(NOW_US, "huge", 0, "SPLIT", 1 << 70, 1, 1, 0, 0, 0, None, (bytes(16),), ()))
    append(stream, "good")
    await log.close()
    counts = log.counts()
    assert balanced(counts)
    # The record with a tensor of the wrong size is kept without it.
    assert (counts.written, dict(counts.withheld)) == (2, {"encode_error": 1})
    assert dict(counts.dropped) == {"encode_error": 3}


async def test_sampling_is_by_request_id_and_its_probability_is_stored(tmp_path: Path) -> None:
    kept: list[set[str]] = []
    for worker in ("w0", "w1"):
        directory = tmp_path / worker
        log = open_log(directory / "wal", worker=worker, sampling=Sampling(0.25))
        stream = open_stream(log)
        for number in range(2000):
            append(stream, f"r{number}")
        append(stream, "failed", code=13)
        await log.close()
        counts = log.counts()
        assert balanced(counts)
        assert 400 < counts.written < 600
        assert counts.sampled_out == 2001 - counts.written
        compactor(directory / "wal", directory / "lake").step()
        rows = lake_rows(directory / "lake", columns=["request_id", "sample_p", "sample_reason", "status"])
        (failed,) = [row for row in rows if row["request_id"] == "failed"]
        assert (failed["sample_p"], failed["sample_reason"], failed["status"]) == (1.0, "error", 13)
        assert {(row["sample_p"], row["sample_reason"]) for row in rows if row is not failed} == {(0.25, "rate")}
        kept.append({row["request_id"] for row in rows})
    assert kept[0] == kept[1]


async def test_requests_without_an_id_are_sampled_one_by_one_and_get_ids_of_their_own(tmp_path: Path) -> None:
    log = open_log(tmp_path / "wal", sampling=Sampling(0.5, by_arm={"stable": 0.5}))
    stream = open_stream(log)
    for _ in range(1000):
        append(stream, "")
    await log.close()
    compactor(tmp_path / "wal", tmp_path / "lake").step()
    ids = [row["request_id"] for row in lake_rows(tmp_path / "lake")]
    assert 350 < len(ids) < 650
    assert len(set(ids)) == len(ids)
    assert all(len(one) == 36 and one[14] == "7" for one in ids)


async def test_the_first_records_of_a_version_are_kept(tmp_path: Path) -> None:
    log = open_log(tmp_path / "wal", sampling=Sampling(0.0, keep_first=5))
    stream = open_stream(log)
    for number in range(100):
        append(stream, f"r{number}")
    await log.close()
    assert (log.counts().written, log.counts().sampled_out) == (5, 95)
    compactor(tmp_path / "wal", tmp_path / "lake").step()
    assert {row["sample_reason"] for row in lake_rows(tmp_path / "lake")} == {"first"}


def test_sampling_names_what_is_wrong() -> None:
    with pytest.raises(ValueError, match=r"rate is 1\.5, allowed is 0 to 1"):
        Sampling(1.5)


async def test_counts_balance_at_every_moment_of_a_stormy_run(tmp_path: Path) -> None:
    rng = random.Random(11)
    limits = LogLimits(max_records=300, flush_interval_s=0.002, segment=SegmentLimits(max_bytes=20_000, max_age_s=0.05))
    log = open_log(tmp_path, limits=limits, sampling=Sampling(0.7))
    stream: Any = open_stream(log)
    sent = 0
    task = asyncio.create_task(log.run())
    for turn in range(150):
        if turn % 10 == 0:  # the rules change while records wait
            below = rng.choice([None, 0.5, 0.9])
            log.follow({"flights": Sampling(rng.choice([0.3, 1.0]), keep_score_below=below, keep_first=5)})
        for _ in range(rng.randrange(60)):
            append(stream, f"r{sent}", rows=rng.randrange(1, 4), code=rng.choice([0, 0, 13]))
            sent += 1
        if turn % 40 == 20:
            shutil.rmtree(tmp_path, ignore_errors=True)
        assert balanced(log.counts())
        assert log.counts().seen == sent
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await log.close()
    counts = log.counts()
    assert balanced(counts)
    assert counts.buffered == counts.buffered_bytes == 0


async def test_what_no_longer_serves_leaves_its_counts_and_loses_no_record(tmp_path: Path) -> None:
    log = open_log(tmp_path, sampling=Sampling(0.5))
    first = open_stream(log)
    for number in range(100):
        append(first, f"r{number}")
    log.forget("flights", "1", "sha256:aa")
    assert open_stream(log) is first  # it serves again, before it was written
    log.forget("flights", "1", "sha256:aa")
    await log.flush()  # writes what waited
    before = log.counts()
    await log.flush()  # lets go
    assert log.counts() == replace(before, flushes=before.flushes + 1, flush_ns=log.counts().flush_ns)
    second = open_stream(log)
    assert second is not first
    for number in range(100):
        append(first, f"late{number}")  # of calls that are being answered
        append(second, f"new{number}")
    assert log.counts().seen == 300
    assert balanced(log.counts())
    for _ in range(2):
        await log.flush()
        assert balanced(log.counts())
    assert log.counts().buffered == 0
    assert log.counts().seen == 300
    await log.close()
    for stream in (first, second):
        append(stream, "too late", code=13)
    assert log.counts().dropped == {"closed": 2}
    assert balanced(log.counts())
    (entry,) = entries(tmp_path)
    assert entry.segment is not None
    content = read(entry.path.read_bytes(), entry.segment)
    assert sum(len(block.table) for block in content.blocks()) == log.counts().written
    assert len(content.schemas) == 2


async def test_contents_that_come_and_go_leave_no_streams(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    sizes = []
    for turn in range(300):
        digest = f"sha256:{turn}"
        append(log.stream("flights", "1", "stable", (X,), (LABEL, SCORES), digest), f"r{turn}")
        log.forget("flights", "1", digest)
        await log.flush()
        if turn in (100, 299):
            await log.flush()  # until then its thread may hold the stream of what it has just written
            gc.collect()
            sizes.append(sum(type(held).__name__ == "RecordStream" for held in gc.get_objects()))
    assert sizes[0] == sizes[1]
    assert log.counts().written == 300
    await log.close()


async def test_segments_rotate_by_size_and_by_age(tmp_path: Path) -> None:
    now = [0.0]
    log = PredictionLog(
        tmp_path,
        worker="w0",
        gateway="gw",
        boot="0f" * 16,
        limits=LogLimits(segment=SegmentLimits(max_bytes=2000)),
        clock=lambda: now[0],
    )
    stream = open_stream(log)
    for turn in range(3):
        for number in range(20):
            append(stream, f"r{turn}-{number}")
        await log.flush()
    assert [entry.suffix for entry in entries(tmp_path)] == [SEALED] * 3
    append(stream, "lonely")
    await log.flush()
    now[0] = 61.0
    await log.flush()
    assert [entry.suffix for entry in entries(tmp_path)] == [SEALED] * 4
    await log.close()


async def test_a_deleted_directory_comes_back(tmp_path: Path) -> None:
    directory = tmp_path / "wal"
    log = open_log(directory)
    stream = open_stream(log)
    append(stream, "before")
    await log.flush()
    shutil.rmtree(directory)
    append(stream, "after")
    await log.close()
    compactor(directory, tmp_path / "lake").step()
    assert [row["request_id"] for row in lake_rows(tmp_path / "lake")] == ["after"]
    assert log.counts().error == ""


async def test_a_directory_replaced_by_a_file_costs_counted_rows_until_it_is_gone(tmp_path: Path) -> None:
    directory = tmp_path / "wal"
    log = open_log(directory)
    stream = open_stream(log)
    directory.write_text("in the way")
    append(stream, "lost")
    await log.flush()
    assert dict(log.counts().dropped) == {"disk_error": 1}
    assert log.counts().error
    directory.unlink()
    append(stream, "kept")
    await log.close()
    assert (log.counts().written, log.counts().error) == (1, "")


async def test_a_full_disk_by_the_watermark_costs_tensors_first_then_rows(tmp_path: Path) -> None:
    directory = tmp_path / "wal"
    directory.mkdir()
    log = open_log(directory, limits=LogLimits(disk_metadata=-1.0))
    append(open_stream(log), "bare")
    await log.close()
    assert (log.counts().written, log.counts().withheld) == (1, {"disk_watermark": 1})
    compactor(directory, tmp_path / "lake").step()
    (row,) = lake_rows(tmp_path / "lake")
    assert (row["request_id"], row["f.x_0"], row["rule_rev"]) == ("bare", None, 7)
    off = open_log(directory, limits=LogLimits(disk_off=-1.0))
    append(open_stream(off), "gone")
    await off.close()
    assert dict(off.counts().dropped) == {"disk_watermark": 1}


async def test_nothing_of_a_flushed_batch_is_kept_alive(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    stream = open_stream(log)

    class Batch(np.ndarray[Any, np.dtype[Any]]):
        pass

    batch = np.zeros((8, 3), "<f4").view(Batch)
    alive = weakref.ref(batch)
    stream.append(Record(NOW_US, "a", 0, "S", 1, 1, 1, 0, 0, 0, None, (bytes(16),), (np.zeros(1, "<i8"), batch[0:1])))
    del batch
    await log.flush()
    await log.flush()  # its thread tells what became of a batch, and lets go of it before it takes the next
    gc.collect()
    assert alive() is None
    await log.close()


@pytest.mark.parametrize("durability", list(Durability))
async def test_each_durability_writes_the_same(tmp_path: Path, durability: Durability) -> None:
    limits = LogLimits(segment=SegmentLimits(durability=durability, sync_interval_s=0.0))
    log = open_log(tmp_path, limits=limits)
    append(open_stream(log), "a")
    await log.flush()
    await log.close()
    assert log.counts().written == 1


async def test_names_that_cannot_be_file_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"worker is '\.\./w'"):
        open_log(tmp_path, worker="../w")


def test_the_reasons_of_a_full_disk() -> None:
    assert {reason(OSError(code, "")) for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)} == {"disk_full"}
    assert {reason(OSError(code, "")) for code in (errno.EIO, errno.EROFS)} == {"disk_error"}


async def test_outputs_asked_for_in_another_order_go_to_their_own_columns(tmp_path: Path) -> None:
    log = open_log(tmp_path / "wal")
    specs = tuple(TensorSpec(name, Datatype.FP32, (-1, 1)) for name in ("a", "b", "c"))
    stream = log.stream("m", "1", "arm", (), specs, "d")
    a, b, c = (np.full((1, 1), value, "<f4") for value in (1, 2, 3))
    for name, outputs, wanted in (("all", (a, b, c), None), ("some", (c, a), (2, 0)), ("unclear", (c, a), None)):
        stream.append(Record(NOW_US, name, 0, "S", 1, 1, 1, 0, 0, 0, None, (), outputs, wanted))
    await log.close()
    compactor(tmp_path / "wal", tmp_path / "lake").step()
    rows = {row["request_id"]: [row[f"out.{name}"] for name in "abc"] for row in lake_rows(tmp_path / "lake")}
    assert rows == {"all": [1.0, 2.0, 3.0], "some": [1.0, None, 3.0], "unclear": [None, None, None]}
    assert log.counts().withheld == {"encode_error": 1}
