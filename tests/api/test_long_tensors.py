"""Tensors of so many elements that to make or write them takes long: the loop serves its other requests meanwhile."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from time import thread_time

import numpy as np
import pytest
import pytest_asyncio

from gateway.api.contents import TYPED_FIELDS
from gateway.api.unread_tensor import LEAST_MESSAGE_BYTES, LONG_BYTES
from gateway.errors import Code
from gateway.pb import inference_pb2 as pb
from gateway.pb import tensorflow_pb2 as tf
from gateway.pb import tensorflow_serving_pb2 as tfs
from gateway.tensor import Datatype
from tests.api.calls import fails, good, is_well, plain, until
from tests.api.stand import Stand

pytestmark = pytest.mark.asyncio(loop_scope="session")
COUNT = 1 << 20
HELD_S = 0.02  # CPU time of the loop's thread in one turn: what the machine does besides does not count


@pytest_asyncio.fixture(autouse=True, loop_scope="session")
async def _well_after(stand: Stand) -> AsyncIterator[None]:
    yield
    await is_well(stand)


@contextmanager
def turns() -> Iterator[list[float]]:
    """Yields a list of what each turn of the loop takes, whose ends are seen because the loop never rests."""
    loop, taken, last = asyncio.get_running_loop(), [0.0], thread_time()
    going = True

    def turn() -> None:
        nonlocal last
        now = thread_time()
        taken[0], last = max(taken[0], now - last), now
        if going:
            loop.call_soon(turn)

    loop.call_soon(turn)
    try:
        yield taken
    finally:
        going = False


MODELS = {Datatype.FP32: "wide"}


def echoed(datatype: Datatype, values: Sequence[object]) -> pb.ModelInferRequest:
    """A typed request to a model that gives its input back."""
    request = pb.ModelInferRequest(model_name=MODELS.get(datatype, f"echo-{datatype.wire_name}"), id="long")
    tensor = request.inputs.add(name="x", datatype=datatype.wire_name, shape=[len(values) // 2, 2])
    getattr(tensor.contents, TYPED_FIELDS[datatype]).extend(values)
    return request


@pytest.mark.parametrize("datatype", [Datatype.INT8, Datatype.BOOL, Datatype.FP32])
async def test_long_contents_hold_the_loop_no_longer_than_raw_data(stand: Stand, datatype: Datatype) -> None:
    count = COUNT if datatype is not Datatype.FP32 else COUNT // 2
    values = (np.arange(count) % (2 if datatype is Datatype.BOOL else 120)).tolist()
    message = echoed(datatype, values).SerializeToString()
    with turns() as taken:
        answer = await plain(stand)(message)
    assert taken[0] < HELD_S
    response = pb.ModelInferResponse.FromString(answer)
    (output,) = response.outputs
    assert list(output.shape) == [count // 2, 2]
    assert list(getattr(output.contents, TYPED_FIELDS[datatype])) == values
    assert not response.raw_output_contents
    assert response.id == "long"


@pytest.mark.parametrize(
    "count", [LEAST_MESSAGE_BYTES - 2, LEAST_MESSAGE_BYTES + 2, LONG_BYTES - 200, LONG_BYTES + 200]
)
async def test_lists_that_are_longer_in_memory_than_on_the_wire_are_made(stand: Stand, count: int) -> None:
    """From a message of 16 KiB on: a number of 64 bits takes one byte there."""
    response = await stand.stub.ModelInfer(echoed(Datatype.INT64, [5] * count))
    assert list(response.outputs[0].contents.int64_contents) == [5] * count
    texts = [b""] * count
    response = await stand.stub.ModelInfer(echoed(Datatype.BYTES, texts))
    assert list(response.outputs[0].contents.bytes_contents) == texts


async def test_long_contents_in_a_stream_are_the_same(stand: Stand) -> None:
    values = (np.arange(COUNT) % 120).tolist()
    message = echoed(Datatype.INT8, values).SerializeToString()
    stream = stand.channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer", bytes, bytes)
    with turns() as taken:
        call = stream(iter([message, good().SerializeToString()]))
        answers = [answer async for answer in call]
    assert taken[0] < HELD_S
    first, second = [pb.ModelStreamInferResponse.FromString(answer).infer_response for answer in answers]
    if first.id != "long":  # those of different models come as they are ready
        first, second = second, first
    assert list(first.outputs[0].contents.int_contents) == values
    assert second.id == "good"


async def test_many_raw_texts_hold_the_loop_no_longer(stand: Stand) -> None:
    count = 1 << 17
    request = pb.ModelInferRequest(model_name="echo-BYTES", raw_input_contents=[b"\1\0\0\0a" * count])
    request.inputs.add(name="x", datatype="BYTES", shape=[count // 2, 2])
    message = request.SerializeToString()
    with turns() as taken:
        answer = await plain(stand)(message)
    assert pb.ModelInferResponse.FromString(answer).raw_output_contents == request.raw_input_contents
    assert taken[0] < 4 * HELD_S  # a version's first runs are on the loop, whatever they take, and weigh each text


async def test_a_long_list_of_tensorflow_is_made_beside_the_loop(stand: Stand) -> None:
    shape = tf.TensorShapeProto(dim=[tf.TensorShapeProto.Dim(size=COUNT // 4), tf.TensorShapeProto.Dim(size=2)])
    tensor = tf.TensorProto(dtype=tf.DT_INT8, tensor_shape=shape, int_val=(np.arange(COUNT // 2) % 120).tolist())
    request = tfs.PredictRequest(model_spec=tfs.ModelSpec(name="echo-INT8"), inputs={"x": tensor})
    message = request.SerializeToString()
    method = stand.channel.unary_unary("/tensorflow.serving.PredictionService/Predict", bytes, bytes)
    with turns() as taken:
        answer = await method(message)
    assert taken[0] < HELD_S
    assert tfs.PredictResponse.FromString(answer).outputs["y"] == tensor
    request.inputs["x"].int_val[-1] = 1000
    with pytest.raises(Exception, match="does not fit INT8"):
        await method(request.SerializeToString())


async def test_what_is_wrong_is_said_and_nothing_is_held(stand: Stand) -> None:
    request = echoed(Datatype.INT8, [1] * (1 << 18))
    request.inputs[0].contents.int_contents[-1] = 256
    code, text = await fails(stand, request)
    assert code is Code.INVALID_ARGUMENT
    assert "int_contents has a value that does not fit INT8 (-128 to 127)" in text


async def test_a_call_that_is_cancelled_meanwhile_is_not_run(stand: Stand) -> None:
    message = echoed(Datatype.INT8, [100] * COUNT).SerializeToString()
    dropped = dict(stand.log.counts().dropped)
    call = plain(stand)(message)
    waiting = asyncio.ensure_future(call)
    await until(lambda: stand.engine.in_flight > 0)
    call.cancel()  # type: ignore[attr-defined]
    await asyncio.gather(waiting, return_exceptions=True)
    await until(lambda: stand.engine.in_flight == 0 and not stand.log.counts().buffered)
    assert stand.log.counts().dropped == dropped
