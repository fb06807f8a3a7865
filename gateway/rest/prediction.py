"""KServe's first protocol, `:predict`: rows or columns without names and datatypes, which the model's contract gives.

Source: KServe, "Data Plane (V1)"; TensorFlow Serving's REST API, "Predict API".
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import orjson

from gateway.api.naming import shown
from gateway.api.signature import Reply
from gateway.errors import InvalidArgument
from gateway.rest.infer_reply import ReplyBody
from gateway.rest.json_tensor import MAX_DEPTH, check_written, dumped
from gateway.serving.call import Call, arrays_of
from gateway.tensor import Array, Datatype, TensorSpec


def infer_object(inputs: Sequence[TensorSpec], given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the request in the second protocol that means the same.

    `instances` are rows: values of the only input, or objects with a value for each input. `inputs` are columns: the
    values of the only input, or an object with those of each.

    Raises: InvalidArgument.
    """
    if ("instances" in given) == ("inputs" in given):
        raise InvalidArgument("the request has to have instances (rows) or inputs (columns), and not both")
    columns = _columns_of_rows(inputs, given["instances"]) if "instances" in given else given["inputs"]
    if not isinstance(columns, Mapping):
        columns = {_only(inputs).name: columns}
    specs = {spec.name: spec for spec in inputs}
    tensors = []
    for name, data in columns.items():
        spec = specs.get(name)
        if spec is None:
            raise InvalidArgument(f"unexpected input {shown(name)}: the model's inputs are {', '.join(specs)}")
        if spec.datatype is Datatype.BYTES:
            data = _texts(name, data, 0)
        if not isinstance(data, list):
            raise InvalidArgument(f"input {shown(name)}: a list is expected")
        tensors.append({"name": name, "shape": _shape(data), "datatype": spec.datatype.wire_name, "data": data})
    return {"inputs": tensors}


def raw_object(inputs: Sequence[TensorSpec], body: bytes | memoryview) -> tuple[dict[str, Any], memoryview]:
    """Returns the request that a body of nothing but the data of the model's only input means, and these data.

    Raises: InvalidArgument (several inputs, a shape that the length does not say).
    Source: Triton, "Raw Binary Request".
    """
    spec = _only(inputs)
    data = memoryview(body)
    if spec.datatype is Datatype.BYTES:
        data = memoryview(len(body).to_bytes(4, "little") + body)
        shape = [1 if size < 0 else size for size in spec.told_shape]
    else:
        shape = _told(spec, len(body))
    tensor = {
        "name": spec.name,
        "shape": shape,
        "datatype": spec.datatype.wire_name,
        "parameters": {"binary_data_size": len(data)},
    }
    return {"inputs": [tensor], "parameters": {"binary_data_output": True}}, data


def write_predictions(call: Call, reply: Reply, *, max_bytes: int) -> ReplyBody:
    """Returns the body of an answer: the rows of the only output, or objects with a value of each output.

    Outputs that do not have the same number of rows are given as columns, by name.

    Raises: ResourceExhausted, InvalidArgument.
    """
    arrays = arrays_of(call.outputs, reply.specs, call.rows)
    values = [_values(spec, array) for spec, array in zip(reply.specs, arrays, strict=True)]
    names = [spec.name for spec in reply.specs]
    predictions: Any
    if len(values) == 1:
        predictions = values[0]
    elif all(array.ndim for array in arrays) and len({len(array) for array in arrays}) == 1:
        predictions = [dict(zip(names, row, strict=True)) for row in zip(*values, strict=True)]
    else:
        predictions = dict(zip(names, values, strict=True))
    if isinstance(predictions, np.ndarray | list) and len(predictions):
        elements = sum(array.size for array in arrays) // len(predictions)
        text = b'{"predictions":' + dumped(predictions, max(1, elements)) + b"}"
    else:
        text = orjson.dumps({"predictions": predictions}, option=orjson.OPT_SERIALIZE_NUMPY)
    return ReplyBody([text], -1).within(max_bytes)


def _columns_of_rows(inputs: Sequence[TensorSpec], rows: object) -> dict[str, object]:
    if not isinstance(rows, list):
        raise InvalidArgument("instances: a list of rows is expected")
    if not rows or not isinstance(rows[0], Mapping) or _is_base64(rows[0]):
        return {_only(inputs).name: rows}
    names = rows[0].keys()
    if any(not isinstance(row, Mapping) or row.keys() != names for row in rows):
        raise InvalidArgument("instances: every row has to have the same inputs")
    return {name: [row[name] for row in rows] for name in names}


def _only(inputs: Sequence[TensorSpec]) -> TensorSpec:
    required = [spec for spec in inputs if not spec.optional]
    if len(required) != 1:
        raise InvalidArgument(
            f"the model has {len(inputs)} inputs: name each of {', '.join(spec.name for spec in inputs) or 'none'}"
        )
    return required[0]


def _shape(data: list[Any]) -> list[int]:
    """Returns the shape of a nested list, by its first elements: whether it is regular is checked later."""
    shape: list[int] = []
    inner: Any = data
    while isinstance(inner, list) and len(shape) < MAX_DEPTH:
        shape.append(len(inner))
        inner = inner[0] if inner else None
    return shape


def _told(spec: TensorSpec, size_bytes: int) -> list[int]:
    """Returns the shape that so many bytes of the input have. Raises: InvalidArgument."""
    open_dimensions = sum(size < 0 for size in spec.told_shape)
    row_bytes = prod(size for size in spec.told_shape if size >= 0) * spec.datatype.size
    if open_dimensions > 1 or (open_dimensions and (not row_bytes or size_bytes % row_bytes)):
        raise InvalidArgument(
            f"the shape of input {shown(spec.name)} does not follow from {size_bytes} bytes: its shape is "
            f"{list(spec.told_shape)}; send it with its shape in JSON"
        )
    return [size_bytes // row_bytes if size < 0 else size for size in spec.told_shape]


def _is_base64(value: object) -> bool:
    return isinstance(value, Mapping) and value.keys() == {"b64"}


def _texts(name: str, value: object, depth: int) -> object:
    """Returns the texts of an input, those in Base64 decoded. Raises: InvalidArgument."""
    if isinstance(value, list) and depth < MAX_DEPTH:
        return [_texts(name, one, depth + 1) for one in value]
    if not isinstance(value, Mapping) or not _is_base64(value):
        return value
    try:
        return base64.b64decode(value["b64"], validate=True).decode()
    except (TypeError, ValueError, binascii.Error):
        raise InvalidArgument(f"input {shown(name)}: b64 has to hold UTF-8 in Base64") from None


def _values(spec: TensorSpec, array: Array) -> Any:
    check_written(spec.name, array)
    if spec.datatype is Datatype.BYTES:
        try:
            return _decoded(array.tolist())
        except UnicodeDecodeError:
            raise InvalidArgument(f"output {shown(spec.name)} has elements that are not UTF-8") from None
    if not array.ndim:
        return array.tolist()
    return np.ascontiguousarray(array)


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_decoded(one) for one in value]
    return value.decode() if isinstance(value, bytes) else value
