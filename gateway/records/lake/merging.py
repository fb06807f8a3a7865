"""The many small files of a past hour become few, the hour's folder being replaced as a whole.

    merged files, and links to those that stay, in _merge/folder/new -> plan -> manifest line
    -> the folder moves to _merge/folder/old -> new moves to its place -> old is deleted

A reader that lists the lake sees every row once; between the two moves it does not see the hour. While a reader holds
the lake (`lake_lock`) nothing is replaced: the work is thrown away, and done again later. Killed before the plan is
durable, it is thrown away too; killed later, it is carried on before anything else is written to the lake.
"""

import os
import re
import shutil
from collections import defaultdict
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import msgspec

from gateway.records.lake import parquet_merge
from gateway.records.lake.damaged_parquet import DamagedParquet
from gateway.records.lake.lake_lock import alone, prepare
from gateway.records.lake.lake_manifest import Manifest
from gateway.records.lake.retention import StoredFile, lake_files
from gateway.records.worker.segment import LogEntry, sync_directory

_STAGE = "_merge"
_PLAN = "plan.json"
_LABELS = "labels"
_PART = re.compile(r"\.\d+$")  # of a segment that became several files of one kind


class MergeLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Files below `small_bytes` are merged up to about `target_bytes`, `quiet_s` after the end of their hour or, with
    labels, of their day; two of a kind are enough."""

    small_bytes: int = 64 << 20
    target_bytes: int = 256 << 20
    quiet_s: float = 900.0


@dataclass(frozen=True, slots=True)
class Job:
    """One folder of the lake, and the runs of its files that become one file each: what columns, and their names."""

    folder: str
    runs: tuple[tuple[str, tuple[str, ...]], ...]


class _Plan(msgspec.Struct, frozen=True):
    """A replacement that will be carried out: the folder, its files before, and which file is merged of which."""

    folder: str
    before: Sequence[str]
    merged: Mapping[str, Sequence[str]]


def jobs(
    files: Iterable[StoredFile], lake: Path, pending: Collection[str], now_s: float, limits: MergeLimits
) -> list[Job]:
    """Returns what is to be merged now, the oldest first.

    `pending` are the names, without what follows the segment, of files that could be written once more: they stay.
    """
    folders: dict[Path, list[StoredFile]] = defaultdict(list)
    for file in sorted(files):
        if now_s - file.until_s > limits.quiet_s and file.size_bytes < limits.small_bytes:
            folders[file.path.parent].append(file)
    planned = []
    for folder, own in folders.items():
        kinds: dict[str, list[StoredFile]] = defaultdict(list)
        for file in own:
            if segment_of(file.path) not in pending:
                kinds[_split(file.path.name, labels="hour=" not in folder.name)[1]].append(file)
        runs = tuple((kind, run) for kind in sorted(kinds) for run in _runs(kinds[kind], limits.target_bytes))
        if runs:
            planned.append(Job(folder.relative_to(lake).as_posix(), runs))
    return planned


def pending_names(entries: Iterable[LogEntry]) -> set[str]:
    """Returns the beginnings of the names of files that segments which still exist may be written to."""
    segments = (entry.segment for entry in entries if entry.segment is not None)
    return {f"{one.gateway}-{one.worker}-{one.boot}-{one.seq}-{one.seq}" for one in segments}


def segment_of(path: Path) -> str:
    """Returns what the name of a file of the lake says of its segment: one of `pending_names` while that exists."""
    return _split(path.name, labels="hour=" not in path.parent.name)[0]


class Merger:
    """Merges folders of one lake; used by the compactor alone, which is the only one to write there."""

    def __init__(self, lake: Path, manifest: Manifest, limits: MergeLimits) -> None:
        self._lake = lake
        self._manifest = manifest
        self._limits = limits
        self._left: set[str] = set()  # folders with a file that cannot be read: not tried again

    def find(self, pending: Collection[str], *, now_s: float) -> list[Job]:
        """Returns what there is to do now. Raises: OSError."""
        self.recover()
        planned = jobs(lake_files(self._lake), self._lake, pending, now_s, self._limits)
        return [job for job in planned if job.folder not in self._left]

    def merge(self, job: Job, *, now_s: float) -> Generator[str, None, None]:
        """Carries out a job; yields the name of each part of the work when it is done.

        Raises: OSError (the disk; the folder is as it was, or as it is to be).
        """
        self.recover()
        stage = self._lake / _STAGE / sha256(job.folder.encode()).hexdigest()[:16]
        folder, new = self._lake / job.folder, stage / "new"
        new.mkdir(parents=True)
        try:
            merged = {}
            for kind, names in job.runs:
                paths = parquet_merge.alike([folder / name for name in names])
                if len(paths) > 1:
                    merged[_write(paths, new, kind)] = [path.name for path in paths]
                    yield "merged"
        except DamagedParquet:
            self._left.add(job.folder)
            merged = {}
        except OSError:
            shutil.rmtree(stage, ignore_errors=True)
            raise
        if not merged:
            shutil.rmtree(stage, ignore_errors=True)
            return
        yield from self._replace(job.folder, stage, merged, now_s=now_s)

    def _replace(self, folder: str, stage: Path, merged: Mapping[str, Sequence[str]], *, now_s: float) -> Iterator[str]:
        gone = {name for names in merged.values() for name in names}
        before = sorted(os.listdir(self._lake / folder))
        for name in before:
            if name not in gone:
                os.link(self._lake / folder / name, stage / "new" / name)
        sync_directory(stage / "new")
        yield "linked"
        with alone(self._lake) as free:
            if free:
                yield from self._carry_out(folder, stage, before, merged, now_s=now_s)
        shutil.rmtree(stage)

    def _carry_out(
        self, folder: str, stage: Path, before: Sequence[str], merged: Mapping[str, Sequence[str]], *, now_s: float
    ) -> Iterator[str]:
        temporary = stage / f"{_PLAN}.new"
        with temporary.open("wb") as file:
            file.write(msgspec.json.encode(_Plan(folder, before, merged)))
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(stage / _PLAN)
        sync_directory(stage)
        yield "planned"
        self._manifest.append({"folder": folder, "merged": merged, "at_s": now_s}, now_s=now_s)
        yield "recorded"
        for _ in self._swap(folder, stage):
            yield "moved"

    def _swap(self, folder: str, stage: Path) -> Iterator[None]:
        place = self._lake / folder
        if not (stage / "old").exists():
            place.rename(stage / "old")
            yield
        if place.is_dir():  # the second move failed, and late files came since
            for path in sorted((stage / "new").iterdir()):
                path.rename(place / path.name)
            sync_directory(place)
            (stage / "new").rmdir()
        else:
            (stage / "new").rename(place)
        sync_directory(place.parent)
        yield

    def recover(self) -> None:
        """Returns what a kill or a disk that refused interrupted is undone, or carried on where it was planned.

        Order: before anything is written to the lake. Raises: OSError.
        """
        if self._lake.is_dir():
            prepare(self._lake)
        stages = self._lake / _STAGE
        for stage in sorted(stages.iterdir()) if stages.is_dir() else ():
            try:
                plan = msgspec.json.decode((stage / _PLAN).read_bytes(), type=_Plan)
            except (OSError, ValueError):
                plan = None
            if plan is not None and (stage / "new").is_dir():
                moved = (stage / "old").is_dir()
                if moved or sorted(os.listdir(self._lake / plan.folder)) == plan.before:
                    for _ in self._swap(plan.folder, stage):
                        pass
            shutil.rmtree(stage, ignore_errors=True)


def _write(paths: Sequence[Path], folder: Path, kind: str) -> str:
    """Returns the name of the file that now holds the rows of all. It follows from theirs."""
    names = [path.name for path in paths]
    name = f"merged-{sha256(msgspec.json.encode(names)).hexdigest()[:16]}-{kind}.parquet"
    expected = sum(map(parquet_merge.count, paths))
    rows = parquet_merge.merge(paths, folder / name)
    if rows != expected:
        raise OSError(f"merging {names} gave {rows} rows of {expected}")
    return name


def _split(name: str, *, labels: bool) -> tuple[str, str]:
    """Returns what the name says of the segment, and what of the columns."""
    stem = name.removesuffix(".parquet")
    if labels and not stem.endswith(f"-{_LABELS}"):
        return stem, _LABELS
    base, _, kind = stem.rpartition("-")
    return _PART.sub("", base), kind


def _runs(files: Sequence[StoredFile], target_bytes: int) -> Iterator[tuple[str, ...]]:
    """Runs of at least two files, each of about the target's size at most."""
    run: list[str] = []
    size = 0
    for file in sorted(files, key=lambda file: file.path.name):
        if run and size + file.size_bytes > target_bytes:
            if len(run) > 1:
                yield tuple(run)
            run, size = [], 0
        run.append(file.path.name)
        size += file.size_bytes
    if len(run) > 1:
        yield tuple(run)
