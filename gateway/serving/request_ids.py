"""Ids for requests that came without one: UUIDs of version 7, which sort by time."""

import os
from time import time_ns

from gateway.serving.call import Call

_RANDOM_BITS = (1 << 62) - 1
_VARIANT = 2 << 62


class RequestIds:
    """Gives a request that has no id a UUID that no other worker or run of this worker gives.

    The last 62 bits count from a random start, so that two of one millisecond differ, and are in order.

    Source: RFC 9562, section 5.7, and 6.2, method 1.
    """

    def __init__(self) -> None:
        self._count = int.from_bytes(os.urandom(8), "little") & _RANDOM_BITS >> 1  # far from where it would begin anew
        self._random = int.from_bytes(os.urandom(2), "little") & 0xFFF
        self._millisecond = 0
        self._head = ""

    def of(self, call: Call) -> str:
        """Returns the id under which the call is recorded and its client told: its own, or one made for it."""
        if call.request_id:
            return call.request_id
        if not call.given_id:
            millisecond = time_ns() // 1_000_000
            if millisecond > self._millisecond:  # a clock that steps back changes no order
                self._millisecond = millisecond
                self._head = f"{millisecond >> 16:08x}-{millisecond & 0xFFFF:04x}-7{self._random:03x}-"
            self._count += 1
            tail = f"{_VARIANT | self._count & _RANDOM_BITS:016x}"
            call.given_id = f"{self._head}{tail[:4]}-{tail[4:]}"
        return call.given_id
