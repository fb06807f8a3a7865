"""The compactor: sealed segments of the prediction log become Parquet files, one step after the other.

    read -> tables -> Parquet in _tmp -> fsync -> rename -> manifest line -> unlink the segment

Whatever step it is killed at, doing the segment again gives the same files under the same names, and the segment is
only deleted when files and manifest line are durable: no row is lost, none is there twice.
"""

import fcntl
import json
import os
import select
import shutil
import signal
import stat
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import monotonic, time
from typing import Any
from urllib.parse import quote

from gateway.records import parquet
from gateway.records.manifest import Manifest
from gateway.records.quarantine import Quarantine
from gateway.records.reading import DECODE_ERRORS, SegmentContent, read
from gateway.records.retention import RetentionLimits, expired, lake_files, plain_files, remove
from gateway.records.segment import NEW, OPEN, SEALED, SUSPECT, Entry, Segment, adopt, entries

_STALE_NEW_S = 60.0
_REPORTS = 3  # the descriptor that a supervisor reads


@dataclass(frozen=True, slots=True)
class CompactorConfig:
    """What the compactor is told; the supervisor writes it as one JSON object on one line.

    Raises: ValueError, TypeError (naming field and value).
    """

    log_directory: str
    lake_directory: str
    interval_s: float = 1.0
    retention_interval_s: float = 60.0
    retention: RetentionLimits = field(default_factory=RetentionLimits)

    def __post_init__(self) -> None:
        for name in ("interval_s", "retention_interval_s"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not value > 0:
                raise ValueError(f"{name} is {value!r}, expected seconds above 0")

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> "CompactorConfig":
        document = json.loads(text)
        if not isinstance(document, dict):
            raise ValueError(f"configuration is {document!r}, expected an object")
        retention = RetentionLimits(**document.pop("retention", {}))
        return cls(**document, retention=retention)


@dataclass(slots=True)
class CompactorCounts:
    """What was done since the start."""

    segments: int = 0
    records: int = 0
    rows: int = 0
    adopted: int = 0
    torn_bytes: int = 0
    expired_files: int = 0
    lost_segments: int = 0  # deleted unread, because Parquet could not be written for too long
    pending_segments: int = 0
    pending_bytes: int = 0
    failures: int = 0
    error: str = ""
    quarantined: dict[str, int] = field(default_factory=dict)


class Compactor:
    """Turns what `log_directory` holds into files of `lake_directory`. One per lake at a time."""

    def __init__(self, config: CompactorConfig, *, clock: Callable[[], float] = time) -> None:
        self._config = config
        self._log = Path(config.log_directory)
        self._lake = Path(config.lake_directory)
        self._clock = clock
        self._manifest = Manifest(self._lake)
        self._quarantine = Quarantine(self._log, clock)
        self._done: set[str] | None = None
        self._retained_at = 0.0
        self.counts = CompactorCounts(quarantined=self._quarantine.counts)

    def step(self, progress: Callable[[], None] = lambda: None) -> int:
        """Compacts every segment that is sealed now, after adopting those of dead writers; how many there were.

        A disk that refuses is counted, and the segment is tried again in the next step. `progress` is called between
        the parts of the work.
        """
        finished = 0
        waiting = sorted(self._sealed(), key=lambda entry: entry.segment or _NOBODY)
        self.counts.pending_segments = len(waiting)
        self.counts.pending_bytes = sum(entry.size_bytes for entry in waiting)
        for entry in waiting:
            try:
                for _ in self.compact(entry):
                    progress()
                finished += 1
                self.counts.error = ""
                self.counts.pending_segments -= 1
                self.counts.pending_bytes -= entry.size_bytes
            except OSError as error:
                self.counts.failures += 1
                self.counts.error = str(error)
        self._retain()
        return finished

    def compact(self, entry: Entry) -> Iterator[str]:
        """Compacts one segment; yields the name of each part of the work when it is done.

        Raises: OSError (the disk; nothing is lost, do it again).
        """
        segment = entry.segment
        assert segment is not None
        self._prepare()
        if self._is_done(segment):
            self._discard(entry)
            yield "discarded"
            return
        content = read(entry.path.read_bytes(), segment)
        yield "read"
        if content.header is None and not content.blocks:
            self._quarantine.move(entry.path, "empty" if entry.size_bytes == 0 else "unreadable")
            yield "quarantined"
            return
        try:
            tables = self._tables(content, segment)
        except DECODE_ERRORS as error:
            self._quarantine.move(entry.path, f"content: {type(error).__name__}: {error}")
            yield "quarantined"
            return
        published = []
        for folder, name, rows in tables:
            for partition, part in parquet.split_by_hour(rows):
                published.append(parquet.publish(part, self._lake, f"{folder}/{partition}", name))
                yield "published"
        self._keep_damage(entry, content)
        self._record(segment, content, published, suspect=entry.suffix == SUSPECT)
        yield "recorded"
        self._discard(entry)
        yield "discarded"

    def _sealed(self) -> Iterator[Entry]:
        """The segments to compact. On the way, orphans are adopted and what does not belong is put aside."""
        self._prepare()
        for entry in entries(self._log):
            segment = entry.segment
            if segment is None:
                self._quarantine.move(entry.path, "alien")
            elif entry.suffix in (SEALED, SUSPECT):
                yield entry
            elif entry.suffix == OPEN:
                if adopt(self._log, segment):
                    self.counts.adopted += 1
                    sealed = segment.path(self._log, SEALED)
                    yield Entry(sealed, segment, SEALED, entry.size_bytes, entry.modified_s)
            elif entry.suffix == NEW and self._clock() - entry.modified_s > _STALE_NEW_S:
                adopt(self._log, segment, NEW)

    def _prepare(self) -> None:
        """Once: forgets half-written files, and reads which segments are done."""
        if self._done is not None:
            return
        shutil.rmtree(self._lake / "_tmp", ignore_errors=True)
        self._done = {str(entry.get("segment")) for entry in self._manifest.entries(days=2)}

    def _is_done(self, segment: Segment) -> bool:
        return self._done is not None and _identity(segment) in self._done

    def _tables(self, content: SegmentContent, segment: Segment) -> list[tuple[str, str, Any]]:
        """Folder, file name and rows for each version in the segment. The name follows from the segment alone."""
        groups = defaultdict(list)
        for block in content.blocks:
            schema = block.schema
            groups[schema.model, schema.version, schema.shape_hash].append(parquet.table(block, segment))
        base = f"{segment.gateway}-{segment.worker}-{segment.boot}-{segment.seq}-{segment.seq}"
        return [
            (_folder(model, version), f"{base}-{shape}.parquet", parquet.join(made))
            for (model, version, shape), made in groups.items()
        ]

    def _keep_damage(self, entry: Entry, content: SegmentContent) -> None:
        self.counts.torn_bytes += content.torn_bytes
        if not content.damages:
            return
        data = entry.path.read_bytes()
        for damage, reason in content.damages:
            name = f"{entry.path.parent.name}__{entry.path.stem}.{damage.offset}.frame"
            self._quarantine.keep(name, data[damage.offset : damage.offset + damage.length], reason)

    def _record(
        self, segment: Segment, content: SegmentContent, published: list[parquet.Published], *, suspect: bool
    ) -> None:
        records = sum(len(block.table) for block in content.blocks)
        rows = sum(file.rows for file in published)
        self._manifest.append(
            {
                "segment": _identity(segment),
                "records": records,
                "rows": rows,
                "files": [asdict(file) for file in published],
                "damaged": [[damage.offset, damage.length, reason] for damage, reason in content.damages],
                "torn_bytes": content.torn_bytes,
                "suspect": suspect,
                "counts": content.seal,
                "at_s": self._clock(),
            },
            now_s=self._clock(),
        )
        assert self._done is not None
        self._done.add(_identity(segment))
        self.counts.segments += 1
        self.counts.records += records
        self.counts.rows += rows

    def _discard(self, entry: Entry) -> None:
        if entry.suffix == SUSPECT:
            self._quarantine.move(entry.path, "suspect")
        else:
            entry.path.unlink(missing_ok=True)
            if self._done is not None and entry.segment is not None:
                self._done.discard(_identity(entry.segment))

    def _retain(self) -> None:
        now = self._clock()
        if 0 <= now - self._retained_at < self._config.retention_interval_s:
            return
        self._retained_at = now
        limits = self._config.retention
        old = expired(lake_files(self._lake), now_s=now, max_age_s=limits.max_age_s, max_bytes=limits.max_bytes)
        self.counts.expired_files += remove(old, up_to=self._lake)
        failed = list(plain_files(self._quarantine.folder, moved=True))
        remove(
            expired(failed, now_s=now, max_age_s=limits.failed_max_age_s, max_bytes=limits.failed_max_bytes),
            up_to=self._quarantine.folder,
        )
        manifests = list(plain_files(self._lake / "_manifest"))
        old = expired(manifests, now_s=now, max_age_s=limits.max_age_s + 86400.0, max_bytes=limits.max_bytes)
        remove(old, up_to=self._lake / "_manifest")
        for gateway in self._log.iterdir() if self._log.is_dir() else ():
            if gateway != self._quarantine.folder:
                self._bound_wal(gateway, now)

    def _bound_wal(self, gateway: Path, now: float) -> None:
        sealed = [file for file in plain_files(gateway) if file.path.suffix == SEALED]
        limit = self._config.retention.wal_max_bytes
        old = expired(sealed, now_s=now, max_age_s=float("inf"), max_bytes=limit)
        self.counts.lost_segments += remove(old, up_to=gateway)


_NOBODY = Segment("", "", "", 0)


def _identity(segment: Segment) -> str:
    return f"{segment.gateway}/{segment.stem}"


def _folder(model: str, version: str) -> str:
    return f"model={quote(model, safe='')}/version={quote(version, safe='')}"


class Process:
    """The compactor as a child: configuration on standard input, reports on file descriptor 3.

    EOF on standard input or SIGTERM ends it, after the step at work and a last one, so that what the workers sealed on
    their way out is in Parquet.
    """

    def __init__(self, compactor: Compactor, interval_s: float, *, reports: bool) -> None:
        self._compactor = compactor
        self._interval_s = interval_s
        self._reports = reports
        self._beats = 0
        self._beat_at = 0.0
        self._wake_read, wake_write = os.pipe()
        os.set_blocking(wake_write, False)
        self._stopping = False
        signal.set_wakeup_fd(wake_write)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)

    def run(self) -> None:
        self._report({"ready": True})
        while not self._stopping:
            self._compactor.step(self._progress)
            self._beat()
            self._wait()
        self._compactor.step(self._progress)

    def _stop(self, _signal: int, _frame: object) -> None:
        self._stopping = True

    def _progress(self) -> None:
        if monotonic() - self._beat_at >= self._interval_s:
            self._beat()

    def _beat(self) -> None:
        self._beats += 1
        self._beat_at = monotonic()
        self._report({"beat": self._beats, "compactor": asdict(self._compactor.counts)})

    def _wait(self) -> None:
        ready, _, _ = select.select([sys.stdin, self._wake_read], [], [], self._interval_s)
        if sys.stdin in ready and not os.read(sys.stdin.fileno(), 4096):
            self._stopping = True

    def _report(self, message: dict[str, object]) -> None:
        if self._reports:
            with suppress(OSError):  # a supervisor that does not read must not stop the work
                os.write(_REPORTS, json.dumps(message).encode() + b"\n")


def _has_listener() -> bool:
    """Whether descriptor 3 is the supervisor's pipe; asked before anything else could be given that number."""
    try:
        mode = os.fstat(_REPORTS).st_mode
    except OSError:
        return False
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
        return False
    os.set_blocking(_REPORTS, False)
    return True


def main() -> int:
    """Exit codes: 0 told to stop, 2 a configuration that does not make sense, 1 another compactor has the lake."""
    reports = _has_listener()
    try:
        with open(0, "rb", buffering=0, closefd=False) as stdin:  # unbuffered: `select` watches for its end
            config = CompactorConfig.from_json(stdin.readline())
    except (ValueError, TypeError) as error:
        sys.stderr.write(f"compactor: configuration: {error}\n")
        return 2
    os.nice(10)
    parquet.limit_threads()
    lake = Path(config.lake_directory)
    lake.mkdir(parents=True, exist_ok=True)
    lock = os.open(lake / "_lock", os.O_RDWR | os.O_CREAT, 0o640)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        sys.stderr.write(f"compactor: another one works on {lake}\n")
        return 1
    Process(Compactor(config), config.interval_s, reports=reports).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
