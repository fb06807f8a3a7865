"""What a worker counts of the look-ups of one feature view."""

from collections.abc import Mapping, Sequence

from gateway.features.feature_view import FeatureStatus
from gateway.features.row_cache import RowCache


class LookUpCounts:
    """Plain integers. Rows: `fetched` from the store, `cached`, or `shared` with a call that asked for them already."""

    def __init__(self) -> None:
        self.fetched = 0
        self.cached = 0
        self.shared = 0
        self.defaults = 0
        self.caches: list[RowCache] = []  # of the versions that are loaded
        self._statuses = [0] * len(FeatureStatus)

    def observe(self, statuses: Sequence[bytes], features: int) -> None:
        """Counts the values of rows that were looked up, by their statuses."""
        for status in statuses:
            if any(status):
                for number in status:
                    self._statuses[number] += 1
            else:
                self._statuses[0] += features

    @property
    def cache_bytes(self) -> int:
        """Returns the bytes of all rows that are kept."""
        return sum(cache.size_bytes for cache in self.caches)

    def snapshot(self) -> Mapping[str, object]:
        """Returns what is counted, as a tree of integers."""
        return {
            "rows": {"fetched": self.fetched, "cached": self.cached, "shared": self.shared},
            "values": {status.name.lower(): self._statuses[status] for status in FeatureStatus},
            "defaults": self.defaults,
        }
