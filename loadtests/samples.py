"""Held-out rows of a demo model, with what each of its versions answers to them.

Source: `python -m gateway.demo DIR --samples DIR` writes them, one .npz for each model.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gateway.pb import inference_pb2 as pb
from loadtests.budgets import DISTINCT

Array = npt.NDArray[np.generic]
_DATATYPES = {"f4": "FP32", "i8": "INT64"}


@dataclass(frozen=True, slots=True)
class Sample:
    """One row. `expected` are the outputs by version, then by name; `tensors` and `raw` are the row on the wire."""

    expected: Mapping[str, Mapping[str, Array]]
    tensors: tuple[pb.ModelInferRequest.InferInputTensor, ...]
    raw: tuple[bytes, ...]


def load(directory: Path, model: str) -> list[Sample]:
    """The rows of a model that its versions answer differently; all rows where it has one version.

    Raises: OSError; ValueError if no row tells the versions apart.
    """
    with np.load(directory / f"{model}.npz", allow_pickle=False) as file:
        arrays: dict[str, Array] = dict(file)
    inputs = {name.removeprefix("inputs/"): array for name, array in arrays.items() if name.startswith("inputs/")}
    outputs = [name.split("/") for name in arrays if name.startswith("outputs/")]
    samples = []
    for row in range(len(arrays["truth"])):
        expected: dict[str, dict[str, Array]] = {}
        for _, version, output in outputs:
            expected.setdefault(version, {})[output] = arrays[f"outputs/{version}/{output}"][row : row + 1]
        if _distinct(expected):
            samples.append(_sample(expected, {name: array[row : row + 1] for name, array in inputs.items()}))
    if not samples:
        raise ValueError(f"no sample of {model!r} in {directory} tells its versions apart")
    return samples


def request(model: str, sample: Sample, request_id: str, version: str = "") -> pb.ModelInferRequest:
    return pb.ModelInferRequest(
        model_name=model,
        model_version=version,
        id=request_id,
        inputs=sample.tensors,
        raw_input_contents=sample.raw,
    )


def _distinct(expected: Mapping[str, Mapping[str, Array]]) -> bool:
    answers = [outputs["probabilities"].astype(np.float64) for outputs in expected.values()]
    return all(
        float(np.abs(one - other).max()) > DISTINCT for index, one in enumerate(answers) for other in answers[:index]
    )


def _sample(expected: Mapping[str, Mapping[str, Array]], row: Mapping[str, Array]) -> Sample:
    tensors = tuple(
        pb.ModelInferRequest.InferInputTensor(name=name, datatype=_datatype(array), shape=array.shape)
        for name, array in row.items()
    )
    return Sample(expected, tensors, tuple(_raw(array) for array in row.values()))


def _datatype(array: Array) -> str:
    return "BYTES" if array.dtype.kind == "S" else _DATATYPES[array.dtype.str[1:]]


def _raw(array: Array) -> bytes:
    if array.dtype.kind != "S":
        return np.ascontiguousarray(array).tobytes()
    texts = [bytes(text) for text in array.ravel().tolist()]
    return b"".join(len(text).to_bytes(4, "little") + text for text in texts)
