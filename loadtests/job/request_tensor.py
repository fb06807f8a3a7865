"""Tensors as requests carry them, and their values. Pure."""

from dataclasses import dataclass
from math import prod

import numpy as np

from gateway.client.numpy_tensor import as_tensor
from gateway.errors import InvalidArgument
from gateway.tensor import Array, Datatype


@dataclass(frozen=True, slots=True)
class RequestTensor:
    """One input of a request: raw little-endian data, of BYTES each element behind its length."""

    name: str
    datatype: Datatype
    shape: tuple[int, ...]
    raw: bytes

    def values(self) -> list[object]:
        """Returns the elements as JSON has them. Raises: InvalidArgument where it has no form for them."""
        if self.datatype in (Datatype.FP16, Datatype.BF16):
            raise InvalidArgument(
                f"input {self.name!r}: JSON has no {self.datatype.wire_name}; use rest-binary or grpc"
            )
        if self.datatype is not Datatype.BYTES:
            values: list[object] = np.frombuffer(self.raw, self.datatype.dtype).tolist()
            return values
        try:
            return [item.decode() for item in _elements(self.raw)]
        except UnicodeDecodeError:
            raise InvalidArgument(f"input {self.name!r}: bytes that are no UTF-8 have no form in JSON") from None


Inputs = tuple[RequestTensor, ...]


def tensor_from(name: str, datatype: Datatype, array: Array) -> RequestTensor:
    """Returns the tensor of an array, converted to the datatype.

    Raises: InvalidArgument where values would change kind.

    Shapes: BF16 arrays are uint16 patterns or bfloat16; BYTES arrays texts or bytes.
    """
    if datatype is not Datatype.BYTES and array.dtype != datatype.dtype and array.dtype.name != "bfloat16":
        if array.dtype.kind in "OUS" or not np.can_cast(array.dtype, datatype.dtype, "same_kind"):
            fits = array.dtype.kind in "iu" and datatype.is_float and datatype is not Datatype.BF16
            whole = array.dtype.kind in "iu" and np.dtype(datatype.dtype).kind in "iu" and _within(array, datatype)
            if not (fits or whole):
                raise InvalidArgument(
                    f"input {name!r}: {array.dtype} values for a model that takes {datatype.wire_name}"
                )
        array = array.astype(datatype.dtype)
    try:
        _, shape, raw = as_tensor(name, array)
    except TypeError as error:
        raise InvalidArgument(str(error)) from None
    return RequestTensor(name, datatype, shape, raw)


def tensor_of_values(name: str, datatype: Datatype, shape: tuple[int, ...], values: object) -> RequestTensor:
    """Returns the tensor of nested or flat lists as JSON has them. Raises: InvalidArgument."""
    if datatype is Datatype.BYTES:
        flat = [item.encode() if isinstance(item, str) else item for item in _flat(values)]
        if not all(isinstance(item, bytes) for item in flat):
            raise InvalidArgument(f"input {name!r}: elements of BYTES are texts")
        array = np.empty(len(flat), object)
        array[:] = flat
    else:
        try:
            array = np.asarray(list(_flat(values)))
        except (ValueError, OverflowError) as error:
            raise InvalidArgument(f"input {name!r}: {error}") from None
        if not array.size:
            array = array.astype(datatype.dtype)
        if datatype in (Datatype.FP16, Datatype.FP32, Datatype.FP64) and array.dtype.kind in "iuf":
            array = array.astype(datatype.dtype)
    if len(array) != prod(shape):
        raise InvalidArgument(f"input {name!r}: {len(array)} values for the shape {list(shape)}")
    return tensor_from(name, datatype, array.reshape(shape))


def _within(array: Array, datatype: Datatype) -> bool:
    bounds = np.iinfo(datatype.dtype)
    return not array.size or (int(array.min()) >= bounds.min and int(array.max()) <= bounds.max)


def _flat(values: object) -> list[object]:
    if not isinstance(values, list):
        return [values]
    return [item for value in values for item in (_flat(value) if isinstance(value, list) else [value])]


def _elements(raw: bytes) -> list[bytes]:
    made, position = [], 0
    while position < len(raw):
        size = int.from_bytes(raw[position : position + 4], "little")
        made.append(raw[position + 4 : position + 4 + size])
        position += 4 + size
    return made
