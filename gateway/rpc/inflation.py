"""Compressed messages: the encodings that are accepted, and how one is inflated within its limits."""

import asyncio
import zlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import Final

from gateway.rpc.message import BadMessage, ByteBudget, Compressed
from gateway.rpc.pushback import never
from gateway.threads import started_threads

# The encodings by their name in `grpc-encoding`, with zlib's window bits. Source: gRPC's compression.md; its "deflate"
# is zlib's format, RFC 1950.
ENCODINGS: Final[Mapping[bytes, int]] = MappingProxyType({b"gzip": 16 + zlib.MAX_WBITS, b"deflate": zlib.MAX_WBITS})

SMALL_BYTES: Final = 64 * 1024  # 0.1 ms; what is larger is inflated on a thread
# A deflated byte makes at most 1032; data that people send rarely exceed 20. Apache's mod_deflate allows 200 as well.
MAX_RATIO: Final = 200
FREE_BYTES: Final = 4 << 20  # whatever the ratio
_STEP_BYTES: Final = 4 << 20  # of content between two looks at the budget
_SLICE_BYTES: Final = 256 * 1024  # of compressed data at once: zlib copies what it has not consumed
_THREADS: Final = 2
_GZIP_MAGIC: Final = b"\x1f\x8b\x08"


def encoding_of(body: bytes) -> bytes:
    """Returns the encoding that a message seems to have, b"" for one that is plain.

    It serves where the transport does not tell. A message of protobuf never begins like gzip: its first field would
    have the wire type 7. It may begin like zlib, and then it is not of that format to its end.

    Source: RFC 1952, 2.3.1; RFC 1950, 2.2.
    """
    if body[:3] == _GZIP_MAGIC:
        return b"gzip"
    if len(body) >= 8 and body[0] & 0x8F == 0x08 and not body[1] & 0x20 and (body[0] << 8 | body[1]) % 31 == 0:
        return b"deflate"
    return b""


class Inflation:
    """One message on its way to its content.

    Order: the room for a step is taken from the budget before the step is done; `release` gives back all of it.
    """

    __slots__ = (
        "_body",
        "_budget",
        "_content",
        "_limit_bytes",
        "_position",
        "_size_bytes",
        "_tail",
        "_unpacker",
        "held_bytes",
    )

    def __init__(self, message: Compressed, limit_bytes: int, budget: ByteBudget) -> None:
        self._body = memoryview(message.body)
        self._budget = budget
        self._limit_bytes = min(limit_bytes, max(FREE_BYTES, MAX_RATIO * len(message.body)))
        self._unpacker = zlib.decompressobj(wbits=ENCODINGS[message.encoding])
        self._position = 0  # in the body
        self._tail: bytes | memoryview = b""  # of the last slice, not consumed yet
        self._content: list[bytes] = []
        self._size_bytes = 0  # of the content
        self.held_bytes = 0

    def begin(self) -> bytes | None:
        """Returns the content if it has at most 64 KiB; else the message is inflated by `finish`.

        Raises: ResourceExhausted, BadMessage.
        """
        self._take(SMALL_BYTES)
        if not self._step(SMALL_BYTES):
            return None
        self._trim()
        return self._join()

    async def finish(self, executor: ThreadPoolExecutor) -> bytes:
        """Returns the content of a large message; the work is done on a thread of the executor.

        Raises: ResourceExhausted, BadMessage.
        """
        loop = asyncio.get_running_loop()
        complete = False
        while not complete:
            step_bytes = min(_STEP_BYTES, self._limit_bytes + 1 - self._size_bytes)
            self._take(step_bytes)
            complete = await loop.run_in_executor(executor, self._step, step_bytes)
        self._trim()
        return await loop.run_in_executor(executor, self._join)

    def release(self) -> None:
        """Gives back to the budget what the content held."""
        self._budget.give(self.held_bytes)
        self.held_bytes = 0
        self._content.clear()

    def _take(self, count: int) -> None:
        self._budget.take(count)
        self.held_bytes += count

    def _trim(self) -> None:
        """Gives back what the steps took beyond the content."""
        self._budget.give(self.held_bytes - self._size_bytes)
        self.held_bytes = self._size_bytes

    def _step(self, most_bytes: int) -> bool:
        """Inflates up to so many bytes more; returns whether the message is complete."""
        unpacker = self._unpacker
        try:
            while most_bytes > 0 and not unpacker.eof:
                if not self._tail:
                    self._tail = self._body[self._position : self._position + _SLICE_BYTES]
                    self._position += len(self._tail)
                part = unpacker.decompress(self._tail, most_bytes)
                if not part and not self._tail:
                    raise BadMessage("a compressed message does not end where its compressed data end")
                self._tail = unpacker.unconsumed_tail
                most_bytes -= len(part)
                self._size_bytes += len(part)
                self._content.append(part)
        except zlib.error as error:
            raise BadMessage("a compressed message is not what its grpc-encoding says") from error
        if self._size_bytes > self._limit_bytes:
            raise never(
                f"message of {len(self._body)} compressed bytes inflates to more than {self._limit_bytes}: at most the "
                f"largest message, and beyond {FREE_BYTES} bytes {MAX_RATIO} times its size, is accepted"
            )
        if not unpacker.eof:
            return False
        if unpacker.unused_data or self._position < len(self._body):
            raise BadMessage("a compressed message does not end where its compressed data end")
        return True

    def _join(self) -> bytes:
        content = b"".join(self._content)  # it lets the loop run meanwhile
        self._content.clear()
        return content


class Inflater:
    """Inflates the messages of one server: small ones at once, a few large ones at a time on threads of their own."""

    def __init__(self, limit_bytes: int, budget: ByteBudget) -> None:
        """Raises: Unavailable, where the system starts no more threads."""
        self._limit_bytes = limit_bytes
        self._budget = budget
        self._turn = asyncio.Semaphore(_THREADS)
        self._executor = started_threads(_THREADS, "inflate")

    def open(self, message: Compressed) -> Inflation:
        """Returns the inflation of a message, which has not begun."""
        return Inflation(message, self._limit_bytes, self._budget)

    async def finish(self, inflation: Inflation) -> bytes:
        """Returns the content of a large message.

        Raises: ResourceExhausted, BadMessage.
        """
        async with self._turn:  # those that wait hold nothing but their compressed bytes
            return await inflation.finish(self._executor)

    def stop(self) -> None:
        """Lets the threads end; every inflation has ended or was cancelled."""
        self._executor.shutdown(wait=False, cancel_futures=True)
