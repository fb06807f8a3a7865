"""Large inputs are digested when they are recorded; the largest by the flush, and what is logged is the same."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gateway.records.worker.prediction_log import LogLimits, PredictionLog
from gateway.records.worker.record import Record
from gateway.records.worker.record_stream import RecordStream
from gateway.records.worker.redaction import Redaction
from gateway.records.worker.redaction_rule import RedactionAction, RedactionRule
from gateway.tensor import Buffer, Datatype, TensorSpec
from tests.records.traffic import NOW_US, balanced, compactor, lake_rows, open_log

IMAGE = TensorSpec("image", Datatype.FP32, (-1, 3, 128, 128))
ANY = TensorSpec("any", Datatype.FP64, (-1, -1))
HALF = TensorSpec("half", Datatype.BF16, (-1, 200_000))
SPECS = (IMAGE, ANY, HALF)
RNG = np.random.default_rng(1)
PIXELS = RNG.standard_normal((2, 3, 128, 128)).astype("<f4")
PIXELS[1, 0, 0, 0] = np.nan
HALVES = (RNG.standard_normal((2, 200_000)).astype("<f4").view("<u4") >> np.uint32(16)).astype("<u2")
MIB = 1 << 20


def opened(log: PredictionLog, specs: tuple[TensorSpec, ...] = SPECS) -> RecordStream:
    return log.stream("m", "1", "a", specs, (), "d")


def append(
    stream: RecordStream, name: str, inputs: Sequence[Buffer | None], shapes: Sequence[tuple[int, ...] | None] | None
) -> None:
    stream.append(Record(NOW_US, name, 0, "S", 1, 1, 2, 0, 0, 0, shapes, inputs, ()))


def append_all(stream: RecordStream) -> None:
    """Large and small ones, as bytes, views and arrays; one that is missing, and one that is not its shape."""
    wide, narrow = np.full((2, 10_000), 2.5), np.ones((2, 3))
    shapes = [PIXELS.shape, wide.shape, HALVES.shape]
    append(stream, "bytes", (PIXELS.tobytes(), wide.tobytes(), HALVES.tobytes()), shapes)
    append(stream, "views", [memoryview(part.tobytes()) for part in (PIXELS, wide, HALVES)], shapes)
    append(stream, "arrays", (PIXELS, wide, HALVES), shapes)
    append(stream, "small", (PIXELS.tobytes(), narrow.tobytes(), None), [PIXELS.shape, narrow.shape, None])
    append(stream, "wrong", (bytes(3 * MIB), wide.tobytes(), HALVES.tobytes()), shapes)


async def rows_of(directory: Path, *, redaction: Redaction | None = None) -> dict[tuple[str, int], dict[str, Any]]:
    """What the lake has of `append_all`: the tensors of each row."""
    log = open_log(directory / "wal", redaction=redaction)
    append_all(opened(log))
    await log.close()
    assert balanced(log.counts())
    assert (log.counts().written, dict(log.counts().withheld)) == (5, {"encode_error": 1})
    compactor(directory / "wal", directory / "lake").step()
    return {
        (row["request_id"], row["row_index"]): {name: value for name, value in row.items() if name.startswith("in.")}
        for row in lake_rows(directory / "lake")
    }


async def test_what_is_logged_is_what_a_flush_makes_of_arrays(tmp_path: Path) -> None:
    rows = await rows_of(tmp_path)
    assert len(rows) == 9  # of the one that is not its shape no tensor is known, and so no rows
    for row in (0, 1):
        assert rows["bytes", row] == rows["views", row] == rows["arrays", row]
        assert rows["bytes", row]["in.image.digest"]["nan"] == row
        assert rows["small", row]["in.image.digest"] == rows["bytes", row]["in.image.digest"]
        assert rows["small", row]["in.any"] == [1.0] * 3
        assert rows["wrong", 0]["in.image.digest"] is None


async def test_the_digest_is_of_what_redaction_leaves(tmp_path: Path) -> None:
    redaction = Redaction(
        (
            RedactionRule("m", "image", RedactionAction.BUCKET, edges=(0.0,)),
            RedactionRule("m", "half", RedactionAction.DROP),
        )
    )
    rows = await rows_of(tmp_path, redaction=redaction)
    for row in (0, 1):
        assert rows["bytes", row] == rows["views", row] == rows["arrays", row]
        digest = rows["bytes", row]["in.image.digest"]
        assert (digest["min"], digest["max"]) == (0.0, 1.0)
        assert not [name for name in rows["bytes", row] if "half" in name]


async def test_large_inputs_do_not_fill_the_buffer(tmp_path: Path) -> None:
    log = open_log(tmp_path, limits=LogLimits(max_bytes=16 * MIB))
    stream = opened(log, (TensorSpec("x", Datatype.FP32, (-1, 1024, 256)),))
    for number in range(100):
        append(stream, f"r{number}", (memoryview(bytes(2 * MIB)),), None)
    assert log.counts().buffered_bytes < 100_000
    await log.close()
    assert log.counts().written == 100


async def test_the_largest_are_left_to_the_flush(tmp_path: Path) -> None:
    log = open_log(tmp_path / "wal")
    stream = opened(log, (TensorSpec("x", Datatype.FP32, (-1, 1024, 256)),))
    for name, instances in (("small", 2), ("large", 6)):
        values = np.repeat(np.arange(instances, dtype="<f4"), MIB // 4)
        stream.append(Record(NOW_US, name, 0, "S", 1, 1, instances, 0, 0, 0, None, (values.tobytes(),), ()))
    assert 6 * MIB < log.counts().buffered_bytes < 6 * MIB + 10_000
    await log.close()
    compactor(tmp_path / "wal", tmp_path / "lake").step()
    means = {(row["request_id"], row["row_index"]): row["in.x.digest"]["mean"] for row in lake_rows(tmp_path / "lake")}
    expected = {("small", row): float(row) for row in range(2)} | {("large", row): float(row) for row in range(6)}
    assert means == expected
