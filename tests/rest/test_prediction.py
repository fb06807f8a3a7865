"""Requests of KServe's first protocol, and bodies without any JSON, become requests of the second."""

from typing import Any

import numpy as np
import pytest

from gateway.errors import InvalidArgument
from gateway.rest.prediction import infer_object, raw_object
from gateway.tensor import Datatype, TensorSpec

X = TensorSpec("x", Datatype.FP32, (-1, 2))
TEXT = TensorSpec("text", Datatype.BYTES, (-1, 1))
MAYBE = TensorSpec("maybe", Datatype.INT64, (-1, 1), optional=True)
ONE = {"inputs": [{"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [[1, 2], [3, 4]]}]}


@pytest.mark.parametrize(
    "given",
    [
        {"instances": [[1, 2], [3, 4]], "signature_name": "ignored"},
        {"inputs": [[1, 2], [3, 4]]},
        {"inputs": {"x": [[1, 2], [3, 4]]}},
        {"instances": [{"x": [1, 2]}, {"x": [3, 4]}]},
    ],
)
def test_rows_and_columns_say_the_same(given: dict[str, Any]) -> None:
    assert infer_object([X, MAYBE], given) == ONE


def test_texts_may_be_in_base64() -> None:
    given = {"instances": [{"x": [1, 2], "text": [{"b64": "Z3LDvG4="}]}]}
    assert infer_object([X, TEXT], given)["inputs"][1]["data"] == [["grün"]]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "instances .* or inputs"),
        ({"instances": [], "inputs": []}, "not both"),
        ({"instances": 1}, "a list of rows"),
        ({"instances": [[1, 2]]}, "has 2 inputs: name each of x, text"),
        ({"instances": [{"x": 1}, {"y": 1}]}, "the same inputs"),
        ({"inputs": {"z": [1]}}, "unexpected input 'z'"),
        ({"inputs": {"x": 1}}, "a list is expected"),
        ({"inputs": {"text": [{"b64": "?"}]}}, "Base64"),
    ],
)
def test_what_is_no_request_is_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidArgument, match=says):
        infer_object([X, TEXT], given)


def test_a_body_of_nothing_but_data_gets_its_shape_from_the_contract() -> None:
    body = np.arange(6, dtype=np.float32).tobytes()
    given, data = raw_object([X], body)
    assert given["inputs"][0]["shape"] == [3, 2]
    assert given["parameters"] == {"binary_data_output": True}
    assert data.obj is body
    given, data = raw_object([TEXT], b"grun")
    assert (given["inputs"][0]["shape"], bytes(data)) == ([1, 1], b"\x04\0\0\0grun")


@pytest.mark.parametrize("spec", [X, TensorSpec("x", Datatype.FP32, (-1, -1))])
def test_a_length_that_says_no_shape_is_refused(spec: TensorSpec) -> None:
    with pytest.raises(InvalidArgument, match="does not follow from 12 bytes"):
        raw_object([spec], bytes(12))
