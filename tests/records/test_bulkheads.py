"""A segment that cannot be compacted stops no other, and no segment takes more memory than one part of it does."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gateway.records.lake import parquet
from gateway.records.lake.attempts import Attempts
from gateway.records.lake.compactor import Compactor, CompactorConfig
from gateway.records.lake.lake_manifest import Manifest
from gateway.records.worker.reading import read
from gateway.records.worker.record import Record
from gateway.records.worker.sampling import Sampling
from gateway.records.worker.segment import entries
from gateway.tensor import Datatype, TensorSpec
from tests.records.traffic import NOW_US, append, lake_ids, open_log, open_stream

FLAGS = TensorSpec("x", Datatype.UINT8, (-1,))
MEASURE = """
import resource, sys
from gateway.records.lake import parquet
from gateway.records.lake.attempts import Attempts
from gateway.records.lake.compactor import Compactor, CompactorConfig
parquet.limit_threads()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
worker = Compactor(CompactorConfig(sys.argv[1], sys.argv[2]))
worker.step()
print(worker.counts.rows, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def worker(folder: Path, *, after_death: bool = False) -> Compactor:
    return Compactor(CompactorConfig(str(folder / "wal"), str(folder / "lake"), after_death=after_death))


def reasons(folder: Path) -> list[str]:
    lines = (folder / "wal" / "failed" / "reasons.jsonl").read_text().splitlines()
    return [json.loads(line)["reason"] for line in lines]


async def test_memory_is_that_of_one_part_however_many_rows_a_record_has(tmp_path: Path) -> None:
    rows = 4_000_000
    log = open_log(tmp_path / "wal")
    stream = log.stream("m", "1", "a", (FLAGS,), (), "d")
    values = np.arange(rows, dtype="<u8").astype("<u1").tobytes()
    stream.append(Record(NOW_US, "r", 0, "S", 1, 1, rows, 0, 0, 0, None, (values,), ()))
    await log.close()
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "wal"), str(tmp_path / "lake")]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True)
    written, grown_mib = map(int, done.stdout.split())
    assert written == rows
    assert grown_mib < 400  # all rows at once would be 0.9 GiB
    table = pa.concat_tables(
        pq.read_table(path, columns=["row_index", "f.x"], partitioning=None)
        for path in (tmp_path / "lake").glob("predictions/model_dir=*/*/*/*/*.parquet")
    )
    indices, flags = (table.column(name).to_numpy() for name in ("row_index", "f.x"))
    assert np.array_equal(np.sort(indices), np.arange(rows))
    assert np.array_equal(indices % 256, flags)
    identities = [str(entry["segment"]) for entry in Manifest(tmp_path / "lake").entries()]
    assert len(identities) > 5
    assert len(set(identities)) == len(identities)


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
async def test_rows_are_the_same_in_windows_of_any_size(tmp_path: Path, limit: int) -> None:
    log = open_log(tmp_path / "wal")
    flat, text = TensorSpec("flat", Datatype.FP16, (-1, 2)), TensorSpec("text", Datatype.BYTES, (-1, 1))
    image, free = TensorSpec("image", Datatype.FP32, (-1, 2, 2)), TensorSpec("free", Datatype.BYTES, (-1, -1))
    large = TensorSpec("large", Datatype.UINT8, (-1, -1))
    stream = log.stream("m", "1", "a", (flat, text, image, free, large), (), "d")
    for number in range(4):
        count = number + 1
        inputs = (
            None if number == 1 else np.arange(count * 2, dtype="<f2").reshape(count, 2),
            np.array([[f"t{number}.{row}".encode()] for row in range(count)], object),
            np.arange(count * 4, dtype="<f4").reshape(count, 2, 2),
            None if number == 2 else np.array([[b"a" * row, b"\xff"] for row in range(count)], object),
            np.full((count if number else 3, 70_000 if number == 3 else 5), number, "<u1"),
        )
        shapes = [None if tensor is None else tensor.shape for tensor in inputs]
        stream.append(Record(NOW_US, f"r{number}", 0, "S", 1, 1, count, 0, 0, 0, shapes, inputs, ()))
    await log.close()
    assert not log.counts().withheld
    ((path, segment),) = [(entry.path, entry.segment) for entry in entries(tmp_path / "wal")]
    assert segment is not None
    (block,) = read(path.read_bytes(), segment).blocks()
    (whole,) = parquet.tables(block, segment)
    windows = list(parquet.tables(block, segment, limit=limit))
    assert whole.num_rows == 1 + 2 + 3 + 4
    assert all(0 < window.num_rows <= limit for window in windows)
    assert pa.concat_tables(windows).to_pylist() == whole.to_pylist()


async def test_a_part_that_is_done_is_not_done_again(tmp_path: Path) -> None:
    rows = 1_000_000
    log = open_log(tmp_path / "wal")
    stream = log.stream("m", "1", "a", (FLAGS,), (), "d")
    for name in ("one", "two"):
        stream.append(Record(NOW_US, name, 0, "S", 1, 1, rows, 0, 0, 0, None, (bytes(rows),), ()))
    await log.close()
    command = [sys.executable, "-m", "tests.records.interrupted", str(tmp_path / "wal"), str(tmp_path / "lake"), "5"]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()) == (
        -signal.SIGKILL,
        ["read", "published", "recorded", "published", "recorded"],
    )
    first = {
        path: path.stat().st_mtime_ns for path in (tmp_path / "lake").glob("predictions/model_dir=*/*/*/*/*.parquet")
    }
    again = worker(tmp_path)
    again.step()
    assert first
    assert all(path.stat().st_mtime_ns == moment for path, moment in first.items())
    assert len(lake_ids(tmp_path / "lake")) == 2 * rows


async def broken_and_good(folder: Path) -> None:
    """Two segments: of one a record has a reason to be kept that nobody knows; of the other all is well."""
    log = open_log(folder / "wal", worker="a", sampling=Sampling(0.0))
    stream: Any = open_stream(log)
    x, label, scores = np.zeros((1, 4), "<f4"), np.zeros(1, "<i8"), np.zeros((1, 3), "<f4")
    record = Record(NOW_US, "bad", 0, "S", 1, 1, 1, 0, 0, 0, None, (x.tobytes(),), (label.tobytes(), scores.tobytes()))
    stream.append(record, 99)
    await log.close()
    good = open_log(folder / "wal", worker="b")
    append(open_stream(good), "good")
    await good.close()


async def test_a_segment_that_failed_twice_is_set_aside_with_its_reason_and_the_others_go_on(tmp_path: Path) -> None:
    await broken_and_good(tmp_path)
    compactor = worker(tmp_path)
    compactor.step()
    assert lake_ids(tmp_path / "lake") == ["good"]
    assert (compactor.counts.failures, compactor.counts.pending_segments) == (1, 1)
    compactor.step()
    compactor.step()
    assert dict(compactor.counts.quarantined) == {"compaction": 1}
    (reason,) = reasons(tmp_path)
    assert reason.startswith("compaction: failed 2 times, lastly: Arrow")
    assert len([path for path in (tmp_path / "wal" / "failed").iterdir() if path.suffix == ".sealed"]) == 1
    compactor.step()
    assert (compactor.counts.failures, compactor.counts.pending_segments) == (2, 0)


@pytest.mark.parametrize("deaths", [2, 4])
async def test_a_segment_that_the_compactor_dies_of_again_and_again_is_set_aside(tmp_path: Path, deaths: int) -> None:
    """Twice may be chance: somebody kills the compactor, and its successor begins with the same segment."""
    for name in ("a", "b"):
        log = open_log(tmp_path / "wal", worker=name)
        append(open_stream(log), name)
        await log.close()
    for death in range(deaths):
        compactor = worker(tmp_path, after_death=death > 0)
        [entry, *_] = entries(tmp_path / "wal")
        assert next(compactor.compact(entry)) == "read"  # and there it dies
    compactor = worker(tmp_path, after_death=True)
    compactor.step()
    if deaths == 4:
        assert lake_ids(tmp_path / "lake") == ["b"]
        assert reasons(tmp_path) == ["compaction: failed 4 times, lastly: the compactor died or hung"]
    else:
        assert sorted(lake_ids(tmp_path / "lake")) == ["a", "b"]
        assert not compactor.counts.quarantined


async def test_a_compactor_that_was_stopped_died_of_no_segment(tmp_path: Path) -> None:
    log = open_log(tmp_path / "wal")
    append(open_stream(log), "a")
    await log.close()
    for _ in range(5):
        [entry] = entries(tmp_path / "wal")
        assert next(worker(tmp_path).compact(entry)) == "read"
    worker(tmp_path).step()
    assert lake_ids(tmp_path / "lake") == ["a"]


def test_what_the_compactor_died_of_waits_for_the_others_and_two_such_are_both_set_aside(tmp_path: Path) -> None:
    """Each successor begins with what none has died of yet; nothing is forgotten while it dies of the other."""
    begun, waiting = "", list("abc")
    for death in range(9):
        attempts = Attempts(tmp_path)
        attempts.recover(after_death=death > 0)
        for segment in sorted(waiting, key=lambda segment: (attempts.suspects(segment), segment)):
            if attempts.begin(segment) is not None:
                waiting.remove(segment)
                continue
            begun += segment
            if segment != "c":
                break
            waiting.remove(segment)
            attempts.end(segment)
    assert (begun, waiting) == ("abcaaabbb", [])


@pytest.mark.skipif(sys.platform != "linux", reason="the C library of this system keeps what it keeps")
def test_memory_that_is_free_goes_back_to_the_system() -> None:
    """Chunks too small for pages of their own, and one above them that stays: free alone gives nothing back."""
    chunks = [b"%d" % number * 8192 for number in range(4096)]
    above = b"above" * 1024
    held = resident_bytes()
    size = sum(map(len, chunks))
    del chunks
    parquet.release_unused()
    assert resident_bytes() < held - size // 2
    assert above


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
