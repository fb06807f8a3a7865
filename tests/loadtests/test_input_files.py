"""Files of inputs: every form says the same tensors, and what does not fit the model is named."""

import base64
import json
from pathlib import Path

import numpy as np
import pytest

from gateway.errors import InvalidArgument
from gateway.tensor import Datatype
from loadtests.job.input_files import read_inputs
from loadtests.job.model_signature import ModelSignature, SignatureInput

SIGNATURE = ModelSignature(
    "m", ("1",), (SignatureInput("x", Datatype.FP32, (-1, 2)), SignatureInput("t", Datatype.BYTES, (-1, 1)))
)
ROWS = np.array([[1, 2], [3, 4], [5, 6]], np.float64)
TEXTS = np.array([["a"], ["bc"], ["d"]])
REQUEST = {
    "inputs": [
        {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [[1, 2]]},
        {"name": "t", "datatype": "BYTES", "shape": [1, 1], "data": ["a"]},
    ]
}
RAW = np.array([1, 2], np.float32).tobytes()


def test_arrays_are_cut_into_requests(tmp_path: Path) -> None:
    path = tmp_path / "rows.npz"
    np.savez(path, x=ROWS, t=TEXTS)
    one = read_inputs(path, SIGNATURE)
    assert [tensors[0].shape for tensors in one] == [(1, 2)] * 3
    assert one[0][0].raw == RAW
    assert [tensors[1].values() for tensors in one] == [["a"], ["bc"], ["d"]]
    [two] = read_inputs(path, SIGNATURE, rows=2)
    assert two[0].shape == (2, 2)
    np.savez(path, x=ROWS)
    with pytest.raises(InvalidArgument, match="there is no array 't'; it has x"):
        read_inputs(path, SIGNATURE)
    np.savez(path, x=ROWS[:, :1], t=TEXTS)
    with pytest.raises(InvalidArgument, match=r"input 'x' is FP32 \[1, 1\], the model takes FP32 \[-1, 2\]"):
        read_inputs(path, SIGNATURE)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("request.json", json.dumps(REQUEST)),
        ("requests.json", json.dumps([REQUEST])),
        ("requests.jsonl", json.dumps(REQUEST) + "\n\n"),
        ("perf.json", json.dumps({"data": [{"x": [1, 2], "t": ["a"]}]})),
        ("perf.json", json.dumps({"data": [{"x": {"content": [1, 2], "shape": [2]}, "t": {"content": ["a"]}}]})),
        ("perf.json", json.dumps({"data": [{"x": {"b64": base64.b64encode(RAW).decode()}, "t": ["a"]}]})),
    ],
)
def test_every_form_says_the_same(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    [[x, t]] = read_inputs(tmp_path / name, SIGNATURE)
    assert (x.shape, x.raw, t.shape, t.values()) == ((1, 2), RAW, (1, 1), ["a"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "it is no JSON: line 1, column 2"),
        ("3", "it is no request"),
        ("[]", "it holds no inputs"),
        (json.dumps({"inputs": [{"name": "x"}]}), r"inputs\[0\] needs name, datatype, shape and data"),
        (json.dumps(REQUEST).replace("FP32", "FP31"), "'FP31' is no datatype"),
        (json.dumps(REQUEST).replace('"x"', '"z"'), "model 'm' has no input 'z'"),
        (json.dumps(REQUEST).replace("[1, 2]", "[1, 3]", 1), "input 'x': 2 values for the shape"),
        (json.dumps({"data": [{"x": [1, 2]}]}), r"data\[0\] has no input 't'"),
        (json.dumps({"data": [{"x": {"b64": "!"}, "t": ["a"]}]}), r"data\[0\].x: b64 is no base64"),
        (json.dumps({"data": [{"x": [1.5, "b"], "t": ["a"]}]}), "values for a model that takes FP32"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "inputs.json"
    path.write_text(text)
    with pytest.raises(InvalidArgument, match=words) as caught:
        read_inputs(path, SIGNATURE)
    assert str(caught.value).startswith(str(path))
