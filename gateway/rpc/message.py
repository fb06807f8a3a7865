"""gRPC's length-prefixed messages on a byte stream, with their limits."""

import zlib
from collections import deque
from typing import Final

import numpy as np

from gateway.errors import GatewayError, Internal, ResourceExhausted

PREFIX: Final = 5
_LARGE: Final = 64 * 1024
_GZIP: Final = 16 + zlib.MAX_WBITS


class BadMessage(Internal):
    """The bytes break gRPC's framing; unlike other internal errors the peer is told how."""

    def __init__(self, text: str) -> None:
        GatewayError.__init__(self, text)


class ByteBudget:
    """How many bytes of large messages may be on their way in at once, over all connections of a server."""

    __slots__ = ("free_bytes", "size_bytes")

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.free_bytes = size_bytes

    def take(self, count: int) -> None:
        """Raises: ResourceExhausted, with nothing taken."""
        if count > self.free_bytes:
            raise ResourceExhausted(
                f"a message of {count} bytes: {self.size_bytes - self.free_bytes} of {self.size_bytes} bytes are in use"
            )
        self.free_bytes -= count

    def give(self, count: int) -> None:
        self.free_bytes += count


def frame(message: bytes, *, compress: bool = False) -> bytes:
    """A message with its prefix; the flag and the four bytes of length are one big-endian number."""
    if compress:
        packer = zlib.compressobj(wbits=_GZIP)
        message = packer.compress(message) + packer.flush()
        return (len(message) | 1 << 32).to_bytes(PREFIX, "big") + message
    return len(message).to_bytes(PREFIX, "big") + message


def inflate(message: bytes, limit_bytes: int) -> bytes:
    """The content of a gzip message; never more than the limit is inflated.

    Raises: ResourceExhausted above the limit, BadMessage for bytes that are not one complete gzip member.
    """
    unpacker = zlib.decompressobj(wbits=_GZIP)
    try:
        content = unpacker.decompress(message, limit_bytes + 1)
        if len(content) > limit_bytes:
            raise ResourceExhausted(f"message inflates to more than {limit_bytes} bytes")
        content += unpacker.flush()
    except zlib.error as error:
        raise BadMessage("a compressed message is not gzip") from error
    if not unpacker.eof or unpacker.unused_data:
        raise BadMessage("a compressed message does not end where its gzip data end")
    return content


class Assembler:
    """Turns a stream's DATA into messages, however they are cut.

    With `views` a message of 64 KiB and more that is not compressed is put into memory of its own as it comes, and is
    given as a view of that: its parts are still in the cache then, and nothing is copied a second time.

    Order: a message that is too large is refused when its prefix is there, before its body is kept.
    Units: `held_bytes` are taken from the budget for messages of 64 KiB and more, until `pop` or `release`.
    """

    __slots__ = (
        "_budget",
        "_flag",
        "_gzip",
        "_head",
        "_held",
        "_large",
        "_limit_bytes",
        "_missing",
        "_parts",
        "_sizes",
        "_views",
        "held_bytes",
        "messages",
    )

    def __init__(self, limit_bytes: int, budget: ByteBudget, *, gzip: bool, views: bool = False) -> None:
        self.messages: deque[bytes | memoryview] = deque()
        self._views = views
        self._large: memoryview | None = None  # where the message that is not complete is put together
        self._sizes: deque[int] = deque()  # what each message holds of the budget
        self.held_bytes = 0
        self._limit_bytes = limit_bytes
        self._budget = budget
        self._gzip = gzip
        self._head = b""
        self._flag = 0
        self._held = 0  # by the message that is not complete
        self._missing = -1  # of the body; -1: the prefix is not complete
        self._parts: list[bytes | memoryview] = []

    @property
    def partial(self) -> bool:
        """Whether a message has begun that is not complete."""
        return self._missing >= 0 or bool(self._head)

    def feed(self, data: bytes) -> None:
        """Appends the messages that `data` completes.

        Raises: ResourceExhausted, BadMessage.
        """
        position, end = 0, len(data)
        if self._missing > end:  # the middle of a large message
            self._keep(data)
            self._missing -= end
            return
        view = memoryview(data)
        while position < end:
            if self._missing < 0:
                taken = min(PREFIX - len(self._head), end - position)
                self._head += data[position : position + taken]
                if len(self._head) == PREFIX:
                    self._open()
            else:
                taken = min(self._missing, end - position)
                self._keep(view[position : position + taken])
                self._missing -= taken
            position += taken
            if self._missing == 0:
                self._close()

    def pop(self) -> bytes | memoryview:
        """The oldest complete message; what it held of the budget is free again."""
        size_bytes = self._sizes.popleft()
        self.held_bytes -= size_bytes
        self._budget.give(size_bytes)
        return self.messages.popleft()

    def release(self) -> None:
        """The messages are used or forgotten; their bytes are free again."""
        self._budget.give(self.held_bytes)
        self.held_bytes = 0
        self._parts = []
        self._large = None
        self._sizes.clear()
        self.messages.clear()

    def _open(self) -> None:
        self._flag = self._head[0]
        size_bytes = int.from_bytes(self._head[1:], "big")
        if self._flag > 1:
            raise BadMessage(f"compressed flag is {self._flag}, not 0 or 1")
        if self._flag and not self._gzip:
            raise BadMessage("a message is marked compressed, and grpc-encoding names no compression")
        if size_bytes > self._limit_bytes:
            raise ResourceExhausted(f"message of {size_bytes} bytes, at most {self._limit_bytes} are accepted")
        self._held = 0
        if size_bytes >= _LARGE:
            self._budget.take(size_bytes)
            self._held = size_bytes
            self.held_bytes += size_bytes
            if self._views and not self._flag:
                self._large = np.empty(size_bytes, np.uint8).data  # unlike a bytearray, it is not cleared first
        self._head = b""
        self._missing = size_bytes

    def _keep(self, part: bytes | memoryview) -> None:
        large = self._large
        if large is None:
            self._parts.append(part)
        else:
            position = len(large) - self._missing
            large[position : position + len(part)] = part

    def _close(self) -> None:
        message: bytes | memoryview
        if self._large is not None:
            message, self._large = self._large.toreadonly(), None
        else:
            message = b"".join(self._parts)
            self._parts = []
            if self._flag:
                message = inflate(message, self._limit_bytes)
        self._missing = -1
        self._sizes.append(self._held)
        self.messages.append(message)
