"""What a replay and the process that runs a version for it say to each other: frames of MessagePack."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import msgspec
import numpy as np

from gateway.tensor import BY_NAME, Array, Datatype, TensorSpec

LENGTH_BYTES: Final = 4
MOST_BYTES: Final = 1 << 30


class RunRequest(msgspec.Struct, frozen=True):
    """A version to be run: `message`, `fields` and `files` are its configuration, as `ConfigSource` and by name.

    `probe` and `result` have the form of `probe_request.to_json`.
    Units: `cpu_s` seconds of CPU time, after which the process is ended.
    """

    model: str
    version: str
    probe: bytes
    result: bytes
    message: bytes
    fields: tuple[str, ...]
    files: dict[str, bytes]
    cpu_s: float


class SentTensor(msgspec.Struct, frozen=True, array_like=True):
    """A tensor on its way: raw bytes, or the elements of a BYTES tensor."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: bytes = b""
    texts: tuple[bytes, ...] = ()


class RunContract(msgspec.Struct, frozen=True):
    """What the version says of itself once it is open; `reason` is why it cannot be, "" if it is.

    Shapes: with the batch dimension where `batches`. Units: `baseline_bytes` of memory before the model was read.
    """

    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    batches: bool = False
    max_rows: int = 0
    baseline_bytes: int = 0
    reason: str = ""


class RunAnswer(msgspec.Struct, frozen=True):
    """One run: its outputs, or why there are none. Units: `run_ns` of the run alone; `peak_bytes` of memory so far."""

    outputs: tuple[SentTensor, ...] = ()
    error: str = ""
    run_ns: int = 0
    peak_bytes: int = 0


def as_logged(specs: Sequence[TensorSpec], *, batches: bool) -> tuple[TensorSpec, ...]:
    """Returns the tensors as the log has them: where a version does not batch, no dimension counts rows."""
    return tuple(specs) if batches else tuple(replace(spec, batched=False) for spec in specs)


def sent(name: str, datatype: Datatype, array: Array) -> SentTensor:
    """Returns the tensor to be sent. Shapes: BF16 arrays are uint16 patterns, BYTES arrays objects of bytes."""
    if datatype is Datatype.BYTES:
        texts = tuple(item if isinstance(item, bytes) else str(item).encode() for item in array.reshape(-1).tolist())
        return SentTensor(name, datatype.wire_name, array.shape, texts=texts)
    plain = np.ascontiguousarray(array, datatype.dtype)
    return SentTensor(name, datatype.wire_name, array.shape, plain.tobytes())


def received(tensor: SentTensor) -> Array:
    """Returns the array that `sent` was given."""
    datatype = BY_NAME[tensor.datatype]
    if datatype is Datatype.BYTES:
        texts = np.empty(len(tensor.texts), object)
        texts[:] = tensor.texts
        return np.asarray(texts.reshape(tensor.shape))
    return np.frombuffer(tensor.data, datatype.dtype).reshape(tensor.shape)


def arrays(tensors: Sequence[SentTensor]) -> Mapping[str, Array]:
    """Returns the arrays by name."""
    return {tensor.name: received(tensor) for tensor in tensors}


def framed(message: Any) -> bytes:
    """Returns the message as a frame: its length, then itself."""
    body = msgspec.msgpack.encode(message)
    return len(body).to_bytes(LENGTH_BYTES, "little") + body
