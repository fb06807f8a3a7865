"""The contract of a version as its server describes it, and rows sent through the version."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gateway.cli.client import connected
from gateway.cli.exits import Exit, Failure
from gateway.drift.statistics.column import Column
from gateway.drift.training import Tensor, given_names
from gateway.pb import inference_pb2, inference_pb2_grpc
from gateway.tensor import BY_NAME, Datatype

_ROWS = 64  # in one request, where the model has no limit of its own
_TIMEOUT_S = 60.0
Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Contract:
    """Holds a version's inputs and outputs, and the feature names of its configuration ("" for none).

    `classified` names the outputs that have a labels file.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    feature_names: tuple[str, ...]
    max_batch_size: int
    classified: frozenset[str] = frozenset()


@contextmanager
def inference(server: str) -> Iterator[inference_pb2_grpc.GRPCInferenceServiceStub]:
    """Yields the inference service of a gateway.

    Raises: Failure (nobody answers there; the server refuses; the time is over).
    """
    with connected(server) as channel:
        yield inference_pb2_grpc.GRPCInferenceServiceStub(channel)  # type: ignore[no-untyped-call]


def ask_contract(stub: inference_pb2_grpc.GRPCInferenceServiceStub, model: str, version: str) -> Contract:
    """Returns the version's contract as the server describes it."""
    metadata = stub.ModelMetadata(inference_pb2.ModelMetadataRequest(name=model, version=version), timeout=_TIMEOUT_S)
    answer = stub.ModelConfig(inference_pb2.ModelConfigRequest(name=model, version=version), timeout=_TIMEOUT_S)
    return Contract(
        inputs=tuple(Tensor(one.name, one.datatype, tuple(one.shape)) for one in metadata.inputs),
        outputs=tuple(Tensor(one.name, one.datatype, tuple(one.shape)) for one in metadata.outputs),
        feature_names=given_names({name: value.string_value for name, value in answer.config.parameters.items()}),
        max_batch_size=answer.config.max_batch_size,
        classified=frozenset(one.name for one in answer.config.output if one.label_filename),
    )


def configured_names(server: str, model: str, version: str) -> dict[str, str]:
    """Returns the feature names of a version's configuration, by their column in the log.

    The result is empty if it names none, or if no gateway with the version answers.
    """
    try:
        with inference(server) as stub:
            contract = ask_contract(stub, model, version)
    except Failure:
        return {}
    columns = [column for tensor in contract.inputs for column in tensor.columns("f.")]
    if len(columns) != len(contract.feature_names):
        return {}
    return dict(zip(columns, contract.feature_names, strict=True))


def replay(
    stub: inference_pb2_grpc.GRPCInferenceServiceStub,
    model: str,
    version: str,
    contract: Contract,
    columns: Mapping[str, Column],
    embeddings: Mapping[str, Array],
) -> dict[str, Array]:
    """Returns the outputs of the version for these rows, by name, in the order of the rows.

    Raises: Failure (an input of the model is no column).
    """
    rows = [*(len(column) for column in columns.values()), *(len(vectors) for vectors in embeddings.values())][0]
    matrices = {tensor.name: _matrix(tensor, columns, embeddings) for tensor in contract.inputs}
    size = min(contract.max_batch_size or _ROWS, _ROWS)
    answers: dict[str, list[Array]] = {}
    for start in range(0, rows, size):
        request = inference_pb2.ModelInferRequest(model_name=model, model_version=version, id=f"profile-{start}")
        for tensor in contract.inputs:
            part = matrices[tensor.name][start : start + size]
            shaped = part[:, 0] if len(tensor.shape) == 1 else part
            given = request.inputs.add(name=tensor.name, datatype=tensor.datatype)
            given.shape.extend(shaped.shape)
            request.raw_input_contents.append(_raw(shaped))
        for name, answer in _outputs(stub.ModelInfer(request, timeout=_TIMEOUT_S)):
            answers.setdefault(name, []).append(answer)
    return {name: np.concatenate(parts) for name, parts in answers.items()}


def _matrix(tensor: Tensor, columns: Mapping[str, Column], embeddings: Mapping[str, Array]) -> Array:
    """Returns the rows of an input, [rows, features]."""
    if f"in.{tensor.name}" in embeddings:
        return np.asarray(embeddings[f"in.{tensor.name}"].astype(BY_NAME[tensor.datatype].dtype))
    own = tensor.columns("f.")
    if not own or any(name not in columns for name in own):
        raise Failure(
            Exit.USAGE, f"input {tensor.name!r} with shape {list(tensor.shape)} cannot be replayed from columns"
        )
    return np.stack([_values(columns[name], BY_NAME[tensor.datatype]) for name in own], axis=1)


def _values(column: Column, datatype: Datatype) -> Array:
    if datatype is Datatype.BYTES:
        texts = np.array([text.encode() for text in column.texts or ("",)], object)
        return np.asarray(texts[column.values.astype(np.int64)])
    values = column.values.astype(datatype.dtype)
    if column.missing is not None and values.dtype.kind == "f":
        values = np.where(column.missing, np.nan, values).astype(values.dtype)
    return np.asarray(values)


def _raw(array: Array) -> bytes:
    if array.dtype.kind != "O":
        return np.ascontiguousarray(array).tobytes()
    return b"".join(len(item).to_bytes(4, "little") + item for item in array.ravel().tolist())


def _outputs(answer: inference_pb2.ModelInferResponse) -> Iterator[tuple[str, Array]]:
    for output, raw in zip(answer.outputs, answer.raw_output_contents, strict=True):
        datatype = BY_NAME[output.datatype]
        if datatype is Datatype.BYTES:
            values: Array = np.array(_texts(raw), object)
        elif datatype is Datatype.BF16:
            values = (np.frombuffer(raw, "<u2").astype("<u4") << np.uint32(16)).view("<f4")
        else:
            values = np.frombuffer(raw, datatype.dtype)
        yield output.name, values.reshape(tuple(output.shape))


def _texts(raw: bytes) -> Sequence[str]:
    texts, position = [], 0
    while position < len(raw):
        size = int.from_bytes(raw[position : position + 4], "little")
        position += 4 + size
        texts.append(raw[position - size : position].decode(errors="replace"))
    return texts
