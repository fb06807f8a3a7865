"""Tells what the compactor has done, in numbers: for its supervisor, and as metrics."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from gateway.telemetry import names
from gateway.telemetry.published import publish
from gateway.telemetry.sample import Sample

_PUBLISH_S = 2.0
_PART = "compactor"


@dataclass(slots=True)
class CompactorCounts:
    """Tells what was done since the start, and what waits.

    Units: `waiting_since_s`: when the oldest segment that waits was last written, since the epoch; 0: none waits.
    """

    segments: int = 0
    records: int = 0
    rows: int = 0
    labels: int = 0
    adopted: int = 0
    torn_bytes: int = 0
    expired_files: int = 0
    merged_folders: int = 0
    lost_segments: int = 0  # deleted unread, because Parquet could not be written for too long
    pending_segments: int = 0
    pending_bytes: int = 0
    waiting_since_s: float = 0.0
    failures: int = 0
    error: str = ""
    quarantined: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """Returns the counts as JSON can hold them; `asdict` would make keys of a Counter's items."""
        return {name: getattr(self, name) for name in self.__slots__} | {"quarantined": dict(self.quarantined)}

    def samples(self, now_s: float) -> Iterator[Sample]:
        """Yields the counts as metrics."""
        for stage in ("segments", "rows", "labels"):
            yield Sample(names.COMPACTED, {"what": stage}, getattr(self, stage))
        for event in ("adopted", "torn_bytes", "expired_files", "merged_folders", "lost_segments", "failures"):
            yield Sample(names.COMPACTOR_EVENTS, {"what": event}, getattr(self, event))
        for reason, count in self.quarantined.items():
            yield Sample(names.QUARANTINED, {"reason": reason}, count)
        age_s = max(0.0, now_s - self.waiting_since_s) if self.waiting_since_s else 0.0
        yield Sample(names.OLDEST_SEALED, {}, age_s)
        yield Sample(names.PENDING_BYTES, {}, self.pending_bytes)


class Accounts:
    """Publishes the counts of a compactor."""

    def __init__(self, counts: CompactorCounts, published: Path | None) -> None:
        self._counts = counts
        self._published = published
        self._published_at = 0.0

    def tend(self, now_s: float, *, last: bool = False) -> None:
        """Called after each step."""
        if self._published is None or (not last and 0 <= now_s - self._published_at < _PUBLISH_S):
            return
        self._published_at = now_s
        with suppress(OSError):  # the next time is soon
            publish(self._published, _PART, self._counts.samples(now_s), now_s=now_s)
