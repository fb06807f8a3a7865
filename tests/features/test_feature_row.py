"""Rows as stores hold them: those that Feast wrote, hashes of text and of bytes, and what is wrong in some."""

import json
import math
import struct
from pathlib import Path

import numpy as np
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.features.entity_key import key_maker
from gateway.features.feature_row import FeatureRow, RowReader, failing_status, lost_row
from gateway.features.feature_view import FeatureStatus, FeatureView
from gateway.features.row_cache import RowCache
from gateway.pb import feast_pb2
from gateway.tensor import Datatype
from tests.features.views import FEAST, FEAST_FEATURES, FEAST_KEYS, USERS, view

RECORDED = json.loads((Path(__file__).parent / "feast_rows.json").read_text("utf-8"))
V, M, S, U, A = FeatureStatus
NUMERIC = [kind for kind in Datatype if kind not in (Datatype.BYTES, Datatype.BF16, Datatype.BOOL)]


def read(view: FeatureView, *stored: object) -> FeatureRow:
    return RowReader(view).read(stored)


def one(datatype: Datatype, stored: object, size: int = 1, **parameters: str) -> list[object] | FeatureStatus:
    """The value of the one feature, as a list, or why it has none."""
    row = read(view({**USERS, **parameters}, features=[("f", datatype, size)]), stored)
    (value,) = row.values
    if value is None:
        return FeatureStatus(row.statuses[0])
    return list(value) if isinstance(value, tuple) else list(np.frombuffer(value, datatype.dtype).tolist())


def test_the_rows_that_feast_wrote_are_what_feast_reads() -> None:
    users = view(FEAST, keys=FEAST_KEYS, features=FEAST_FEATURES)
    make, reader = key_maker(users), RowReader(users)
    for place, (user, country) in enumerate(zip(RECORDED["read"]["user_id"], RECORDED["read"]["country"], strict=True)):
        held = RECORDED["held"][make([user, country.encode()]).hex()]
        stored = [bytes.fromhex(held[field.hex()]) for field in reader.fields]
        row = reader.read(stored)
        assert row.statuses == bytes(len(FEAST_FEATURES))
        assert row.true_at_s == pytest.approx(RECORDED["time"])
        for (name, datatype, size), value in zip(FEAST_FEATURES, row.values, strict=True):
            expected = RECORDED["read"][name][place]
            expected = expected if isinstance(expected, list) else [expected]
            assert len(expected) == size
            if isinstance(value, tuple):
                assert value == tuple(text.encode() for text in expected)
            else:
                assert value == np.array(expected, datatype.dtype).tobytes()


@given(st.sampled_from(NUMERIC), st.data())
def test_a_number_as_text_is_the_same_number(datatype: Datatype, data: st.DataObject) -> None:
    dtype = np.dtype(datatype.dtype)
    if datatype.is_float:
        value: float = data.draw(st.floats(width=dtype.itemsize * 8))  # type: ignore[arg-type]
    else:
        value = data.draw(st.integers(np.iinfo(dtype).min, np.iinfo(dtype).max))
    np.testing.assert_array_equal(np.array(one(datatype, repr(value).encode())), np.array([value], dtype))
    if math.isfinite(value):
        np.testing.assert_array_equal(np.array(one(datatype, f"[{value!r}, {value!r}]".encode(), 2)), [value, value])
    raw = np.array([value], dtype).tobytes()
    np.testing.assert_array_equal(np.array(one(datatype, raw, encoding="raw")), np.array([value], dtype))


@given(st.binary(max_size=80), st.sampled_from([kind for kind in Datatype if kind is not Datatype.BF16]))
@example(b"", Datatype.FP32)
@example(b"9" * 80, Datatype.INT64)
@example(b"[" * 80, Datatype.INT64)
def test_no_bytes_do_more_than_make_a_value_unreadable(stored: bytes, datatype: Datatype) -> None:
    for parameters in (USERS, {**USERS, "encoding": "raw"}, FEAST):
        for size in (1, 3):
            shown = view(parameters, features=[("f", datatype, size), ("g", Datatype.BYTES, 1)])
            good = feast_pb2.Value(string_val="good").SerializeToString() if parameters is FEAST else b"good"
            times = [stored] * (len(RowReader(shown).fields) - 2)
            row = read(shown, stored, good, *times)
            assert row.values[1] == (b"good",)
            (value, _), status = row.values, row.statuses[0]
            assert (value is None) == (status != V)
            if isinstance(value, bytes):
                assert len(value) == size * datatype.size


@pytest.mark.parametrize(
    ("datatype", "stored", "size"),
    [
        (Datatype.INT32, b"2147483648", 1),
        (Datatype.UINT8, b"-1", 1),
        (Datatype.INT64, b"1.0", 1),
        (Datatype.INT64, b"1_000", 1),
        (Datatype.INT64, "\u0661".encode(), 1),
        (Datatype.FP32, b"1e39", 1),
        (Datatype.FP16, b"70000", 1),
        (Datatype.FP32, b"0x10", 1),
        (Datatype.FP32, b"", 1),
        (Datatype.FP32, b"1,2", 2),
        (Datatype.FP32, b"[1, 2]", 3),
        (Datatype.FP32, b'[1, "\xff"]', 2),
        (Datatype.BYTES, b'["\xff", "a"]', 2),
        (Datatype.FP32, b'[1, "2"]', 2),
        (Datatype.INT32, b"[1, 2.5]", 2),
        (Datatype.BYTES, b'["a", 1]', 2),
        (Datatype.BOOL, b"yes", 1),
        (Datatype.BOOL, b"[1, true]", 2),
        (Datatype.FP32, b"1" * 1_000_000, 1),
    ],
)
def test_what_is_not_of_the_declared_type_is_unreadable(datatype: Datatype, stored: bytes, size: int) -> None:
    assert one(datatype, stored, size) is U


def test_texts_and_truths() -> None:
    assert one(Datatype.BYTES, b"[not json") == [b"[not json"]
    assert one(Datatype.BYTES, '["a", "ü"]'.encode(), 2) == [b"a", "ü".encode()]
    assert one(Datatype.BOOL, b" True ") == [True]
    assert one(Datatype.BOOL, b"[true, false]", 2) == [True, False]
    assert one(Datatype.BOOL, b"\x02", encoding="raw") is U
    assert one(Datatype.FP32, b"[1.5]") == [1.5]


def test_feast_says_that_there_is_no_value() -> None:
    shown = view(FEAST, features=[("a", Datatype.INT64, 1), ("b", Datatype.INT64, 1), ("c", Datatype.INT64, 1)])
    row = read(shown, b"", feast_pb2.Value(null_val=feast_pb2.NULL).SerializeToString(), b"\xa2\x01\x00", None)
    assert list(row.statuses) == [M, M, U]


def test_a_row_that_is_not_there_and_a_key_of_another_type() -> None:
    users = view({**USERS, "timestamp_field": "at"}, features=[("a", Datatype.FP32, 1), ("b", Datatype.FP32, 1)])
    row = read(users, None, None, None)
    assert (row.is_there, list(row.statuses)) == (False, [M, M])
    row = RowReader(users).read(None)
    assert (row.is_there, list(row.statuses)) == (False, [U, U])
    row = read(users, None, b"2", b"100")
    assert (row.is_there, list(row.statuses), row.true_at_s) == (True, [M, V], 100.0)


def test_a_row_becomes_too_old_and_one_of_unknown_age_is() -> None:
    users = view({**USERS, "timestamp_field": "at", "max_age_seconds": "60"})
    row = read(users, b"1.5", b"100.5")
    assert [list(row.statuses_at(users, now)) for now in (0.0, 160.5, 160.6)] == [[V], [V], [S]]
    for unknown in (None, b"soon", b"1e300", b"1767323045600"):
        assert list(read(users, b"1.5", unknown).statuses_at(users, 160.0)) == [S]
    assert list(read(users, None, b"100").statuses_at(users, 1e9)) == [M]
    stamp = struct.pack("<BB", 8, 100)
    aged = view({**FEAST, "max_age_seconds": "60"})
    value = feast_pb2.Value(float_val=1.5).SerializeToString()
    assert read(aged, value, stamp).true_at_s == 100.0
    milliseconds = Timestamp(seconds=1_767_323_045_600).SerializeToString()
    assert list(read(aged, value, milliseconds).statuses_at(aged, 160.0)) == [S]


@pytest.mark.parametrize(
    ("parameters", "failing"),
    [
        ({}, {M, S, U, A}),
        ({"default.score": "1"}, set()),
        ({"default.score": "1", "unavailable": "error"}, {A}),
        ({"default.score": "1", "stale": "error"}, {S}),
        ({"default.score": "1", "stale": "serve"}, set()),
        ({"stale": "serve"}, {M, U, A}),
    ],
)
def test_what_fails_is_what_has_neither_value_nor_default(
    parameters: dict[str, str], failing: set[FeatureStatus]
) -> None:
    users = view({**USERS, "timestamp_field": "at", "max_age_seconds": "60", **parameters})
    assert {status for status in FeatureStatus if failing_status(users, bytes((status,)), [0])} == failing


# ---- what is kept ----


def test_a_kept_row_ends_at_its_time() -> None:
    cache = RowCache(keep_s=10.0, max_bytes=10_000)
    row = read(view(USERS), b"1.5")
    cache.keep(b"k", row, 100.0)
    assert cache.find(b"k", 109.9) is row
    assert cache.find(b"k", 110.0) is None
    assert (len(cache), cache.size_bytes) == (0, 0)


def test_that_a_row_is_missing_is_kept_as_well() -> None:
    cache = RowCache(keep_s=10.0, max_bytes=10_000)
    missing = lost_row(view(USERS), M)
    cache.keep(b"k", missing, 0.0)
    assert cache.find(b"k", 1.0) is missing


@given(st.lists(st.tuples(st.binary(max_size=3), st.integers(0, 3000), st.floats(0, 30)), max_size=60))
@example([])
@example([(b"a", 100, 0.0)] * 3)
def test_what_is_kept_is_bounded(steps: list[tuple[bytes, int, float]]) -> None:
    cache = RowCache(keep_s=10.0, max_bytes=4000)
    texts = view(USERS, features=[("f", Datatype.BYTES, 1)])
    for key, size, now_s in steps:
        row = read(texts, b"x" * size)
        cache.keep(key, row, now_s)
        assert cache.size_bytes <= 4000
        assert cache.find(key, now_s) in (row, None)
    cache.clear()
    assert (len(cache), cache.size_bytes) == (0, 0)


def test_what_was_asked_for_last_stays() -> None:
    texts = view(USERS, features=[("f", Datatype.BYTES, 1)])
    rows = {key: read(texts, b"x" * 1000) for key in (b"a", b"b", b"c")}
    cache = RowCache(keep_s=10.0, max_bytes=3 * 1300)
    for key in (b"a", b"b"):
        cache.keep(key, rows[key], 0.0)
    assert cache.find(b"a", 1.0) is rows[b"a"]
    cache.keep(b"c", rows[b"c"], 1.0)
    assert [cache.find(key, 2.0) for key in (b"a", b"b", b"c")] == [rows[b"a"], None, rows[b"c"]]
