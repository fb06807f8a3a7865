"""Element types of ONNX that numpy does not have, and the datatypes of the protocol that carry them.

`ELEMENTS` is the one table of them; that of the protocol's own datatypes is `gateway.tensor.Datatype`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from gateway.errors import InvalidArgument
from gateway.tensor import Array, Datatype


@dataclass(frozen=True, slots=True)
class ElementType:
    """An element type by its name and number in ONNX, the datatype that carries it, and how.

    Units: `bits` that an element has in the runtime's memory, where several share a byte, the first in the lowest bits.
    """

    onnx_name: str
    number: int  # of onnx.TensorProto.DataType
    datatype: Datatype
    bits: int
    rule: str

    @property
    def runtime_name(self) -> str:
        """Returns the name in ONNX Runtime."""
        return self.onnx_name.lower()

    @property
    def range(self) -> tuple[int, int]:
        """Returns the smallest and the largest element."""
        size = 1 << self.bits
        return (-size // 2, size // 2 - 1) if self.datatype is Datatype.INT8 else (0, size - 1)

    def packed(self, name: str, array: Array) -> bytes:
        """Returns the elements as they lie in the runtime's memory. Raises: InvalidArgument naming one out of range."""
        if self.bits >= 8:
            return array.tobytes()
        low, high = self.range
        outside = (array < low) | (array > high)  # type: ignore[operator]  # integers
        if outside.any():
            raise InvalidArgument(
                f"input {name!r} has the element {array[outside].reshape(-1)[0]}, which does not fit "
                f"{self.onnx_name} ({low} to {high})"
            )
        per = 8 // self.bits
        flat = array.reshape(-1).astype(np.uint8) & np.uint8((1 << self.bits) - 1)
        flat = np.concatenate([flat, np.zeros(-len(flat) % per, np.uint8)]).reshape(-1, per)
        joined = np.zeros(len(flat), np.uint8)
        for place in range(per):
            joined |= flat[:, place] << np.uint8(self.bits * place)
        return joined.tobytes()

    def unpacked(self, memory: bytes, shape: tuple[int, ...]) -> Array:
        """Returns the elements that the runtime's memory holds, as the datatype carries them."""
        if self.bits >= 8:
            return np.frombuffer(memory, self.datatype.dtype).reshape(shape)
        count = int(np.prod(shape, dtype=np.int64))
        per, mask = 8 // self.bits, np.uint8((1 << self.bits) - 1)
        packed = np.frombuffer(memory, np.uint8)
        parts = [(packed >> np.uint8(self.bits * place)) & mask for place in range(per)]
        values = np.stack(parts, axis=1).reshape(-1)[:count]
        if self.datatype is Datatype.INT8:
            sign = 1 << (self.bits - 1)
            values = ((values.astype(np.int16) ^ sign) - sign).astype(np.int8)
        return values.reshape(shape)


_PATTERN: Final = "the 8 bits of each element"
_SMALL: Final = "one element in a byte, by its value"

ELEMENTS: Final = (
    ElementType("BFLOAT16", 16, Datatype.BF16, 16, "the 16 bits of each element, as the protocol says"),
    ElementType("FLOAT8E4M3FN", 17, Datatype.UINT8, 8, _PATTERN),
    ElementType("FLOAT8E4M3FNUZ", 18, Datatype.UINT8, 8, _PATTERN),
    ElementType("FLOAT8E5M2", 19, Datatype.UINT8, 8, _PATTERN),
    ElementType("FLOAT8E5M2FNUZ", 20, Datatype.UINT8, 8, _PATTERN),
    ElementType("FLOAT8E8M0", 24, Datatype.UINT8, 8, _PATTERN),
    ElementType("FLOAT4E2M1", 23, Datatype.UINT8, 4, "the 4 bits of each element, one element in a byte"),
    ElementType("UINT4", 21, Datatype.UINT8, 4, _SMALL),
    ElementType("INT4", 22, Datatype.INT8, 4, _SMALL),
    ElementType("UINT2", 25, Datatype.UINT8, 2, _SMALL),
    ElementType("INT2", 26, Datatype.INT8, 2, _SMALL),
)
BY_RUNTIME_NAME: Final[Mapping[str, ElementType]] = {element.runtime_name: element for element in ELEMENTS}
