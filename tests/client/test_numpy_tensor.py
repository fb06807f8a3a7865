"""Arrays to raw tensors and back."""

from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from gateway.client.numpy_tensor import as_array, as_tensor
from gateway.tensor import Datatype

NUMBERS = [datatype for datatype in Datatype if datatype not in (Datatype.BF16, Datatype.BYTES)]


@pytest.mark.parametrize("datatype", NUMBERS)
@given(data=st.data())
def test_an_array_comes_back_as_it_went(datatype: Datatype, data: st.DataObject) -> None:
    dtype: Any = np.dtype(datatype.dtype)
    order = data.draw(st.sampled_from("<>"))
    array = data.draw(npst.arrays(dtype.newbyteorder(order), npst.array_shapes(min_dims=0, min_side=0, max_side=4)))
    sent, shape, raw = as_tensor("x", array)
    assert (sent, shape, len(raw)) == (datatype, array.shape, prod(array.shape) * datatype.size)
    np.testing.assert_array_equal(as_array("x", sent.wire_name, shape, raw), array)


@given(st.lists(st.text(), max_size=5))
@example([])
@example(["", "\x00", "ß"])
def test_texts_come_back_as_they_went(texts: list[str]) -> None:
    array = np.array(texts, np.object_).reshape(-1, 1)
    datatype, shape, raw = as_tensor("x", array)
    assert datatype is Datatype.BYTES
    assert as_array("x", "BYTES", shape, raw).reshape(-1).tolist() == texts


@pytest.mark.parametrize(
    ("value", "datatype"),
    [
        ([1.5], Datatype.FP32),
        ([[1, 2]], Datatype.INT64),
        (True, Datatype.BOOL),
        (["a"], Datatype.BYTES),
        (np.zeros(1), Datatype.FP64),
        (np.array([b"a"]), Datatype.BYTES),
    ],
)
def test_lists_have_the_usual_types_and_arrays_their_own(value: npt.ArrayLike, datatype: Datatype) -> None:
    assert as_tensor("x", value)[0] is datatype


def test_a_transposed_array_is_sent_by_rows() -> None:
    array = np.arange(6, dtype=np.int32).reshape(2, 3).T
    _, shape, raw = as_tensor("x", array)
    np.testing.assert_array_equal(as_array("x", "INT32", shape, raw), array)


@pytest.mark.parametrize("value", [np.array([1j]), np.array(["2020-01-01"], "datetime64[D]"), np.array([{}, {}])])
def test_what_the_protocol_has_not_names_the_input(value: npt.NDArray[Any]) -> None:
    with pytest.raises(TypeError, match="'x'"):
        as_tensor("x", value)


@pytest.mark.parametrize(
    ("datatype", "shape", "raw"),
    [
        ("FP32", (2,), b"\x00" * 7),
        ("BYTES", (1,), b"\x05\x00\x00\x00ab"),
        ("BYTES", (2,), b"\x01\x00\x00\x00a"),
        ("BYTES", (1,), b"\x01\x00"),
    ],
)
def test_data_that_do_not_fit_are_refused(datatype: str, shape: tuple[int, ...], raw: bytes) -> None:
    with pytest.raises(ValueError, match="'x'"):
        as_array("x", datatype, shape, raw)
