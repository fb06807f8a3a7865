"""Rows as JSON: what column-wise writing gives is what each row says by itself."""

import json
import math
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.records.lake.stored_rows import json_rows

NUMBERS = st.one_of(st.none(), st.floats(width=32), st.sampled_from([0.0, 1.5]))
WORDS = st.one_of(st.none(), st.sampled_from(["", "AA", "100 %", "%b %s", 'a"b,c', "ü\n", "[1,2]"]))
MOMENTS = st.one_of(st.none(), st.integers(0, 2**50))
ROW = st.fixed_dictionaries(
    {
        "ts": st.integers(0, 2**50), "f.x": NUMBERS, "f.100 %": st.integers(-(2**62), 2**62), "flag": st.booleans(),
        "maybe": st.one_of(st.none(), st.booleans()), "word": WORDS, "model": st.sampled_from(["m", "n%d"]),
        "list": st.one_of(st.none(), st.lists(st.floats(width=32), max_size=3)), "label_ts": MOMENTS,
        "boot": st.one_of(st.none(), st.binary(min_size=16, max_size=16)), "bytes": st.one_of(st.none(), st.binary()),
        "large": st.one_of(st.none(), st.fixed_dictionaries({"sum": st.binary(max_size=4), "mean": NUMBERS})),
        "same": st.just("always %"), "never": st.none(), "one": st.just(1),
    }
)  # fmt: skip
SCHEMA = pa.schema(
    [
        ("ts", pa.timestamp("us", "UTC")), ("f.x", pa.float32()), ("f.100 %", pa.int64()), ("flag", pa.bool_()),
        ("maybe", pa.bool_()), ("word", pa.string()), ("model", pa.dictionary(pa.int32(), pa.string())),
        ("list", pa.list_(pa.float32())), ("label_ts", pa.timestamp("us", "UTC")), ("boot", pa.binary(16)),
        ("bytes", pa.binary()), ("large", pa.struct([("sum", pa.binary()), ("mean", pa.float32())])),
        ("same", pa.string()), ("never", pa.string()), ("one", pa.int32()),
    ]
)  # fmt: skip
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def said(value: Any) -> Any:
    """A value as JSON can say it."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime):
        return round((value - EPOCH).total_seconds() * 1_000_000)
    if isinstance(value, list):
        return [said(item) for item in value]
    if isinstance(value, dict):
        return {key: item.hex() if isinstance(item, bytes) else said(item) for key, item in value.items()}
    return value


@settings(max_examples=200, deadline=None)
@given(st.lists(ROW, min_size=1, max_size=12), st.integers(0, 3))
def test_each_row_says_what_its_columns_hold(rows: list[dict[str, Any]], skipped: int) -> None:
    batch = pa.RecordBatch.from_pylist(rows, SCHEMA).slice(min(skipped, len(rows) - 1))
    decoded = [json.loads(row) for row in json_rows(batch)]
    for told, row in zip(decoded, batch.to_pylist(), strict=True):
        expected = {name: said(value) for name, value in row.items() if value is not None}
        if "boot" in expected:
            expected["boot"] = row["boot"].hex()
        assert "bytes" not in expected or isinstance(told.pop("bytes"), str)
        expected.pop("bytes", None)
        assert told == expected
        assert list(told) == list(expected)


def test_rows_that_are_all_alike_are_as_many_as_there_are() -> None:
    batch = pa.record_batch({"a": pa.array([1, 1, 1]), "b": pa.array(["%", "%", "%"])})
    assert json_rows(batch) == [b'{"a":1,"b":"%"}'] * 3
