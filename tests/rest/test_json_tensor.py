"""Tensors in JSON are exact, both ways, and what is not a tensor is refused by name."""

import json
from math import prod

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from gateway.errors import InvalidArgument, ResourceExhausted
from gateway.rest.json_tensor import BINARY_ONLY, MAX_DEPTH, MAX_WRITTEN, json_of, raw_of
from gateway.tensor import Array, Datatype

NUMERIC = [one for one in Datatype if one not in BINARY_ONLY and one is not Datatype.BYTES]


def read(datatype: Datatype, shape: list[int], data: object) -> bytes:
    return raw_of("x", datatype, shape, data, booleans=True)


@st.composite
def tensors(draw: st.DrawFn) -> tuple[Datatype, Array]:
    datatype = draw(st.sampled_from(NUMERIC))
    shape = draw(arrays.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4))
    dtype = np.dtype(datatype.dtype)
    elements = arrays.from_dtype(dtype, allow_nan=False, allow_infinity=False)
    return datatype, draw(arrays.arrays(dtype, shape, elements=elements))


@given(tensors(), st.booleans())
@example((Datatype.UINT64, np.array([0, 2**64 - 1], np.uint64)), False)
@example((Datatype.INT64, np.array([-(2**63), 2**63 - 1], np.int64)), True)
@example((Datatype.FP32, np.zeros((0, 4), np.float32)), True)
@example((Datatype.FP32, np.array([0.1, -0.0, 3.4028235e38], np.float32)), False)
def test_what_is_sent_comes_back(tensor: tuple[Datatype, Array], nested: bool) -> None:
    datatype, array = tensor
    data = array.tolist() if nested else array.reshape(-1).tolist()
    assert read(datatype, list(array.shape), data) == array.tobytes()
    written = json.loads(json_of("y", datatype, array))
    assert np.array(written, datatype.dtype).tobytes() == array.tobytes()


@given(st.lists(st.text(alphabet=st.characters(exclude_categories=["Cs"])), max_size=4))
@example(["", "grün", "\x00"])
def test_texts_are_bytes_of_utf_8(texts: list[str]) -> None:
    raw = read(Datatype.BYTES, [len(texts)], texts)
    expected = b"".join(len(text.encode()).to_bytes(4, "little") + text.encode() for text in texts)
    assert raw == expected
    array = np.array([text.encode() for text in texts], np.object_)
    assert json.loads(json_of("y", Datatype.BYTES, array)) == texts


@pytest.mark.parametrize(
    ("datatype", "shape", "data", "says"),
    [
        (Datatype.FP32, [2], [1.0], "expected 2, got 1"),
        (Datatype.FP32, [2, 2], [[1, 2], [3]], "different lengths"),
        (Datatype.FP32, [2], [[1], 2], "side by side"),
        (Datatype.FP32, [2], [1, [2]], "element 1 is a list"),
        (Datatype.FP32, [1], ["1.5"], "element 0 is the string '1.5'"),
        (Datatype.FP32, [1], [None], "element 0 is null"),
        (Datatype.FP32, [2], [1.5, True], "element 1 is true"),
        (Datatype.FP32, [1], [1e300], "range of FP32"),
        (Datatype.FP32, [1], {"a": 1}, "data is an object"),
        (Datatype.FP32, [], 1.0, "data is 1.0"),
        (Datatype.INT32, [1], [1.0], "whole number from -2147483648 to 2147483647"),
        (Datatype.UINT8, [2], [0, 256], "element 1 is 256"),
        (Datatype.UINT8, [5000], [0] * 4999 + [256], "element 4999 is 256"),
        (Datatype.UINT64, [1], [-1], "element 0 is -1"),
        (Datatype.BOOL, [1], [1], "true or false is expected"),
        (Datatype.BYTES, [1], [1], "a string is expected"),
        (Datatype.FP16, [1], [1.0], "FP16 has no form in JSON"),
        (Datatype.BF16, [1], [1.0], "binary_data_size"),
    ],
)
def test_what_does_not_fit_is_refused(datatype: Datatype, shape: list[int], data: object, says: str) -> None:
    with pytest.raises(InvalidArgument, match=says):
        read(datatype, shape, data)


def test_nesting_is_bounded() -> None:
    data: list[object] = [1.0]
    for _ in range(MAX_DEPTH - 1):
        data = [data]
    assert read(Datatype.FP32, [1] * MAX_DEPTH, data) == np.float32(1).tobytes()
    with pytest.raises(InvalidArgument, match="nested deeper than 32"):
        read(Datatype.FP32, [1] * (MAX_DEPTH + 1), [data])


@pytest.mark.parametrize("datatype", [Datatype.FP16, Datatype.BF16])
def test_an_output_without_a_form_is_refused(datatype: Datatype) -> None:
    with pytest.raises(InvalidArgument, match="ask for it in binary"):
        json_of("y", datatype, np.zeros(1, datatype.dtype))


def test_what_json_cannot_say_is_null() -> None:
    array = np.array([[1.5, np.nan], [np.inf, -np.inf]], np.float32)
    assert json_of("y", Datatype.FP32, array) == b"[1.5,null,null,null]"
    assert prod(array.shape) == 4


def test_what_would_take_long_to_write_is_to_be_asked_for_in_binary() -> None:
    array = np.zeros(MAX_WRITTEN + 1, np.int8)
    with pytest.raises(ResourceExhausted, match=f"at most {MAX_WRITTEN} are written as JSON"):
        json_of("y", Datatype.INT8, array)
    assert len(json_of("y", Datatype.INT8, array[1:])) == 2 * MAX_WRITTEN + 1
