"""Answers: the bytes that are put together by hand are the message that protobuf would make."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.api.contents import join_bytes
from gateway.api.encode import encode
from gateway.api.signature import Reply, Signature
from gateway.errors import ResourceExhausted
from gateway.pb import inference_pb2 as pb
from gateway.serving.call import Call
from gateway.tensor import Array, Datatype, TensorSpec
from tests.api.requests import rows_of_four, signature
from tests.serving.stage import Nobody

LIMIT = 1 << 26


def answered(*outputs: Array, request_id: str = "") -> Call:
    call = Call("m", "", request_id, Nobody())
    call.outputs = outputs
    return call


def answer(call: Call, contract: Signature, reply: Reply | None = None) -> pb.ModelInferResponse:
    return pb.ModelInferResponse.FromString(encode(call, contract, reply or contract.raw_reply, max_bytes=LIMIT))


def by_protobuf(arrays: list[Array], specs: list[TensorSpec], request_id: str) -> pb.ModelInferResponse:
    message = pb.ModelInferResponse(model_name="m", model_version="7", id=request_id)
    for spec, array in zip(specs, arrays, strict=True):
        message.outputs.add(name=spec.name, datatype=spec.datatype.wire_name, shape=array.shape)
        raw = join_bytes(array) if spec.datatype is Datatype.BYTES else array.tobytes()
        message.raw_output_contents.append(raw)
    return message


def sample(datatype: Datatype, rows: int, width: int) -> Array:
    if datatype is Datatype.BYTES:
        array = np.empty((rows, width), object)
        for index in range(rows * width):
            array[index // width, index % width] = b"\xff" * (index * 10)
        return array
    values = np.random.default_rng(rows * 31 + width).integers(0, 256, rows * width * datatype.size, dtype=np.uint8)
    if datatype is Datatype.BOOL:
        values &= 1
    return np.frombuffer(values.tobytes(), datatype.dtype).reshape(rows, width)


@settings(max_examples=200, deadline=None)
@given(
    datatypes=st.lists(st.sampled_from(list(Datatype)), min_size=1, max_size=3),
    rows=st.integers(0, 40),
    width=st.sampled_from([1, 3, 17]),
    request_id=st.text(max_size=256),
)
def test_answers_are_what_protobuf_would_make(
    datatypes: list[Datatype], rows: int, width: int, request_id: str
) -> None:
    specs = [TensorSpec(f"y{index}", datatype, (-1, width)) for index, datatype in enumerate(datatypes)]
    contract = signature([], specs)
    arrays = [sample(datatype, rows, width) for datatype in datatypes]
    expected = by_protobuf(arrays, specs, request_id)
    call = answered(*arrays, request_id=request_id)
    assert answer(call, contract) == expected
    assert answer(call, contract) == expected  # from the remembered skeleton
    if Datatype.BYTES not in datatypes:  # as a version answers whose outputs are fixed but for the rows
        call.outputs, call.rows = [array.tobytes() for array in arrays], rows
        assert answer(call, contract) == expected
        assert answer(call, contract) == expected
        assert answer(call, contract, contract.typed_reply) == answer(
            answered(*arrays, request_id=request_id), contract, contract.typed_reply
        )


def test_a_slice_of_a_batch_is_encoded_by_its_own_rows() -> None:
    contract = rows_of_four()
    batch = np.arange(32, dtype=np.float32).reshape(8, 4)
    for start in range(8):
        message = answer(answered(batch[start : start + 1]), contract)
        assert message.outputs[0].shape == [1, 4]
        assert message.raw_output_contents[0] == batch[start].tobytes()
    across = np.asfortranarray(batch)  # what a model may answer: rows that do not lie behind each other
    assert answer(answered(across), contract).raw_output_contents[0] == batch.tobytes()


def test_outputs_that_were_asked_for_come_in_that_order() -> None:
    specs = [TensorSpec("a", Datatype.FP32, (-1,)), TensorSpec("b", Datatype.INT8, (-1,))]
    contract = signature([], specs)
    reply = contract.reply((1, 0), (0, 0), typed=False)
    message = answer(answered(np.ones(2, np.int8), np.zeros(1, np.float32)), contract, reply)
    assert [output.name for output in message.outputs] == ["b", "a"]
    assert list(message.raw_output_contents) == [b"\1\1", bytes(4)]


def test_a_typed_request_has_a_typed_answer_where_every_datatype_has_a_field() -> None:
    specs = [TensorSpec("y", Datatype.FP32, (-1,)), TensorSpec("t", Datatype.BYTES, (-1,))]
    contract = signature([], specs)
    text = np.array([b"a", b""], object)
    message = answer(answered(np.array([0.5, 2], np.float32), text), contract, contract.typed_reply)
    assert message.outputs[0].contents.fp32_contents == [0.5, 2]
    assert message.outputs[1].contents.bytes_contents == [b"a", b""]
    assert not message.raw_output_contents
    halves = signature([], [TensorSpec("h", Datatype.FP16, (-1,))])
    message = answer(answered(np.array([1], np.float16)), halves, halves.typed_reply)
    assert message.raw_output_contents[0] == np.array([1], np.float16).tobytes()


@pytest.mark.parametrize("datatype", [item for item in Datatype if item not in (Datatype.FP16, Datatype.BF16)])
def test_typed_answers_carry_every_value(datatype: Datatype) -> None:
    contract = signature([], [TensorSpec("y", datatype, (-1, 3))])
    array = sample(datatype, 2, 3)
    if datatype in (Datatype.FP32, Datatype.FP64):
        array = np.array([[0.25, -1, np.inf]] * 2, datatype.dtype)
    contents = answer(answered(array), contract, contract.typed_reply).outputs[0].contents
    ((_, values),) = contents.ListFields()
    assert list(values) == array.reshape(-1).tolist()


def test_an_answer_over_the_limit_is_refused() -> None:
    contract = rows_of_four()
    call = answered(np.zeros((4, 4), np.float32))
    size = len(encode(call, contract, contract.raw_reply, max_bytes=LIMIT))
    assert len(encode(call, contract, contract.raw_reply, max_bytes=size)) == size
    with pytest.raises(ResourceExhausted, match=f"the response has {size} bytes, the limit is {size - 1}"):
        encode(call, contract, contract.raw_reply, max_bytes=size - 1)
    with pytest.raises(ResourceExhausted):
        encode(call, contract, contract.typed_reply, max_bytes=8)


def test_a_wrong_dtype_never_becomes_a_wrong_answer() -> None:
    with pytest.raises(ValueError, match="dtype float64"):
        answer(answered(np.zeros((1, 4), np.float64)), rows_of_four())


def test_skeletons_do_not_pile_up() -> None:
    contract = rows_of_four()
    for rows in range(1000):
        answer(answered(np.zeros((rows, 4), np.float32)), contract)
    assert len(contract.raw_reply.skeletons) <= 256
