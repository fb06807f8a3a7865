"""Requests and contracts to decode them against."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gateway.api.signature import Signature
from gateway.api.unread_tensor import Input, read_all
from gateway.pb import inference_pb2 as pb
from gateway.serving.model_config import ModelConfig
from gateway.tensor import Datatype, TensorSpec

Shape = Sequence[int]


def signature(
    inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec] = (), *, max_batch_size: int = 0
) -> Signature:
    """The compiled contract of version 7 of model m."""
    config = ModelConfig(
        name="m",
        max_batch_size=max_batch_size,
        max_request_rows=max_batch_size,
        inputs=tuple(inputs),
        outputs=tuple(outputs),
    )
    return Signature("m", "7", config)


def rows_of_four(max_batch_size: int = 8) -> Signature:
    """x: FP32 [-1, 4] -> y: FP32 [-1, 4]; batches."""
    return signature(
        [TensorSpec("x", Datatype.FP32, (-1, 4))],
        [TensorSpec("y", Datatype.FP32, (-1, 4))],
        max_batch_size=max_batch_size,
    )


def one(datatype: Datatype, shape: Shape = (-1,)) -> Signature:
    """x -> y of one datatype; does not batch."""
    return signature([TensorSpec("x", datatype, tuple(shape))], [TensorSpec("y", datatype, tuple(shape))])


def raw_request(
    name: str = "x", datatype: str = "FP32", shape: Shape = (1, 4), data: bytes = bytes(16)
) -> pb.ModelInferRequest:
    """A request with one raw input."""
    request = pb.ModelInferRequest(model_name="m", raw_input_contents=[data])
    request.inputs.add(name=name, datatype=datatype, shape=shape)
    return request


def typed_request(datatype: str, shape: Shape, **fields: Any) -> pb.ModelInferRequest:
    """A request with one input of typed contents."""
    request = pb.ModelInferRequest(model_name="m")
    request.inputs.add(name="x", datatype=datatype, shape=shape, contents=pb.InferTensorContents(**fields))
    return request


def floats(*values: float) -> npt.NDArray[np.float32]:
    return np.array(values, np.float32)


def bytes_of(data: Input) -> bytes:
    """The raw bytes of an input, made if it has still to be made."""
    (made,) = read_all([data])
    assert made is not None
    return made.tobytes() if isinstance(made, np.ndarray) else bytes(made)
