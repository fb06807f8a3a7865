"""Metadata between gRPC's pairs and HTTP/2's header fields."""

from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Iterable
from functools import partial
from re import ASCII
from re import compile as pattern
from typing import Any, Final, NamedTuple

import ngh2
from grpc import StatusCode

from gateway.errors import InvalidArgument, Overloaded
from gateway.rpc.handler import Metadata, OwnMetadatum
from gateway.rpc.status_codes import PUSHBACK, Status, number_of

Fields = tuple[tuple[bytes, bytes], ...]


class Pair(NamedTuple):
    """One metadatum as grpcio gives it; the value is bytes where the key ends with -bin."""

    key: str
    value: str | bytes


_KEY = pattern(r"[0-9a-z_.\-]+", ASCII)
_RESERVED: Final = frozenset({b"te", b"content-type"})
_UNRESERVED: Final = frozenset({"grpc-status-details-bin", "grpc-retry-pushback-ms"})
_KEPT: Final = 4096

# Encoded trailers of status OK by the identity of the pairs; the pairs are kept beside them so that no other tuple can
# come to live at the same address.
_names: dict[str, bytes] = {}  # of keys that were checked
_kept: dict[int, tuple[Metadata, Fields]] = {}
_MOST_REPEATED: Final = 8
_CHANGED: Final = 256  # so many refusals with other texts that were told before: those of now are not those of then
_OK: Final[Fields] = ((b"grpc-status", b"0"),)
_STATUS: Final = {code: (b"grpc-status", b"%d" % number_of(code)) for code in StatusCode}
_EXHAUSTED: Final = _STATUS[StatusCode.RESOURCE_EXHAUSTED]
# As numbers: Python looks for a byte string by trying whether it is a number first, and an error costs 0.1 us.
_LINE_FEED: Final = 0x0A
_RETURN: Final = 0x0D
_NUL: Final = 0
# Makes a field that HPACK does not index, without the class's own constructor, which is interpreted.
# What is declared to return a pair loses its class when it is compiled.
never_indexed: Final = partial(tuple.__new__, ngh2.NeverIndexedHeader)


class RefusalFields:
    """Keeps the encoded fields of refusals: what begins their trailers, by their text, and when to come again.

    A text that was told before is in HPACK's table if it is one of eight (the table has room for a dozen fields): one
    text after the other would drive all fields that repeat out of it. After 256 refusals with texts that found no room,
    those of now are not those of then, and there is room again.
    """

    def __init__(self) -> None:
        self._repeated: dict[str, Fields] = {}  # in the table
        self._told: dict[str, Fields] = {}
        self._without_room = 0
        self._pushbacks: dict[int, Any] = {}

    def beginning(self, text: str) -> Fields:
        """Returns the status of a refusal and its text."""
        fields = self._repeated.get(text)
        return self._seldom(text) if fields is None else fields

    def pushback(self, after_ms: int) -> Any:
        """Returns the field that says when to come again, which is not indexed."""
        field = self._pushbacks.get(after_ms)
        if field is None:
            if len(self._pushbacks) >= _KEPT:
                self._pushbacks.clear()
            field = self._pushbacks[after_ms] = never_indexed((PUSHBACK.encode(), b"%d" % after_ms))
        return field

    def _seldom(self, text: str) -> Fields:
        fields = self._told.get(text)
        if fields is None:
            if len(self._told) >= _KEPT:
                self._told.clear()
            fields = self._told[text] = (_EXHAUSTED, never_indexed((b"grpc-message", percent_encoded(text))))
            return fields
        if len(self._repeated) < _MOST_REPEATED:
            fields = self._repeated[text] = (_EXHAUSTED, (b"grpc-message", percent_encoded(text)))
            return fields
        self._without_room += 1
        if self._without_room >= _CHANGED:
            self._without_room = 0
            self._repeated.clear()
        return fields


_refusals: Final = RefusalFields()


def decode(headers: Iterable[tuple[bytes, bytes]]) -> tuple[Pair, ...]:
    """Returns the metadata of a request, in order, without what belongs to HTTP/2 or to gRPC itself.

    Raises: InvalidArgument for a -bin value that is not base64.
    """
    pairs: list[Pair] = []
    for name, value in headers:
        if name[:1] == b":" or name[:5] == b"grpc-" or name in _RESERVED:
            continue
        key = name.decode("latin-1")
        if not key.endswith("-bin"):
            pairs.append(Pair(key, value.decode("latin-1")))
            continue
        for part in value.split(b","):
            part = part.strip()
            try:
                pairs.append(Pair(key, b64decode(part + b"=" * (-len(part) % 4), validate=True)))
            except Base64Error as error:
                raise InvalidArgument(f"metadata {key!r} is not base64") from error
    return tuple(pairs)


def encode(metadata: Iterable[tuple[str, str | bytes]]) -> Fields:
    """Returns the header fields for pairs.

    Raises: ValueError for a key or value that cannot be sent.
    """
    fields: list[tuple[bytes, bytes]] = []
    for key, value in metadata:
        name = _names.get(key) or _name_of(key)
        if name[-4:] == b"-bin":
            raw = value.encode() if isinstance(value, str) else value
            fields.append((name, b64encode(raw).rstrip(b"=")))
            continue
        text = value if isinstance(value, str) else value.decode("latin-1")
        if not (text.isascii() and text.isprintable()):
            raise ValueError(f"metadata {key!r} has characters that cannot be sent outside a -bin key")
        fields.append((name, text.encode()))
    return tuple(fields)


def _name_of(key: str) -> bytes:
    if not _KEY.fullmatch(key) or (key.startswith("grpc-") and key not in _UNRESERVED):
        raise ValueError(f"metadata key {key!r} cannot be sent")
    if len(_names) >= _KEPT:
        _names.clear()
    name = _names[key] = key.encode()
    return name


def ok_trailers(metadata: Metadata, own: OwnMetadatum | None) -> Fields:
    """Returns the trailing header fields of a call that succeeded; `metadata` is encoded once for each tuple object.

    A field that differs with each call is never indexed: it would drive those that repeat out of HPACK's table, which
    costs 2 us.

    Raises: ValueError for a key or value that cannot be sent.
    """
    entry = _kept.get(id(metadata))
    if entry is None or entry[0] is not metadata:
        if len(_kept) >= _KEPT:
            _kept.clear()
        entry = (metadata, _OK + encode(metadata))
        _kept[id(metadata)] = entry
    return entry[1] if own is None else (*entry[1], _own_field(own))


def _own_field(own: OwnMetadatum) -> Any:
    """Returns the header field of a call's own metadatum, which is not indexed. Raises: ValueError."""
    key, value = own
    # What HTTP/2 forbids; a whole look at each character would cost as much as all the rest.
    if not value.isascii() or _LINE_FEED in value or _RETURN in value or _NUL in value:
        raise ValueError(f"metadata {key!r} has characters that cannot be sent outside a -bin key")
    return never_indexed((_names.get(key) or _name_of(key), value))


def status_trailers(status: Status, metadata: Metadata = (), own: OwnMetadatum | None = None) -> Fields:
    """Returns the trailing header fields of a call that failed; its text, and when to come again, are its own.

    Raises: ValueError for a key or value that cannot be sent.
    """
    fields: Fields = (_STATUS[status.code], never_indexed((b"grpc-message", percent_encoded(status.details))))
    for name, value in encode(status.metadata) if status.metadata else ():
        fields += (never_indexed((name, value)),)
    if own is not None:
        fields += (_own_field(own),)
    return (*fields, *encode(metadata)) if metadata else fields


def overload_trailers(error: Overloaded, metadata: Metadata = (), own: OwnMetadatum | None = None) -> Fields:
    """Returns what `status_trailers` does. The text comes again: it is encoded once, and from the second time on it may
    have a place in HPACK's table.

    Raises: ValueError for a key or value that cannot be sent.
    """
    fields = _refusals.beginning(str(error))
    after_ms = error.retry_after_ms
    if after_ms is not None:
        fields += (_refusals.pushback(after_ms),)
    if own is not None:
        fields += (_own_field(own),)
    return (*fields, *encode(metadata)) if metadata else fields


def percent_encoded(text: str) -> bytes:
    """Returns a status text as `grpc-message` carries it."""
    if text.isascii() and text.isprintable() and "%" not in text:
        return text.encode()
    raw = text.encode("utf-8", "replace")
    return b"".join(bytes((byte,)) if 0x20 <= byte <= 0x7E and byte != 0x25 else b"%%%02X" % byte for byte in raw)
