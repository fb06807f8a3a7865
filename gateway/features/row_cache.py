"""The rows that a worker keeps of one feature view, those that are missing among them."""

from collections import OrderedDict
from typing import Final

from gateway.features.feature_row import FeatureRow

_ENTRY_BYTES: Final = 150  # of the places that an entry takes in the table, about


class RowCache:
    """Keeps rows for `keep_s`, and no more than `max_bytes` of them: those that were asked for last.

    Units: `now_s` on one monotonic clock.
    """

    __slots__ = ("_keep_s", "_kept", "_max_bytes", "size_bytes")

    def __init__(self, *, keep_s: float, max_bytes: int) -> None:
        self._keep_s = keep_s
        self._max_bytes = max_bytes
        self._kept: OrderedDict[bytes, tuple[FeatureRow, float]] = OrderedDict()
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, key: bytes, now_s: float) -> FeatureRow | None:
        """Returns the row that was kept under the key; None where there is none, or not any more."""
        kept = self._kept.get(key)
        if kept is None:
            return None
        row, until_s = kept
        if now_s >= until_s:
            self._drop(key)
            return None
        self._kept.move_to_end(key)
        return row

    def keep(self, key: bytes, row: FeatureRow, now_s: float) -> None:
        """Keeps the row, unless it is larger than all that may be kept."""
        if key in self._kept:
            self._drop(key)
        size = _size(key, row)
        if not self._keep_s or size > self._max_bytes:
            return
        while self.size_bytes + size > self._max_bytes:
            self._drop(next(iter(self._kept)))
        self._kept[key] = (row, now_s + self._keep_s)
        self.size_bytes += size

    def clear(self) -> None:
        self._kept.clear()
        self.size_bytes = 0

    def _drop(self, key: bytes) -> None:
        row, _ = self._kept.pop(key)
        self.size_bytes -= _size(key, row)


def _size(key: bytes, row: FeatureRow) -> int:
    return _ENTRY_BYTES + len(key) + row.size_bytes
