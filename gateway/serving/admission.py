"""Admission: how many requests, and how many bytes of them, a worker holds at once."""

from collections.abc import Callable
from random import random
from typing import Final

from gateway.errors import ResourceExhausted, Unavailable

# When refused callers may try again: spread, because clients add no jitter of their own to what they are told.
RETRY_AFTER_MS: Final = (50, 250)


def retry_after_ms(draw: float) -> int:
    """Returns after what time a refused caller may try again; `draw` is one of [0, 1)."""
    soonest_ms, latest_ms = RETRY_AFTER_MS
    return soonest_ms + int(draw * (latest_ms - soonest_ms))


class Admission:
    """Permits by count and by bytes; what is over either is refused at once, before it is parsed.

    The byte budget is the real bound of a worker's memory: messages are large, connections and streams are many.
    """

    __slots__ = ("_bytes", "_closed", "_draw", "_max_bytes", "_max_requests", "_requests", "refused")

    def __init__(self, *, max_requests: int, max_bytes: int, draw: Callable[[], float] = random) -> None:
        self._max_requests = max_requests
        self._max_bytes = max_bytes
        self._requests = 0
        self._bytes = 0
        self._closed = ""  # why nothing is admitted
        self._draw = draw
        self.refused = 0

    def take(self, size_bytes: int) -> None:
        """Takes a permit; it is given back with the same size.

        Raises: ResourceExhausted (a limit is reached), Unavailable (it is closed, such as while the worker drains).
        """
        if self._requests >= self._max_requests or self._bytes + size_bytes > self._max_bytes or self._closed:
            self.refused += 1
            raise self._refusal(size_bytes)
        self._requests += 1
        self._bytes += size_bytes

    def _refusal(self, size_bytes: int) -> ResourceExhausted | Unavailable:
        if self._closed:
            return Unavailable(self._closed)
        after_ms = retry_after_ms(self._draw())
        if self._requests >= self._max_requests:
            text = f"{self._requests} requests are in flight, the limit is {self._max_requests}"
        elif size_bytes > self._max_bytes:
            text, after_ms = f"a request of {size_bytes} bytes never fits, the limit is {self._max_bytes}", -1
        else:
            held = f"{self._bytes} of {self._max_bytes} bytes are in flight"
            text = f"a request of {size_bytes} bytes does not fit: {held}"
        return ResourceExhausted(text, retry_after_ms=after_ms)

    def give(self, size_bytes: int) -> None:
        """Gives back the permit of one `take`."""
        self._requests -= 1
        self._bytes -= size_bytes

    def close(self, why: str) -> None:
        """Hands out no further permit until `open`; callers are told why, and may try again."""
        self._closed = why

    def open(self) -> None:
        """Hands out permits again."""
        self._closed = ""

    def drain(self) -> None:
        """Hands out no further permit."""
        self.close("the server is stopping and takes no new inference requests")

    @property
    def is_open(self) -> bool:
        """Whether permits are handed out, as far as the limits go."""
        return not self._closed

    @property
    def requests(self) -> int:
        """Requests in flight."""
        return self._requests

    @property
    def bytes(self) -> int:
        """Bytes of request messages in flight."""
        return self._bytes

    @property
    def load(self) -> float:
        """Returns the share in use of the limit that is nearer; 1 while it is closed."""
        if self._closed:
            return 1.0
        return max(self._requests / self._max_requests, self._bytes / self._max_bytes)
