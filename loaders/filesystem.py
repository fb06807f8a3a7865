"""Versions in directories of this machine: `<repository>/<model>/<version>/`."""

import os
from collections.abc import Callable
from errno import EINVAL, EIO, ENOSYS, ENOTSUP, EOPNOTSUPP, EPERM, EXDEV
from functools import partial
from hashlib import sha256
from pathlib import Path

from loaders import manifest, tree, uri
from loaders.errors import DigestMismatch, SourceTooLarge, SourceUnreadable, UnsafeSource
from loaders.loader import FileEntry, LocalVersion
from loaders.store import ContentStore, hashed
from loaders.tree import SourceFile, TreeLimits

_CHUNK = 8 << 20
# The errors of copy_file_range where the kernel or two file systems cannot copy by themselves.
_NO_KERNEL_COPY = frozenset((EXDEV, EINVAL, EIO, ENOSYS, ENOTSUP, EOPNOTSUPP, EPERM))


class FilesystemLoader:
    """The loader of paths and file:// URIs below one repository directory."""

    def __init__(self, root: str | Path, store: ContentStore, *, limits: TreeLimits | None = None) -> None:
        self._root = os.path.abspath(root)
        self._store = store
        self._limits = limits or TreeLimits()

    def fetch(self, uri: str, *, digest: str | None = None) -> LocalVersion:
        """Returns a verified copy of the version directory; with `digest`, of exactly that content.

        A `digest` that the store has is served from there, even if the repository is gone. Bytes are hashed from the
        copy, not from the source: the verified bytes are the loaded ones, whatever happens to the repository later.
        Content that the store has is not copied again.

        Raises: LoaderError; nothing is left behind then.
        """
        if digest is not None and (known := self._store.get(digest)) is not None:
            return known
        names = self._names(uri)
        with tree.opened_directory(self._root, names) as directory:
            key = self._key(names, directory)
            with self._store.locked(key):
                local = self._remembered(key) or self._copied(key, directory)
        if digest is not None and local.digest != digest:
            raise DigestMismatch(f"the version directory has digest {local.digest}, not {digest}")
        return local

    def fingerprint(self, uri: str) -> str:
        """Returns a text that changes when a file below the version directory is written, replaced, added or removed.

        Raises: UnsupportedUri, SourceNotFound, UnsafeSource (a link on the way), SourceUnreadable.
        """
        names = self._names(uri)
        with tree.opened_directory(self._root, names) as directory:
            return self._key(names, directory)

    def _names(self, text: str) -> tuple[str, ...]:
        return uri.names_below(self._root, uri.local_path(text))

    def _key(self, names: tuple[str, ...], directory: int) -> str:
        text = repr((self._root, names, self._limits, tree.stamps(directory, self._limits)))
        return sha256(text.encode()).hexdigest()

    def _remembered(self, key: str) -> LocalVersion | None:
        digest = self._store.seen(key)
        return self._store.get(digest) if digest else None

    def _copied(self, key: str, directory: int) -> LocalVersion:
        local = self._store.put(lambda staging: self._fill(staging, directory))
        self._store.note(key, local.digest)
        return local

    def _fill(self, staging: Path, directory: int) -> tuple[FileEntry, ...]:
        walked = tree.walk(directory, self._limits)
        listing = next((file for file in walked if file.name == manifest.FILENAME), None)
        content = [file for file in walked if file is not listing]
        if not content:
            raise UnsafeSource("the version directory holds no files: copy the model there")
        files = tuple(self._copy(file, directory, staging) for file in content)
        if listing is not None:
            manifest.compare(manifest.parse(self._read(listing, directory)), files)
        return files

    def _copy(self, file: SourceFile, directory: int, staging: Path) -> FileEntry:
        target = staging / file.name
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tree.opened_file(directory, file, self._limits) as source, target.open("xb", buffering=0) as copy:
            _copy_bytes(source, copy.fileno(), file)
        return hashed(staging, file.name)

    def _read(self, file: SourceFile, directory: int) -> str:
        if file.size > manifest.MAX_BYTES:
            raise SourceTooLarge(f"{file.name} has {file.size} bytes; at most {manifest.MAX_BYTES}")
        with tree.opened_file(directory, file, self._limits) as source:
            data = _reading(file.name, lambda: os.pread(source, file.size, 0))
        try:
            return data.decode("ascii")
        except UnicodeDecodeError:
            raise UnsafeSource(f"{file.name} is not ASCII text") from None


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
