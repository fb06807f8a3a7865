"""What routing reads of an input before anything was checked."""

from typing import Any

import numpy as np
import pytest

from gateway.api.contents import TYPED_FIELDS
from gateway.api.element import first_element
from gateway.api.tfserving.model_choice import ModelChoice
from gateway.api.tfserving.predict_request import PredictRequests
from gateway.api.tfserving.tensor_proto import read_tensor
from gateway.api.unread_tensor import LONG_BYTES, UnreadTensor
from gateway.api.wire import parse
from gateway.pb import inference_pb2 as pb
from gateway.pb import tensorflow_pb2 as tf
from gateway.tensor import BY_NAME, Datatype
from tests.api.requests import raw_request, typed_request

CHOICE = ModelChoice("m", "", "serving_default")
LIST = memoryview(
    tf.TensorProto(
        dtype=tf.DT_INT64,
        tensor_shape=tf.TensorShapeProto(dim=[tf.TensorShapeProto.Dim(size=LONG_BYTES)]),
        int64_val=[300],
    ).SerializeToString()
)


def read(request: pb.ModelInferRequest, name: str = "x") -> str | None:
    return first_element(request, request.raw_input_contents, {}, name)


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


@pytest.mark.parametrize(
    ("datatype", "value", "text"),
    [("INT8", -3, "-3"), ("FP32", 0.1, "0.1"), ("BYTES", b"vip", "vip"), ("BOOL", True, "true")],
)
def test_the_first_of_very_many_is_read_before_they_are_made(datatype: str, value: Any, text: str) -> None:
    values = [value] * LONG_BYTES
    sent = typed_request(datatype, (len(values), 1), **{TYPED_FIELDS[BY_NAME[datatype]]: values})
    request, raw, packed = parse(sent.SerializeToString())
    assert packed
    assert first_element(request, raw, packed, "x") == text
    listed = PredictRequests(1 << 20).of_tensors(CHOICE, {"x": read_tensor("x", LIST, 1 << 20)})
    assert isinstance(listed.raw[0], UnreadTensor)
    assert first_element(listed.query.request, listed.raw, {}, "x") == "300"
