"""The keys that an arm has had, counted exactly on a hash sample: every so-manieth bucket, which a hash has chosen."""

import base64
import zlib
from typing import Final

from gateway.routing.document.bucket import BUCKETS, SAMPLED_BUCKET

_BYTES: Final = (BUCKETS // SAMPLED_BUCKET + 7) // 8


class KeySample:
    """One bit for each bucket of the sample; it only grows."""

    __slots__ = ("_bits", "_changed", "_text")

    def __init__(self) -> None:
        self._bits = bytearray(_BYTES)
        self._text = ""
        self._changed = False

    def add(self, bucket: int) -> None:
        """Notes the key of a request; -1, or one outside the sample, changes nothing."""
        if bucket < 0 or bucket % SAMPLED_BUCKET:
            return
        place = bucket // SAMPLED_BUCKET
        bit = 1 << (place & 7)
        if not self._bits[place >> 3] & bit:
            self._bits[place >> 3] |= bit
            self._changed = True

    def text(self) -> str:
        """Returns the bits, compressed and as text, "" without a key: what `rollout.split_watch` adds up."""
        if self._changed:
            self._text = base64.b64encode(zlib.compress(bytes(self._bits), 1)).decode()
            self._changed = False
        return self._text
