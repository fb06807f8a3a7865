"""The files of a version directory, links inside the boundary followed (`loaders.boundary`).

1. Only regular files are content. Their kind is judged by fstat of the open descriptor, not by name.
2. A regular file with more than one hard link may be another name of a file outside: refused unless allowed.
3. A directory that is linked into itself ends the walk.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from loaders.boundary import Boundary, Location
from loaders.errors import LoaderError, SourceChanged, SourceNotFound, SourceTooLarge, SourceUnreadable, UnsafeSource
from loaders.manifest import check_part

_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}


@dataclass(frozen=True, slots=True)
class TreeLimits:
    """Limits of a version's files. Units: bytes of all files together; `max_depth` in directories."""

    max_files: int = 4096
    max_bytes: int = 64 << 30
    max_depth: int = 4
    allow_hard_links: bool = False


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file as the walk saw it; `stamp` changes when the file is written to or replaced."""

    name: str
    size: int
    stamp: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a directory. Of a link, `status` and `location` are those of what it leads to."""

    name: str
    status: os.stat_result
    location: Location

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.status.st_mode)


def entries(boundary: Boundary, directory: Location, shown: str, refused: dict[str, str]) -> list[Entry]:
    """Returns the entries of a directory, sorted by name, but for those whose name begins with a dot.

    A link that must not or cannot be followed goes into `refused`, with the reason.

    Raises: SourceNotFound, SourceUnreadable, SourceChanged.
    """
    with boundary.opened(directory, shown, directory=True) as descriptor:
        try:
            names = sorted(name for name in os.listdir(descriptor) if not name.startswith("."))
        except OSError as error:
            raise SourceUnreadable(f"{shown} cannot be listed: {error.strerror}") from error
        present = []
        for name in names:
            try:
                status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            except FileNotFoundError:
                continue  # it went away meanwhile
            present.append((name, status))
    listed = []
    for name, status in present:
        location = directory.below(name)
        if stat.S_ISLNK(status.st_mode):
            try:
                location = boundary.resolve(directory, (name,))
                status = boundary.status(location, ascii(name))
            except LoaderError as error:
                refused[name] = str(error)
                continue
        listed.append(Entry(name, status, location))
    return listed


def walk(boundary: Boundary, directory: Location, limits: TreeLimits) -> list[SourceFile]:
    """Returns all files below `directory`, sorted by name; entries whose name begins with a dot are passed over.

    Raises: UnsafeSource, SourceTooLarge, SourceUnreadable.
    """
    files: list[SourceFile] = []
    total = 0
    for name, status in _below(boundary, directory, limits):
        check_kind(name, status, limits)
        total += status.st_size
        files.append(SourceFile(name, status.st_size, stamp_of(status)))
        if total > limits.max_bytes:
            raise SourceTooLarge(f"the version has more than {limits.max_bytes} bytes")
    return sorted(files, key=lambda file: file.name)


def stamps(boundary: Boundary, directory: Location, limits: TreeLimits) -> list[tuple[str, object]]:
    """Returns name and stamp of every entry below `directory`; of those that `walk` refuses, the reason."""
    seen: list[tuple[str, object]] = []
    try:
        for name, status in _below(boundary, directory, limits, told=seen):
            seen.append((name, stamp_of(status)))
    except (UnsafeSource, SourceTooLarge) as error:
        seen.append(("", str(error)))
    return sorted(seen, key=repr)


@contextmanager
def opened_file(boundary: Boundary, directory: Location, file: SourceFile, limits: TreeLimits) -> Iterator[int]:
    """Yields the descriptor of a file; checks on opening and after reading that it is still the one that `walk` saw.

    Raises: SourceChanged, UnsafeSource, SourceUnreadable.
    """
    try:
        location = boundary.resolve(directory, file.name.split("/"))
    except SourceNotFound as error:
        raise SourceChanged(str(error)) from None
    with boundary.opened(location, repr(file.name)) as descriptor:
        status = os.fstat(descriptor)
        check_kind(file.name, status, limits)
        _check_unchanged(file, status)
        yield descriptor
        _check_unchanged(file, os.fstat(descriptor))


def check_kind(name: str, status: os.stat_result, limits: TreeLimits) -> None:
    """Checks that a file may be read: a regular one, and no other name of a file outside. Raises: UnsafeSource."""
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "not a regular file")
        raise UnsafeSource(f"{name!r} is {kind}: refused, only regular files are served")
    if status.st_nlink > 1 and not limits.allow_hard_links:
        raise UnsafeSource(
            f"{name!r} has {status.st_nlink} hard links, so it may be another name of a file outside the repository: "
            f"refused; replace it by a copy"
        )


def stamp_of(status: os.stat_result) -> tuple[int, ...]:
    """Returns what changes when a file is written to or replaced.

    Unlike the modification time the change time cannot be set back; with the inode it also shows a replaced file.
    """
    return (status.st_mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev)


def _below(
    boundary: Boundary, top: Location, limits: TreeLimits, *, told: list[tuple[str, object]] | None = None
) -> Iterator[tuple[str, os.stat_result]]:
    """Yields everything below `top` that is no directory. What is refused ends the walk, or is `told` if possible."""
    pending = [("", top, frozenset({top}))]
    count = 0
    while pending:
        prefix, directory, above = pending.pop()
        refused: dict[str, str] = {}
        listed = entries(boundary, directory, ascii(prefix[:-1]) if prefix else "the version directory", refused)
        for name, reason in refused.items():
            if told is None:
                raise UnsafeSource(reason)
            told.append((prefix + name, reason))
        for entry in listed:
            count += 1
            if count > limits.max_files:
                raise SourceTooLarge(f"the version has more than {limits.max_files} files")
            if told is None:
                check_part(entry.name)
            name = prefix + entry.name
            if not entry.is_directory:
                yield name, entry.status
            elif entry.location in above:
                raise UnsafeSource(f"{name!a} is a symbolic link to a directory that holds it: refused")
            elif len(above) >= limits.max_depth:
                raise SourceTooLarge(f"{name!a} lies too deep: directories may be nested to the limit of the loader")
            else:
                pending.append((f"{name}/", entry.location, above | {entry.location}))


def _check_unchanged(file: SourceFile, status: os.stat_result) -> None:
    if stamp_of(status) != file.stamp:
        raise SourceChanged(f"{file.name!r} was changed while it was copied")
