"""Tensors in JSON: lists of values to raw bytes, and arrays to lists of values.

JSON has no NaN and no infinity. A request that has one does not parse; an answer has `null` in its place. FP16 and BF16
have no form in JSON at all.

Source: Open Inference Protocol v2, "Tensor Data".
"""

from collections.abc import Mapping, Sequence
from itertools import chain
from math import prod
from struct import Struct, error, pack
from time import sleep
from typing import Any, Final

import numpy as np
import orjson

from gateway.api.naming import shown
from gateway.errors import InvalidArgument, ResourceExhausted
from gateway.tensor import Array, Datatype

MAX_DEPTH: Final = 32
MAX_WRITTEN: Final = 1 << 21  # elements of an output; more would keep the other requests of a worker waiting
MAX_TEXTS: Final = 1 << 18  # elements of an input of BYTES, for the same reason
_DUMPED: Final = 1 << 15  # elements that are written in one go
_PACKED: Final = 1 << 16  # that are read in one go
_BLOCK: Final = 1024  # elements that are looked at together for one that does not fit
_LENGTH: Final = Struct("<I")
# How struct packs one element; it refuses what is of another kind or does not fit.
_FORMATS: Final[Mapping[Datatype, str]] = {
    Datatype.BOOL: "?",
    Datatype.INT8: "b",
    Datatype.INT16: "h",
    Datatype.INT32: "i",
    Datatype.INT64: "q",
    Datatype.UINT8: "B",
    Datatype.UINT16: "H",
    Datatype.UINT32: "I",
    Datatype.UINT64: "Q",
    Datatype.FP32: "f",
    Datatype.FP64: "d",
}
BINARY_ONLY: Final = frozenset({Datatype.FP16, Datatype.BF16})


def raw_of(name: str, datatype: Datatype, shape: Sequence[int], data: object, *, booleans: bool) -> bytes:
    """Returns the raw form of an input that was sent as JSON, flat or nested.

    `booleans`: the text of the request has a `true` or a `false` somewhere, so that numbers have to be told from them.

    Raises: InvalidArgument (another number of elements than the shape says, a ragged or too deep list, an element of
            another kind or out of range, a datatype that JSON has no form for), ResourceExhausted (very many texts).
    """
    if datatype in BINARY_ONLY:
        raise InvalidArgument(
            f"input {shown(name)}: {datatype.wire_name} has no form in JSON, send it in binary (binary_data_size)"
        )
    if not isinstance(data, list):
        raise InvalidArgument(f"input {shown(name)}: data is {_kind(data)}, a list is expected")
    values = _flat(name, data)
    expected = prod(shape)
    if len(values) != expected and min(shape, default=0) >= 0:
        raise InvalidArgument(
            f"unexpected number of elements for input {shown(name)}: expected {expected}, got {len(values)}"
        )
    if datatype is Datatype.BYTES:
        return _raw_strings(name, values)
    if len(values) <= _PACKED:
        return _packed(name, datatype, values, 0, booleans=booleans)
    parts: list[bytes] = []
    for begin in range(0, len(values), _PACKED):
        parts.append(_packed(name, datatype, values[begin : begin + _PACKED], begin, booleans=booleans))
        sleep(0)  # as in `dumped`
    return b"".join(parts)


def _packed(name: str, datatype: Datatype, values: list[object], begin: int, *, booleans: bool) -> bytes:
    """Returns the raw form of numbers or booleans, the first of which is element `begin`. Raises: InvalidArgument."""
    if datatype is Datatype.BOOL:
        if any(value is not True and value is not False for value in values):
            raise _unfit(name, datatype, values, begin)
    elif booleans and bool in set(map(type, values)):
        raise _unfit(name, datatype, values, begin)
    try:
        return pack(f"<{len(values)}{_FORMATS[datatype]}", *values)
    except (error, OverflowError):
        raise _unfit(name, datatype, values, begin) from None


def json_of(name: str, datatype: Datatype, array: Array) -> bytes:
    """Returns the elements of an output as one flat JSON list.

    Raises: InvalidArgument (a datatype that JSON has no form for, BYTES that are not UTF-8), ResourceExhausted.
    """
    check_written(name, array)
    if datatype in BINARY_ONLY:
        raise InvalidArgument(
            f"output {shown(name)}: {datatype.wire_name} has no form in JSON, ask for it in binary (binary_data)"
        )
    if datatype is not Datatype.BYTES:
        flat = array if array.ndim == 1 and array.flags.c_contiguous else np.ascontiguousarray(array).reshape(-1)
        return dumped(flat)
    try:
        return dumped(
            [value if isinstance(value, str) else bytes(value).decode() for value in array.reshape(-1).tolist()]
        )
    except UnicodeDecodeError:
        raise InvalidArgument(
            f"output {shown(name)} has elements that are not UTF-8: ask for it in binary (binary_data)"
        ) from None


def dumped(rows: Array | list[Any], row_elements: int = 1) -> bytes:
    """Returns a JSON list of the rows. Long ones are written in parts, between which other threads have their turn."""
    part = max(1, _DUMPED // row_elements)
    if len(rows) <= part:
        return orjson.dumps(rows, option=orjson.OPT_SERIALIZE_NUMPY)
    texts: list[bytes] = []
    for begin in range(0, len(rows), part):
        texts.append(orjson.dumps(rows[begin : begin + part], option=orjson.OPT_SERIALIZE_NUMPY)[1:-1])
        sleep(0)  # compiled code gives no turn by itself
    return b"[" + b",".join(texts) + b"]"


def check_written(name: str, array: Array) -> None:
    """Checks that the output has not more elements than are written as JSON. Raises: ResourceExhausted."""
    if array.size > MAX_WRITTEN:
        raise ResourceExhausted(
            f"output {shown(name)} has {array.size} elements, at most {MAX_WRITTEN} are written as JSON: ask for it in "
            "binary (binary_data)",
            retry_after_ms=-1,
        )


def _flat(name: str, data: list[object]) -> list[object]:
    """Returns the elements of a nested list in row-major order. Raises: InvalidArgument."""
    depth = 1
    while data and type(data[0]) is list:
        depth += 1
        if depth > MAX_DEPTH:
            raise InvalidArgument(f"input {shown(name)}: data is nested deeper than {MAX_DEPTH} lists")
        lists: list[list[object]] = [one for one in data if type(one) is list]
        if len(lists) != len(data):
            raise InvalidArgument(f"input {shown(name)}: data has lists and values side by side")
        if len(set(map(len, lists))) > 1:
            raise InvalidArgument(f"input {shown(name)}: data has lists of different lengths side by side")
        data = list(chain.from_iterable(lists))
    return data


def _raw_strings(name: str, values: list[object]) -> bytes:
    if len(values) > MAX_TEXTS:
        raise ResourceExhausted(
            f"input {shown(name)} has {len(values)} texts, at most {MAX_TEXTS} are read as JSON: send them in binary",
            retry_after_ms=-1,
        )
    parts: list[bytes] = []
    for value in values:
        if not isinstance(value, str):
            raise _unfit(name, Datatype.BYTES, values)
        encoded = value.encode()
        parts.append(_LENGTH.pack(len(encoded)))
        parts.append(encoded)
    return b"".join(parts)


def _unfit(name: str, datatype: Datatype, values: list[object], first: int = 0) -> InvalidArgument:
    """Returns the refusal that names the first element that does not fit; `first` is the place of the first value."""
    for begin in range(0, len(values), _BLOCK):
        block = values[begin : begin + _BLOCK]
        if _fit(datatype, block):
            continue  # each by itself would take seconds where there are millions
        for position, value in enumerate(block, first + begin):
            if not _fit(datatype, [value]):
                return InvalidArgument(
                    f"input {shown(name)}: element {position} is {_kind(value)}, {_wanted(datatype)} is expected"
                )
    return InvalidArgument(f"input {shown(name)}: data are not {datatype.wire_name}")


def _fit(datatype: Datatype, values: list[object]) -> bool:
    kinds = set(map(type, values))
    if datatype is Datatype.BYTES:
        return kinds <= {str}
    if datatype is Datatype.BOOL:
        return kinds <= {bool}
    if bool in kinds:
        return False
    try:
        pack(f"<{len(values)}{_FORMATS[datatype]}", *values)
    except (error, OverflowError):
        return False
    return True


def _wanted(datatype: Datatype) -> str:
    if datatype is Datatype.BYTES:
        return "a string"
    if datatype is Datatype.BOOL:
        return "true or false"
    if datatype.is_float:
        return f"a number within the range of {datatype.wire_name}"
    bounds = np.iinfo(np.dtype(datatype.dtype))
    return f"a whole number from {bounds.min} to {bounds.max}"


def _kind(value: object) -> str:
    """Returns how an error text names a JSON value."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return f"{value!r}"
        case str():
            return f"the string {shown(value)}"
        case list():
            return "a list"
    return "an object"
