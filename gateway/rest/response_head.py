"""The head of an answer in HTTP/1.1: what repeats is made once."""

from collections.abc import Sequence
from email.utils import formatdate
from http import HTTPStatus
from time import time
from typing import Final

from gateway.rest.http_call import Fields, Piece

_KEPT: Final = 4096
_LINE_FEED: Final = 0x0A
_RETURN: Final = 0x0D
_NUL: Final = 0
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_WITHOUT_BODY: Final = frozenset({204, 304})


class ResponseHeads:
    """Makes heads. The lines of a tuple of fields are kept for as long as the same tuple comes again.

    Order: `tell_time` is called once a second, or so.
    """

    __slots__ = ("_date", "_kept", "_lengths")

    def __init__(self) -> None:
        # By the identity of the fields; they are kept beside, so that no other tuple comes to live at the same address.
        self._kept: dict[tuple[int, int], tuple[Fields, bytes, bytes]] = {}
        self._lengths: dict[int, bytes] = {}
        self._date = b""
        self.tell_time()

    def tell_time(self) -> None:
        """Takes the present time for the heads that follow."""
        self._date = b"date: %b\r\n" % formatdate(time(), usegmt=True).encode()

    def whole(self, status: int, fields: Fields, size_bytes: int, own: Fields, connection: bytes) -> bytes:
        """Returns the head of an answer whose length is known. Raises: ValueError for a field that cannot be sent."""
        kept = self._kept.get((status, id(fields)))
        if kept is None or kept[0] is not fields:
            kept = self._keep(status, fields)
        parts = [kept[1]]
        # The length goes first: programs that search for `content-length:` find `inference-header-content-length:` too.
        if status not in _WITHOUT_BODY:
            length = self._lengths.get(size_bytes)
            parts.append(length if length is not None else self._keep_length(size_bytes))
        parts.append(kept[2])
        for name, value in checked_fields(own):
            parts += (name, b": ", value, b"\r\n")
        parts += (connection, self._date, b"\r\n")
        return b"".join(parts)

    def endless(self, status: int, fields: Fields, connection: bytes, *, chunked: bool) -> bytes:
        """Returns the head of an answer in pieces. Raises: ValueError for a field that cannot be sent."""
        framing = b"transfer-encoding: chunked\r\n" if chunked else b""
        _, first, lines = self._keep(status, fields)
        return b"%b%b%b%b%b\r\n" % (first, lines, framing, connection, self._date)

    def _keep_length(self, size_bytes: int) -> bytes:
        if len(self._lengths) >= _KEPT:
            self._lengths.clear()
        line = self._lengths[size_bytes] = b"content-length: %d\r\n" % size_bytes
        return line

    def _keep(self, status: int, fields: Fields) -> tuple[Fields, bytes, bytes]:
        try:
            phrase = HTTPStatus(status).phrase
        except ValueError:
            phrase = "Unknown"
        kept = fields, b"HTTP/1.1 %d %b\r\n" % (status, phrase.encode()), _lines(fields)
        if len(self._kept) >= _KEPT:
            self._kept.clear()
        self._kept[status, id(fields)] = kept
        return kept


def _lines(fields: Fields) -> bytes:
    lines = b""
    for name, value in checked_fields(fields):
        lines += b"%b: %b\r\n" % (name, value)
    return lines


def checked_fields(fields: Fields) -> Fields:
    """Returns the fields. Raises: ValueError for one that cannot be sent."""
    for name, value in fields:
        if not value.isascii() or _LINE_FEED in value or _RETURN in value or _NUL in value:
            raise ValueError(f"header {name.decode('latin-1')!r} has characters that cannot be sent")
    return fields


def size_of(pieces: Sequence[Piece]) -> int:
    """Returns the bytes of a body."""
    size_bytes = 0
    for piece in pieces:
        size_bytes += len(piece)
    return size_bytes
