"""The ONNX backend suite: its cases, which of them ONNX Runtime passes in process, and what they are over the wire.

The rules by which values that are no plain tensors travel are written here once more, as a client has to know them
(docs/models.md): what the gateway does with them is not asked.
"""

import ctypes
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto, numpy_helper
from onnx.backend.test.case.model import collect_testcases as collect_models
from onnx.backend.test.case.node import collect_testcases as collect_nodes

from gateway.pb import inference_pb2 as pb

Array = npt.NDArray[Any]

# The datatype on the wire of each element type, and how many elements lie in a byte of ONNX's own layout.
_WIRE: Mapping[int, str] = {
    TensorProto.BOOL: "BOOL",
    TensorProto.UINT8: "UINT8",
    TensorProto.UINT16: "UINT16",
    TensorProto.UINT32: "UINT32",
    TensorProto.UINT64: "UINT64",
    TensorProto.INT8: "INT8",
    TensorProto.INT16: "INT16",
    TensorProto.INT32: "INT32",
    TensorProto.INT64: "INT64",
    TensorProto.FLOAT16: "FP16",
    TensorProto.FLOAT: "FP32",
    TensorProto.DOUBLE: "FP64",
    TensorProto.BFLOAT16: "BF16",
    TensorProto.STRING: "BYTES",
    TensorProto.FLOAT8E4M3FN: "UINT8",
    TensorProto.FLOAT8E4M3FNUZ: "UINT8",
    TensorProto.FLOAT8E5M2: "UINT8",
    TensorProto.FLOAT8E5M2FNUZ: "UINT8",
    TensorProto.FLOAT8E8M0: "UINT8",
    TensorProto.UINT4: "UINT8",
    TensorProto.INT4: "INT8",
    TensorProto.FLOAT4E2M1: "UINT8",
    TensorProto.UINT2: "UINT8",
    TensorProto.INT2: "INT8",
}
_PACKED: Mapping[int, int] = {
    TensorProto.UINT4: 2,
    TensorProto.INT4: 2,
    TensorProto.FLOAT4E2M1: 2,
    TensorProto.UINT2: 4,
    TensorProto.INT2: 4,
}
_DTYPES = {
    **{f"{kind}{bits}": np.dtype(f"{kind.lower()}{bits}") for kind in ("INT", "UINT") for bits in (8, 16, 32, 64)},
    "BOOL": np.dtype(np.bool_),
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BF16": np.dtype(np.uint16),
    "BYTES": np.dtype(object),
}


class Case(NamedTuple):
    """A case, with its inputs and the outputs that are expected, as the suite gives them."""

    name: str
    model: onnx.ModelProto
    data_sets: Sequence[tuple[Sequence[Any], Sequence[Any]]]
    rtol: float
    atol: float


class Carried(NamedTuple):
    """A tensor on the wire."""

    name: str
    datatype: str
    array: Array


def cases() -> Iterator[Case]:
    """The cases that come with the `onnx` package, of operators and of small models."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some divide by zero on purpose
        collected = [*collect_nodes(None), *(case for case in collect_models() if case.model is not None)]
    for case in collected:
        if case.model is not None and case.data_sets:
            yield Case(case.name, case.model, case.data_sets, case.rtol, case.atol)


def passes_in_process(case: Case) -> bool:
    """Whether ONNX Runtime itself gives the expected outputs."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    graph = case.model.graph
    try:
        session = onnxruntime.InferenceSession(
            case.model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        for given, expected in case.data_sets:
            feed = {value.name: _native(value.type, each) for value, each in zip(graph.input, given, strict=False)}
            answers = _run(session, graph, feed)
            for value, answer, right in zip(graph.output, answers, expected, strict=True):
                if not _equal(value.type, answer, carried(value.name, value.type, right), case):
                    return False
    except Exception:  # the runtime's own exceptions share no other base: it does not run this at all
        return False
    return True


def request_of(case: Case, given: Sequence[Any], model: str) -> pb.ModelInferRequest:
    """The request with these inputs; what is None is left out."""
    request = pb.ModelInferRequest(model_name=model)
    for value, each in zip(case.model.graph.input, given, strict=False):
        for tensor in carried(value.name, value.type, each):
            if value.type.WhichOneof("value") == "optional_type" and each is None:
                continue
            request.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.array.shape)
            request.raw_input_contents.append(_raw(tensor))
    return request


def expected_of(case: Case, expected: Sequence[Any]) -> Iterator[Carried]:
    """The tensors that the answer must have."""
    for value, each in zip(case.model.graph.output, expected, strict=True):
        yield from carried(value.name, value.type, each)


def difference(answer: pb.ModelInferResponse, expected: Sequence[Carried], case: Case) -> str:
    """What is wrong with the answer; "" if it is right."""
    if [output.name for output in answer.outputs] != [tensor.name for tensor in expected]:
        return f"outputs {[output.name for output in answer.outputs]}"
    for output, raw, tensor in zip(answer.outputs, answer.raw_output_contents, expected, strict=True):
        if output.datatype != tensor.datatype:
            return f"datatype {output.datatype}, not {tensor.datatype}"
        if tuple(output.shape) != tensor.array.shape:
            return f"shape {tuple(output.shape)}, not {tensor.array.shape}"
        if not _close(_unraw(raw, output.datatype, tuple(output.shape)), tensor, case):
            return "values"
    return ""


def carried(name: str, kind: onnx.TypeProto, value: Any) -> list[Carried]:
    """The tensors that carry a value of that type."""
    which = kind.WhichOneof("value")
    if which == "tensor_type":
        element = kind.tensor_type.elem_type
        return [Carried(name, _WIRE[element], _elements(element, value))]
    if which == "optional_type":
        inner = kind.optional_type.elem_type
        if inner.WhichOneof("value") == "tensor_type":
            return carried(name, inner, value) if value is not None else []
        return carried(name, inner, value if value is not None else [])
    element = kind.sequence_type.elem_type.tensor_type.elem_type
    tensors = [_elements(element, each) for each in value]
    rank = max((each.ndim for each in tensors), default=0)
    shapes = np.full((len(tensors), rank), -1, np.int64)
    for row, each in enumerate(tensors):
        shapes[row, : each.ndim] = each.shape
    flat = [each.reshape(-1) for each in tensors]
    joined = np.concatenate(flat) if flat else np.empty(0, _DTYPES[_WIRE[element]])
    return [Carried(name, _WIRE[element], joined), Carried(f"{name}.shapes", "INT64", shapes)]


def _elements(element: int, value: Any) -> Array:
    """The elements of a tensor in the dtype of the wire."""
    dtype = _DTYPES[_WIRE[element]]
    if isinstance(value, TensorProto):
        shape = tuple(value.dims)
        if element in _PACKED:
            return (
                _unpacked(np.frombuffer(value.raw_data, np.uint8), element, shape)
                if value.raw_data
                else (_of_numpy(numpy_helper.to_array(value), element))
            )
        return _of_numpy(numpy_helper.to_array(value), element)
    return _of_numpy(np.asarray(value), element).astype(dtype, copy=False)


def _of_numpy(array: Array, element: int) -> Array:
    dtype = _DTYPES[_WIRE[element]]
    if element == TensorProto.STRING:
        texts = np.empty(array.shape, object)
        flat = texts.reshape(-1)
        for index, text in enumerate(array.reshape(-1).tolist()):
            flat[index] = text if isinstance(text, bytes) else str(text).encode()
        return texts
    if element in _PACKED and element != TensorProto.FLOAT4E2M1:
        return array.astype(dtype)
    if array.dtype != dtype and array.dtype.itemsize == dtype.itemsize:
        return array.view(dtype)  # the patterns of types that numpy does not have
    return array.astype(dtype, copy=False)


def _unpacked(packed: Array, element: int, shape: tuple[int, ...]) -> Array:
    count, per = int(np.prod(shape)), _PACKED[element]
    bits = 8 // per
    parts = np.stack([(packed >> (bits * place)) & ((1 << bits) - 1) for place in range(per)], axis=1)
    values = parts.reshape(-1)[:count].astype(np.uint8)
    if _WIRE[element] == "INT8":
        sign = 1 << (bits - 1)
        values = ((values.astype(np.int16) ^ sign) - sign).astype(np.int8)
    return values.reshape(shape)


def _packed(values: Array, element: int) -> bytes:
    per = _PACKED[element]
    bits = 8 // per
    flat = values.reshape(-1).astype(np.uint8) & ((1 << bits) - 1)
    flat = np.concatenate([flat, np.zeros(-len(flat) % per, np.uint8)]).reshape(-1, per)
    joined = np.zeros(len(flat), np.uint8)
    for place in range(per):
        joined |= flat[:, place] << (bits * place)
    return joined.tobytes()


def _native(kind: onnx.TypeProto, value: Any) -> Any:
    """The value as the runtime takes it: memory of its own for element types that numpy does not have."""
    if kind.WhichOneof("value") != "tensor_type":
        return value
    element = kind.tensor_type.elem_type
    array = _elements(element, value)
    if element == TensorProto.STRING:
        return np.asarray(value)
    if _is_plain(element):
        return array
    made = onnxruntime.OrtValue.ortvalue_from_shape_and_type(list(array.shape), element)
    raw = _packed(array, element) if element in _PACKED else array.tobytes()
    if raw:
        ctypes.memmove(made.data_ptr(), raw, len(raw))
    return made


def _run(session: Any, graph: onnx.GraphProto, feed: Mapping[str, Any]) -> Sequence[Any]:
    kinds = [value.type for value in graph.output]
    if all(kind.WhichOneof("value") != "tensor_type" or _is_plain(kind.tensor_type.elem_type) for kind in kinds):
        return list(session.run(None, feed))
    values = {
        name: onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(each))
        if isinstance(each, np.ndarray)
        else each
        for name, each in feed.items()
    }
    return list(session.run_with_ort_values(None, values))


def _equal(kind: onnx.TypeProto, answer: Any, expected: Sequence[Carried], case: Case) -> bool:
    if hasattr(answer, "data_ptr"):
        element = kind.tensor_type.elem_type
        shape = tuple(answer.shape())
        if _is_plain(element):
            got: Array = answer.numpy()
        else:
            raw = ctypes.string_at(answer.data_ptr(), answer.tensor_size_in_bytes())
            got = (
                _unpacked(np.frombuffer(raw, np.uint8), element, shape)
                if element in _PACKED
                else np.frombuffer(raw, _DTYPES[_WIRE[element]]).reshape(shape)
            )
        ours = [Carried("", _WIRE[element], got)]
    else:
        ours = carried("", kind, answer)
    return len(ours) == len(expected) and all(
        mine.array.shape == right.array.shape and mine.datatype == right.datatype and _close(mine.array, right, case)
        for mine, right in zip(ours, expected, strict=True)
    )


def _is_plain(element: int) -> bool:
    return element <= TensorProto.DOUBLE or element in (TensorProto.UINT32, TensorProto.UINT64)


def _close(array: Array, expected: Carried, case: Case) -> bool:
    right = expected.array
    if expected.datatype == "BYTES":
        return bool(array.tolist() == right.tolist())
    ours, theirs = (_numbers(each, expected.datatype) for each in (array, right))
    return bool(np.allclose(ours, theirs, rtol=case.rtol, atol=case.atol, equal_nan=True))


def _numbers(array: Array, datatype: str) -> Array:
    if datatype == "BF16":
        array = (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float64)


def _raw(tensor: Carried) -> bytes:
    if tensor.datatype != "BYTES":
        return tensor.array.tobytes()
    texts = tensor.array.reshape(-1).tolist()
    return b"".join(len(text).to_bytes(4, "little") + text for text in texts)


def _unraw(raw: bytes, datatype: str, shape: tuple[int, ...]) -> Array:
    if datatype != "BYTES":
        return np.frombuffer(raw, _DTYPES[datatype]).reshape(shape)
    texts, position = [], 0
    while position < len(raw):
        length = int.from_bytes(raw[position : position + 4], "little")
        texts.append(raw[position + 4 : position + 4 + length])
        position += 4 + length
    array = np.empty(len(texts), object)
    array[:] = texts
    return array.reshape(shape)
