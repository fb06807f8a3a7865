"""A chunked body as it comes: strict, bounded, and whoever sends it gains nothing by how it is cut."""

from re import compile as pattern
from typing import Final

from gateway.rest.http_refusal import HttpRefusal

_LINE: Final = pattern(rb"([0-9A-Fa-f]{1,8})(?:[ \t]*;[\t -~\x80-\xff]*)?")
_LINE_BYTES: Final = 256
_TRAILER_BYTES: Final = 4096
_TRAILER: Final = pattern(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~\x80-\xff]*")
_RETURN: Final = 0x0D
_SMALL_PART: Final = 512

_SIZE: Final = 0  # a line with the size of a chunk comes next
_DATA: Final = 1
_DATA_END: Final = 2
_TRAILERS: Final = 3
_DONE: Final = 4


class ChunkedBody:
    """Takes the bytes behind a head; `feed` returns how many of them were the body's.

    Source: RFC 9112, 7.1. Extensions and trailers are read over; a line that ends with LF alone is refused, for others
    on the way may see its end elsewhere.
    """

    __slots__ = ("_limit_bytes", "_line", "_missing", "_parts", "_small", "_state", "_trailer_bytes", "size_bytes")

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._line = b""
        self._missing = 0  # of the chunk
        self._parts: list[bytes] = []
        self._small = bytearray()  # chunks of few bytes, which cost as much again as objects
        self._state = _SIZE
        self._trailer_bytes = 0
        self.size_bytes = 0

    @property
    def complete(self) -> bool:
        """Whether the end was there."""
        return self._state == _DONE

    def feed(self, data: bytes, position: int) -> int | HttpRefusal:
        """Returns the position behind what it took of `data`; or what is wrong."""
        end = len(data)
        while position < end and self._state != _DONE:
            if self._state == _DATA:
                taken = min(self._missing, end - position)
                self._keep(data[position : position + taken])
                self._missing -= taken
                position += taken
                if not self._missing:
                    self._state = _DATA_END
                continue
            feed = data.find(b"\n", position)
            stop = end if feed < 0 else feed + 1
            self._line += data[position:stop]
            position = stop
            limit = _LINE_BYTES if self._state != _TRAILERS else _TRAILER_BYTES
            if len(self._line) > limit:
                return HttpRefusal(400, f"a line of the chunked body has more than {limit} bytes")
            if feed >= 0:
                line, self._line = self._line, b""
                refusal = self._take(line)
                if refusal is not None:
                    return refusal
        return position

    def join(self) -> bytes:
        """Returns the body, which is complete."""
        if self._small:
            self._parts.append(bytes(self._small))
            self._small.clear()
        return self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)

    def _keep(self, part: bytes) -> None:
        self.size_bytes += len(part)
        if len(part) < _SMALL_PART:
            self._small += part
            return
        if self._small:
            self._parts.append(bytes(self._small))
            self._small.clear()
        self._parts.append(part)

    def _take(self, line: bytes) -> HttpRefusal | None:
        """Takes a line with its end."""
        if len(line) < 2 or line[-2] != _RETURN:
            return HttpRefusal(400, "a line of the chunked body ends with LF alone")
        line = line[:-2]
        if self._state == _DATA_END:
            if line:
                return HttpRefusal(400, "a chunk is longer than its size says")
            self._state = _SIZE
        elif self._state == _SIZE:
            match = _LINE.fullmatch(line)
            if match is None:
                return HttpRefusal(400, "a chunk does not begin with its size")
            self._missing = int(match.group(1), 16)
            if self.size_bytes + self._missing > self._limit_bytes:
                return too_large(self.size_bytes + self._missing, self._limit_bytes)
            self._state = _DATA if self._missing else _TRAILERS
        elif not line:
            self._state = _DONE
        else:
            self._trailer_bytes += len(line) + 2
            if self._trailer_bytes > _TRAILER_BYTES or _TRAILER.fullmatch(line) is None:
                return HttpRefusal(400, "the trailers of the chunked body are too long, or no header fields")
        return None


def too_large(size_bytes: int, limit_bytes: int) -> HttpRefusal:
    """Returns the refusal of a body that is too large."""
    return HttpRefusal(413, f"a body of {size_bytes} bytes, at most {limit_bytes} are accepted here")
