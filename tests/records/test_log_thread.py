"""The log's thread: sizes are those of the buffers, writes are bounded, and no error of it ends a worker."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.errors import Unavailable
from gateway.records.worker.prediction_log import LogLimits
from gateway.records.worker.record import Record
from gateway.records.worker.segment import entries
from gateway.records.worker.wal import SegmentLimits
from gateway.tensor import Array, Buffer, Datatype, TensorSpec
from tests.records.labels import label, open_labels
from tests.records.traffic import NOW_US, append, balanced, compactor, lake_ids, lake_rows, open_log, open_stream

ANY = TensorSpec("y", Datatype.FP32, (-1,))
WIDE = TensorSpec("x", Datatype.FP32, (-1, 16_000))  # 62.5 KiB an instance: logged as it is
MIB = 1 << 20


def record(name: str, inputs: Any, outputs: Any, *, rows: int = 1, shapes: Any = None) -> Record:
    return Record(NOW_US, name, 0, "S", 1, 1, rows, 0, 0, 0, shapes, inputs, outputs)


def owned(size: int) -> Array:
    """An array whose memory belongs to something that is no array, as that of ONNX Runtime's outputs does."""
    return np.frombuffer(bytearray(size), "<f4")


@pytest.mark.parametrize(
    "made",
    [bytes, lambda size: memoryview(bytes(size)), lambda size: np.zeros(size // 4, "<f4"), owned],
    ids=["bytes", "view", "array", "array over another's memory"],
)
@pytest.mark.parametrize("batches", [True, False])
async def test_an_output_counts_as_its_buffer_whatever_its_first_axis_is(
    tmp_path: Path, made: Any, batches: bool
) -> None:
    log = open_log(tmp_path)
    one = TensorSpec("n", Datatype.INT64, (-1 if batches else 1,))
    stream = log.stream("m", "1", "a", (one,), (ANY,), "d", batches=batches)
    output: Buffer = made(20 * MIB)
    stream.append(record("r", (bytes(8),), (output,)))
    assert 20 * MIB < log.counts().buffered_bytes < 20 * MIB + 1000
    stream.append(record("more", (bytes(8),), (made(40 * MIB),)))
    assert dict(log.counts().dropped) == {"oversize": 1}
    await log.close()
    assert balanced(log.counts())


async def test_large_records_are_written_in_groups_and_segments_stay_near_their_bound(tmp_path: Path) -> None:
    limits = LogLimits(max_bytes=256 * MIB, flush_bytes=256 * MIB, segment=SegmentLimits(max_bytes=16 * MIB))
    log = open_log(tmp_path / "wal", limits=limits)
    fast = log.stream("m", "1", "a", (WIDE,), (TensorSpec("y", Datatype.FP32, (-1,)),), "d")
    detailed = log.stream("m", "1", "b", (WIDE,), (), "d")
    rows = 32
    payload = bytes(rows * 64_000)
    for number in range(40):
        fast.append(record(f"f{number}", (payload,), (bytes(4 * rows),), rows=rows))
        detailed.append(record(f"d{number}", (payload,), (), rows=rows))
    await log.flush()
    await log.close()
    assert (log.counts().written, dict(log.counts().dropped), log.counts().withheld) == (80, {}, {})
    sizes = [entry.size_bytes for entry in entries(tmp_path / "wal")]
    assert len(sizes) > 5
    assert max(sizes) < 16 * MIB + 8 * MIB + len(payload) + MIB
    assert sum(sizes) > 80 * len(payload)


async def test_a_record_that_is_too_large_once_encoded_keeps_its_row(tmp_path: Path) -> None:
    log = open_log(tmp_path / "wal", limits=LogLimits(max_record_bytes=MIB))
    fast = log.stream("m", "1", "a", (WIDE,), (ANY,), "d")
    detailed = log.stream("m", "1", "b", (WIDE,), (), "d")
    for stream, outputs in ((fast, (bytes(4 * 32),)), (detailed, ())):
        stream.append(record("large", (bytes(32 * 64_000),), outputs, rows=32))
        stream.append(record("small", (bytes(64_000),), (bytes(4),) if outputs else (), rows=1))
    await log.close()
    counts = log.counts()
    assert (counts.written, dict(counts.withheld), dict(counts.dropped)) == (4, {"oversize": 2}, {})
    compactor(tmp_path / "wal", tmp_path / "lake").step()
    rows = lake_rows(tmp_path / "lake")
    assert sorted(row["request_id"] for row in rows) == ["large", "large", "small", "small"]
    assert all((row["in.x"] is None) == (row["request_id"] == "large") for row in rows)


def threads(name: str) -> set[int | None]:
    return {thread.ident for thread in threading.enumerate() if thread.name.startswith(name)}


class Hostile(np.ndarray[Any, Any]):
    """An array that tells its size once, and then fails with an error that no code expects."""

    @property
    def nbytes(self) -> int:
        if getattr(self, "told", False):
            raise RuntimeError("no")
        self.told = True
        return 4


async def test_an_error_of_the_thread_costs_one_batch_and_the_thread_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = open_log(tmp_path / "wal")
    stream = log.stream("m", "1", "a", (ANY,), (), "d")
    append(open_stream(log), "before")
    await log.flush()
    before = threads("prediction-log")
    stream.append(record("bad", (np.zeros(1, "<f4").view(Hostile),), ()))
    assert not log.counts().dropped
    append(open_stream(log), "with it")
    await log.flush()
    counts = log.counts()
    assert balanced(counts)
    assert (counts.thread_restarts, counts.buffered, counts.buffered_bytes) == (1, 0, 0)
    assert counts.dropped["internal_error"] == 2
    assert "RuntimeError: no" in counts.error
    assert threads("prediction-log") <= before  # a new one might not start
    assert "goes on" in caplog.text
    append(open_stream(log), "after")
    await log.close()
    counts = log.counts()
    assert (counts.written, counts.error) == (2, "")
    compactor(tmp_path / "wal", tmp_path / "lake").step()
    assert sorted(lake_ids(tmp_path / "lake")) == ["after", "before"]


async def test_an_error_of_the_thread_of_labels_is_told_to_the_caller_and_the_next_call_goes_on(tmp_path: Path) -> None:
    log = open_labels(tmp_path)
    odd: Any = object()
    before = threads("feedback")
    with pytest.raises(Unavailable, match="internal_error"):
        await log.write([odd])
    assert log.restarts == 1
    assert threads("feedback") <= before
    await log.write([label("r1")])
    await log.close()
    assert (log.counts["unwritten"], log.counts["accepted"]) == (1, 1)


async def test_without_a_batch_a_request_is_one_row_whatever_the_length_of_its_outputs(tmp_path: Path) -> None:
    log = open_log(tmp_path / "wal")
    one, short = TensorSpec("n", Datatype.INT64, (1,)), TensorSpec("z", Datatype.FP32, (-1, 2))
    stream = log.stream("m", "1", "a", (one,), (ANY, short), "d", batches=False)
    values = np.arange(12_000_000, dtype="<f4")
    stream.append(record("long", (bytes(8),), (values, np.ones((3, 2), "<f4"))))
    stream.append(record("short", (bytes(8),), (values[:3].copy(), np.ones((1, 2), "<f4"))))
    await log.close()
    assert (log.counts().written, log.counts().withheld, log.counts().dropped) == (2, {}, {})
    compactor(tmp_path / "wal", tmp_path / "lake").step()
    long, short_row = sorted(lake_rows(tmp_path / "lake"), key=lambda row: str(row["request_id"]))
    assert (long["row_index"], long["batch_size"], short_row["batch_size"]) == (0, 1, 1)
    assert (long["out.y"], long["out.y.shape"], long["out.y.digest"]["max"]) == (None, [12_000_000], 11_999_999.0)
    assert (long["out.z"], long["out.z.shape"]) == ([1.0] * 6, [3, 2])
    assert (short_row["out.y"], short_row["out.y.digest"]) == ([0.0, 1.0, 2.0], None)
