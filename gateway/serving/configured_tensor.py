"""A tensor as a configuration has it: its datatype, and the shapes that it is offered in."""

from collections.abc import Mapping, Sequence
from typing import cast

from gateway.pb import inference_pb2
from gateway.tensor import Datatype

Tensor = inference_pb2.ModelInput | inference_pb2.ModelOutput
TYPES: Mapping[int, Datatype] = {inference_pb2.DataType.Value(kind.config_name): kind for kind in Datatype}
NUMBERS = {kind: cast("inference_pb2.DataType", number) for number, kind in TYPES.items()}


def datatype_of(tensor: Tensor) -> Datatype | None:
    """Returns the datatype that a configuration gives a tensor; None where it gives none."""
    return TYPES.get(tensor.data_type)


def compatible(written: Sequence[int], own: Sequence[int]) -> bool:
    """Returns whether a configured shape fits the model's: it may narrow what the model leaves open, not widen it."""
    return len(written) == len(own) and all(theirs in (-1, ours) for ours, theirs in zip(written, own, strict=True))


def reshapes(tensors: Sequence[Tensor]) -> Mapping[str, tuple[int, ...]]:
    """Returns the shapes that the model has instead of the offered ones, by the tensor's name."""
    return {tensor.name: tuple(tensor.reshape.shape) for tensor in tensors if tensor.HasField("reshape")}
