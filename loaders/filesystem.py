"""Versions in directories of this machine, with symbolic links inside a boundary.

<repository>/<model>/<version>/      a repository of models
<model>/<version>/model.onnx         a directory of versions: one model, with the directory's name

`loaders.directory_layout` says which of them it is. That does not change while a process looks at it: a directory that
is put there by mistake must not take away what serves.
"""

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from errno import EINVAL, EIO, ENOSYS, ENOTSUP, EOPNOTSUPP, EPERM, EXDEV
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

from loaders import manifest, tree, uri
from loaders.boundary import Boundary, Location
from loaders.directory_layout import MODEL_FILE, SIDE_DIRECTORY, is_number, versions_alone
from loaders.errors import DigestMismatch, LoaderError, SourceNotFound, SourceTooLarge, SourceUnreadable, UnsafeSource
from loaders.kept_looks import KeptLooks
from loaders.loader import FileEntry, Listing, LocalVersion
from loaders.store import ContentStore, hashed
from loaders.tree import SourceFile, TreeLimits

T = TypeVar("T")

_CHUNK = 8 << 20
_ROOT = Location(0, ())
_NAMES_SHOWN = 3
_MODEL_SUFFIX = ".onnx"
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
        self._name = os.path.basename(root)
        self._is_model: bool | None = None  # a directory of versions; None: nobody can tell yet
        self._store = store
        self._limits = limits or TreeLimits()
        self._looks = KeptLooks()

    def one_look(self) -> AbstractContextManager[None]:
        """Returns a context within which a model that is as it was at the last one is not looked at again."""
        return self._looks.one_look()

    def models(self) -> Listing:
        """Returns the directories at the top, or the one model whose versions they are.

        Raises: SourceNotFound, SourceUnreadable (also where it was the other of the two before).
        """
        refused: dict[str, str] = {}
        listed = tree.entries(self._boundary, _ROOT, "the model repository", refused)
        directories = [entry.name for entry in listed if entry.is_directory]
        if self._judge(directories):
            return one_model(self._name) if directories else Listing((), {})  # as an unmounted volume is
        files = [entry.name for entry in listed if not entry.is_directory]
        refused.update({name: _refusal(name) for name in files})
        models = [name for name in directories if not (is_number(name) and self._holds_model(name))]
        shown = ", ".join(models[:_NAMES_SHOWN])
        for name in set(directories) - set(models):
            refused[name] = (
                f"a version ({MODEL_FILE} is in it) beside models ({shown}): put it into its model's directory"
            )
        beside = frozenset(name for name in files if not name.endswith(_MODEL_SUFFIX))
        return Listing(tuple(models), refused, beside=beside)

    def origin(self, model: str) -> str:
        """Returns the absolute path of the repository."""
        return self._boundary.root

    def versions(self, model: str) -> Listing:
        """Returns the directories of the model, and the links in it that are refused. Raises: as `Loader`."""

        def look() -> Listing:
            refused: dict[str, str] = {}
            return _listing(tree.entries(self._boundary, self._directory(model), ascii(model), refused), refused)

        return self._known(model, "versions", look)

    def stamp(self, model: str) -> str:
        """Returns a hash of the states of the files beside the versions. Raises: as `Loader`."""
        return self._known(model, "stamp", lambda: self._stamp(model))

    def _stamp(self, model: str) -> str:
        refused: dict[str, str] = {}
        listed = tree.entries(self._boundary, self._directory(model), ascii(model), refused)
        seen = [(entry.name, tree.stamp_of(entry.status)) for entry in listed if not entry.is_directory]
        for entry in listed:
            if entry.name == SIDE_DIRECTORY and entry.is_directory:
                below = tree.entries(self._boundary, entry.location, entry.name, refused)
                seen += [(f"{entry.name}/{one.name}", tree.stamp_of(one.status)) for one in below]
        return sha256(repr((seen, sorted(refused.items()))).encode()).hexdigest()

    def fingerprint(self, model: str, version: str) -> str:
        """Returns a hash that changes when a file below the version is written, replaced, linked, added or removed.

        Raises: as `Loader`.
        """
        return self._known(
            model, f"fingerprint {version}", lambda: self._key(model, version, self._directory(model, version))
        )

    def holds(self, model: str, name: str) -> bool:
        """Whether something is there that may be read."""
        try:
            self._boundary.status(self._located(model, name.split("/")), ascii(name))
        except LoaderError:
            return False
        return True

    def read(self, model: str, name: str, limit: int) -> bytes:
        """Returns the content of a regular file without other hard links. Raises: as `Loader`."""
        shown = ascii(name[:80])
        parts = name.split("/")
        if any(part in ("", ".", "..") or "\0" in part for part in parts):
            raise UnsafeSource(f"file name {shown} does not lie in the model's directory")
        location = self._located(model, parts)
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

    def digest(self, model: str, version: str) -> str:
        """Returns the digest that the directory has, or had when it was as it is now. Raises: as `fetch`."""
        key = self._key(model, version, self._directory(model, version))
        return self._store.seen(key) or self.fetch(model, version).digest

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

    def _known(self, model: str, question: str, look: Callable[[], T]) -> T:
        """Returns what `look` returns, or did when the model's directory was as it is now. Raises: as `look`."""
        uri.check_directory_name(model)
        if self._is_model is None:
            return look()
        root = self._boundary.root
        return self._looks.answer(
            os.path.realpath(root) if self._is_model else os.path.join(root, model), f"{model} {question}", look
        )

    def _judge(self, directories: Sequence[str]) -> bool:
        """Whether these are the versions of one model. Raises: SourceUnreadable, if they were something else before."""
        now = versions_alone(directories, self._holds_model)
        if now is None:
            return self._is_model is True
        if self._is_model not in (None, now):
            was, is_now = ("versions", "others") if self._is_model else ("models", "versions alone")
            raise SourceUnreadable(
                f"the directory held {was}, and holds {is_now} by now ({', '.join(directories[:_NAMES_SHOWN])}): "
                f"nothing is changed; take away what does not belong there, or start the gateway again if it is meant"
            )
        self._is_model = now
        return now

    def _holds_model(self, directory: str) -> bool:
        try:
            self._boundary.status(self._boundary.resolve(_ROOT, (directory, MODEL_FILE)), MODEL_FILE)
        except LoaderError:
            return False
        return True

    def _directory(self, model: str, *below: str) -> Location:
        for name in (model, *below):
            uri.check_directory_name(name)
        if self._is_model is None:
            self.models()
        if not self._is_model:
            return self._boundary.resolve(_ROOT, (model, *below))
        if model != self._name:
            raise SourceNotFound(f"{model!a} is not there")
        return self._boundary.resolve(_ROOT, below)

    def _located(self, model: str, parts: Sequence[str]) -> Location:
        return self._boundary.resolve(self._directory(model), parts)

    def _walked(self, directory: Location) -> list[SourceFile]:
        return tree.walk(self._boundary, directory, self._limits)

    def _stamps(self, directory: Location) -> object:
        return tree.stamps(self._boundary, directory, self._limits)

    def _copied_name(self, name: str) -> str:
        return name

    def _key(self, model: str, version: str, directory: Location) -> str:
        text = repr((self._boundary.root, model, version, self._limits, self._stamps(directory)))
        return sha256(text.encode()).hexdigest()

    def _remembered(self, key: str) -> LocalVersion | None:
        digest = self._store.seen(key)
        return self._store.get(digest) if digest else None

    def _copied(self, key: str, directory: Location) -> LocalVersion:
        local = self._store.put(lambda staging: self._fill(staging, directory))
        self._store.note(key, local.digest)
        return local

    def _fill(self, staging: Path, directory: Location) -> tuple[FileEntry, ...]:
        walked = self._walked(directory)
        listing = next((file for file in walked if file.name == manifest.FILENAME), None)
        content = [file for file in walked if file is not listing]
        if not content:
            raise UnsafeSource("the version directory holds no files: copy the model there")
        files = tuple(self._copy(file, directory, staging) for file in content)
        if listing is not None:
            manifest.compare(manifest.parse(self._read(listing, directory)), files)
        return files

    def _copy(self, file: SourceFile, directory: Location, staging: Path) -> FileEntry:
        name = self._copied_name(file.name)
        target = staging / name
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (
            tree.opened_file(self._boundary, directory, file, self._limits) as source,
            target.open("xb", buffering=0) as copy,
        ):
            _copy_bytes(source, copy.fileno(), file)
        return hashed(staging, name)

    def _read(self, file: SourceFile, directory: Location) -> str:
        if file.size > manifest.MAX_BYTES:
            raise SourceTooLarge(f"{file.name} has {file.size} bytes; at most {manifest.MAX_BYTES}")
        with tree.opened_file(self._boundary, directory, file, self._limits) as source:
            data = _reading(file.name, lambda: os.pread(source, file.size, 0))
        try:
            return data.decode("ascii")
        except UnicodeDecodeError:
            raise UnsafeSource(f"{file.name} is not ASCII text") from None


def one_model(name: str) -> Listing:
    """Returns the listing of a place with this model alone; it is refused there, if its name may be none."""
    try:
        uri.check_directory_name(name)
    except UnsafeSource as error:
        return Listing((), {name: f"the model has its name: {error}; rename it"})
    return Listing((name,), {})


def _listing(listed: Iterable[tree.Entry], refused: Mapping[str, str]) -> Listing:
    return Listing(tuple(entry.name for entry in listed if entry.is_directory), refused)


def _refusal(name: str) -> str:
    return "a file: models are directories" + (
        "; name the file itself to serve it alone" if name.endswith(_MODEL_SUFFIX) else ""
    )


def _copied_by_kernel(source: int, target: int, size: int) -> int:
    """Returns how many bytes the kernel has copied. Raises: OSError, ENOSYS where it copies none (not Linux)."""
    if sys.platform == "linux":
        return os.copy_file_range(source, target, size)
    raise OSError(ENOSYS, os.strerror(ENOSYS))


def _copy_bytes(source: int, target: int, file: SourceFile) -> None:
    """Copies `file.size` bytes: in the kernel if it can (which may share the blocks), else through memory."""
    left = file.size
    while left > 0:
        try:
            count = _copied_by_kernel(source, target, min(left, 1 << 30))
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
