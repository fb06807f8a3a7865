"""How long calls took, as counts in buckets that grow by 1 %: small, exact to half a percent, and the sum of its parts.

Source: HdrHistogram, whose buckets are as fine; here they are the powers of one base.
"""

from collections.abc import Iterable, Mapping
from math import ceil, log
from typing import Final

_BASE: Final = 1.01
_LOG_BASE: Final = log(_BASE)
_SMALLEST_S: Final = 1e-6


class Latencies:
    """Counts of calls by bucket. Units: seconds."""

    __slots__ = ("_counts",)

    def __init__(self, counts: Mapping[int, int] | None = None) -> None:
        self._counts: dict[int, int] = dict(counts or {})

    def add(self, seconds: float) -> None:
        bucket = round(log(seconds / _SMALLEST_S) / _LOG_BASE) if seconds > _SMALLEST_S else 0
        self._counts[bucket] = self._counts.get(bucket, 0) + 1

    def merge(self, other: "Latencies") -> None:
        """Adds the calls of another one."""
        for bucket, count in other._counts.items():
            self._counts[bucket] = self._counts.get(bucket, 0) + count

    @property
    def total(self) -> int:
        return sum(self._counts.values())

    def at(self, share: float) -> float:
        """Returns the time that this share of the calls did not exceed; infinite where there was no call."""
        wanted, within = max(1, ceil(self.total * share)), 0
        for bucket in sorted(self._counts):
            within += self._counts[bucket]
            if within >= wanted:
                return float(_SMALLEST_S * _BASE**bucket)
        return float("inf")

    @property
    def mean(self) -> float:
        """Returns the mean; infinite where there was no call."""
        total = self.total
        return sum(value * count for value, count in self.values()) / total if total else float("inf")

    def values(self) -> Iterable[tuple[float, int]]:
        """Yields (seconds, calls) of each bucket, shortest first."""
        return ((_SMALLEST_S * _BASE**bucket, self._counts[bucket]) for bucket in sorted(self._counts))

    def as_json(self) -> dict[str, int]:
        return {str(bucket): count for bucket, count in sorted(self._counts.items())}

    @classmethod
    def from_json(cls, counts: Mapping[str, int]) -> "Latencies":
        return cls({int(bucket): int(count) for bucket, count in counts.items()})


def joined(parts: Iterable[Latencies]) -> Latencies:
    """Returns the calls of all of them."""
    whole = Latencies()
    for part in parts:
        whole.merge(part)
    return whole
