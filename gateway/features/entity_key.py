"""The keys of rows: the store's name of an entity, made from the values that a request brings.

Source: feast-dev/feast, sdk/python/feast/infra/key_encoding_utils.py (entity key serialization versions 2 and 3).
"""

import re
import struct
from collections.abc import Callable, Sequence
from typing import Final

from gateway.errors import InvalidArgument
from gateway.features.feature_view import FeatureView, JoinKey, RowLayout
from gateway.tensor import Datatype

MAX_KEY_VALUE_BYTES: Final = 1024
KEY_DATATYPES: Final = (Datatype.BYTES, Datatype.INT64, Datatype.INT32)
# Numbers of Feast's ValueType.
_STRING: Final = 2
_FEAST_TYPES: Final = {Datatype.BYTES: _STRING, Datatype.INT32: 3, Datatype.INT64: 4}
_FEAST_FORMS: Final = {Datatype.INT32: "<i", Datatype.INT64: "<q"}
_PLACEHOLDER: Final = re.compile(r"\{([^{}]*)\}")

KeyValue = bytes | int
MakeKey = Callable[[Sequence[KeyValue]], bytes]


def key_maker(view: FeatureView) -> MakeKey:
    """Returns what makes the key of a row from the values of the view's inputs, in their order.

    The keys of two rows are different where their values are.

    Raises: InvalidArgument, when it is called: a value before another one holds what separates the two in the pattern.
    """
    return _feast_maker(view) if view.layout is RowLayout.FEAST else _pattern_maker(view)


def placeholders(pattern: str) -> list[str]:
    """Returns the names in braces in a pattern such as `user:{user_id}`, in their order."""
    return _PLACEHOLDER.findall(pattern)


def check_key_value(key: JoinKey, value: KeyValue) -> None:
    """Checks that a value can be part of a key. Raises: InvalidArgument, if not."""
    if isinstance(value, bytes) and len(value) > MAX_KEY_VALUE_BYTES:
        raise InvalidArgument(
            f"input {key.name!r}: a key of {len(value)} bytes exceeds the limit of {MAX_KEY_VALUE_BYTES}"
        )


def _pattern_maker(view: FeatureView) -> MakeKey:
    pieces = _PLACEHOLDER.split(view.pattern)
    texts = [piece.encode() for piece in pieces[::2]]
    places = {key.name: place for place, key in enumerate(view.keys)}
    order = [places[name] for name in pieces[1::2]]

    digits = [text[:1].isdigit() or not text for text in texts[1:]]
    last = len(order) - 1

    def make(values: Sequence[KeyValue]) -> bytes:
        made = [texts[0]]
        for number, (place, text) in enumerate(zip(order, texts[1:], strict=True)):
            value = values[place]
            raw = value if isinstance(value, bytes) else b"%d" % value
            # Where the text behind a value begins earlier, another value ends there: two rows would have one key. A
            # number ends before what is no digit, whatever it has in front.
            if number < last and (raw is value or digits[number]) and (raw + text).find(text) < len(raw):
                raise _ambiguous(view.keys[place], raw, text, view.pattern)
            made += (raw, text)
        return b"".join(made)

    return make


def _ambiguous(key: JoinKey, value: bytes, separator: bytes, pattern: str) -> InvalidArgument:
    shown = value[:80].decode("utf-8", "backslashreplace")
    return InvalidArgument(
        f"input {key.name!r}: {shown!a} holds, or runs into, {separator.decode()!a}, which ends it in the key "
        f"{pattern[:80]!a}: other values would have the same key"
    )


def _feast_maker(view: FeatureView) -> MakeKey:
    sized = view.key_version > 2
    order = sorted(range(len(view.keys)), key=lambda place: view.keys[place].stored)
    names = [view.keys[place].stored.encode() for place in order]
    head = struct.pack("<I", len(names)) if sized else b""
    for name in names:
        head += struct.pack("<I", _STRING) + (struct.pack("<I", len(name)) if sized else b"") + name
    tail = view.project.encode()
    kinds = [(place, view.keys[place].datatype) for place in order]

    def make(values: Sequence[KeyValue]) -> bytes:
        made = [head]
        for place, datatype in kinds:
            value = values[place]
            raw = value if isinstance(value, bytes) else struct.pack(_FEAST_FORMS[datatype], value)
            made += (struct.pack("<II", _FEAST_TYPES[datatype], len(raw)), raw)
        made.append(tail)
        return b"".join(made)

    return make
