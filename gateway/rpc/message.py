"""gRPC's length-prefixed messages on a byte stream, with their limits."""

import zlib
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np

from gateway.errors import GatewayError, Internal
from gateway.rpc.pushback import later, never

PREFIX: Final = 5
_LARGE: Final = 64 * 1024
_GZIP: Final = 16 + zlib.MAX_WBITS
_SMALL_PART: Final = 512
_SMALL_PARTS: Final = 256  # so many small parts are joined: each costs as much again as an object


class BadMessage(Internal):
    """The bytes break gRPC's framing. Unlike with other internal errors, the peer is told how."""

    def __init__(self, text: str) -> None:
        GatewayError.__init__(self, text)


class ByteBudget:
    """Counts the bytes that a server holds, over all its connections: of messages that come in, or of answers.

    `on_change` is told by how many bytes more, or fewer, are held.
    """

    __slots__ = ("_on_change", "free_bytes", "size_bytes")

    def __init__(self, size_bytes: int, on_change: Callable[[int], None] | None = None) -> None:
        self.size_bytes = size_bytes
        self.free_bytes = size_bytes
        self._on_change = on_change

    def take(self, count: int, what: str = "a message") -> None:
        """Takes bytes.

        Raises: ResourceExhausted, with nothing taken.
        """
        if count > self.free_bytes:
            if count > self.size_bytes:
                raise never(f"{what} of {count} bytes never fits: {self.size_bytes} bytes is all there is")
            in_use = self.size_bytes - self.free_bytes
            raise later(f"{what} of {count} bytes: {in_use} of {self.size_bytes} bytes are in use")
        self.charge(count)

    @property
    def scarce(self) -> bool:
        """Returns whether less than an eighth is free."""
        return self.free_bytes < self.size_bytes // 8

    def charge(self, count: int) -> None:
        """Counts bytes that are held already, whether or not there is room for them."""
        self.free_bytes -= count
        if self._on_change is not None and count:
            self._on_change(count)

    def give(self, count: int) -> None:
        """Counts bytes that are not held any more."""
        self.charge(-count)


class ByteBudgets(NamedTuple):
    """What a server, or several, may hold: of messages that come, and of answers that clients have not read."""

    received: ByteBudget
    unsent: ByteBudget


def byte_budgets(size_bytes: int, on_unread: Callable[[int], None] | None = None) -> ByteBudgets:
    """Returns two of that size; `on_unread` is told by how many bytes more, or fewer, the answers are."""
    return ByteBudgets(ByteBudget(size_bytes), ByteBudget(size_bytes, on_unread))


def frame(message: bytes, *, compress: bool = False) -> bytes:
    """Returns a message with its prefix; the flag and the four bytes of length are one big-endian number."""
    if compress:
        packer = zlib.compressobj(wbits=_GZIP)
        message = packer.compress(message) + packer.flush()
        return (len(message) | 1 << 32).to_bytes(PREFIX, "big") + message
    return len(message).to_bytes(PREFIX, "big") + message


class Compressed:
    """A message as it came, compressed; `gateway.rpc.inflation` makes its content."""

    __slots__ = ("body", "encoding")

    def __init__(self, body: bytes, encoding: bytes) -> None:
        self.body = body
        self.encoding = encoding


class Assembler:
    """Turns a stream's DATA into messages, however they are cut.

    With `views` a message of 64 KiB and more that is not compressed is put into memory of its own as it comes, and is
    given as a view of that: its parts are still in the cache then, and nothing is copied a second time.

    Order: a message that is too large is refused when its prefix is there, before its body is kept.
    Units: `held_bytes` are taken from the budget for a message when its prefix is there, until `pop` or `release`;
           `encoding` is the name that compressed messages have in `grpc-encoding`, b"" where none may come; `path` is
           the method's, for who is refused.
    """

    __slots__ = (
        "_budget",
        "_encoding",
        "_flag",
        "_head",
        "_held",
        "_large",
        "_limit_bytes",
        "_missing",
        "_parts",
        "_path",
        "_sizes",
        "_small_parts",
        "_views",
        "held_bytes",
        "messages",
    )

    def __init__(
        self, limit_bytes: int, budget: ByteBudget, *, encoding: bytes = b"", views: bool = False, path: str = ""
    ) -> None:
        self.messages: deque[bytes | memoryview | Compressed] = deque()
        self._views = views
        self._large: memoryview | None = None  # where the message that is not complete is put together
        self._sizes: deque[int] = deque()  # what each message holds of the budget
        self.held_bytes = 0
        self._limit_bytes = limit_bytes
        self._budget = budget
        self._encoding = encoding
        self._path = path
        self._small_parts = 0  # at the end of the parts
        self._head = b""
        self._flag = 0
        self._held = 0  # by the message that is not complete
        self._missing = -1  # of the body; -1: the prefix is not complete
        self._parts: list[bytes | memoryview] = []

    @property
    def partial(self) -> bool:
        """Returns whether a message has begun that is not complete."""
        return self._missing >= 0 or bool(self._head)

    @property
    def missing_bytes(self) -> int:
        """Returns how many bytes of the message that is not complete are still to come."""
        return max(self._missing, 0)

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

    def pop(self) -> bytes | memoryview | Compressed:
        """Returns the oldest complete message; what it held of the budget is free again."""
        size_bytes = self._sizes.popleft()
        self.held_bytes -= size_bytes
        self._budget.give(size_bytes)
        return self.messages.popleft()

    def release(self) -> None:
        """Forgets all messages; their bytes are free again."""
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
        if self._flag and not self._encoding:
            raise BadMessage("a message is marked compressed, and grpc-encoding names no compression")
        if size_bytes > self._limit_bytes:
            of = f" by {self._path}" if self._path else ""
            raise never(f"message of {size_bytes} bytes, at most {self._limit_bytes} are accepted{of}")
        self._budget.take(size_bytes)
        self._held = size_bytes
        self.held_bytes += size_bytes
        if size_bytes >= _LARGE and self._views and not self._flag:
            self._large = np.empty(size_bytes, np.uint8).data  # unlike a bytearray, it is not cleared first
        self._head = b""
        self._missing = size_bytes

    def _keep(self, part: bytes | memoryview) -> None:
        large = self._large
        if large is None:
            parts = self._parts
            parts.append(part)
            if len(part) >= _SMALL_PART:
                self._small_parts = 0
                return
            self._small_parts += 1
            if self._small_parts == _SMALL_PARTS:
                parts[-_SMALL_PARTS:] = [b"".join(parts[-_SMALL_PARTS:])]
                self._small_parts = 0
        else:
            position = len(large) - self._missing
            large[position : position + len(part)] = part

    def _close(self) -> None:
        message: bytes | memoryview | Compressed
        if self._large is not None:
            message, self._large = self._large.toreadonly(), None
        else:
            body = b"".join(self._parts)
            message = Compressed(body, self._encoding) if self._flag else body
            self._parts = []
            self._small_parts = 0
        self._missing = -1
        self._sizes.append(self._held)
        self.messages.append(message)
