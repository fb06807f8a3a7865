"""Datatypes of the Open Inference Protocol, tensors, and the tensor specs of a version's contract."""

from dataclasses import dataclass
from enum import Enum
from math import prod

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]
# An incoming tensor: the raw little-endian bytes as the client sent them (of exactly the right length), or an array if
# the bytes are not the array's own (BYTES, typed contents).
Buffer = bytes | memoryview | Array


class Datatype(Enum):
    """A datatype by its protocol name, with its numpy dtype (always little-endian) and its name in ONNX.

    The one table of datatypes: the names in configurations and in ONNX Runtime are derived from it.
    BYTES has no fixed size (`size` is 0; arrays hold Python bytes). numpy has no BF16: arrays of it hold the raw
    16-bit patterns as uint16.
    """

    BOOL = ("BOOL", "?", "BOOL")
    UINT8 = ("UINT8", "u1", "UINT8")
    UINT16 = ("UINT16", "<u2", "UINT16")
    UINT32 = ("UINT32", "<u4", "UINT32")
    UINT64 = ("UINT64", "<u8", "UINT64")
    INT8 = ("INT8", "i1", "INT8")
    INT16 = ("INT16", "<i2", "INT16")
    INT32 = ("INT32", "<i4", "INT32")
    INT64 = ("INT64", "<i8", "INT64")
    FP16 = ("FP16", "<f2", "FLOAT16")
    FP32 = ("FP32", "<f4", "FLOAT")
    FP64 = ("FP64", "<f8", "DOUBLE")
    BF16 = ("BF16", "<u2", "BFLOAT16")
    BYTES = ("BYTES", "O", "STRING")

    def __new__(cls, wire_name: str, dtype: str, onnx_name: str) -> "Datatype":
        member = object.__new__(cls)
        member._value_ = wire_name  # so that Datatype("FP32") works, and JSON carries the name
        return member

    def __init__(self, wire_name: str, dtype: str, onnx_name: str) -> None:
        self.wire_name = wire_name
        self.dtype: npt.DTypeLike = np.dtype(dtype)
        self.size = 0 if dtype == "O" else np.dtype(dtype).itemsize
        self.onnx_name = onnx_name  # of onnx.TensorProto.DataType
        self.runtime_name = f"tensor({onnx_name.lower()})"  # in ONNX Runtime
        self.config_name = f"TYPE_{'STRING' if dtype == 'O' else wire_name}"  # in config.pbtxt
        self.is_float = wire_name.startswith(("FP", "BF"))


BY_NAME = {datatype.wire_name: datatype for datatype in Datatype}


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of a version.

    Shapes: `shape` includes the batch dimension where the version batches; -1 is any size. Where `any_shape`, the model
            declares none: `shape` is () and says nothing, and any number of dimensions of any sizes fits.

    If `batched` is False, a first dimension of any size does not count rows. Only the prediction log sets it, for
    versions that do not batch. `features` are what the configuration calls the features of a row, () where it does not.
    `onnx_type` is what the tensor carries in the model, "" where that is a tensor of this datatype.
    """

    name: str
    datatype: Datatype
    shape: tuple[int, ...]
    optional: bool = False
    labels: tuple[str, ...] = ()
    batched: bool = True
    any_shape: bool = False
    features: tuple[str, ...] = ()
    onnx_type: str = ""

    @property
    def told_shape(self) -> tuple[int, ...]:
        """The shape as clients are told it: (-1,) where any fits, as () would promise a scalar."""
        return (-1,) if self.any_shape else self.shape

    def row_bytes(self) -> int:
        """Returns the bytes of one row (all dimensions after the first), or 0 if that is not fixed."""
        tail = self.shape[1:]
        return 0 if self.any_shape or any(size < 0 for size in tail) else prod(tail) * self.datatype.size
