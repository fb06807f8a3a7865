"""Keys of rows: Feast's own as Feast made them, patterns, and what they refuse."""

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.errors import InvalidArgument
from gateway.features.entity_key import MAX_KEY_VALUE_BYTES, check_key_value, key_maker
from gateway.features.feature_view import JoinKey
from gateway.features.murmur3 import murmur3_32
from gateway.tensor import Datatype
from tests.features.views import FEAST, USERS, view

RECORDED = json.loads((Path(__file__).parent / "feast_rows.json").read_text("utf-8"))


def feast_key(names: Sequence[str], values: Sequence[bytes | int], version: int) -> bytes:
    kinds = [Datatype.INT64 if isinstance(value, int) else Datatype.BYTES for value in values]
    parameters = {**FEAST, "entity_key_version": str(version)}
    return key_maker(view(parameters, keys=list(zip(names, kinds, strict=True))))(values)


@pytest.mark.parametrize("recorded", RECORDED["keys"], ids=lambda one: f"{'+'.join(one['names'])}-v{one['version']}")
def test_a_key_of_feast_is_the_one_that_feast_makes(recorded: dict[str, list[str | int]]) -> None:
    values = [value if isinstance(value, int) else value.encode() for value in recorded["values"]]
    made = feast_key([str(name) for name in recorded["names"]], values, int(str(recorded["version"])))
    assert made.hex() == str(recorded["key"]) + b"shop".hex()


@given(
    st.lists(st.integers(-(2**63), 2**63 - 1) | st.binary(max_size=20), min_size=1, max_size=4), st.sampled_from([2, 3])
)
@example([0], 2)
@example([b""], 3)
def test_keys_of_feast_do_not_depend_on_the_order_of_the_inputs(values: list[int | bytes], version: int) -> None:
    names = [f"k{place}" for place in range(len(values))]
    made = feast_key(names, values, version)
    assert feast_key(names[::-1], values[::-1], version) == made
    assert made.endswith(b"shop")


def test_an_int32_key_of_feast_is_four_bytes() -> None:
    made = key_maker(view(FEAST, keys=[("user_id", Datatype.INT32)]))([-2])
    assert made == b"\1\0\0\0\2\0\0\0\7\0\0\0user_id" + b"\3\0\0\0\4\0\0\0\xfe\xff\xff\xff" + b"shop"


def test_a_key_may_be_called_otherwise_in_feast() -> None:
    made = key_maker(view({**FEAST, "stored_as.user": "user_id"}, keys=[("user", Datatype.INT64)]))([17])
    assert made == feast_key(["user_id"], [17], 3)


def test_a_pattern_takes_the_inputs_by_name() -> None:
    keys = [("user_id", Datatype.INT64), ("shop", Datatype.BYTES)]
    assert key_maker(view({"key": "f:{shop}/{user_id}:v1"}, keys=keys))([-3, b"k\xff"]) == b"f:k\xff/-3:v1"


_TEXTS = st.text("a:", max_size=5).map(str.encode)
_PAIRS = st.tuples(_TEXTS, _TEXTS)


@given(_PAIRS, _PAIRS, st.sampled_from([":", "::", ":a:", "a"]))
@example((b"a:b", b"c"), (b"a", b"b:c"), ":")
@example((b"x:", b"y"), (b"x", b":y"), "::")
def test_two_texts_of_a_pattern_are_told_apart_or_refused(
    one: tuple[bytes, bytes], other: tuple[bytes, bytes], separator: str
) -> None:
    names = ("shop", "user")
    make = key_maker(view({"key": f"f:{{shop}}{separator}{{user}}"}, keys=[(name, Datatype.BYTES) for name in names]))
    made: list[bytes] = []
    for values in (one, other):
        if separator.encode() in values[0] + separator.encode()[:-1]:
            with pytest.raises(InvalidArgument, match=r"input 'shop': .* which ends it in the key"):
                make(values)
        else:
            made.append(make(values))
    assert len(made) < 2 or one == other or made[0] != made[1]


_NUMBERS = st.integers(-12, 120)
_NUMBER_PAIRS = st.tuples(_NUMBERS, _NUMBERS)


@given(_NUMBER_PAIRS, _NUMBER_PAIRS, st.sampled_from(["-", "--", ":", "a1", "-1", "1", "1-", "11"]))
@example((-5, 7), (5, -7), "-")
@example((1, 11), (11, 1), "1")
@example((1, 0), (111, 0), "11")
def test_two_numbers_of_a_pattern_are_refused_only_before_a_digit(
    one: tuple[int, int], other: tuple[int, int], separator: str
) -> None:
    names = ("shop", "user")
    make = key_maker(view({"key": f"f:{{shop}}{separator}{{user}}"}, keys=[(name, Datatype.INT64) for name in names]))
    made: list[bytes] = []
    for values in (one, other):
        try:
            made.append(make(values))
        except InvalidArgument:
            assert separator[0].isdigit()
    assert len(made) < 2 or one == other or made[0] != made[1]


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=2, max_size=20, unique=True))
@example([0, -1])
def test_rows_of_different_numbers_have_different_keys(values: list[int]) -> None:
    for parameters in (USERS, FEAST):
        make = key_maker(view(parameters))
        made = sorted(make([value]) for value in values)
        assert all(one != other for one, other in pairwise(made))


def test_a_key_has_a_limit_that_the_error_names() -> None:
    key = JoinKey("user_id", "user_id", Datatype.BYTES)
    check_key_value(key, b"x" * MAX_KEY_VALUE_BYTES)
    with pytest.raises(InvalidArgument, match="input 'user_id': a key of 1025 bytes exceeds the limit of 1024"):
        check_key_value(key, b"x" * (MAX_KEY_VALUE_BYTES + 1))


@pytest.mark.parametrize(
    ("text", "number"),
    [("", 0), ("test", 0xBA6BD213), ("Hello, world!", 0xC0363E43), ("user_stats:purchases", 0x8E3BC2E7)],
)
def test_the_hash_is_murmur3(text: str, number: int) -> None:
    assert murmur3_32(text.encode()) == number
