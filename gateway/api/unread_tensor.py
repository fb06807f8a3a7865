"""Tensors whose elements have still to be made of their bytes: so many that the loop's other requests would wait.

What is made of them is made on a thread. A function for it works in parts: NumPy gives the loop its turn during each
operation, the interpreter between two of them.
"""

from collections.abc import Callable, Sequence
from typing import Final

from gateway.tensor import Buffer

# Fewer take less than 10 ms, and are made at once: a thread costs a request 0.1 ms.
LONG_BYTES: Final = 1 << 17
LONG_ELEMENTS: Final = 1 << 15
# Of a request that has one: the eight bytes of an element are one at least on the wire.
LEAST_MESSAGE_BYTES: Final = LONG_BYTES // 8


def _none() -> bytes:
    return b""


class UnreadTensor:
    """A tensor to be made by `read`, on any thread. `first` returns its first element alone, as raw bytes.

    Units:  `size_bytes` are those of its elements, or as many as are known of.
    """

    __slots__ = ("first", "read", "size_bytes")

    def __init__(
        self, read: Callable[[], Buffer], size_bytes: int, first: Callable[[], bytes | memoryview] = _none
    ) -> None:
        self.read = read
        self.size_bytes = size_bytes
        self.first = first

    def __len__(self) -> int:
        return self.size_bytes


# What is known of an input when its request has been checked.
Input = Buffer | UnreadTensor | None


def is_unread(inputs: Sequence[Input]) -> bool:
    """Returns whether any of the inputs has still to be made."""
    return any(isinstance(tensor, UnreadTensor) for tensor in inputs)


def read_all(inputs: Sequence[Input]) -> list[Buffer | None]:
    """Returns the inputs, those made that were not. Raises: InvalidArgument."""
    return [tensor.read() if isinstance(tensor, UnreadTensor) else tensor for tensor in inputs]
