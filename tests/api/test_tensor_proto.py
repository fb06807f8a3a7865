"""TensorFlow's tensors, read and written beside what protobuf reads and writes."""

from math import prod
from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.api.packed_varints import read_varints, write_varints
from gateway.api.tfserving.tensor_proto import CARRIED, GivenTensor, read_tensor, write_tensor
from gateway.errors import InvalidArgument
from gateway.pb import tensorflow_pb2 as tf
from gateway.tensor import Array, Datatype, TensorSpec
from tests.api.requests import bytes_of

MAX_BYTES = 1 << 16
SHAPES = st.lists(st.integers(0, 3), max_size=3).map(tuple)


def array_of(datatype: Datatype, shape: tuple[int, ...], seed: int) -> Array:
    rng = np.random.default_rng(seed)
    if datatype is Datatype.BYTES:
        made: Array = np.empty(prod(shape), np.object_)
        made[:] = [bytes(rng.integers(97, 123, rng.integers(0, 200))) for _ in range(prod(shape))]
        return made.reshape(shape)
    dtype = np.dtype(datatype.dtype)
    if datatype is Datatype.BOOL:
        return np.asarray(rng.integers(0, 2, shape), dtype)
    if dtype.kind == "f":
        return rng.normal(size=shape).astype(dtype)
    bounds = np.iinfo(dtype)
    wide = rng.integers(bounds.min, bounds.max, shape, dtype=dtype, endpoint=True)
    return np.asarray(wide >> dtype.type(rng.integers(0, 8 * datatype.size)), dtype)


def raw(datatype: Datatype, array: Array) -> bytes:
    if datatype is Datatype.BYTES:
        return b"".join(len(text).to_bytes(4, "little") + text for text in array.reshape(-1).tolist())
    return array.tobytes()


def listed(datatype: Datatype, array: Array) -> list[Any]:
    """The elements as protobuf's Python lists have them."""
    if datatype in (Datatype.FP16, Datatype.BF16):
        return np.ascontiguousarray(array).view("<u2").reshape(-1).tolist()
    return array.reshape(-1).tolist()


def shape_of(shape: tuple[int, ...]) -> tf.TensorShapeProto:
    return tf.TensorShapeProto(dim=[tf.TensorShapeProto.Dim(size=size) for size in shape])


def typed(datatype: Datatype, shape: tuple[int, ...], values: list[Any]) -> tf.TensorProto:
    carried = CARRIED[datatype]
    message = tf.TensorProto(tensor_shape=shape_of(shape))
    message.dtype = carried.number  # type: ignore[assignment]
    getattr(message, message.DESCRIPTOR.fields_by_number[carried.field].name).extend(values)
    return message


def read(message: tf.TensorProto) -> GivenTensor:
    return read_tensor("x", memoryview(message.SerializeToString()), MAX_BYTES)


def test_a_long_message_that_is_not_packed_is_refused() -> None:
    """Each element of it would be an object, hundreds of bytes for two."""
    message = bytes.fromhex("0803") + b"\x12\x06\x12\x04\x08\x80\x80\x40" + b"\x38\x05" * (1 << 20)
    with pytest.raises(InvalidArgument, match="lists that are not packed"):
        read_tensor("x", memoryview(message), 1 << 26)


@given(st.lists(st.integers(0, (1 << 64) - 1) | st.integers(0, 300)))
@example([])
@example([0])
@example([(1 << 64) - 1] * 3)
@example([1 << 7 * place for place in range(10)])
@example([300] * 40_000)  # more than one part
def test_varints_are_those_of_protobuf(values: list[int]) -> None:
    message = tf.TensorProto(uint64_val=values)
    packed = message.SerializeToString()
    head = len(packed) - len(write_varints(np.array(values, np.uint64)))
    assert packed[head:] == write_varints(np.array(values, np.uint64))
    numbers = read_varints(packed[head:])
    assert numbers is not None
    assert numbers.tolist() == values


@pytest.mark.parametrize("broken", [b"\x80", b"\x01\xff", b"\xff" * 11 + b"\x01", b"\xff" * 70_000 + b"\x01"])
def test_what_is_no_list_of_varints_is_none(broken: bytes) -> None:
    assert read_varints(broken) is None


def test_every_datatype_is_carried() -> None:
    """Or is known not to be: TensorFlow's numbers of the newer ones have no list of their own that clients fill."""
    assert set(CARRIED) <= set(Datatype)
    assert {datatype.wire_name for datatype in set(Datatype) - set(CARRIED)} <= {
        "FP8E4M3FN",
        "FP8E5M2",
        "INT4",
        "UINT4",
    }


@pytest.mark.parametrize("datatype", CARRIED)
@settings(max_examples=10)
@given(shape=SHAPES, seed=st.integers(0, 1000))
@example(shape=(), seed=0)
@example(shape=(0,), seed=0)
@example(shape=(2, 2), seed=3)
def test_tensors_come_as_they_are(datatype: Datatype, shape: tuple[int, ...], seed: int) -> None:
    array = array_of(datatype, shape, seed)
    given_typed = read(typed(datatype, shape, listed(datatype, array)))
    assert (given_typed.datatype, given_typed.shape) == (datatype, shape)
    assert bytes_of(given_typed.data) == raw(datatype, array)
    written = tf.TensorProto.FromString(write_tensor(TensorSpec("y", datatype, shape), array))
    assert written == typed(datatype, shape, listed(datatype, array))
    if datatype is not Datatype.BYTES:
        content = tf.TensorProto(
            dtype=CARRIED[datatype].number,  # type: ignore[arg-type]
            tensor_shape=shape_of(shape),
            tensor_content=array.tobytes(),
        )
        assert bytes_of(read(content).data) == array.tobytes()


@pytest.mark.parametrize("datatype", CARRIED)
def test_a_short_list_is_filled_up_with_its_last_element(datatype: Datatype) -> None:
    array = array_of(datatype, (2,), 5)
    filled = array[[0, 1, 1, 1, 1, 1]].reshape(2, 3)
    assert bytes_of(read(typed(datatype, (2, 3), listed(datatype, array))).data) == raw(datatype, filled)
    nothing = np.zeros(6, array.dtype) if datatype is not Datatype.BYTES else np.array([b""] * 6, np.object_)
    assert bytes_of(read(typed(datatype, (2, 3), [])).data) == raw(datatype, nothing)


def test_texts_come_as_tensorflow_packs_them() -> None:
    texts = [b"", b"a", b"b" * 200]
    message = tf.TensorProto(dtype=tf.DT_STRING, tensor_shape=shape_of((3,)))
    message.tensor_content = b"\x00\x01\xc8\x01" + b"".join(texts)
    assert bytes_of(read(message).data) == raw(Datatype.BYTES, np.array(texts, np.object_))
    message.tensor_content += b"more"
    with pytest.raises(InvalidArgument, match="3 texts and nothing else"):
        read(message)


def test_elements_that_are_not_packed_are_read() -> None:
    """As writers of the second protobuf syntax send them."""
    message = bytes.fromhex("0803") + b"\x12\x04\x12\x02\x08\x02" + b"\x38\x05\x38\x80\x01"
    assert bytes_of(read_tensor("x", memoryview(message), MAX_BYTES).data) == np.array([5, 128], "<i4").tobytes()
    floats = bytes.fromhex("0801") + b"\x12\x04\x12\x02\x08\x02" + b"\x2d\0\0\x80\x3f\x2a\x04\0\0\0\x40"
    assert bytes_of(read_tensor("x", memoryview(floats), MAX_BYTES).data) == np.array([1, 2], "<f4").tobytes()


REFUSED: dict[str, tuple[tf.TensorProto, str]] = {
    "no dtype": (tf.TensorProto(), "dtype DT_INVALID; served are DT_FLOAT"),
    "complex": (tf.TensorProto(dtype=tf.DT_COMPLEX64), "DT_COMPLEX64"),
    "unknown dtype": (tf.TensorProto(dtype=99), "dtype 99"),  # type: ignore[arg-type]
    "unknown rank": (
        tf.TensorProto(dtype=tf.DT_FLOAT, tensor_shape=tf.TensorShapeProto(unknown_rank=True)),
        "size of each dimension",
    ),
    "open dimension": (tf.TensorProto(dtype=tf.DT_FLOAT, tensor_shape=shape_of((2, -1))), "size of each dimension"),
    "too many": (typed(Datatype.FP32, (1,), [1, 2]), "has 2 elements, its shape takes 1"),
    "too many texts": (typed(Datatype.BYTES, (1,), [b"a", b"b"]), "has 2 elements, its shape takes 1"),
    "another list": (tf.TensorProto(dtype=tf.DT_FLOAT, double_val=[1]), "belong in float_val, not in double_val"),
    "does not fit": (typed(Datatype.INT8, (1,), [200]), "int_val has a value that does not fit INT8"),
    "negative": (typed(Datatype.UINT8, (1,), [-1]), "does not fit UINT8"),
    "half": (typed(Datatype.FP16, (1,), [1 << 16]), "more than 16 bits"),
    "content": (
        tf.TensorProto(dtype=tf.DT_FLOAT, tensor_shape=shape_of((2,)), tensor_content=b"123"),
        "tensor_content has 3 bytes",
    ),
    "a bomb": (typed(Datatype.FP32, (1 << 20, 1 << 20), [1]), "larger than a message may be"),
    "a long text many times": (typed(Datatype.BYTES, (1000,), [b"a" * 1000]), "larger than a message may be"),
    "a bomb of dimensions": (typed(Datatype.FP32, (1 << 62,) * 17, [1]), "has 17 dimensions, the limit is 16"),
    "a long shape": (typed(Datatype.FP32, (1 << 62,) * 1000, [1]), "the limit is 4096"),
    "a bomb of texts": (typed(Datatype.BYTES, (1 << 30,), [b"a"]), "larger than a message may be"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_wrong_is_refused_by_name(case: str) -> None:
    message, words = REFUSED[case]
    with pytest.raises(InvalidArgument, match="input 'x'") as refused:
        read(message)
    assert words in str(refused.value)


PARTS = st.lists(
    st.sampled_from(
        [
            b"\x08\x01",  # dtype
            b"\x08\x03",
            b"\x88\x00\x01",
            b"\x08\x81\x80\x80\x80\x10",  # of 64 bits, of which protobuf takes 32
            b"\x12\x04\x12\x02\x08\x02",  # tensor_shape
            b"\x12\x04\x12\x02\x08\x01",
            b"\x12\x02\x18\x01",
            b"\x18\x05",  # version_number
            b"\x22\x04abcd",  # tensor_content
            b"\x22\x00",
            b"\x2a\x04\0\0\x80\x3f",  # float_val
            b"\x2d\0\0\x80\x3f",
            b"\x28\x01",  # not its wire type
            b"\x3a\x01\x05",  # int_val
            b"\x3a\x05\xff\xff\xff\xff\x0f",
            b"\x3a\x0a" + b"\xff" * 9 + b"\x7f",
            b"\x38\x05",
            b"\x3a\x01\xff",
            b"\x42\x01a",  # string_val
            b"\x40\x05",
            b"\x08\x07",
            b"\x7b\x08\x01\x7c",  # an unknown group
            b"\x7b",
            b"\xf8\x07\x01",  # an unknown field
            b"\x00\x00",
        ]
    )
    | st.binary(max_size=4),
    max_size=7,
).map(b"".join)


@settings(max_examples=300)
@given(PARTS)
@example(b"")
@example(b"\x08\x03\x12\x04\x12\x02\x08\x02\x38\x05\x3a\x01\x06")
@example(b"\x08\x07\x12\x04\x12\x02\x08\x02\x40\x05\x42\x01a")  # a number where a text belongs
@example(b"\x08\x03\x12\x04\x12\x02\x08\x02\x12\x04\x12\x02\x08\x02\x3a\x01\x05")  # shapes are merged
@example(b"\x08\x03\x3a\x05\xff\xff\xff\xff\x0f")
@example(b"\x08\x03\x22\x04abcd\x3a\x01\xff")  # a broken list beside the content
def test_a_tensor_is_read_as_protobuf_reads_it(message: bytes) -> None:
    try:
        parsed = tf.TensorProto.FromString(message)
    except DecodeError:
        with pytest.raises(InvalidArgument):
            read_tensor("x", memoryview(message), MAX_BYTES)
        return
    try:
        known: object = read(parsed)
    except InvalidArgument as refused:
        known = str(refused)
    try:
        own: object = read_tensor("x", memoryview(message), MAX_BYTES)
    except InvalidArgument as refused:
        own = str(refused)
    assert own == known


@given(st.binary(max_size=60))
@example(b"\x08")
@example(b"\x2a\x03abc")
@example(b"\x00\x00")
def test_any_bytes_are_a_tensor_or_refused(message: bytes) -> None:
    try:
        tensor = read_tensor("x", memoryview(message), MAX_BYTES)
    except InvalidArgument:
        return
    if tensor.datatype is not Datatype.BYTES:
        assert len(tensor.data) == prod(tensor.shape) * tensor.datatype.size
