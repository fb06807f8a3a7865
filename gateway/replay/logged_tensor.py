"""Tensors of logged requests: which columns of the lake hold one, and what was sent or answered, to the bit. Pure."""

import base64
import binascii
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from gateway.records.worker.stream_schema import is_batched, is_flat, width
from gateway.tensor import Array, Datatype, TensorSpec

Missing = Literal["digest", "redacted", "absent"]
Cells = Mapping[str, Sequence[Any]]  # by column, a value for each row of the request
_BASE64 = "base64:"
_LONG_TEXT = re.compile(r"sha256:[0-9a-f]{64}:\d+")  # what the log has of a text of more than 1 KiB


def columns_of(spec: TensorSpec, prefix: Literal["in", "out"]) -> tuple[str, ...]:
    """Returns the columns that may hold the tensor: for each feature, or values, shape and digest.

    One feature more is asked for, to see that a logged tensor was wider.
    """
    if is_flat(spec):
        stem = f"f.{spec.name}" if prefix == "in" else f"out.{spec.name}"
        if width(spec) == 1:
            return (stem, f"{stem}_1")
        return tuple(f"{stem}_{index}" for index in range(width(spec) + 1))
    stem = f"{prefix}.{spec.name}"
    return (stem, f"{stem}.shape", f"{stem}.digest")


def tensor_of(
    spec: TensorSpec, prefix: Literal["in", "out"], cells: Cells, redacted: Collection[str], *, whole: bool
) -> Array | Missing:
    """Returns the tensor of a request, or why the log does not have it.

    `cells` has the columns that the lake has; `whole` is whether all rows of the request are among them.
    Shapes: with a first dimension of as many rows as `cells` has, where the tensor has one for each row.
    """
    if spec.name in redacted:
        return "redacted"
    return _flat(spec, prefix, cells) if is_flat(spec) else _nested(spec, prefix, cells, whole=whole)


def text_bytes(text: str) -> bytes:
    """Returns the bytes that the log holds as this text: what is no UTF-8 is there as base64.

    Where a caller has sent such a text itself, nobody can tell; it is taken for bytes.
    """
    if text.startswith(_BASE64):
        try:
            raw = base64.b64decode(text.removeprefix(_BASE64), validate=True)
            raw.decode()
        except UnicodeDecodeError:
            return raw
        except (binascii.Error, ValueError):
            pass
    return text.encode()


def _flat(spec: TensorSpec, prefix: Literal["in", "out"], cells: Cells) -> Array | Missing:
    *own, beyond = columns_of(spec, prefix)
    if any(value is not None for value in cells.get(beyond, ())) or any(name not in cells for name in own):
        return "absent"
    values = [cells[name] for name in own]
    if any(value is None for column in values for value in column):
        return "absent"
    rows = len(values[0])
    shape = (rows, len(own)) if len(spec.shape) == 2 else (rows,)
    return _array(spec, [value for row in zip(*values, strict=True) for value in row], shape)


def _nested(spec: TensorSpec, prefix: Literal["in", "out"], cells: Cells, *, whole: bool) -> Array | Missing:
    stem, shapes, digests = columns_of(spec, prefix)
    if any(value is not None for value in cells.get(digests, ())):
        return "digest"
    if stem not in cells or shapes not in cells or cells[stem][0] is None or cells[shapes][0] is None:
        return "absent"
    shape = tuple(int(size) for size in cells[shapes][0])
    by_row = is_batched(spec) and len(shape) == len(spec.shape) - 1
    if not by_row:
        return _array(spec, list(cells[stem][0]), shape) if whole else "absent"
    if any(value is None for value in cells[stem]):
        return "absent"
    return _array(spec, [value for row in cells[stem] for value in row], (len(cells[stem]), *shape))


def _array(spec: TensorSpec, values: list[Any], shape: tuple[int, ...]) -> Array | Missing:
    if spec.datatype is Datatype.BYTES:
        if not all(isinstance(value, str) for value in values):
            return "absent"  # another version's tensor of that name
        if any(_LONG_TEXT.fullmatch(value) for value in values):
            return "digest"
        texts = np.empty(len(values), object)
        texts[:] = [text_bytes(value) for value in values]
        return np.asarray(texts.reshape(shape))
    if any(isinstance(value, str) for value in values):
        return "absent"
    try:
        if spec.datatype is Datatype.BF16:
            patterns = np.array(values, "<f4").view("<u4") >> np.uint32(16)
            return np.asarray(patterns.astype("<u2").reshape(shape))
        return np.array(values, spec.datatype.dtype).reshape(shape)
    except (OverflowError, ValueError, TypeError):
        return "absent"
