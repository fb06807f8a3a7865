"""The classification extension: the highest values of an output as text, in place of its values.

Source: Triton's classification extension: BYTES elements "value:index" or "value:index:label".
"""

from math import prod

import numpy as np

from gateway.tensor import Array, Datatype, TensorSpec


def classify(array: Array, spec: TensorSpec, count: int, *, batches: bool) -> Array:
    """Returns the `count` highest values of each row, highest first, as BYTES; ties go by index, NaN comes last.

    Shapes: [rows, k] where the version batches, else [k]; k is `count`, or the elements of a row if there are fewer.
    """
    values = _readable(array, spec.datatype)
    rows = values.reshape(values.shape[0], prod(values.shape[1:])) if batches else values.reshape(1, values.size)
    width = min(count, rows.shape[1])
    result = np.empty((rows.shape[0], width), np.object_)
    for place, row in enumerate(rows):
        for rank, index in enumerate(_highest(row, width)):
            result[place, rank] = _text(row[index], int(index), spec.labels).encode()
    return result if batches else result.reshape(width)


def _readable(array: Array, datatype: Datatype) -> Array:
    if datatype is not Datatype.BF16:
        return array
    # A BF16 is the upper half of an FP32.
    return (array.astype(np.uint32) << np.uint32(16)).view(np.float32)


def _highest(row: Array, width: int) -> Array:
    # Sorting the reversed row ascending and reading it backwards keeps equal values in the order of their indices.
    comparable = np.where(np.isnan(row), -np.inf, row) if row.dtype.kind == "f" else row
    order = np.argsort(comparable[::-1], kind="stable")[::-1]
    return (len(row) - 1 - order)[:width]


def _text(value: np.generic, index: int, labels: tuple[str, ...]) -> str:
    number = f"{value:f}" if isinstance(value, np.floating) else str(value)
    return f"{number}:{index}:{labels[index]}" if index < len(labels) else f"{number}:{index}"
