"""Golden requests: inputs with the answers that a version must give.

A file has one in each line, as JSON: `{"inputs": [...], "outputs": [...], "tolerance": 1e-5}`, tensors as in the REST
requests and answers of the Open Inference Protocol (`name`, `datatype`, `shape`, `data`). An output that is not listed
is not compared.

Source: https://github.com/kserve/open-inference-protocol, "Inference Request JSON Object"
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from gateway.errors import InvalidArgument
from gateway.replay.run_message import SentTensor, received, sent
from gateway.tensor import BY_NAME, Datatype

TOLERANCE: Final = 1e-5
_MAX_REQUESTS: Final = 10_000
Array = npt.NDArray[Any]


class _Tensor(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    datatype: str
    shape: tuple[int, ...]
    data: list[Any]


class _Line(msgspec.Struct, forbid_unknown_fields=True):
    inputs: list[_Tensor]
    outputs: list[_Tensor]
    tolerance: float = TOLERANCE
    id: str = ""
    model_name: str = ""  # an answer by REST has them; no version to come is held to them
    model_version: str = ""


@dataclass(frozen=True, slots=True)
class GoldenRequest:
    """One request with its answer. `tolerance` is relative and absolute, for floating point alone."""

    name: str
    inputs: tuple[SentTensor, ...]
    outputs: tuple[SentTensor, ...]
    tolerance: float


def read_golden(path: Path) -> tuple[GoldenRequest, ...]:
    """Returns the requests of a file. Raises: InvalidArgument naming the line, and what is wrong with it."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise InvalidArgument(f"golden requests: {str(path)!r} cannot be read: {error.strerror}") from error
    requests: list[GoldenRequest] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        if len(requests) >= _MAX_REQUESTS:
            raise InvalidArgument(f"golden requests: more than {_MAX_REQUESTS} in {str(path)!r}")
        try:
            one = msgspec.json.decode(line, type=_Line)
            name = one.id or f"line {number}"
            inputs, outputs = tuple(map(_sent, one.inputs)), tuple(map(_sent, one.outputs))
            if not outputs:
                raise ValueError("outputs is empty: nothing would be compared")
            if not 0 <= one.tolerance <= 1:
                raise ValueError(f"tolerance is {one.tolerance:g}, allowed: 0 to 1, or any answer would be right")
        except (msgspec.MsgspecError, ValueError, TypeError, OverflowError, RecursionError) as error:
            raise InvalidArgument(f"golden requests: line {number} of {str(path)!r}: {error}") from error
        requests.append(GoldenRequest(name, inputs, outputs, one.tolerance))
    return tuple(requests)


def difference(expected: Sequence[SentTensor], actual: Sequence[SentTensor], tolerance: float) -> str:
    """Returns the first way in which an answer is not the expected one; "" if it is."""
    answers = {tensor.name: tensor for tensor in actual}
    for tensor in expected:
        answer = answers.get(tensor.name)
        if answer is None:
            return f"there is no output {tensor.name!r}"
        if answer.datatype != tensor.datatype or answer.shape != tensor.shape:
            return (
                f"output {tensor.name!r} is {answer.datatype} {list(answer.shape)}, "
                f"expected {tensor.datatype} {list(tensor.shape)}"
            )
        wrong = ~_same(received(tensor), received(answer), BY_NAME[tensor.datatype], tolerance)
        if wrong.any():
            place = int(np.flatnonzero(wrong)[0])
            left, right = _shown(tensor, place), _shown(answer, place)
            other = f"{int(wrong.sum())} of {wrong.size} elements differ"
            return f"output {tensor.name!r}: {other}, the first at {place}: {right}, expected {left}"
    return ""


def _same(left: Array, right: Array, datatype: Datatype, tolerance: float) -> npt.NDArray[np.bool_]:
    if not datatype.is_float:
        return np.asarray(left == right, np.bool_)
    floats = [_floats(array, datatype) for array in (left, right)]
    return np.isclose(floats[1], floats[0], rtol=tolerance, atol=tolerance, equal_nan=True)


def _floats(array: Array, datatype: Datatype) -> npt.NDArray[np.float64]:
    if datatype is Datatype.BF16:
        return (array.astype("<u4") << 16).view("<f4").astype(np.float64)
    return array.astype(np.float64)


def _shown(tensor: SentTensor, place: int) -> str:
    array, datatype = received(tensor), BY_NAME[tensor.datatype]
    if datatype.is_float:
        return f"{_floats(array, datatype).reshape(-1)[place]:.6g}"
    return ascii(array.reshape(-1)[place : place + 1].tolist()[0])[:80]


def _elements_of(datatype: Datatype) -> tuple[type, ...]:
    if datatype.is_float:
        return float, int, NoneType  # null is NaN
    return (bool,) if datatype is Datatype.BOOL else (int,)


def _sent(tensor: _Tensor) -> SentTensor:
    datatype = BY_NAME.get(tensor.datatype)
    if datatype is None:
        raise ValueError(f"tensor {tensor.name!r}: there is no datatype {tensor.datatype!r}")
    if datatype is Datatype.BYTES:
        array: Array = np.array(tensor.data, object)
        array = np.array([item.encode() if isinstance(item, str) else item for item in array.reshape(-1)], object)
        if not all(isinstance(item, bytes) for item in array):
            raise ValueError(f"tensor {tensor.name!r}: elements of BYTES are texts")
    elif not all(type(item) in _elements_of(datatype) for item in np.array(tensor.data, object).reshape(-1)):
        # numpy makes 1 of 1.7, and true of "false"
        raise ValueError(f"tensor {tensor.name!r} has elements that are none of {datatype.wire_name}")
    elif datatype is Datatype.BF16:
        array = (np.array(tensor.data, "<f4").view("<u4") >> 16).astype("<u2")
    else:
        array = np.array(tensor.data, datatype.dtype)
    if array.size != int(np.prod(tensor.shape, dtype=np.int64)) or any(size < 0 for size in tensor.shape):
        raise ValueError(f"tensor {tensor.name!r} has {array.size} elements, its shape is {list(tensor.shape)}")
    return sent(tensor.name, datatype, array.reshape(tensor.shape))
