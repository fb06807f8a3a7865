"""Texts of a tensor: bytes as the protocol has them, and str as the runtime has them."""

from typing import cast

import numpy as np

from gateway.errors import InvalidArgument
from gateway.tensor import Array


def to_text(name: str, array: Array) -> Array:
    texts = np.empty(array.shape, dtype=object)
    flat = texts.reshape(-1)
    for index, item in enumerate(array.reshape(-1).tolist()):
        try:
            flat[index] = item if isinstance(item, str) else str(item, "utf-8")
        except UnicodeDecodeError:
            raise InvalidArgument(
                f"input {name!r} element {index} is not valid UTF-8, which this model's string input requires"
            ) from None
    return cast(Array, texts)


def to_bytes(array: Array) -> Array:
    encoded = np.empty(array.shape, dtype=object)
    flat = encoded.reshape(-1)
    for index, item in enumerate(array.reshape(-1).tolist()):
        flat[index] = item.encode("utf-8") if isinstance(item, str) else item
    return cast(Array, encoded)
