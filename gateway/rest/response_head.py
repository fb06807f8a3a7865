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

    __slots__ = ("_date", "_kept")

    def __init__(self) -> None:
        # By the identity of the fields; they are kept beside, so that no other tuple comes to live at the same address.
        self._kept: dict[tuple[int, int], tuple[Fields, bytes]] = {}
        self._date = b""
        self.tell_time()

    def tell_time(self) -> None:
        """Takes the present time for the heads that follow."""
        self._date = b"date: %b\r\n" % formatdate(time(), usegmt=True).encode()

    def whole(self, status: int, fields: Fields, size_bytes: int, own: Fields, connection: bytes) -> bytes:
        """Returns the head of an answer whose length is known. Raises: ValueError for a field that cannot be sent."""
        kept = self._kept.get((status, id(fields)))
        lines = kept[1] if kept is not None and kept[0] is fields else self._keep(status, fields)
        if status in _WITHOUT_BODY:
            return b"%b%b%b%b\r\n" % (lines, _lines(own), connection, self._date)
        return b"%bcontent-length: %d\r\n%b%b%b\r\n" % (lines, size_bytes, _lines(own), connection, self._date)

    def endless(self, status: int, fields: Fields, connection: bytes, *, chunked: bool) -> bytes:
        """Returns the head of an answer in pieces. Raises: ValueError for a field that cannot be sent."""
        framing = b"transfer-encoding: chunked\r\n" if chunked else b""
        return b"%b%b%b%b\r\n" % (self._keep(status, fields), framing, connection, self._date)

    def _keep(self, status: int, fields: Fields) -> bytes:
        try:
            phrase = HTTPStatus(status).phrase
        except ValueError:
            phrase = "Unknown"
        lines = b"HTTP/1.1 %d %b\r\n%b" % (status, phrase.encode(), _lines(fields))
        if len(self._kept) >= _KEPT:
            self._kept.clear()
        self._kept[status, id(fields)] = fields, lines
        return lines


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
