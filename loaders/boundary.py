"""The boundary of a repository: no name and no link leads to a file outside.

1. Inside are the repository's root and the directories that the operator names for links. These paths may be links
   themselves: they are the operator's word, and are opened as they are.
2. A symbolic link is read, not followed: its target is resolved part by part from the directory that holds it, and
   ends inside, or is refused.
3. What was resolved is opened part by part with O_NOFOLLOW, each from the descriptor of its parent. A link that is put
   there meanwhile ends the opening, so no race leads outside.
"""

import os
import stat
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from errno import ELOOP, ENOENT, ENOTDIR

from loaders.errors import SourceChanged, SourceNotFound, SourceUnreadable, UnsafeSource

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC  # a FIFO must not block
_MAX_LINKS = 40  # of one name, as in Linux
_HINT = "--allow-links-to names the directories outside to which links may lead"


@dataclass(frozen=True, slots=True)
class Location:
    """A place inside the boundary: the names below one of its directories (0: the root); none of them was a link."""

    area: int
    names: tuple[str, ...]

    def below(self, name: str) -> "Location":
        return Location(self.area, (*self.names, name))


@dataclass(frozen=True, slots=True)
class Boundary:
    """The directories inside which everything lies that may be read: absolute paths, the root first."""

    root: str
    links_to: tuple[str, ...] = ()

    def resolve(self, start: Location, names: Sequence[str]) -> Location:
        """Returns the place that `names` mean below `start`, where links were read as the operating system would.

        Raises: UnsafeSource (a link that leads outside or nowhere), SourceNotFound, SourceUnreadable.
        """
        shown = ascii("/".join(names))
        pending = deque(names)
        area, reached = start.area, list(start.names)
        descriptors: list[int] = []
        links = 0
        try:
            descriptors = self._descend(start)
            while pending:
                name = pending.popleft()
                if name in ("", "."):
                    continue
                if name == ".." and reached:
                    reached.pop()
                    os.close(descriptors.pop())
                    continue
                if name == "..":
                    target = os.path.dirname(os.path.realpath(self._path(area)))
                else:
                    status = _status(name, descriptors[-1], shown)
                    if not stat.S_ISLNK(status.st_mode):
                        reached.append(name)
                        if pending:
                            descriptors.append(_open(name, _DIRECTORY | os.O_NOFOLLOW, descriptors[-1], shown))
                        continue
                    links += 1
                    if links > _MAX_LINKS:
                        raise UnsafeSource(f"{shown} is, or lies behind, a symbolic link that leads to itself: refused")
                    target = _link_target(name, descriptors[-1], shown)
                    if not target.startswith("/"):
                        pending.extendleft(reversed(target.split("/")))
                        continue
                area, rest = self._area_of(target, pending, shown)
                pending, reached = deque(rest), []
                _close(descriptors)
                descriptors = self._descend(Location(area, ()))
            return Location(area, tuple(reached))
        except SourceNotFound:
            if links:
                raise SourceNotFound(f"{shown} is, or lies behind, a symbolic link that leads nowhere") from None
            raise
        finally:
            _close(descriptors)

    @contextmanager
    def opened(self, location: Location, shown: str, *, directory: bool = False) -> Iterator[int]:
        """Yields the descriptor of a resolved place, opened for reading; a file is not judged yet, so use fstat.

        Raises: SourceChanged (a link lies there meanwhile), SourceNotFound, SourceUnreadable.
        """
        *parents, last = ("", *location.names)
        above = Location(location.area, tuple(parents[1:]))
        if not location.names:
            descriptors = self._descend(location)
        else:
            descriptors = self._descend(above)
            flags = (_DIRECTORY if directory else _FILE) | os.O_NOFOLLOW
            try:
                descriptors.append(_open(last, flags, descriptors[-1], shown))
            except BaseException:
                _close(descriptors)
                raise
        try:
            yield descriptors[-1]
        finally:
            _close(descriptors)

    def status(self, location: Location, shown: str) -> os.stat_result:
        """Returns the status of a resolved place, as `lstat`. Raises: as `opened`."""
        if not location.names:
            with self.opened(location, shown, directory=True) as descriptor:
                return os.fstat(descriptor)
        descriptors = self._descend(Location(location.area, location.names[:-1]))
        try:
            return _status(location.names[-1], descriptors[-1], shown)
        finally:
            _close(descriptors)

    def _path(self, area: int) -> str:
        return (self.root, *self.links_to)[area]

    def _descend(self, location: Location) -> list[int]:
        """Returns the descriptors of the area's directory and of every directory on the way to `location`."""
        shown = "the model repository" if not location.area else "a directory that --allow-links-to names"
        descriptors = [_open(self._path(location.area), _DIRECTORY, None, shown)]
        try:
            for name in location.names:
                descriptors.append(_open(name, _DIRECTORY | os.O_NOFOLLOW, descriptors[-1], ascii(name)))
        except BaseException:
            _close(descriptors)
            raise
        return descriptors

    def _area_of(self, target: str, pending: Sequence[str], shown: str) -> tuple[int, list[str]]:
        """Returns the area that holds the absolute path `target`/`pending`, and the names that are left below it."""
        names = [name for name in (*target.split("/"), *pending) if name not in ("", ".")]
        while ".." in names[:1]:
            names.pop(0)  # above the top directory is the top directory
        best = (-1, 0)  # how many names lead to the area, and which it is
        for area in range(1 + len(self.links_to)):
            path = self._path(area)
            for form in {path, os.path.realpath(path)}:
                own = [name for name in form.split("/") if name]
                if names[: len(own)] == own:
                    best = max(best, (len(own), -area))
        if best[0] < 0:
            raise UnsafeSource(
                f"{shown} is, or lies behind, a symbolic link that leads out of the model repository: refused; {_HINT}"
            )
        return -best[1], names[best[0] :]


def _status(name: str, parent: int, shown: str) -> os.stat_result:
    try:
        return os.stat(name, dir_fd=parent, follow_symlinks=False)
    except OSError as error:
        raise _explained(error, shown) from None


def _link_target(name: str, parent: int, shown: str) -> str:
    try:
        return os.readlink(name, dir_fd=parent)
    except OSError as error:
        raise SourceChanged(f"{shown} was changed while it was read: {error.strerror}") from None


def _open(name: str, flags: int, parent: int | None, shown: str) -> int:
    try:
        return os.open(name, flags, dir_fd=parent)
    except OSError as error:
        if error.errno == ELOOP or (error.errno == ENOTDIR and parent is not None and _is_link(name, parent)):
            raise SourceChanged(f"{shown} became a symbolic link while it was read: refused") from None
        raise _explained(error, shown) from None


def _explained(error: OSError, shown: str) -> SourceNotFound | SourceUnreadable:
    if error.errno == ENOENT:
        return SourceNotFound(f"{shown} is not there")
    if error.errno == ENOTDIR:
        return SourceNotFound(f"{shown} is not a directory")
    return SourceUnreadable(f"{shown} cannot be opened: {error.strerror}")


def _is_link(name: str, parent: int) -> bool:
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
    except OSError:
        return False


def _close(descriptors: list[int]) -> None:
    while descriptors:
        os.close(descriptors.pop())
