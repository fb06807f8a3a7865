"""The classification extension: order, ties, labels, formats."""

import numpy as np
import pytest

from gateway.api.classification import classify
from gateway.tensor import Datatype, TensorSpec


def test_the_highest_values_come_first_with_index_and_label() -> None:
    spec = TensorSpec("p", Datatype.FP32, (-1, 3), labels=("cat", "dog"))
    scores = np.array([[0.1, 0.7, 0.2], [0.5, 0.5, 0.0]], np.float32)
    result = classify(scores, spec, 2, batches=True)
    assert result.tolist() == [[b"0.700000:1:dog", b"0.200000:2"], [b"0.500000:0:cat", b"0.500000:1:dog"]]


def test_more_classes_than_there_are_give_all_of_them() -> None:
    spec = TensorSpec("p", Datatype.INT32, (2, 2))
    result = classify(np.array([[1, 4], [3, 2]], np.int32), spec, 2**32 - 1, batches=False)
    assert result.tolist() == [b"4:1", b"3:2", b"2:3", b"1:0"]


def test_nan_is_never_among_the_best() -> None:
    spec = TensorSpec("p", Datatype.FP64, (-1, 3))
    result = classify(np.array([[np.nan, 1.0, -np.inf]]), spec, 3, batches=True)
    assert result[0, 0] == b"1.000000:1"
    assert {bytes(item) for item in result[0, 1:]} == {b"nan:0", b"-inf:2"}


@pytest.mark.parametrize("datatype", [Datatype.UINT64, Datatype.INT64])
def test_large_integers_keep_their_order(datatype: Datatype) -> None:
    spec = TensorSpec("p", datatype, (-1, 2))
    result = classify(np.array([[2**63 - 2, 2**63 - 1]], datatype.dtype), spec, 1, batches=True)
    assert result.tolist() == [[b"9223372036854775807:1"]]


def test_bfloat16_is_read_as_a_number() -> None:
    spec = TensorSpec("p", Datatype.BF16, (-1, 2))
    bits = (np.array([[1.5, -2.0]], np.float32).view(np.uint32) >> 16).astype(np.uint16)
    assert classify(bits, spec, 2, batches=True).tolist() == [[b"1.500000:0", b"-2.000000:1"]]


def test_no_rows_give_no_classes() -> None:
    spec = TensorSpec("p", Datatype.FP32, (-1, 2))
    assert classify(np.zeros((0, 2), np.float32), spec, 2, batches=True).shape == (0, 2)
