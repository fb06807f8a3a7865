"""Versions in directories of this machine: `<repository>/<model>/<version>/`, with symbolic links inside a boundary."""

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from errno import EINVAL, EIO, ENOSYS, ENOTSUP, EOPNOTSUPP, EPERM, EXDEV
from functools import partial
from hashlib import sha256
from pathlib import Path

from loaders import manifest, tree, uri
from loaders.boundary import Boundary, Location
from loaders.errors import DigestMismatch, LoaderError, SourceTooLarge, SourceUnreadable, UnsafeSource
from loaders.loader import FileEntry, Listing, LocalVersion
from loaders.store import ContentStore, hashed
from loaders.tree import SourceFile, TreeLimits

_CHUNK = 8 << 20
_ROOT = Location(0, ())
_SIDE_DIRECTORY = "warmup"
# The errors of copy_file_range where the kernel or two file systems cannot copy by themselves.
_NO_KERNEL_COPY = frozenset((EXDEV, EINVAL, EIO, ENOSYS, ENOTSUP, EOPNOTSUPP, EPERM))


class FilesystemLoader:
    """The loader of a repository on this machine: a path or a file:// URI.

    `links_to` are the directories outside to which symbolic links may lead; links inside the repository are followed.
    """

    def __init__(
        self,
        repository: str | Path,
        store: ContentStore,
        *,
        links_to: Iterable[str | Path] = (),
        limits: TreeLimits | None = None,
    ) -> None:
        root = uri.local_path(str(repository))
        self._boundary = Boundary(root, tuple(os.path.abspath(path) for path in links_to))
        self._store = store
        self._limits = limits or TreeLimits()

    def one_look(self) -> AbstractContextManager[None]:
        """Returns a context without effect: looking costs little here."""
        return nullcontext()

    def models(self) -> Listing:
        """Returns the directories at the top. Raises: SourceNotFound, SourceUnreadable."""
        refused: dict[str, str] = {}
        listed = tree.entries(self._boundary, _ROOT, "the model repository", refused)
        refused.update({entry.name: "a file: models are directories" for entry in listed if not entry.is_directory})
        return _listing(listed, refused)

    def origin(self, model: str) -> str:
        """Returns the absolute path of the repository."""
        return self._boundary.root

    def versions(self, model: str) -> Listing:
        """Returns the directories of the model, and the links in it that are refused. Raises: as `Loader`."""
        refused: dict[str, str] = {}
        return _listing(tree.entries(self._boundary, self._directory(model), ascii(model), refused), refused)

    def stamp(self, model: str) -> str:
        """Returns a hash of the states of the files beside the versions. Raises: as `Loader`."""
        directory = self._directory(model)
        refused: dict[str, str] = {}
        listed = tree.entries(self._boundary, directory, ascii(model), refused)
        seen = [(entry.name, tree.stamp_of(entry.status)) for entry in listed if not entry.is_directory]
        for entry in listed:
            if entry.name == _SIDE_DIRECTORY and entry.is_directory:
                below = tree.entries(self._boundary, entry.location, entry.name, refused)
                seen += [(f"{entry.name}/{one.name}", tree.stamp_of(one.status)) for one in below]
        return sha256(repr((seen, sorted(refused.items()))).encode()).hexdigest()

    def fingerprint(self, model: str, version: str) -> str:
        """Returns a hash that changes when a file below the version is written, replaced, linked, added or removed.

        Raises: as `Loader`.
        """
        return self._key(model, version, self._directory(model, version))

    def holds(self, model: str, name: str) -> bool:
        """Whether something is there that may be read."""
        try:
            self._boundary.status(self._boundary.resolve(self._directory(model), name.split("/")), ascii(name))
        except LoaderError:
            return False
        return True

    def read(self, model: str, name: str, limit: int) -> bytes:
        """Returns the content of a regular file without other hard links. Raises: as `Loader`."""
        shown = ascii(name[:80])
        parts = name.split("/")
        if any(part in ("", ".", "..") or "\0" in part for part in parts):
            raise UnsafeSource(f"file name {shown} does not lie in the model's directory")
        location = self._boundary.resolve(self._directory(model), parts)
        with self._boundary.opened(location, shown) as source:
            status = os.fstat(source)
            tree.check_kind(name[:80], status, self._limits)
            if status.st_size > limit:
                raise SourceTooLarge(f"{shown} has {status.st_size} bytes, the limit is {limit}")
            with os.fdopen(os.dup(source), "rb") as file:
                return _reading(name[:80], lambda: file.read(limit))

    def progress(self, model: str, version: str) -> str:
        """Returns nothing: a disk of this machine is fast."""
        return ""

    def fetch(self, model: str, version: str, *, digest: str | None = None) -> LocalVersion:
        """Returns a verified copy of the version directory; with `digest`, of exactly that content.

        A `digest` that the store has is served from there, even if the repository is gone. Bytes are hashed from the
        copy, not from the source: the verified bytes are the loaded ones, whatever happens to the repository later.
        Content that the store has is not copied again.

        Raises: LoaderError; nothing is left behind then.
        """
        if digest is not None and (known := self._store.get(digest)) is not None:
            return known
        directory = self._directory(model, version)
        key = self._key(model, version, directory)
        with self._store.locked(key):
            local = self._remembered(key) or self._copied(key, directory)
        if digest is not None and local.digest != digest:
            raise DigestMismatch(f"the version directory has digest {local.digest}, not {digest}")
        return local

    def _directory(self, *names: str) -> Location:
        for name in names:
            uri.check_directory_name(name)
        return self._boundary.resolve(_ROOT, names)

    def _key(self, model: str, version: str, directory: Location) -> str:
        stamps = tree.stamps(self._boundary, directory, self._limits)
        text = repr((self._boundary.root, model, version, self._limits, stamps))
        return sha256(text.encode()).hexdigest()

    def _remembered(self, key: str) -> LocalVersion | None:
        digest = self._store.seen(key)
        return self._store.get(digest) if digest else None

    def _copied(self, key: str, directory: Location) -> LocalVersion:
        local = self._store.put(lambda staging: self._fill(staging, directory))
        self._store.note(key, local.digest)
        return local

    def _fill(self, staging: Path, directory: Location) -> tuple[FileEntry, ...]:
        walked = tree.walk(self._boundary, directory, self._limits)
        listing = next((file for file in walked if file.name == manifest.FILENAME), None)
        content = [file for file in walked if file is not listing]
        if not content:
            raise UnsafeSource("the version directory holds no files: copy the model there")
        files = tuple(self._copy(file, directory, staging) for file in content)
        if listing is not None:
            manifest.compare(manifest.parse(self._read(listing, directory)), files)
        return files

    def _copy(self, file: SourceFile, directory: Location, staging: Path) -> FileEntry:
        target = staging / file.name
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (
            tree.opened_file(self._boundary, directory, file, self._limits) as source,
            target.open("xb", buffering=0) as copy,
        ):
            _copy_bytes(source, copy.fileno(), file)
        return hashed(staging, file.name)

    def _read(self, file: SourceFile, directory: Location) -> str:
        if file.size > manifest.MAX_BYTES:
            raise SourceTooLarge(f"{file.name} has {file.size} bytes; at most {manifest.MAX_BYTES}")
        with tree.opened_file(self._boundary, directory, file, self._limits) as source:
            data = _reading(file.name, lambda: os.pread(source, file.size, 0))
        try:
            return data.decode("ascii")
        except UnicodeDecodeError:
            raise UnsafeSource(f"{file.name} is not ASCII text") from None


def missing_directory(repository: str) -> str:
    """Returns what is wrong with the path of a repository before a start, "" if it is a directory."""
    if os.path.isdir(uri.local_path(repository)):
        return ""
    return "is not a directory: make it, mount its volume, or name another one"


def _listing(listed: Iterable[tree.Entry], refused: Mapping[str, str]) -> Listing:
    return Listing(tuple(entry.name for entry in listed if entry.is_directory), refused)


def _copy_bytes(source: int, target: int, file: SourceFile) -> None:
    """Copies `file.size` bytes: in the kernel if it can (which may share the blocks), else through memory."""
    left = file.size
    while left > 0:
        try:
            count = os.copy_file_range(source, target, min(left, 1 << 30))
        except OSError as error:
            if error.errno not in _NO_KERNEL_COPY:
                raise
            break
        if count == 0:
            break
        left -= count
    while left > 0:
        chunk = _reading(file.name, partial(os.read, source, min(left, _CHUNK)))
        if not chunk:
            raise SourceUnreadable(f"{file.name!r} ended {left} bytes before its size")
        view = memoryview(chunk)
        while view:
            view = view[os.write(target, view) :]
        left -= len(chunk)


def _reading(name: str, read: Callable[[], bytes]) -> bytes:
    try:
        return read()
    except OSError as error:
        raise SourceUnreadable(f"{name!r} cannot be read: {error.strerror}") from error
