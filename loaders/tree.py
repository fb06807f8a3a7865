"""The files of a version directory, reached by directory descriptors so that no link leads out of the repository.

1. The repository root may be anything that the operator names, a link too: it is opened once.
2. Below it every part is opened with O_NOFOLLOW from the descriptor of its parent: a symbolic link
   anywhere ends the walk.
3. Files are opened with O_NONBLOCK (a FIFO must not block) and judged by fstat of the open descriptor, not by name.
4. A regular file with more than one hard link may be another name of a file outside: refused unless allowed.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from errno import ELOOP, ENOENT, ENOTDIR

from loaders.errors import SourceChanged, SourceNotFound, SourceTooLarge, SourceUnreadable, UnsafeSource
from loaders.manifest import check_part

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

_KINDS = {
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


@contextmanager
def opened_directory(root: str, names: tuple[str, ...]) -> Iterator[int]:
    """Yields the descriptor of the directory `root`/`names`, where no name is a symbolic link.

    Raises: SourceNotFound, UnsafeSource, SourceUnreadable.
    """
    current = _open("the model repository", root, _DIRECTORY, None)
    try:
        for name in names:
            below = _open(repr(name), name, _DIRECTORY | os.O_NOFOLLOW, current)
            os.close(current)
            current = below
        yield current
    finally:
        os.close(current)


def walk(directory: int, limits: TreeLimits) -> list[SourceFile]:
    """Returns all files below `directory`, sorted by name; entries whose name begins with a dot are passed over.

    Raises: UnsafeSource, SourceTooLarge, SourceUnreadable.
    """
    files: list[SourceFile] = []
    total = 0
    for name, status in _entries(directory, "", limits.max_depth):
        _check_kind(name, status, limits)
        total += status.st_size
        files.append(SourceFile(name, status.st_size, _stamp(status)))
        if len(files) > limits.max_files:
            raise SourceTooLarge(f"the version has more than {limits.max_files} files")
        if total > limits.max_bytes:
            raise SourceTooLarge(f"the version has more than {limits.max_bytes} bytes")
    return sorted(files, key=lambda file: file.name)


def stamps(directory: int, limits: TreeLimits) -> list[tuple[str, tuple[int, ...]]]:
    """Returns name and stamp of every entry below `directory`, also of those that `walk` refuses."""
    seen: list[tuple[str, tuple[int, ...]]] = []
    for name, status in _entries(directory, "", limits.max_depth, checked=False):
        seen.append((name, _stamp(status)))
        if len(seen) > limits.max_files:
            break
    return sorted(seen)


@contextmanager
def opened_file(directory: int, file: SourceFile, limits: TreeLimits) -> Iterator[int]:
    """Yields the descriptor of a file; checks on opening and after reading that it is still the one that `walk` saw.

    Raises: SourceChanged, UnsafeSource, SourceUnreadable.
    """
    *parents, last = file.name.split("/")
    current = os.dup(directory)
    try:
        for name in parents:
            below = _open(repr(file.name), name, _DIRECTORY | os.O_NOFOLLOW, current)
            os.close(current)
            current = below
        opened = _open(repr(file.name), last, _FILE, current)
        os.close(current)
        current = opened
        status = os.fstat(current)
        _check_kind(file.name, status, limits)
        _check_unchanged(file, status)
        yield current
        _check_unchanged(file, os.fstat(current))
    finally:
        os.close(current)


def _entries(directory: int, prefix: str, depth: int, *, checked: bool = True) -> Iterator[tuple[str, os.stat_result]]:
    try:
        names = sorted(os.listdir(directory))
    except OSError as error:
        raise SourceUnreadable(f"{prefix or 'the version directory'} cannot be listed: {error.strerror}") from error
    for entry in names:
        if entry.startswith("."):
            continue
        if checked:
            check_part(entry)
        name = prefix + entry
        try:
            status = os.stat(entry, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            raise SourceChanged(f"{name!a} went away while the directory was read") from None
        if not stat.S_ISDIR(status.st_mode):
            yield name, status
        elif depth > 1:
            below = _open(ascii(name), entry, _DIRECTORY | os.O_NOFOLLOW, directory)
            try:
                yield from _entries(below, f"{name}/", depth - 1, checked=checked)
            finally:
                os.close(below)
        elif checked:
            raise SourceTooLarge(f"{name!a} lies too deep: directories may be nested to the limit of the loader")


def _open(shown: str, name: str, flags: int, parent: int | None) -> int:
    try:
        return os.open(name, flags, dir_fd=parent)
    except OSError as error:
        if error.errno == ENOENT:
            raise SourceNotFound(f"{shown} is not there") from None
        if error.errno == ELOOP or (error.errno == ENOTDIR and _is_link(name, parent)):
            raise UnsafeSource(f"{shown} is, or lies behind, a symbolic link: refused") from None
        if error.errno == ENOTDIR:
            raise SourceNotFound(f"{shown} is not a directory") from None
        raise SourceUnreadable(f"{shown} cannot be opened: {error.strerror}") from error


def _is_link(name: str, parent: int | None) -> bool:
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
    except OSError:
        return False


def _check_kind(name: str, status: os.stat_result, limits: TreeLimits) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "not a regular file")
        raise UnsafeSource(f"{name!r} is {kind}: refused, only regular files are served")
    if status.st_nlink > 1 and not limits.allow_hard_links:
        raise UnsafeSource(
            f"{name!r} has {status.st_nlink} hard links, so it may be another name of a file outside the repository: "
            f"refused; replace it by a copy, or allow hard links"
        )


def _check_unchanged(file: SourceFile, status: os.stat_result) -> None:
    if _stamp(status) != file.stamp:
        raise SourceChanged(f"{file.name!r} was changed while it was copied")


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    # Unlike the modification time the change time cannot be set back; with the inode it also shows a replaced file.
    return (status.st_mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev)
