"""The values in a row, as the store holds them and as a tensor does.

A value that is not of the declared datatype and dims is unreadable: nothing is rounded into an integer, cut off or
padded, and no value makes another one unreadable.
"""

import re
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
import numpy as np
from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp

from gateway.features.feature_view import FeatureValue, FeatureView, HashEncoding, RowLayout, StoredFeature
from gateway.pb import feast_pb2
from gateway.tensor import Datatype

MAX_VALUE_BYTES: Final = 1 << 20
_INTEGER: Final = re.compile(rb"[+-]?[0-9]{1,20}\Z")
_REAL: Final = re.compile(rb"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?\Z|[+-]?inf(inity)?\Z|nan\Z", re.IGNORECASE)
# A number is no longer than this in the store, as text with its comma or as protobuf's field; more is not even read.
_NUMBER_BYTES: Final = 64
_TRUTH: Final = {b"true": True, b"1": True, b"false": False, b"0": False}
_INTEGERS: Final = "iu"

Item = bytes | str | int | float | bool
Read = Callable[[bytes], FeatureValue | None]


class UnreadableValue(ValueError):
    """Raised for a value that is not of the datatype and dims that the view declares."""


def reader(view: FeatureView, feature: StoredFeature) -> Read:
    """Returns what reads a stored value of the feature: its value, None where it is explicitly none.

    It raises UnreadableValue.
    """
    if view.layout is RowLayout.FEAST:
        return lambda stored: _feast_value(feature, stored)
    if view.encoding is HashEncoding.RAW:
        return lambda stored: _raw_value(feature, stored)
    return lambda stored: text_value(feature, stored)


def time_reader(view: FeatureView) -> Callable[[bytes], float]:
    """Returns what reads when a row was true, in seconds since the Unix epoch. It raises UnreadableValue."""
    return _feast_time if view.layout is RowLayout.FEAST else _text_time


def text_value(feature: StoredFeature, text: bytes) -> FeatureValue:
    """Returns the value that a text holds: a number, true or false, the bytes themselves, or several as a JSON list.

    Raises: UnreadableValue.
    """
    datatype = feature.datatype
    _check_size(feature, text)
    if feature.elements == 1 and not (text[:1] == b"[" and datatype is not Datatype.BYTES):
        return to_value(feature, [text if datatype is Datatype.BYTES else _scalar(datatype, text.strip())])
    try:
        listed = msgspec.json.decode(text, type=list[str | bool | int | float])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UnreadableValue(f"no JSON list: {error}") from None
    return to_value(feature, listed)


def to_value(feature: StoredFeature, items: Sequence[Item]) -> FeatureValue:
    """Returns the items as a tensor holds them. Raises: UnreadableValue, where they do not fit datatype and dims."""
    if len(items) != feature.elements:
        raise UnreadableValue(f"{len(items)} elements where dims are {list(feature.dims)}")
    datatype = feature.datatype
    if datatype is Datatype.BYTES:
        return tuple(_as_bytes(item) for item in items)
    if datatype is Datatype.BOOL:
        if not all(isinstance(item, bool) for item in items):
            raise UnreadableValue("not all are true or false")
        return np.array(items, datatype.dtype).tobytes()
    wanted = np.dtype(datatype.dtype)
    integral = wanted.kind in _INTEGERS
    if not all(isinstance(item, int | float) and not (integral and isinstance(item, float)) for item in items):
        raise UnreadableValue(f"not all are {'integers' if integral else 'numbers'}")
    try:
        with np.errstate(over="raise"):
            return np.array(items, wanted if integral else "<f8").astype(wanted).tobytes()
    except (OverflowError, FloatingPointError):
        raise UnreadableValue(f"out of the range of {datatype.wire_name}") from None


def _check_size(feature: StoredFeature, stored: bytes) -> None:
    limit = MAX_VALUE_BYTES if feature.datatype is Datatype.BYTES else _NUMBER_BYTES * (feature.elements + 1)
    if len(stored) > limit:
        raise UnreadableValue(f"{len(stored)} bytes exceed the limit of {limit}")


def _scalar(datatype: Datatype, text: bytes) -> Item:
    if datatype is Datatype.BOOL:
        truth = _TRUTH.get(text.lower())
        if truth is None:
            raise UnreadableValue("neither true nor false")
        return truth
    if _INTEGER.match(text):
        return int(text)
    if _REAL.match(text):
        return float(text)
    raise UnreadableValue("no number")


def _as_bytes(item: Item) -> bytes:
    if isinstance(item, bytes):
        return item
    if not isinstance(item, str):
        raise UnreadableValue("not all are texts")
    return item.encode()


def _raw_value(feature: StoredFeature, stored: bytes) -> FeatureValue:
    datatype = feature.datatype
    if datatype is Datatype.BYTES:
        _check_size(feature, stored)
        if feature.elements != 1:
            raise UnreadableValue("raw texts of several elements have no form")
        return (stored,)
    if len(stored) != feature.elements * datatype.size:
        raise UnreadableValue(f"{len(stored)} bytes where {feature.elements * datatype.size} are needed")
    if datatype is Datatype.BOOL and stored.strip(b"\x00\x01"):
        raise UnreadableValue("neither 0 nor 1")
    return stored


def _text_time(text: bytes) -> float:
    text = text.strip()
    if len(text) > 40 or not _REAL.match(text):
        raise UnreadableValue("no number of seconds")
    return _seconds(float(text))


def _seconds(number: float) -> float:
    """Returns the number, where it is one of seconds: milliseconds would be a time that never becomes old.

    Raises: UnreadableValue.
    """
    if not abs(number) < 1e11:
        raise UnreadableValue("no number of seconds since 1970")
    return number


# ---- Feast ----


def _feast_value(feature: StoredFeature, stored: bytes) -> FeatureValue | None:
    _check_size(feature, stored)
    message = feast_pb2.Value()
    try:
        message.ParseFromString(stored)
    except DecodeError:
        raise UnreadableValue("no value of Feast's") from None
    kind = message.WhichOneof("val")
    if kind is None:
        if stored:
            raise UnreadableValue("a kind of value that no tensor holds")
        return None
    if kind == "null_val":
        return None
    value = getattr(message, kind)
    return to_value(feature, value.val if kind.endswith("list_val") else [value])


def _feast_time(stored: bytes) -> float:
    message = Timestamp()
    try:
        message.ParseFromString(stored)
    except DecodeError:
        raise UnreadableValue("no time of Feast's") from None
    return _seconds(message.seconds + message.nanos / 1e9)
