"""Inputs from a file: arrays (.npz), requests of the protocol (.json, .jsonl), or perf_analyzer's (.json).

Source: Open Inference Protocol v2, "Inference Request JSON Object"; Triton's perf_analyzer, "Input Data".
"""

import base64
import binascii
import json
import zipfile
from collections.abc import Iterator, Mapping
from itertools import islice
from math import prod
from pathlib import Path
from typing import Any, Final

import numpy as np

from gateway.errors import InvalidArgument
from gateway.tensor import BY_NAME
from loadtests.job.model_signature import ModelSignature, SignatureInput
from loadtests.job.request_tensor import Inputs, RequestTensor, tensor_from, tensor_of_values

MOST: Final = 10_000  # sets of inputs in memory


def read_inputs(path: Path, signature: ModelSignature, rows: int = 1) -> list[Inputs]:
    """Returns the sets of inputs in the file, at most the first 10 000.

    Raises: InvalidArgument, naming the place.

    Shapes: of .npz each array's first axis is cut into requests of `rows` rows where it may have any size.
    """
    try:
        sets = _arrays(path, signature, rows) if path.suffix == ".npz" else _objects(path, signature)
        made = list(islice(sets, MOST))
    except InvalidArgument as error:
        raise InvalidArgument(f"{path}: {error}") from None
    except OSError as error:
        raise InvalidArgument(f"{path}: {error.strerror or error}") from None
    if not made:
        raise InvalidArgument(f"{path}: it holds no inputs")
    return made


def _arrays(path: Path, signature: ModelSignature, rows: int) -> Iterator[Inputs]:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name.removeprefix("inputs/"): file[name] for name in file.files}
    except (ValueError, zipfile.BadZipFile) as error:
        raise InvalidArgument(f"it is no .npz of plain arrays: {error}") from None
    if missing := [one.name for one in signature.inputs if one.name not in arrays]:
        raise InvalidArgument(f"there is no array {missing[0]!r}; it has {', '.join(sorted(arrays))}")
    cut = {one.name: bool(one.shape) and one.shape[0] < 0 for one in signature.inputs}
    counts = {name: len(arrays[name]) for name, one in cut.items() if one}
    if len(set(counts.values())) > 1:
        raise InvalidArgument(f"the arrays have different numbers of rows: {counts}")
    total = next(iter(counts.values()), 1)
    for start in range(0, total - min(rows, total) + 1, rows):
        yield tuple(
            _checked(
                one,
                tensor_from(
                    one.name,
                    one.datatype,
                    arrays[one.name][start : start + rows] if cut[one.name] else arrays[one.name],
                ),
            )
            for one in signature.inputs
        )


def _objects(path: Path, signature: ModelSignature) -> Iterator[Inputs]:
    text = path.read_text(encoding="utf-8", errors="strict")
    if path.suffix == ".jsonl":
        for number, line in enumerate(text.splitlines(), start=1):
            if line.strip():
                yield from _sets(_json(line, f"line {number}"), f"line {number}", signature)
        return
    yield from _sets(_json(text, "it"), "it", signature)


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise InvalidArgument(f"{where} is no JSON: line {error.lineno}, column {error.colno}: {error.msg}") from None


def _sets(said: Any, where: str, signature: ModelSignature) -> Iterator[Inputs]:
    if isinstance(said, list):
        for place, item in enumerate(said):
            yield from _sets(item, f"item {place}", signature)
    elif isinstance(said, Mapping) and isinstance(said.get("inputs"), list):
        yield _request(said["inputs"], where, signature)
    elif isinstance(said, Mapping) and isinstance(said.get("data"), list):
        for place, item in enumerate(said["data"]):
            if not isinstance(item, Mapping):
                raise InvalidArgument(f"data[{place}] is no object of inputs by name")
            yield _by_name(item, f"data[{place}]", signature)
    else:
        raise InvalidArgument(
            f'{where} is no request ({{"inputs": [...]}}) and no file of perf_analyzer ({{"data": [...]}})'
        )


def _request(inputs: list[Any], where: str, signature: ModelSignature) -> Inputs:
    """Returns the inputs of a request of the protocol, in the model's order where the model names them."""
    known = {one.name: one for one in signature.inputs}
    made: list[RequestTensor] = []
    for place, said in enumerate(inputs):
        at = f"{where}, inputs[{place}]"
        if not isinstance(said, Mapping) or not {"name", "shape", "datatype", "data"} <= said.keys():
            raise InvalidArgument(f"{at} needs name, datatype, shape and data")
        if said["datatype"] not in BY_NAME:
            raise InvalidArgument(f"{at}: {said['datatype']!r} is no datatype")
        tensor = tensor_of_values(said["name"], BY_NAME[said["datatype"]], _sizes(said["shape"], at), said["data"])
        if not known:  # a server that says nothing of its inputs
            made.append(tensor)
            continue
        if (one := known.get(tensor.name)) is None:
            raise InvalidArgument(f"{at}: model {signature.model!r} has no input {tensor.name!r}")
        made.append(_checked(one, tensor))
    return tuple(made)


def _by_name(said: Mapping[str, Any], where: str, signature: ModelSignature) -> Inputs:
    """Returns the inputs of one entry of perf_analyzer, which leaves the batch out of its shapes."""
    if missing := [one.name for one in signature.inputs if one.name not in said]:
        raise InvalidArgument(f"{where} has no input {missing[0]!r}")
    made = []
    for one in signature.inputs:
        value, at = said[one.name], f"{where}.{one.name}"
        usual = tuple(1 if size < 0 else size for size in one.shape)
        given = value.get("shape") if isinstance(value, Mapping) else None
        shape = _sizes(given, at) if given is not None else usual
        if len(shape) == len(one.shape) - 1 and one.shape[0] < 0:
            shape = (1, *shape)
        if isinstance(value, Mapping) and "b64" in value:
            try:
                raw = base64.b64decode(value["b64"], validate=True)
            except (binascii.Error, ValueError, TypeError):
                raise InvalidArgument(f"{at}: b64 is no base64") from None
            if one.datatype.size and len(raw) != prod(shape) * one.datatype.size:
                raise InvalidArgument(f"{at}: {len(raw)} bytes for {one.datatype.wire_name} {list(shape)}")
            made.append(_checked(one, RequestTensor(one.name, one.datatype, shape, raw)))
            continue
        content = value.get("content") if isinstance(value, Mapping) else value
        made.append(_checked(one, tensor_of_values(one.name, one.datatype, shape, content)))
    return tuple(made)


def _sizes(said: Any, where: str) -> tuple[int, ...]:
    if not isinstance(said, list) or not all(isinstance(size, int) and size >= 0 for size in said):
        raise InvalidArgument(f"{where}: the shape is a list of sizes")
    return tuple(said)


def _checked(one: SignatureInput, tensor: RequestTensor) -> RequestTensor:
    """Raises: InvalidArgument where the tensor is none that the model takes: each call would only be refused."""
    fits = len(tensor.shape) == len(one.shape) and all(
        want in (-1, size) for want, size in zip(one.shape, tensor.shape, strict=True)
    )
    if not fits or tensor.datatype is not one.datatype:
        raise InvalidArgument(
            f"input {one.name!r} is {tensor.datatype.wire_name} {list(tensor.shape)}, the model takes "
            f"{one.datatype.wire_name} {list(one.shape)}"
        )
    return tensor
