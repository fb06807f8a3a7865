"""The first element of an input as text: what routing keys and rules may read of a tensor before it is decoded."""

from collections.abc import Sequence
from math import prod
from struct import Struct

import numpy as np

from gateway.api.contents import TYPED_FIELDS
from gateway.api.unread_tensor import UnreadTensor
from gateway.api.wire import Packed, Raw
from gateway.pb import inference_pb2 as pb
from gateway.tensor import BY_NAME, Array, Datatype

_LENGTH = Struct("<I")


def first_element(request: pb.ModelInferRequest, raw: Raw, packed: Packed, name: str) -> str | None:
    """Returns the first element of the named input, where that is a scalar or has one element per row.

    Nothing of the request was checked yet; whatever does not fit is None. BOOL reads "true" or "false", numbers as
    Python writes them, BYTES as UTF-8.
    """
    for position, tensor in enumerate(request.inputs):
        if tensor.name == name:
            datatype = BY_NAME.get(tensor.datatype)
            if datatype is None or datatype is Datatype.BF16 or prod(tensor.shape[1:]) != 1 or 0 in tensor.shape[:1]:
                return None
            if raw:
                return _of_raw(raw[position], datatype) if position < len(raw) else None
            taken = packed.get(position)
            return _of_typed(tensor.contents, datatype) if taken is None else _text(taken.first(datatype), datatype)
    return None


def _of_raw(data: bytes | memoryview | UnreadTensor, datatype: Datatype) -> str | None:
    if isinstance(data, UnreadTensor):
        return _of_raw(data.first(), datatype)
    if datatype is Datatype.BYTES:
        if len(data) < 4:
            return None
        (length,) = _LENGTH.unpack_from(data)
        return _utf8(bytes(data[4 : 4 + length])) if length <= len(data) - 4 else None
    if len(data) < datatype.size:
        return None
    if datatype is Datatype.BOOL:
        return "true" if data[0] else "false"
    values: Array = np.frombuffer(data, datatype.dtype, 1)
    return str(values[0])


def _of_typed(contents: pb.InferTensorContents, datatype: Datatype) -> str | None:
    field = TYPED_FIELDS.get(datatype)
    values: Sequence[bool | int | float | bytes] = getattr(contents, field) if field else ()
    return _text(values[0], datatype) if len(values) else None


def _text(value: bool | int | float | bytes | None, datatype: Datatype) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes):
        return _utf8(value)
    return str(np.float32(value)) if datatype is Datatype.FP32 else str(value)


def _utf8(value: bytes) -> str | None:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None
