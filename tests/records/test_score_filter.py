"""Records kept for their score: decided at the write, counted exactly, weighed right."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.records.worker.record import Record
from gateway.records.worker.record_stream import Buffering, RecordStream
from gateway.records.worker.redaction import Redaction
from gateway.records.worker.sampling import UNDECIDED_IN, Kept, Sampling
from gateway.records.worker.score_filter import filter_by_score
from tests.records.test_fast_path import SCHEMA
from tests.records.traffic import NOW_US, X, balanced, compactor, lake_rows, open_log, open_stream

REDACTION = Redaction().of(SCHEMA.model, SCHEMA.inputs, SCHEMA.outputs)
RULE = Sampling(0.5, keep_score_below=0.6)


def send(stream: RecordStream, name: str, *scores: float) -> None:
    """A record with these scores of the middle class; the others are 0.1."""
    rows = len(scores)
    table = np.full((rows, 3), 0.1, "<f4")
    table[:, 1] = scores
    label = np.ones(rows, "<i8").tobytes()
    stream.append(Record(
        NOW_US, name, 0, "SPLIT", 7, 42, rows, 1, 2, 3, None, (bytes(16 * rows),), (label, table.tobytes())
    ))  # fmt: skip


async def test_low_scores_are_kept_with_probability_one_and_sums_stay_right(tmp_path: Path) -> None:
    log = open_log(tmp_path / "wal", sampling=RULE)
    stream = open_stream(log)
    for number in range(1000):
        send(stream, f"r{number}", 0.3 if number % 10 == 0 else 0.9)
    send(stream, "mixed", 0.9, 0.2)
    send(stream, "strange", float("nan"))
    assert (log.counts().buffered, log.counts().sampled_out) == (1002, 0)  # nothing is decided in the request
    await log.flush()
    counts = log.counts()
    assert balanced(counts)
    assert (counts.buffered, dict(counts.dropped)) == (0, {})
    await log.close()
    compactor(tmp_path / "wal", tmp_path / "lake").step()
    rows = lake_rows(tmp_path / "lake", columns=["request_id", "sample_p", "sample_reason", "pred_score"])
    low = [row for row in rows if row["sample_reason"] == "low_confidence"]
    assert {row["request_id"] for row in low} == {*(f"r{n}" for n in range(0, 1000, 10)), "mixed", "strange"}
    assert {row["sample_p"] for row in low} == {1.0}
    rest = [row for row in rows if row not in low and row["request_id"] != "strange"]
    assert {(row["sample_reason"], row["sample_p"]) for row in rest} == {("rate", 0.5)}
    assert 350 < len(rest) < 550
    assert counts.written == len(rest) + 102


async def test_a_change_of_the_rules_holds_from_the_next_record_on_and_counts_stay_exact(tmp_path: Path) -> None:
    log = open_log(tmp_path / "wal", sampling=Sampling(0.0))
    stream = open_stream(log)
    send(stream, "before", 0.1)
    log.follow({"flights": Sampling(0.0, keep_score_below=0.5)})
    send(stream, "low", 0.2)
    send(stream, "high", 0.9)
    log.follow({"flights": Sampling(1.0)})  # what waits undecided is decided, though the rule has gone
    send(stream, "all", 0.9)
    log.follow({"other": Sampling(1.0)})
    send(stream, "after", 0.1)
    await log.close()
    assert balanced(log.counts())
    compactor(tmp_path / "wal", tmp_path / "lake").step()
    reasons = {row["request_id"]: row["sample_reason"] for row in lake_rows(tmp_path / "lake")}
    assert reasons == {"all": "all"}


async def test_each_arm_has_its_own_rate(tmp_path: Path) -> None:
    log = open_log(tmp_path / "wal", sampling=Sampling(0.0))
    log.follow({"flights": Sampling(0.0, by_arm={"canary": 1.0})})
    stable = open_stream(log)
    canary = log.stream("flights", "2", "canary", (X,), stable.schema.outputs, "d")
    for stream in (stable, canary):
        send(stream, "r", 0.5)
    await log.close()
    compactor(tmp_path / "wal", tmp_path / "lake").step()
    assert [(row["arm"], row["sample_reason"]) for row in lake_rows(tmp_path / "lake")] == [("canary", "all")]


def stream_of(sampling: Sampling) -> RecordStream:
    buffering = Buffering(
        max_bytes=1 << 30, max_records=1 << 20, max_record_bytes=1 << 20, wake_at=1 << 30, wake=lambda: None
    )
    return RecordStream(0, SCHEMA, REDACTION, buffering, sampling, lambda bits: 0)


def told(record: Record) -> tuple[object, ...]:
    """Everything that the record says, in a form that can be compared."""
    numbers = (record.ts_us, record.code, record.revision, record.bucket, record.rows, record.size_bytes)
    times = (record.queue_us, record.infer_us, record.total_us)
    tensors = (record.in_shapes, tuple(record.inputs), tuple(record.outputs), record.wanted)
    return record.request_id, record.reason, record.sample_p, record.kept, numbers, times, tensors


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), min_size=1, max_size=20), st.booleans())
@example([(0, 0)], False)
@example([(3, 9)] * 20, True)
def test_the_fast_path_decides_what_looking_in_detail_decides(records: list[tuple[int, int]], broken: bool) -> None:
    stream = stream_of(Sampling(0.5, keep_score_below=0.5))
    for number, (rows, seed) in enumerate(records):
        draw = np.random.default_rng(seed)
        x, k = draw.random((rows, 4)).astype("<f4").tobytes(), draw.integers(0, 9, rows).astype("<i2").tobytes()
        scores = (draw.random((rows, 3)) * 0.7).tobytes()
        stream.append(Record(seed, f"r{number}", 0, "SPLIT", 7, 42, rows, 1, 2, 3, None, (x, k), (scores,)))
    if broken:  # one tensor of another size: its record has no score, the others keep theirs
        stream.append(Record(1, "broken", 0, "SPLIT", 7, 42, 1, 1, 2, 3, None, (bytes(16), bytes(2)), (b"123",)))
    taken = stream.take()
    assert taken.below == 0.5
    joined = filter_by_score(taken, REDACTION)
    detail = filter_by_score(
        type(taken)(0, SCHEMA, taken.fast_path.records(SCHEMA), type(taken.fast_path)(), taken.below), REDACTION
    )
    assert list(map(told, joined.fast_path.records(SCHEMA))) == list(map(told, detail.records))
    assert {record.kept for record in detail.records} <= {Kept.RATE, Kept.LOW_CONFIDENCE}
    assert joined.fast_path.rows == sum(record.rows for record in detail.records)


def test_nothing_is_looked_at_without_a_rule() -> None:
    stream = stream_of(Sampling(0.5))
    stream.append(Record(1, "r", 0, "SPLIT", 7, 42, 1, 1, 2, 3, None, (bytes(16), bytes(2)), (bytes(24),)))
    taken = stream.take()
    assert taken.below is None
    assert filter_by_score(taken, REDACTION) is taken


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_what_a_caller_knows_is_stored_only_where_something_is_left_out(rate: float) -> None:
    stream: Any = stream_of(Sampling(rate, keep_disagreement=True))
    assert stream.keeps_disagreement is (rate == 0.0)
    stream.append(Record(
        1, "r", 0, "SPLIT", 7, 42, 1, 1, 2, 3, None, (bytes(16), bytes(2)), (bytes(24),), None), Kept.DISAGREEMENT
    )  # fmt: skip
    (record,) = stream.take().fast_path.records(SCHEMA)
    assert (record.sample_p, record.kept) == (1.0, Kept.DISAGREEMENT if rate == 0.0 else Kept.ALL)
    assert max(Kept) < UNDECIDED_IN
