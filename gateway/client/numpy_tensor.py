"""numpy arrays to the raw form of tensors, and back.

Lists and numbers become arrays: floats FP32, whole numbers INT64, truth values BOOL, texts BYTES. Arrays keep their own
type, so float64 is FP64, and a model that wants FP32 refuses it. Source: Open Inference Protocol v2, "Tensor Data".
"""

from math import prod
from struct import Struct
from typing import Final

import numpy as np
import numpy.typing as npt

from gateway.tensor import BY_NAME, Array, Datatype

_LENGTH: Final = Struct("<I")
# BF16 shares its dtype with UINT16: numpy has none of its own.
_BY_DTYPE: Final = {
    np.dtype(datatype.dtype): datatype
    for datatype in Datatype
    if datatype is not Datatype.BF16 and datatype is not Datatype.BYTES
}


def as_tensor(name: str, value: npt.ArrayLike) -> tuple[Datatype, tuple[int, ...], bytes]:
    """Returns datatype, shape and raw data of an input.

    Raises: TypeError (a type that the protocol has not).
    """
    array = value if isinstance(value, np.ndarray) else _array_of(value)
    if array.dtype.name == "bfloat16":  # of the package ml_dtypes
        return Datatype.BF16, array.shape, np.ascontiguousarray(array).tobytes()
    if array.dtype.kind in "USO":
        return Datatype.BYTES, array.shape, _joined(name, array)
    little = array.astype(array.dtype.newbyteorder("<"), order="C", copy=False)
    datatype = _BY_DTYPE.get(little.dtype)
    if datatype is None:
        raise TypeError(f"input {name!r} has dtype {array.dtype}, which the protocol has not: convert it first")
    return datatype, array.shape, little.tobytes()


def as_array(name: str, datatype: str, shape: tuple[int, ...], raw: bytes | memoryview) -> Array:
    """Returns the output that raw data hold. BYTES become `str` objects; BF16 the raw 16-bit patterns as uint16.

    Raises: ValueError (the data do not fit what the answer says of them).
    """
    kind = BY_NAME[datatype]
    if kind is Datatype.BYTES:
        return _split(name, raw, shape)
    if len(raw) != prod(shape) * kind.size:
        raise ValueError(f"output {name!r} of {datatype} {list(shape)} came with {len(raw)} bytes")
    return np.frombuffer(raw, kind.dtype).reshape(shape)


def _array_of(value: npt.ArrayLike) -> Array:
    array: Array = np.asarray(value)
    if array.dtype.kind == "f":
        return array.astype(np.float32)
    return array.astype(np.int64) if array.dtype.kind in "iu" else array


def _joined(name: str, array: Array) -> bytes:
    parts: list[bytes] = []
    for element in array.reshape(-1).tolist():
        if not isinstance(element, str | bytes):
            raise TypeError(f"input {name!r} holds {type(element).__name__} objects: give numbers, or str or bytes")
        data = element.encode() if isinstance(element, str) else element
        parts += (_LENGTH.pack(len(data)), data)
    return b"".join(parts)


def _split(name: str, raw: bytes | memoryview, shape: tuple[int, ...]) -> Array:
    elements: list[str] = []
    view, offset = memoryview(raw), 0
    while offset + _LENGTH.size <= len(view):
        (length,) = _LENGTH.unpack_from(view, offset)
        offset += _LENGTH.size + length
        elements.append(bytes(view[offset - length : offset]).decode(errors="surrogateescape"))
    if offset != len(view) or len(elements) != prod(shape):
        raise ValueError(
            f"output {name!r} of BYTES {list(shape)} came with {len(elements)} strings in {len(raw)} bytes"
        )
    array = np.empty(len(elements), np.object_)
    array[:] = elements
    return array.reshape(shape)
