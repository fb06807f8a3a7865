"""Admission: how many requests, and how many bytes of them, a worker holds at once."""

from collections.abc import Callable, Sequence
from random import random
from typing import Final

from gateway.backoff import retry_after_ms
from gateway.errors import ResourceExhausted, Unavailable

_MOST_CLASSES: Final = 4


class Admission:
    """Permits by count and by bytes; what is over either is refused at once, before it is parsed.

    The byte budget is the real bound of a worker's memory: messages are large, connections and streams are many. While
    most of either limit is in use, only calls of the higher priority classes are admitted (`ladder`: the share of the
    limits up to which each class is, the highest first).

    Answers that clients have not read count as bytes too: who does not read leaves less room for requests.
    """

    __slots__ = (
        "_bytes",
        "_classes",
        "_closed",
        "_draw",
        "_max_bytes",
        "_max_requests",
        "_requests",
        "_unread",
        "refused",
        "shed",
    )

    def __init__(
        self,
        *,
        max_requests: int,
        max_bytes: int,
        ladder: Sequence[float] = (1.0,),
        draw: Callable[[], float] = random,
    ) -> None:
        # A class below the last step has that step's share.
        shares = [*ladder, *[ladder[-1]] * (_MOST_CLASSES - len(ladder))]
        self._max_requests = [max(1, int(max_requests * share)) for share in shares]
        self._max_bytes = [int(max_bytes * share) for share in shares]
        self._classes = len(ladder)
        self._requests = 0
        self._bytes = 0  # of requests, and of answers that are not read
        self._unread = 0  # of answers alone
        self._closed = ""  # why nothing is admitted
        self._draw = draw
        self.refused = 0
        self.shed = [0] * _MOST_CLASSES  # refused by their class's limits

    def take(self, size_bytes: int, level: int = 0) -> None:
        """Takes a permit for a call of that class; it is given back with the same size.

        Raises: ResourceExhausted (a limit is reached), Unavailable (it is closed, such as while the worker drains).
        """
        if (
            self._requests >= self._max_requests[level]
            or self._bytes + size_bytes > self._max_bytes[level]
            or self._closed
        ):
            self.check(size_bytes, level)
        self._requests += 1
        self._bytes += size_bytes

    def check(self, size_bytes: int, level: int = 0) -> None:
        """Counts and raises what `take` would raise; takes nothing."""
        most_requests, most_bytes = self._max_requests[level], self._max_bytes[level]
        if self._closed:
            self.refused += 1
            raise Unavailable(self._closed)
        after_ms = retry_after_ms(self._draw())
        whose = f" for its class ({level + 1} of {self._classes})" if self._classes > 1 else ""
        if self._requests >= most_requests:
            text = f"{self._requests} requests are in flight, the limit is {most_requests}{whose}"
        elif size_bytes > most_bytes:
            text, after_ms = f"a request of {size_bytes} bytes never fits, the limit is {most_bytes}{whose}", -1
        elif self._bytes + size_bytes > most_bytes:
            held = f"{self._bytes} of {most_bytes} bytes are in flight{whose}"
            if self._unread:
                held += f", {self._unread} of them in answers that clients have not read"
            text = f"a request of {size_bytes} bytes does not fit: {held}"
        else:
            return
        self.refused += 1
        self.shed[level] += 1
        raise ResourceExhausted(text, retry_after_ms=after_ms)

    def give(self, size_bytes: int) -> None:
        """Gives back the permit of one `take`."""
        self._requests -= 1
        self._bytes -= size_bytes

    def count_unread(self, change_bytes: int) -> None:
        """Counts answers that clients have not read: so many bytes more, or fewer where it is negative."""
        self._unread += change_bytes
        self._bytes += change_bytes

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
        """Returns whether permits are handed out, as far as the limits go."""
        return not self._closed

    @property
    def requests(self) -> int:
        """Requests in flight."""
        return self._requests

    @property
    def bytes(self) -> int:
        """Bytes of request messages in flight, and of answers that are not read."""
        return self._bytes

    @property
    def unread(self) -> int:
        """Bytes of answers that clients have not read."""
        return self._unread

    @property
    def load(self) -> float:
        """Returns the share in use of the limit that is nearer; 1 while it is closed."""
        if self._closed:
            return 1.0
        return max(self._requests / self._max_requests[0], self._bytes / self._max_bytes[0])
