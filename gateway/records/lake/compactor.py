"""The compactor: sealed segments of the prediction log become Parquet files, one step after the other.

    read -> parts of bounded size, each: tables -> Parquet in _tmp -> fsync -> rename -> manifest line
         -> unlink the segment

Whatever step it is killed at, doing the segment again gives the same files under the same names, and the segment is
only deleted when files and manifest line are durable: no row is lost, none is there twice.
"""

import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from mmap import ACCESS_READ, mmap
from pathlib import Path
from time import time

import msgspec

from gateway.records.lake import parquet
from gateway.records.lake.accounts import CompactorCounts
from gateway.records.lake.attempts import Attempts
from gateway.records.lake.expiry import Expiry
from gateway.records.lake.inspection import Inspection
from gateway.records.lake.lake_manifest import Manifest
from gateway.records.lake.layout import LABELS
from gateway.records.lake.leftovers import sweep
from gateway.records.lake.merging import Job, MergeLimits, Merger, pending_names
from gateway.records.lake.observer import Ledger, Observer
from gateway.records.lake.outbox import Outbox
from gateway.records.lake.quarantine import Quarantine
from gateway.records.lake.retention import RetentionLimits
from gateway.records.lake.segment_part import SegmentPart, parts
from gateway.records.worker.reading import SegmentContent, read
from gateway.records.worker.segment import NEW, OPEN, SEALED, SUSPECT, LogEntry, Segment, adopt, entries

_STALE_NEW_S = 60.0
_log = logging.getLogger(__name__)


class CompactorConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Tells what the compactor is told; the supervisor writes it as one JSON object on one line.

    `sinks` names those that are to get what is published; `published_directory` is where metrics go, "" for nowhere;
    `data_directory` has the reference profiles that drift is measured against in windows of `drift_window_s`;
    `after_death` says that the compactor before this one died, or was killed because it hung; `hurried` that the
    gateway stops, so that time is short and no request needs the CPU.
    Raises: ValueError (naming field and value).
    """

    log_directory: str
    lake_directory: str
    interval_s: float = 1.0
    retention_interval_s: float = 60.0
    retention: RetentionLimits = RetentionLimits()
    merging: MergeLimits = MergeLimits()
    sinks: tuple[str, ...] = ()
    published_directory: str = ""
    data_directory: str = ""
    drift_window_s: int = 3600
    after_death: bool = False
    hurried: bool = False
    log_level: str = "info"
    log_format: str = "text"

    def __post_init__(self) -> None:
        for name in ("interval_s", "retention_interval_s", "drift_window_s"):
            value = getattr(self, name)
            if not value > 0:
                raise ValueError(f"{name} is {value!r}, expected seconds above 0")

    def to_json(self) -> str:
        return msgspec.json.encode(self).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> "CompactorConfig":
        """Returns the settings that `to_json` wrote. Raises: ValueError (naming the field)."""
        return msgspec.json.decode(text, type=cls)


class Compactor:
    """Turns what `log_directory` holds into files of `lake_directory`. One per lake at a time."""

    def __init__(
        self,
        config: CompactorConfig,
        *,
        clock: Callable[[], float] = time,
        observers: Sequence[Observer] = (),
        ledgers: Sequence[Ledger] = (),
    ) -> None:
        self._config = config
        self._observers = tuple(observers)
        self._ledgers = tuple(ledgers)
        self._log = Path(config.log_directory)
        self._lake = Path(config.lake_directory)
        self._clock = clock
        self._outboxes = [Outbox(self._lake, name) for name in config.sinks]
        self._manifest = Manifest(self._lake)
        self._quarantine = Quarantine(self._log, clock)
        self._done: set[str] | None = None
        self._retained_at = 0.0
        self._attempts = Attempts(self._lake)
        self._merger = Merger(self._lake, self._manifest, config.merging)
        self._to_merge: list[Job] = []
        self.counts = CompactorCounts(quarantined=self._quarantine.counts)
        self._inspection = Inspection(self._lake, self._quarantine)
        self._expiry = Expiry(self._log, self._lake, config.retention, self.counts, sinks=config.sinks)

    def tend(self, *, last: bool = False) -> None:
        """Lets the observers publish and save what they have seen."""
        for observer in self._observers:
            observer.tend(self._clock(), last=last)
        for ledger in self._ledgers:
            ledger.tend(self._clock(), last=last)

    def step(self, progress: Callable[[], None] = lambda: None) -> int:
        """Compacts every segment that is sealed now, after adopting those of dead writers; how many there were.

        A disk that refuses is counted, and the segment is tried again in the next step. `progress` is called between
        the parts of the work.
        """
        finished = 0
        waiting = sorted(self._sealed(progress), key=self._turn)
        self.counts.pending_segments = len(waiting)
        self.counts.pending_bytes = sum(entry.size_bytes for entry in waiting)
        self.counts.waiting_since_s = min((entry.modified_s for entry in waiting), default=0.0)
        left: list[float] = []
        for entry in waiting:
            try:
                for _ in self.compact(entry):
                    progress()
                finished += 1
                self.counts.error = ""
                self.counts.pending_segments -= 1
                self.counts.pending_bytes -= entry.size_bytes
            except OSError as error:  # the disk's fault, not the segment's: it is tried until it succeeds
                left.append(entry.modified_s)
                self._failed(error)
                self._attempts.end(_identity(entry.segment or _NOBODY))
            except Exception as error:
                # Whatever is wrong with this one, the others go on: the second error sets it aside.
                left.append(entry.modified_s)
                self._failed(error)
                self._attempts.failed(_identity(entry.segment or _NOBODY), f"{type(error).__name__}: {error}")
                _log.exception("a segment of the prediction log was not compacted: %s", entry.path.name)
        self.counts.waiting_since_s = min(left, default=0.0)
        self._merge(progress)
        self._retain(progress)
        if finished:
            parquet.release_unused()
        return finished

    def compact(self, entry: LogEntry) -> Iterator[str]:
        """Compacts one segment; yields the name of each part of the work when it is done.

        Units:  memory is that of one part of a segment, some hundred MiB, whatever the segment holds.
        Raises: OSError (the disk; nothing is lost, do it again).
        """
        segment = entry.segment
        assert segment is not None
        self._prepare()
        identity = _identity(segment)
        if self._is_done(identity):
            self._discard(entry)
            yield "discarded"
            return
        if (reason := self._attempts.begin(identity)) is not None:
            self._quarantine.move(entry.path, reason)
            yield "quarantined"
            return
        data = _mapped(entry.path)
        content = read(data, segment)
        yield "read"
        if content.header is None and not content.rows and not content.labels:
            self._quarantine.move(entry.path, "empty" if entry.size_bytes == 0 else "unreadable")
            yield "quarantined"
            return
        for part in parts(content, segment):
            yield from self._compact_part(part, content, segment, suspect=entry.suffix == SUSPECT)
        self._keep_damage(entry, data, content)
        self._attempts.end(identity)
        self._discard(entry)
        yield "discarded"

    def _compact_part(
        self, part: SegmentPart, content: SegmentContent, segment: Segment, *, suspect: bool
    ) -> Iterator[str]:
        """Makes a part of a segment durable in the lake; one that is there already is left as it is."""
        identity = _identity(segment) if part.last else f"{_identity(segment)}.{part.number}"
        if self._is_done(identity):
            return
        published = []
        for folder, name, rows in part.files:
            published.append(parquet.publish(rows, self._lake, folder, name))
            for outbox in self._outboxes:
                outbox.put(published[-1], now_s=self._clock())
            yield "published"
        self._show(identity, part, content)
        self._record(identity, part, content, published, suspect=suspect)
        for ledger in self._ledgers:
            ledger.commit(identity)
        yield "recorded"

    def _turn(self, entry: LogEntry) -> tuple[bool, Segment]:
        """Returns the order of the work: the oldest first, and what the compactor may die of after all others."""
        segment = entry.segment or _NOBODY
        return self._attempts.suspects(_identity(segment)), segment

    def _sealed(self, progress: Callable[[], None]) -> Iterator[LogEntry]:
        """Yields the segments to compact. On the way, orphans are adopted and what does not belong is put aside."""
        self._prepare()
        for entry in entries(self._log):
            progress()  # there may be a hundred thousand that do not belong
            segment = entry.segment
            if segment is None:
                self._quarantine.move(entry.path, "alien")
            elif entry.suffix in (SEALED, SUSPECT):
                yield entry
            elif entry.suffix == OPEN:
                if adopt(self._log, segment):
                    self.counts.adopted += 1
                    sealed = segment.path(self._log, SEALED)
                    yield LogEntry(sealed, segment, SEALED, entry.size_bytes, entry.modified_s)
            elif entry.suffix == NEW and self._clock() - entry.modified_s > _STALE_NEW_S:
                adopt(self._log, segment, NEW)

    def _prepare(self) -> None:
        """Once: forgets half-written files and those that no line names, and reads which segments are done."""
        if self._done is not None:
            return
        shutil.rmtree(self._lake / "_tmp", ignore_errors=True)
        self._merger.recover()
        self._attempts.recover(after_death=self._config.after_death)
        lines = list(self._manifest.entries(days=2))
        sweep(self._lake, entries(self._log), lines)
        self._done = {str(line.get("segment")) for line in lines}

    def _is_done(self, identity: str) -> bool:
        return self._done is not None and identity in self._done

    def _show(self, identity: str, part: SegmentPart, content: SegmentContent) -> None:
        named = [
            (rows.column("model")[0].as_py(), rows.column("version")[0].as_py(), rows)
            for folder, _, rows in part.files
            if not folder.startswith(f"{LABELS}/")
        ]
        for observer in self._observers:
            for model, version, rows in named:
                observer.saw_rows(model, version, rows)
            if part.last:
                for _, labels in content.labels:
                    observer.saw_labels(labels)
        for ledger in self._ledgers:
            ledger.prepare(identity, named)

    def _keep_damage(self, entry: LogEntry, data: bytes | mmap, content: SegmentContent) -> None:
        self.counts.torn_bytes += content.torn_bytes
        for damage, reason in content.damages:
            name = f"{entry.path.parent.name}__{entry.path.stem}.{damage.offset}.frame"
            self._quarantine.keep(name, data[damage.offset : damage.offset + damage.length], reason)

    def _record(
        self,
        identity: str,
        part: SegmentPart,
        content: SegmentContent,
        published: list[parquet.Published],
        *,
        suspect: bool,
    ) -> None:
        labels = sum(len(labels) for _, labels in content.labels) if part.last else 0
        rows = sum(file.rows for file in published) - labels
        entry: dict[str, object] = {
            "segment": identity,
            "records": part.records,
            "rows": rows,
            "labels": labels,
            "files": [asdict(file) for file in published],
            "at_s": self._clock(),
        }
        if part.last:
            entry |= {
                "damaged": [[damage.offset, damage.length, reason] for damage, reason in content.damages],
                "torn_bytes": content.torn_bytes,
                "suspect": suspect,
                "counts": content.seal,
            }
        self._manifest.append(entry, now_s=self._clock())
        assert self._done is not None
        self._done.add(identity)
        self.counts.segments += part.last
        self.counts.records += part.records
        self.counts.rows += rows
        self.counts.labels += labels

    def _discard(self, entry: LogEntry) -> None:
        if entry.suffix == SUSPECT:
            self._quarantine.move(entry.path, "suspect")
        else:
            entry.path.unlink(missing_ok=True)
            if self._done is not None and entry.segment is not None:
                identity = _identity(entry.segment)
                self._done = {one for one in self._done if one != identity and not one.startswith(f"{identity}.")}

    def _merge(self, progress: Callable[[], None]) -> None:
        """One folder of small files, if one is due: segments come first."""
        if not self._to_merge:
            return
        try:
            for _ in self._merger.merge(self._to_merge.pop(0), now_s=self._clock()):
                progress()
            self.counts.merged_folders += 1
        except OSError as error:
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        self.counts.failures += 1
        self.counts.error = str(error)

    def _retain(self, progress: Callable[[], None]) -> None:
        now = self._clock()
        if 0 <= now - self._retained_at < self._config.retention_interval_s:
            return
        self._retained_at = now
        self._inspection.run(progress)
        self._expiry.run(now_s=now)
        try:
            self._to_merge = self._merger.find(pending_names(entries(self._log)), now_s=now)
        except OSError as error:
            self._failed(error)


_NOBODY = Segment("", "", "", 0)


def _identity(segment: Segment) -> str:
    return f"{segment.gateway}/{segment.stem}"


def _mapped(path: Path) -> bytes | mmap:
    """Returns the bytes of a file, which take no memory of ours. Raises: OSError."""
    with path.open("rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return b""
        return mmap(file.fileno(), 0, access=ACCESS_READ)
