"""What routing reads of an input before anything was checked."""

import numpy as np
import pytest

from gateway.api.element import first_element
from gateway.pb import inference_pb2 as pb
from gateway.tensor import Datatype
from tests.api.requests import raw_request, typed_request


def read(request: pb.ModelInferRequest, name: str = "x") -> str | None:
    return first_element(request, request.raw_input_contents, name)


@pytest.mark.parametrize(
    ("datatype", "value", "text"),
    [
        ("FP32", 0.1, "0.1"),
        ("FP64", 0.1, "0.1"),
        ("FP16", 0.5, "0.5"),
        ("INT64", -(2**63), "-9223372036854775808"),
        ("UINT64", 2**64 - 1, "18446744073709551615"),
        ("INT8", -1, "-1"),
        ("BOOL", True, "true"),
    ],
)
def test_numbers_read_as_text(datatype: str, value: object, text: str) -> None:
    data = np.array([value, value], Datatype[datatype].dtype).tobytes()
    assert read(raw_request(datatype=datatype, shape=(2, 1), data=data)) == text
    assert read(raw_request(datatype=datatype, shape=(2,), data=data)) == text


def test_text_reads_as_itself() -> None:
    assert read(raw_request(datatype="BYTES", shape=(1,), data=b"\3\0\0\0ab\0")) == "ab\0"
    assert read(typed_request("BYTES", (1, 1), bytes_contents=["ü".encode()])) == "ü"


def test_typed_and_raw_read_alike() -> None:
    assert read(typed_request("FP32", (1,), fp32_contents=[0.1])) == "0.1"
    assert read(typed_request("INT32", (1,), int_contents=[7])) == "7"
    assert read(typed_request("BOOL", (1,), bool_contents=[False])) == "false"


@pytest.mark.parametrize(
    "request_",
    [
        raw_request(name="other"),
        raw_request(shape=(1, 4)),
        raw_request(shape=(0, 1)),
        raw_request(shape=(1,), data=b"\0"),
        raw_request(shape=(-1, -1), data=b""),
        raw_request(datatype="FP33", shape=(1,)),
        raw_request(datatype="BF16", shape=(1,)),
        raw_request(datatype="BYTES", shape=(1,), data=b"\xff\xff\xff\xffa"),
        raw_request(datatype="BYTES", shape=(1,), data=b"\1\0\0\0\xff"),
        raw_request(datatype="BYTES", shape=(1,), data=b"\1"),
        typed_request("FP32", (1,), int_contents=[1]),
        typed_request("FP16", (1,)),
        pb.ModelInferRequest(inputs=[pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[1])]),
    ],
)
def test_what_does_not_fit_reads_as_absent(request_: pb.ModelInferRequest) -> None:
    assert read(request_) is None
