"""Ids for requests that came without one: UUIDs of version 7, which sort by time."""

import os
from time import time_ns
from typing import Final

from gateway.serving.call import Call

_RANDOM_BITS: Final = (1 << 62) - 1
_VARIANT: Final = 2 << 62
_DIGITS: Final = "0123456789abcdef"
# The ends that the ids of one block differ in: putting a whole id into text costs ten times as much as adding its end.
_ENDS: Final = [f"{number:03x}" for number in range(4096)]


class RequestIds:
    """Gives a request that has no id a UUID that no other worker or run of this worker gives.

    The last 62 bits count from a random start, so that two of one millisecond differ, and are in order.

    Source: RFC 9562, section 5.7, and 6.2, method 1.
    """

    def __init__(self) -> None:
        # Far from where the count would begin anew.
        self._blocks = (int.from_bytes(os.urandom(8), "little") & _RANDOM_BITS >> 1) >> 12
        self._middle = f"-7{_ENDS[int.from_bytes(os.urandom(2), 'little') & 0xFFF]}-"
        self._minute = 0  # of 65 536 ms
        self._minute_text = ""
        self._millisecond = 0
        self._head = ""  # of the ids of one millisecond
        self._begin = ""  # of the ids whose counts differ in the last 12 bits
        self._begin_block()
        self._end = int.from_bytes(os.urandom(2), "little") & 0xFFF

    def of(self, call: Call) -> str:
        """Returns the id under which the call is recorded and its client told: its own, or one made for it."""
        if call.request_id:
            return call.request_id
        if not call.given_id:
            millisecond = time_ns() // 1_000_000
            if millisecond > self._millisecond:  # a clock that steps back changes no order
                self._millisecond = millisecond
                self._head = self._head_of(millisecond)
            self._end += 1
            if self._end == len(_ENDS):
                self._begin_block()
            call.given_id = self._head + self._begin + _ENDS[self._end]
        return call.given_id

    def _head_of(self, millisecond: int) -> str:
        if millisecond >> 16 != self._minute:
            self._minute = millisecond >> 16
            self._minute_text = f"{self._minute:08x}-"
        low = millisecond & 0xFFFF
        return self._minute_text + _ENDS[low >> 4] + _DIGITS[low & 0xF] + self._middle

    def _begin_block(self) -> None:
        self._end = 0
        self._blocks += 1
        text = f"{_VARIANT | (self._blocks << 12) & _RANDOM_BITS:016x}"
        self._begin = f"{text[:4]}-{text[4:13]}"
