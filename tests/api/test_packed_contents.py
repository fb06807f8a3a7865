"""Typed contents taken out of a long message: read as protobuf reads them, or left to it."""

from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.api.contents import TYPED_FIELDS, from_typed, pack_typed
from gateway.api.decode import decode
from gateway.api.packed_contents import PackedContents, take_contents
from gateway.api.unread_tensor import LEAST_MESSAGE_BYTES, LONG_BYTES, LONG_ELEMENTS, UnreadTensor, read_all
from gateway.api.varint import varint
from gateway.api.wire import parse
from gateway.errors import InvalidArgument
from gateway.pb import inference_pb2 as pb
from gateway.tensor import BY_NAME, Array, Datatype
from tests.api.requests import bytes_of, one, typed_request
from tests.api.test_tensor_proto import array_of, raw

TYPED = tuple(TYPED_FIELDS)


def numbers_of(contents: pb.InferTensorContents, datatype: Datatype, count: int) -> object:
    """What the general way makes of contents: the bytes, or the refusal."""
    try:
        return raw(datatype, from_typed("x", datatype, contents, (count,)))
    except InvalidArgument as refused:
        return str(refused)


def taken_from(contents: bytes) -> PackedContents | None:
    message = b"\x0a\x01x\x2a" + varint(len(contents)) + contents
    apart = take_contents(memoryview(message))
    if apart is None:
        return None
    rest = pb.ModelInferRequest.InferInputTensor.FromString(apart[0])
    assert rest.name == "x"
    assert rest.HasField("contents")
    return apart[1]


def made(taken: PackedContents, datatype: Datatype, count: int) -> object:
    try:
        tensor = taken.tensor("x", datatype, (count,))
        if isinstance(tensor, UnreadTensor):
            tensor = tensor.read()
    except InvalidArgument as refused:
        return str(refused)
    return raw(datatype, tensor) if isinstance(tensor, np.ndarray) else bytes(tensor)


@given(datatype=st.sampled_from(TYPED), count=st.integers(0, 40), more=st.integers(-1, 1), seed=st.integers(0, 1000))
@example(datatype=Datatype.INT64, count=0, more=0, seed=0)
@example(datatype=Datatype.INT8, count=1, more=0, seed=0)
@example(datatype=Datatype.BYTES, count=2, more=-1, seed=0)
def test_lists_are_read_as_protobuf_reads_them(datatype: Datatype, count: int, more: int, seed: int) -> None:
    array = array_of(datatype, (count,), seed)
    contents = pb.InferTensorContents(**{TYPED_FIELDS[datatype]: array.tolist()})
    written = pack_typed(datatype, array)
    assert written == contents.SerializeToString()
    taken = taken_from(written)
    if taken is None:
        assert not count
        return
    for one_of in TYPED:
        assert made(taken, one_of, count + more) == numbers_of(contents, one_of, count + more)
        assert_first_is(taken, contents, one_of)


def assert_first_is(taken: PackedContents, contents: pb.InferTensorContents, datatype: Datatype) -> None:
    values: Any = getattr(contents, TYPED_FIELDS[datatype])
    first = taken.first(datatype)
    if first is None:
        assert not len(values) or made(taken, datatype, len(values)) == numbers_of(contents, datatype, len(values))
    else:
        assert first == values[0]


VARINTS = st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 300), max_size=20).map(lambda v: b"".join(map(varint, v)))


@settings(max_examples=300)
@given(field=st.integers(1, 8), data=VARINTS | st.binary(max_size=60), datatype=st.sampled_from(TYPED))
@example(field=1, data=b"", datatype=Datatype.BOOL)
@example(field=2, data=b"\xff" * 9 + b"\x01", datatype=Datatype.INT32)
@example(field=2, data=b"\xff" * 11, datatype=Datatype.INT32)
def test_any_bytes_are_what_protobuf_reads_or_refused(field: int, data: bytes, datatype: Datatype) -> None:
    encoded = bytes((field << 3 | 2,)) + varint(len(data)) + data
    taken = taken_from(encoded)
    assert taken is not None
    try:
        contents = pb.InferTensorContents.FromString(encoded)
    except DecodeError:
        for count in range(len(data) + 2):
            assert isinstance(made(taken, datatype, count), str)
        return
    fields = contents.ListFields()
    count = len(fields[0][1]) if fields else 0
    if count:
        assert made(taken, datatype, count) == numbers_of(contents, datatype, count)
    assert isinstance(made(taken, datatype, count + 1), str)


def long_request(datatype: Datatype, array: Array) -> bytes:
    request = pb.ModelInferRequest(model_name="m")
    request.inputs.add(name="x", datatype=datatype.wire_name, shape=array.shape)
    request.inputs[0].contents.MergeFromString(pack_typed(datatype, array))
    return request.SerializeToString()


@pytest.mark.parametrize("datatype", TYPED)
def test_long_lists_are_made_later_and_are_the_same(datatype: Datatype) -> None:
    array = array_of(datatype, (1 << 17,) if datatype is not Datatype.BYTES else (1 << 12,), 3)
    request, sent, packed = parse(long_request(datatype, array))
    assert not sent
    assert list(packed) == [0]
    (data,), shapes, _, reply = decode(request, sent, one(datatype), packed)
    assert isinstance(data, UnreadTensor) == (datatype not in (Datatype.FP32, Datatype.FP64))
    assert shapes == [array.shape]
    assert reply.typed
    if datatype is Datatype.BYTES:
        assert isinstance(data, UnreadTensor)
        texts: Any = data.read()
        assert texts.tolist() == array.tolist()
    else:
        assert bytes_of(data) == array.tobytes()


@pytest.mark.parametrize("datatype", TYPED)
def test_no_request_with_a_list_to_be_made_is_shorter_than_is_looked_at(datatype: Datatype) -> None:
    """A tensor that nobody looked at would reach the model as it is."""
    count = LONG_ELEMENTS + 1 if datatype is Datatype.BYTES else LONG_BYTES // datatype.size + 1
    array = np.zeros(count, datatype.dtype) if datatype is not Datatype.BYTES else np.array([b""] * count, np.object_)
    message = long_request(datatype, array)
    parsed = pb.ModelInferRequest.FromString(message)
    (data,), _, _, _ = decode(parsed, (), one(datatype))
    assert isinstance(data, UnreadTensor)
    assert len(message) >= LEAST_MESSAGE_BYTES


def test_what_is_wrong_with_a_long_list_is_said_as_of_a_short_one() -> None:
    long = np.full(LONG_BYTES, 300, np.int64)
    for datatype, words in (("INT8", "does not fit INT8"), ("FP32", "is sent in fp32_contents, got int_contents")):
        request = typed_request(datatype, long.shape, int_contents=long)
        read, sent, packed = parse(request.SerializeToString())
        with pytest.raises(InvalidArgument, match=words):
            read_all(decode(read, sent, one(BY_NAME[datatype]), packed)[0])


def test_contents_beside_raw_data_are_refused_however_long() -> None:
    request = typed_request("INT64", (LONG_BYTES,), int64_contents=np.ones(LONG_BYTES, np.int64))
    request.raw_input_contents.append(bytes(8 * LONG_BYTES))
    read, sent, packed = parse(request.SerializeToString())
    with pytest.raises(InvalidArgument, match="must not be specified when using raw_input_contents"):
        decode(read, sent, one(Datatype.INT64), packed)


def test_long_contents_that_are_not_packed_are_refused() -> None:
    """A number behind a tag each: protobuf's reading of 32 MiB held the loop, and nothing counted them before."""
    contents = b"\x10\x05" * (1 << 20)
    message = b"\x0a\x01m\x2a" + varint(len(contents) + 5) + b"\x2a" + varint(len(contents)) + contents
    with pytest.raises(InvalidArgument, match="beside raw tensors and packed contents, the limit is 1048576"):
        parse(message)
