"""Versions without a model file: what they take and answer is what their configuration declares."""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from hashlib import sha256

from gateway.errors import FailedPrecondition
from gateway.serving.config_source import ConfigSource
from gateway.serving.configured_tensor import Tensor, datatype_of
from gateway.serving.contract import complete
from gateway.serving.model_config import ModelConfig
from gateway.serving.model_kind import kind_of
from gateway.serving.repository import ModelFolder
from gateway.tensor import TensorSpec

# Returns the configuration that a version is served with, once all that it needs is there: its model's name, what its
# author wrote, and what that declares. Raises: GatewayError; its text is the reason why the version cannot serve.
Describe = Callable[[str, ConfigSource, ModelConfig], Awaitable[ModelConfig]]


def declared(source: ConfigSource, folder: ModelFolder) -> ModelConfig:
    """Returns the configuration of a version whose tensors are those that the configuration declares.

    Raises: FailedPrecondition naming the tensor and what is missing.
    """
    kind = kind_of(source)
    message = source.message
    for side, tensors in (("input", message.input), ("output", message.output)):
        if not tensors:
            raise FailedPrecondition(f"{side}: a version of {kind.shown!r} has no model to take them from: list them")
    if message.max_batch_size < 0:
        raise FailedPrecondition(f"max_batch_size: {message.max_batch_size} must not be negative")
    batches = message.max_batch_size > 0
    return complete(
        source,
        folder.name,
        inputs=tuple(_specs("input", message.input, batches=batches)),
        outputs=tuple(_specs("output", message.output, batches=batches)),
        read_file=folder.read,
        may_batch=False,
    )


def declared_digest(source: ConfigSource, folder: ModelFolder) -> str:
    """Returns the SHA-256 of all that such a version is made from: the configuration, and the labels that it names."""
    parts = [source.message.SerializeToString(deterministic=True)]
    parts += [folder.read(output.label_filename) for output in source.message.output if output.label_filename]
    return sha256(b"".join(sha256(part).digest() for part in parts)).hexdigest()


def _specs(side: str, tensors: Sequence[Tensor], *, batches: bool) -> Iterator[TensorSpec]:
    for tensor in tensors:
        where = f"{side} {tensor.name[:128]!r}"
        datatype = datatype_of(tensor)
        if datatype is None:
            raise FailedPrecondition(f"{where}: data_type is missing")
        if tensor.HasField("reshape"):
            raise FailedPrecondition(f"{where}: reshape has no effect without a model: give it to the model's tensor")
        dims = tuple(tensor.dims)
        spec = TensorSpec(tensor.name, datatype, (-1, *dims) if batches else dims)
        yield replace(spec, optional=True) if getattr(tensor, "optional", False) else spec
