"""The content store: verified copies of versions, each below the digest of its manifest.

    <store>/<digest>/manifest.sha256 and the files, 0444
    <store>/seen/<key>      the digest that a source with this fingerprint had when it was copied
    <store>/staging/        copies under way
    <store>/partial/<key>/  what is here of a version whose source broke off
    <store>/locks/          one writer per key, and per directory of `staging`, among all processes of the host

Order: a directory `<store>/<digest>` appears complete and synced, by rename, or not at all. It never changes; a
       copy that no longer has its digest is set aside and made again.
"""

import os
import re
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from errno import EDQUOT, EEXIST, ENOSPC, ENOTEMPTY
from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, flock
from hashlib import file_digest
from pathlib import Path
from secrets import token_hex

from loaders import manifest
from loaders.errors import DigestMismatch, StoreUnwritable, UnsafeSource
from loaders.loader import FileEntry, LocalVersion

_DIGEST = re.compile(r"[0-9a-f]{64}\Z", re.ASCII)
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Collected:
    """What a collection removed, how many bytes are left, and by how many these exceed the store's limit."""

    removed: tuple[str, ...]
    left_bytes: int
    excess_bytes: int


@dataclass(frozen=True, slots=True, order=True)
class _Copy:
    """A stored copy. Units: `used_s` when it was marked last, seconds since the epoch; `size` bytes."""

    used_s: float
    path: Path
    size: int


class ContentStore:
    """Stores verified copies on this machine, shared by all processes of the host.

    Units: `max_bytes` of all copies together; those in use are kept beyond it.
    """

    def __init__(self, directory: Path, *, max_bytes: int = 1 << 50) -> None:
        self._directory = directory
        self._max_bytes = max_bytes
        self._collecting = directory / "locks" / "collecting"
        try:
            self._lay_out()
        except OSError as error:
            raise StoreUnwritable(f"the content store cannot be made: {error.strerror}") from error

    def get(self, digest: str) -> LocalVersion | None:
        """Returns the copy with this digest, its bytes hashed anew, or None; a damaged copy is removed.

        Raises: StoreUnwritable, if the copy is there but cannot be read.
        Order:  a copy that was handed out is not collected for a while (see `collect`).
        """
        path = self._path(digest)
        with self._reading():
            if not path.is_dir():
                return None
            try:
                with _writing():
                    files = _verified(path, digest)
                    os.utime(path)
            except (DigestMismatch, UnsafeSource):
                self._set_aside(path)
                return None
        return LocalVersion(path, digest, files)

    def put(self, fill: Callable[[Path], tuple[FileEntry, ...]]) -> LocalVersion:
        """Returns the copy that `fill` writes into a directory; `fill` returns the files, hashed from there.

        Raises: StoreUnwritable; any error of `fill`. Then nothing is left behind.
        """
        with _writing(), self._staged() as staging:
            files = tuple(sorted(fill(staging), key=lambda entry: entry.name))
            (staging / manifest.FILENAME).write_text(manifest.render(files), "ascii")
            _seal(staging)
            return self._publish(staging, files)

    def seen(self, key: str) -> str | None:
        """Returns the digest noted under `key` (64 hex digits)."""
        try:
            digest = (self._directory / "seen" / key).read_text("ascii")
        except (OSError, UnicodeDecodeError):
            return None
        return digest if _DIGEST.match(digest) else None

    def note(self, key: str, digest: str) -> None:
        """Notes `digest` under `key`: `seen(key)` returns it from now on."""
        target = self._directory / "seen" / key
        staging = target.with_name(f"{key}.{os.getpid()}")
        with _writing():
            staging.write_text(digest, "ascii")
            os.replace(staging, target)

    def partial(self, key: str) -> Path:
        """Returns the directory for parts of the version with this key; the caller holds its lock."""
        directory = self._directory / "partial" / key
        with _writing():
            directory.mkdir(mode=0o700, exist_ok=True)
            os.utime(directory)
        return directory

    def partial_bytes(self, key: str) -> int:
        """Returns how many bytes there are of the version with this key."""
        try:
            return sum(entry.stat().st_size for entry in os.scandir(self._directory / "partial" / key))
        except OSError:
            return 0  # they moved to their place

    def check_room(self, size: int) -> None:
        """Raises: StoreUnwritable, if the disk has less than `size` bytes free."""
        with _writing():
            state = os.statvfs(self._directory)
        free = state.f_bavail * state.f_frsize
        if free < size:
            raise StoreUnwritable(f"the disk of the content store has {free} bytes free, the version needs {size} more")

    def drop_partial(self, key: str) -> None:
        """Removes the parts of the version with this key."""
        shutil.rmtree(self._directory / "partial" / key, ignore_errors=True)

    @contextmanager
    def locked(self, key: str) -> Iterator[None]:
        """Holds the lock of `key`, alone on this host; what is copied for hours keeps no other key waiting.

        Its file is removed by who holds it, so that these do not pile up; who waited for it then takes the next one.
        """
        path = self._directory / "locks" / key
        while True:
            with _writing():
                self._lay_out()
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                flock(descriptor, LOCK_EX)
                if not _is_at(descriptor, path):
                    continue
                try:
                    yield
                finally:
                    if _is_at(descriptor, path):  # not one that was made after somebody had cleared the cache
                        path.unlink(missing_ok=True)
                return
            finally:
                os.close(descriptor)

    def keep(self, digests: Iterable[str]) -> None:
        """Marks copies as in use, so that no process of the host collects them for a while."""
        for digest in digests:
            with _writing(), suppress(FileNotFoundError):
                os.utime(self._path(digest))

    def collect(self, *, now_s: float, unused_s: float, marked_s: float = 0.0) -> Collected:
        """Removes the copies that no process has made, handed out or kept for `unused_s`.

        While the others have more bytes than the store's limit, the least recently used of those goes that no process
        has made, handed out or kept for `marked_s`.

        Every process that needs a copy calls `keep` more often than that. Removal excludes `get` (one lock, shared
        by readers), so that no copy goes away between being found and being marked.
        While a copy is being read nothing is removed: the next call does it.

        Units:  `now_s` seconds since the epoch.
        Raises: StoreUnwritable.
        """
        with _writing():
            self._lay_out()
            descriptor = os.open(self._collecting, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            flock(descriptor, LOCK_EX | LOCK_NB)
            with _writing():
                return self._remove_unused(now_s - unused_s, now_s - marked_s)
        except BlockingIOError:  # the next call does it
            total = sum(copy.size for copy in self._copies())
            return Collected((), total, max(0, total - self._max_bytes))
        finally:
            os.close(descriptor)

    def _lay_out(self) -> None:
        """Makes the directories that are not there: somebody may clear a cache while it is used. Raises: OSError."""
        for name in ("seen", "staging", "partial", "locks"):
            (self._directory / name).mkdir(mode=0o700, parents=True, exist_ok=True)

    def _remove_unused(self, before_s: float, unmarked_before_s: float) -> Collected:
        copies = self._copies()
        total = sum(copy.size for copy in copies)
        removed = []
        for copy in copies:
            is_excess = total > self._max_bytes and copy.used_s < unmarked_before_s
            if is_excess or copy.used_s < before_s:
                self._set_aside(copy.path)
                removed.append(copy.path.name)
                total -= copy.size
        for path in (*(self._directory / "staging").iterdir(), *(self._directory / "partial").iterdir()):
            if _is_old(path, before_s):
                self._remove_unlocked(path, before_s)
        for path in (self._directory / "locks").iterdir():
            if path != self._collecting and _is_old(path, before_s):
                _remove_unheld(path)
        for path in (self._directory / "seen").iterdir():
            if self.seen(path.name) in removed:
                path.unlink(missing_ok=True)
        return Collected(tuple(sorted(removed)), total, max(0, total - self._max_bytes))

    def _remove_unlocked(self, path: Path, before_s: float) -> None:
        """Removes a directory unless somebody holds its lock, and keeps everybody from it until it is gone.

        A file that comes for a day, or a clock that was set: what is being copied shows no sign of it.
        """
        lock = self._directory / "locks" / path.name
        with suppress(OSError):  # it cannot be opened, or somebody holds it: the next collection looks again
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                flock(descriptor, LOCK_EX | LOCK_NB)
                if _is_at(descriptor, lock):
                    if _is_old(path, before_s):  # still: it may have been gone on with
                        shutil.rmtree(path, ignore_errors=True)
                    lock.unlink(missing_ok=True)
            finally:
                os.close(descriptor)

    @contextmanager
    def _staged(self) -> Iterator[Path]:
        """Yields a new directory, which no collection removes however old it looks; what is left there is removed."""
        name = token_hex(16)
        with self.locked(name):
            staging = self._directory / "staging" / name
            staging.mkdir(mode=0o700)
            try:
                yield staging
            finally:
                shutil.rmtree(staging, ignore_errors=True)

    def _copies(self) -> "list[_Copy]":
        """Returns all copies, the least recently used first."""
        return sorted(filter(None, map(_copy_at, self._directory.iterdir())))

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Keeps `collect` from removing copies meanwhile."""
        with _writing():
            self._lay_out()
            descriptor = os.open(self._collecting, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            flock(descriptor, LOCK_SH)
            yield
        finally:
            os.close(descriptor)

    def _path(self, digest: str) -> Path:
        if not _DIGEST.match(digest):
            raise DigestMismatch(f"{digest[:80]!a} is not a SHA-256 in lower-case hex")
        return self._directory / digest

    def _publish(self, staging: Path, files: tuple[FileEntry, ...]) -> LocalVersion:
        digest = manifest.digest_of(files)
        target = self._path(digest)
        try:
            os.rename(staging, target)
        except OSError as error:
            if error.errno not in (EEXIST, ENOTEMPTY):
                raise
            known = self.get(digest)  # another process was faster, or the copy there is damaged
            if known is not None:
                return known
            os.rename(staging, target)
        _sync(self._directory)
        return LocalVersion(target, digest, files)

    def _set_aside(self, path: Path) -> None:
        """Takes a copy out of the store at once, then removes it from the disk."""
        with _writing(), self._staged() as staging, suppress(FileNotFoundError):  # another process did it
            os.rename(path, staging / path.name)


def hashed(root: Path, name: str) -> FileEntry:
    """Returns the entry of a stored file as it is on disk now. Raises: OSError."""
    descriptor = os.open(root / name, _READ)
    with open(descriptor, "rb", buffering=0) as file:
        return FileEntry(name, os.fstat(descriptor).st_size, file_digest(file, "sha256").hexdigest())


def _verified(path: Path, digest: str) -> tuple[FileEntry, ...]:
    """Returns the files of a copy's manifest, each read and hashed. Raises: DigestMismatch, UnsafeSource, OSError."""
    try:
        text = (path / manifest.FILENAME).read_bytes().decode("ascii", "replace")
        files = tuple(hashed(path, name) for name in manifest.parse(text))
    except FileNotFoundError:
        raise DigestMismatch(f"the copy {digest} in the content store lost a file") from None
    if manifest.digest_of(files) != digest:
        raise DigestMismatch(f"the copy {digest} in the content store was changed")
    return files


@contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (ENOSPC, EDQUOT):
            raise StoreUnwritable("the disk of the content store is full") from error
        raise StoreUnwritable(f"the content store cannot be used: {error.strerror}") from error


def _seal(directory: Path) -> None:
    """Makes every file read-only and syncs the whole tree to the disk."""
    for parent, _, names in os.walk(directory):
        for name in names:
            path = Path(parent, name)
            path.chmod(stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH)
            _sync(path)
        _sync(Path(parent))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _copy_at(path: Path) -> _Copy | None:
    """Returns the copy at this path of the store; None if it is none, or goes away meanwhile."""
    if not _DIGEST.match(path.name):
        return None
    try:
        used_s = path.stat().st_mtime
        sizes = [Path(parent, name).stat().st_size for parent, _, names in os.walk(path) for name in names]
    except OSError:
        return None
    return _Copy(used_s, path, sum(sizes))


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether the open file is still the one at this path."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False


def _remove_unheld(path: Path) -> None:
    """Removes the file of a lock that nobody holds: that of a process which was killed."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)  # NFS locks what can be written
        try:
            flock(descriptor, LOCK_EX | LOCK_NB)
            if _is_at(descriptor, path):
                path.unlink(missing_ok=True)
        finally:
            os.close(descriptor)


def _is_old(path: Path, before_s: float) -> bool:
    try:
        return path.stat().st_mtime < before_s
    except OSError:
        return False
