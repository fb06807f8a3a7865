from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.records.worker.block import encode
from gateway.records.worker.fast_path import encode_fast_path
from gateway.records.worker.reading import decode
from gateway.records.worker.record import Record
from gateway.records.worker.record_stream import Buffering, RecordStream
from gateway.records.worker.redaction import Redaction
from gateway.records.worker.redaction_rule import RedactionAction, RedactionRule
from gateway.records.worker.sampling import Sampling
from gateway.records.worker.stream_schema import StreamSchema
from gateway.tensor import Datatype, TensorSpec

X = TensorSpec("x", Datatype.FP32, (-1, 4))
K = TensorSpec("k", Datatype.INT16, (-1,))
SCORES = TensorSpec("scores", Datatype.FP64, (-1, 3))
SCHEMA = StreamSchema("m", "1", "a", "sha256:aa", (X, K), (SCORES,))

rows_of_records = st.lists(
    st.tuples(
        st.text(st.characters(codec="utf-8"), min_size=1, max_size=40),
        st.integers(1, 5),
        st.sampled_from(["SPLIT", "PIN", "RULE:é"]),
        st.integers(0, 10**9),
    ),
    min_size=1,
    max_size=12,
)


def stream_of(schema: StreamSchema = SCHEMA, redaction: Redaction | None = None) -> RecordStream:
    buffering = Buffering(
        max_bytes=1 << 30, max_records=1 << 20, max_record_bytes=1 << 20, wake_at=1 << 30, wake=lambda: None
    )
    own = (redaction or Redaction()).of(schema.model, schema.inputs, schema.outputs)
    return RecordStream(0, schema, own, buffering, Sampling(), lambda bits: 0)


def fill(stream: RecordStream, records: list[tuple[str, int, str, int]]) -> None:
    for name, rows, reason, seed in records:
        draw = np.random.default_rng(seed)
        x, k = draw.random((rows, 4)).astype("<f4").tobytes(), draw.integers(0, 9, rows).astype("<i2").tobytes()
        scores = draw.random((rows, 3)).tobytes()
        stream.append(Record(seed, name, 0, reason, 7, 42, rows, 1, 2, 3, None, (x, k), (scores,)))


@given(rows_of_records)
@example([("a", 1, "SPLIT", 0)])
@example([("a", 1, "SPLIT", 0)] * 12)
def test_joined_columns_are_the_block_that_encoding_one_by_one_gives(records: list[tuple[str, int, str, int]]) -> None:
    stream = stream_of()
    fill(stream, records)
    taken = stream.take()
    general, fast_path = taken.records, taken.fast_path
    assert general == []
    assert len(fast_path) == len(records)
    joined = decode(memoryview(encode_fast_path(SCHEMA, 3, fast_path, first_record=5)), SCHEMA)
    redaction = Redaction().of("m", SCHEMA.inputs, SCHEMA.outputs)
    one_by_one = encode(
        SCHEMA, 3, fast_path.records(SCHEMA), first_record=5, redaction=redaction, new_id=lambda _: "unused"
    )
    other = decode(memoryview(one_by_one), SCHEMA)
    assert [joined.reasons[i] for i in joined.table["reason"]] == [other.reasons[i] for i in other.table["reason"]]
    for name in ("ts_us", "revision", "rows", "code", "id_bytes", "sample_p"):
        np.testing.assert_array_equal(joined.table[name], other.table[name])
    assert joined.ids == other.ids == tuple(name for name, *_ in records)
    for mine, theirs in zip((*joined.inputs, *joined.outputs), (*other.inputs, *other.outputs), strict=True):
        np.testing.assert_array_equal(mine.values, theirs.values)
        np.testing.assert_array_equal(mine.leads, theirs.leads)


@given(rows_of_records, st.integers(1, 5))
@example([("a", 1, "SPLIT", 0)], 1)
@example([("a", 5, "PIN", 0)] * 12, 5)
def test_runs_of_bounded_size_are_all_records_in_order(records: list[tuple[str, int, str, int]], limit: int) -> None:
    stream = stream_of()
    fill(stream, records)
    fast_path = stream.take().fast_path
    runs = list(fast_path.runs(SCHEMA, limit, 1 << 30))
    assert all(0 < len(run) <= limit for run in runs)
    ids = [
        name
        for run in runs
        for name in decode(memoryview(encode_fast_path(SCHEMA, 0, run, first_record=0)), SCHEMA).ids
    ]
    assert ids == [name for name, *_ in records]


def test_without_payload_the_rows_are_kept_and_no_tensor() -> None:
    stream = stream_of()
    fill(stream, [("r1", 2, "SPLIT", 1), ("r2", 1, "SPLIT", 2)])
    fast_path = stream.take().fast_path
    block = decode(memoryview(encode_fast_path(SCHEMA, 0, fast_path, first_record=0, payload=False)), SCHEMA)
    assert block.ids == ("r1", "r2")
    assert all(not len(column.values) and not column.modes.any() for column in (*block.inputs, *block.outputs))


def test_a_tensor_of_another_size_is_refused_whole_so_that_no_row_shifts() -> None:
    stream = stream_of()
    fill(stream, [("r1", 1, "SPLIT", 1)])
    fast_path = stream.take().fast_path
    fast_path.tensors[0] = b"short"
    with pytest.raises(ValueError, match="tensor 'x' has 5 bytes in 1 rows"):
        encode_fast_path(SCHEMA, 0, fast_path, first_record=0)


def _append(stream: RecordStream, **changes: Any) -> None:
    given: dict[str, Any] = {
        "ts_us": 1, "request_id": "r", "code": 0, "reason": "SPLIT", "revision": 1, "bucket": 1, "rows": 1,
        "queue_us": 1, "infer_us": 1, "total_us": 1, "in_shapes": None,
        "inputs": (bytes(16), bytes(2)), "outputs": (bytes(24),), "wanted": None,
    }  # fmt: skip
    stream.append(Record(**(given | changes)))


@pytest.mark.parametrize(
    "changes",
    [
        {"code": 3, "outputs": ()},
        {"wanted": (0,)},
        {"in_shapes": ((1, 4), (1,))},
        {"request_id": ""},
        {"request_id": "é" * 300},
        {"inputs": ()},
        {"outputs": (np.zeros((1, 3)),)},
    ],
    ids=["error", "some outputs", "own shapes", "no id", "long id", "no inputs", "array"],
)
def test_what_is_special_is_looked_at_in_detail(changes: dict[str, Any]) -> None:
    stream = stream_of()
    _append(stream, **changes)
    taken = stream.take()
    general, fast_path = taken.records, taken.fast_path
    assert (len(general), len(fast_path)) == (1, 0)


@pytest.mark.parametrize(
    ("schema", "redaction"),
    [
        (replace(SCHEMA, inputs=(TensorSpec("x", Datatype.FP32, (-1, -1)), K)), Redaction()),
        (replace(SCHEMA, inputs=(TensorSpec("x", Datatype.BYTES, (-1, 1)), K)), Redaction()),
        (replace(SCHEMA, inputs=(TensorSpec("x", Datatype.FP32, (-1, 20_000)), K)), Redaction()),
        (SCHEMA, Redaction((RedactionRule("m", "x", RedactionAction.DROP),))),
        (SCHEMA, Redaction((RedactionRule("m", "scores", RedactionAction.NULL, feature=1),))),
    ],
    ids=["open size", "text", "large", "dropped", "changed"],
)
def test_streams_with_open_large_or_redacted_tensors_have_no_fast_path(
    schema: StreamSchema, redaction: Redaction
) -> None:
    stream = stream_of(schema, redaction)
    _append(stream)
    taken = stream.take()
    general, fast_path = taken.records, taken.fast_path
    assert (len(general), len(fast_path)) == (1, 0)
    _append(stream_of())
