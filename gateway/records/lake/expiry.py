"""Tells what the compactor deletes because it is old, or because there is too much of it."""

from pathlib import Path

from gateway.records.lake.accounts import CompactorCounts
from gateway.records.lake.outbox import Outbox
from gateway.records.lake.retention import RetentionLimits, expired, lake_files, regular_files, remove
from gateway.records.worker.label import FEEDBACK_SUFFIX
from gateway.records.worker.segment import FAILED, SEALED

_DAY_S = 86400.0


class Expiry:
    """Deletes files of the lake, of the manifest, of the quarantine, of outboxes without a sink, and of the log itself.

    What it does is counted in `counts`.
    """

    def __init__(
        self, log: Path, lake: Path, limits: RetentionLimits, counts: CompactorCounts, *, sinks: tuple[str, ...]
    ) -> None:
        self._log = log
        self._lake = lake
        self._limits = limits
        self._counts = counts
        self._sinks = sinks

    def run(self, *, now_s: float) -> None:
        """Brings everything below its bounds."""
        limits = self._limits
        old = expired(lake_files(self._lake), now_s=now_s, max_age_s=limits.max_age_s, max_bytes=limits.max_bytes)
        self._counts.expired_files += remove(old, up_to=self._lake)
        failed = self._log / FAILED
        old = expired(
            list(regular_files(failed, moved=True)),
            now_s=now_s,
            max_age_s=limits.failed_max_age_s,
            max_bytes=limits.failed_max_bytes,
        )
        remove(old, up_to=failed)
        manifests = list(regular_files(self._lake / "_manifest"))
        old = expired(manifests, now_s=now_s, max_age_s=limits.max_age_s + _DAY_S, max_bytes=limits.max_bytes)
        remove(old, up_to=self._lake / "_manifest")
        for abandoned in Outbox.others(self._lake, self._sinks):
            abandoned.expire(now_s=now_s)
        for gateway in self._log.iterdir() if self._log.is_dir() else ():
            if gateway != failed:
                self._bound_segments(gateway, now_s)

    def _bound_segments(self, gateway: Path, now_s: float) -> None:
        # Labels were promised to be kept, and are few.
        rows = (file for file in regular_files(gateway) if f"{FEEDBACK_SUFFIX}-" not in file.path.name)
        sealed = [file for file in rows if file.path.suffix == SEALED]
        old = expired(sealed, now_s=now_s, max_age_s=float("inf"), max_bytes=self._limits.wal_max_bytes)
        self._counts.lost_segments += remove(old, up_to=gateway)
