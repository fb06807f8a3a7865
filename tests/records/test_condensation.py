"""Large inputs leave the buffer in the next turn of the loop; what is logged of them is the same."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.records.log import LogLimits, PredictionLog
from gateway.records.redaction import Redaction
from gateway.records.redaction_rule import Action, Rule
from gateway.records.stream import RecordStream
from gateway.serving.call import Buffer
from gateway.serving.tensor import Datatype, TensorSpec
from tests.records.traffic import NOW_US, balanced, compactor, lake_rows, open_log

IMAGE = TensorSpec("image", Datatype.FP32, (-1, 3, 128, 128))
ANY = TensorSpec("any", Datatype.FP64, (-1, -1))
HALF = TensorSpec("half", Datatype.BF16, (-1, 200_000))
SPECS = (IMAGE, ANY, HALF)
OWN = ("boot", "gateway")
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
    stream.append(NOW_US, name, 0, "S", 1, 1, 2, 0, 0, 0, shapes, inputs, ())


def append_all(stream: RecordStream) -> None:
    """Large and small ones, as bytes, views and arrays; one that is missing, and one that is not its shape."""
    wide, narrow = np.full((2, 10_000), 2.5), np.ones((2, 3))
    shapes = [PIXELS.shape, wide.shape, HALVES.shape]
    append(stream, "bytes", (PIXELS.tobytes(), wide.tobytes(), HALVES.tobytes()), shapes)
    append(stream, "views", [memoryview(part.tobytes()) for part in (PIXELS, wide, HALVES)], shapes)
    append(stream, "arrays", (PIXELS, wide, HALVES), shapes)
    append(stream, "small", (PIXELS.tobytes(), narrow.tobytes(), None), [PIXELS.shape, narrow.shape, None])
    append(stream, "wrong", (bytes(3 * MIB), wide.tobytes(), HALVES.tobytes()), shapes)


async def rows_of(directory: Path, *, turns: int, redaction: Redaction | None = None) -> list[dict[str, Any]]:
    """What the lake has of `append_all`, flushed after so many turns of the loop."""
    log = open_log(directory / "wal", redaction=redaction)
    append_all(opened(log))
    for _ in range(turns):
        await asyncio.sleep(0)
    if turns and redaction is None:
        # The arrays, and what is not its shape, stay as they are.
        assert log.counts().buffered_bytes < PIXELS.nbytes + 2 * 80_000 + HALVES.nbytes + 6 * MIB
    await log.close()
    assert balanced(log.counts())
    assert (log.counts().written, dict(log.counts().withheld)) == (5, {"encode_error": 1})
    compactor(directory / "wal", directory / "lake").step()
    rows = lake_rows(directory / "lake")
    return [{name: value for name, value in row.items() if name not in OWN} for row in rows]


async def test_what_is_logged_is_what_a_flush_makes_of_the_tensors(tmp_path: Path) -> None:
    now, later = await rows_of(tmp_path / "now", turns=0), await rows_of(tmp_path / "later", turns=5)
    assert len(now) == 9  # of the one that is not its shape no tensor is known, and so no rows
    # NaN is in none of the statistics, so equal is equal.
    assert later == now
    assert {row["in.image.digest"]["nan"] for row in now if row["request_id"] != "wrong"} == {0, 1}


async def test_the_digest_is_of_what_redaction_leaves(tmp_path: Path) -> None:
    redaction = Redaction((Rule("m", "image", Action.BUCKET, edges=(0.0,)), Rule("m", "half", Action.DROP)))
    now, later = [await rows_of(tmp_path / str(turns), turns=turns, redaction=redaction) for turns in (0, 5)]
    assert later == now
    digests = [row["in.image.digest"] for row in later if row["request_id"] == "bytes"]
    assert {(digest["min"], digest["max"]) for digest in digests} == {(0.0, 1.0)}
    assert not [name for name in later[0] if "half" in name]


async def test_the_buffer_is_free_in_the_next_turn_and_a_turn_does_not_take_long(tmp_path: Path) -> None:
    log = open_log(tmp_path, limits=LogLimits(max_bytes=64 * MIB))
    stream = opened(log, (TensorSpec("x", Datatype.FP32, (-1, 1024, 256)),))
    for number in range(10):
        append(stream, f"r{number}", (memoryview(bytes(2 * MIB)),), None)
    assert log.counts().buffered_bytes > 20 * MIB
    await asyncio.sleep(0)
    assert 13 * MIB < log.counts().buffered_bytes < 17 * MIB
    for _ in range(5):
        await asyncio.sleep(0)
    assert log.counts().buffered_bytes < 10_000
    for number in range(200):  # more than the buffer would hold at once
        append(stream, f"s{number}", (bytes(2 * MIB),), None)
        await asyncio.sleep(0)
    await log.close()
    assert log.counts().written == 210


@pytest.mark.parametrize("turns", [0, 1, 3])
async def test_records_that_are_taken_meanwhile_are_whole(tmp_path: Path, turns: int) -> None:
    log = open_log(tmp_path / "wal")
    stream = opened(log, (TensorSpec("x", Datatype.FP32, (-1, 1024, 256)),))
    for number in range(12):
        append(stream, f"r{number}", (np.full(MIB // 2, number, "<f4").tobytes(),), None)
        if number % 4 == 3:
            for _ in range(turns):
                await asyncio.sleep(0)
            await log.flush()
    await log.close()
    compactor(tmp_path / "wal", tmp_path / "lake").step()
    found = {(row["request_id"], row["row_index"]): row["in.x.digest"]["mean"] for row in lake_rows(tmp_path / "lake")}
    assert found == {(f"r{number}", row): float(number) for number in range(12) for row in (0, 1)}
