"""Tells what is old or large enough to be deleted; the default bounds hold without anybody's care."""

from calendar import timegm
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from time import strptime

import msgspec

from gateway.records.lake.layout import label_paths, prediction_paths


class RetentionLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Bounds of what is kept.

    `wal_max_bytes` bounds segments that could not be turned into Parquet (a full lake); losing the oldest is counted.
    """

    max_age_s: float = 30 * 86400.0
    max_bytes: int = 64 << 30
    wal_max_bytes: int = 4 << 30
    failed_max_age_s: float = 7 * 86400.0
    failed_max_bytes: int = 1 << 30


@dataclass(frozen=True, slots=True, order=True)
class StoredFile:
    """A file by age: the end of the time that its rows are from, or when it was last written."""

    until_s: float
    path: Path
    size_bytes: int


def expired(files: Iterable[StoredFile], *, now_s: float, max_age_s: float, max_bytes: int) -> list[StoredFile]:
    """Returns the files to delete: those over the age, then the oldest until the rest fits."""
    ordered = sorted(files)
    gone = [file for file in ordered if now_s - file.until_s > max_age_s]
    kept = ordered[len(gone) :]
    excess = sum(file.size_bytes for file in kept) - max_bytes
    for file in kept:
        if excess <= 0:
            break
        gone.append(file)
        excess -= file.size_bytes
    return gone


def lake_files(lake: Path) -> Iterator[StoredFile]:
    """Yields the Parquet files of the lake, with the end of their hour (labels: of the day of their receipt).

    Nothing else below the lake.
    """
    for path, parsed in chain(prediction_paths(lake), label_paths(lake)):
        try:
            begin = timegm(strptime(f"{parsed.day} {parsed.hour or 0:02}", "%Y-%m-%d %H"))
            length_s = 86400.0 if parsed.hour is None else 3600.0
            yield StoredFile(begin + length_s, path, path.stat().st_size)
        except (ValueError, OSError):
            continue


def regular_files(folder: Path, *, moved: bool = False) -> Iterator[StoredFile]:
    """Yields the regular files directly in a folder, by when they were last written or moved there."""
    try:
        paths = sorted(folder.iterdir())
    except OSError:
        return
    for path in paths:
        try:
            if path.is_file() and not path.is_symlink():
                status = path.stat()
                yield StoredFile(status.st_ctime if moved else status.st_mtime, path, status.st_size)
        except OSError:
            continue


def remove(files: Iterable[StoredFile], *, up_to: Path) -> int:
    """Deletes the files, and the folders that became empty below `up_to`; how many files are gone."""
    count = 0
    for file in files:
        try:
            file.path.unlink()
            count += 1
            folder = file.path.parent
            while folder != up_to and up_to in folder.parents:
                folder.rmdir()
                folder = folder.parent
        except OSError:  # gone already, or a folder that still holds something
            continue
    return count
