"""PredictRequests, read beside what protobuf reads, and what a few bytes may ask for."""

import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.api.tfserving.predict_request import PredictQuestion, PredictRequests
from gateway.api.tfserving.tensor_proto import MAX_LISTED, MAX_TEXTS
from gateway.errors import InvalidArgument
from gateway.pb import tensorflow_pb2 as tf
from gateway.pb import tensorflow_serving_pb2 as tfs
from tests.api.requests import bytes_of

MAX_BYTES = 1 << 16
SPEC = b"\x0a\x03\x0a\x01m"
TENSOR = b"\x12\x08\x08\x03\x3a\x04\x01\x02\x03\x04"  # as the value of an entry: too many elements
ONE = b"\x08\x03\x3a\x01\x07"


def entry(*fields: bytes) -> bytes:
    joined = b"".join(fields)
    return b"\x12" + bytes((len(joined),)) + joined


def read(message: bytes) -> PredictQuestion:
    return PredictRequests(MAX_BYTES).read(message)


def told(message: bytes) -> object:
    """The question without the identity of its messages, or why there is none."""
    try:
        question = read(message)
    except InvalidArgument as refused:
        return str(refused)
    return question.form, [bytes_of(data) for data in question.raw]


KEY, VALUE = b"\x0a\x01x", b"\x12\x05" + ONE
INPUTS = b"".join(entry(b"\x0a\x03%03d" % number, VALUE) for number in range(257))
PIECES = st.lists(
    st.sampled_from(
        [
            SPEC,
            b"\x0a\x04\x12\x02\x08\x05",  # its version
            b"\x0a\x00",
            b"\x08\x01",  # not its wire type
            entry(KEY, VALUE),
            entry(VALUE, KEY),
            entry(KEY, VALUE, VALUE),
            entry(KEY, b"\x12\x02\x08\x03", VALUE),
            entry(KEY, VALUE, b"\x18\x01"),
            entry(b"\x0a\x01y", VALUE),
            entry(b"\x0a\x01\xff", VALUE),
            entry(KEY, TENSOR),
            entry(KEY),
            entry(VALUE),
            entry(),
            b"\x1a\x01y",
            b"\x1a\x01\xff",
            b"\x22\x02ab",  # fields of newer clients
            b"\x3b\x08\x01\x3c",
            b"\x3b",
        ]
    )
    | st.binary(max_size=3),
    max_size=6,
).map(b"".join)


@settings(max_examples=300)
@given(PIECES)
@example(b"")
@example(SPEC + entry(KEY, VALUE))
@example(SPEC + entry(KEY, VALUE) + b"\x0a\x04\x12\x02\x08\x05")
@example(SPEC + entry(KEY, b"\x12\x02\x08\x03", VALUE))
@example(SPEC + entry(KEY, b"\x12\x01\xff", VALUE))
@example(SPEC + entry(KEY, TENSOR) + entry(KEY, VALUE))
@example(SPEC + entry(KEY, VALUE) + b"\x3b\x08\x01\x3c")
def test_a_request_is_read_as_protobuf_reads_it(message: bytes) -> None:
    try:
        parsed = tfs.PredictRequest.FromString(message)
    except DecodeError:
        with pytest.raises(InvalidArgument):
            read(message)
        return
    parsed.DiscardUnknownFields()
    assert told(message) == told(parsed.SerializeToString())


def test_all_inputs_are_filled_up_to_one_message_at_most() -> None:
    """Not each of them: 200 of 20 bytes were 200 messages."""
    shape = tf.TensorShapeProto(dim=[tf.TensorShapeProto.Dim(size=MAX_BYTES // 8)])
    tensor = tf.TensorProto(dtype=tf.DT_FLOAT, tensor_shape=shape, float_val=[1])
    request = tfs.PredictRequest(model_spec=tfs.ModelSpec(name="m"), inputs={"a": tensor, "b": tensor})
    assert read(request.SerializeToString()).size_bytes == MAX_BYTES
    request.inputs["c"].CopyFrom(tensor)
    with pytest.raises(InvalidArgument, match="larger than a message may be"):
        read(request.SerializeToString())


def test_lists_have_a_limit_in_all() -> None:
    """Each number of them is worked on: 16 MiB of varints kept a worker until it was taken for hung."""
    requests = PredictRequests(64 << 20)

    def refusal(**inputs: tf.TensorProto) -> str:
        request = tfs.PredictRequest(model_spec=tfs.ModelSpec(name="m"), inputs=inputs)
        with pytest.raises(InvalidArgument) as refused:
            requests.read(request.SerializeToString())
        return str(refused.value)

    def tensor(dtype: int, size: int, **content: bytes) -> tf.TensorProto:
        shape = tf.TensorShapeProto(dim=[tf.TensorShapeProto.Dim(size=size)])
        return tf.TensorProto(dtype=dtype, tensor_shape=shape, **content)  # type: ignore[arg-type]

    half = tensor(tf.DT_INT8, MAX_LISTED // 2 + 1)
    assert "in lists, the limit is 4194304: send them in tensor_content" in refusal(a=half, b=half)
    assert "input 'a' has 4194305 elements in lists" in refusal(a=tensor(tf.DT_FLOAT, MAX_LISTED + 1))
    texts = tensor(tf.DT_STRING, MAX_TEXTS // 2 + 1)
    assert "262146 texts, the limit is 262144" in refusal(a=texts, b=texts)
    whole = tensor(tf.DT_INT8, MAX_LISTED + 1, tensor_content=bytes(MAX_LISTED + 1))
    request = tfs.PredictRequest(model_spec=tfs.ModelSpec(name="m"), inputs={"a": whole})
    assert requests.read(request.SerializeToString()).size_bytes == MAX_LISTED + 1


@pytest.mark.parametrize(
    ("message", "words"),
    [
        pytest.param(b"\x0a\x03\x0a\x01m" * (1 << 18), "fields that come twice", id="model_spec in parts"),
        pytest.param(SPEC + b"\x12\x00" * (1 << 20), "more than 4096 fields", id="entries"),
        pytest.param(SPEC + b"\x78\x00" * (1 << 20), "more than 4096 fields", id="unknown fields"),
        pytest.param(b"\x0a\x82\x28\x0a\xff\x27" + b"m" * 5119, "model_spec has 5122 bytes", id="long model_spec"),
        pytest.param(SPEC + INPUTS, "the limit is 256", id="inputs"),
    ],
)
def test_what_costs_more_than_it_brings_is_refused(message: bytes, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        read(message)
