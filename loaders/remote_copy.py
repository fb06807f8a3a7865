"""Copies of versions that lie elsewhere: bounded, resumed where they broke off, hashed from the copy.

What was copied of a version before its source went away stays in the content store's `partial` directory, and the next
try goes on from there. A part is continued only while the source says that the file is the same one (its mark), or a
digest will tell.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from io import FileIO
from pathlib import Path
from time import monotonic
from typing import Final

from loaders import manifest
from loaders.errors import DigestMismatch, LoaderError, SourceChanged, SourceTooLarge, SourceUnreadable, UnsafeSource
from loaders.loader import FileEntry, LocalVersion
from loaders.store import ContentStore, hashed
from loaders.tree import TreeLimits

_MIB: Final = 1 << 20
_PACE_S: Final = 60.0  # so long a file is given to come faster than
_LEAST_BYTES_S: Final = 4096
SMALL_BYTES: Final = 64 << 20  # of what may be read whole: clients yield its bytes as they come
_WHOLE_S: Final = 60.0
_WHOLE_BYTES_S: Final = 256 << 10


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file as its source lists it. `mark` changes with the content; `sha256` is "" where the source has none.

    `place` is what the source needs to find it again. Where nothing ties the bytes of a later answer to those of an
    earlier one, neither the mark nor a digest, it is not `resumable`: what broke off begins anew.
    """

    place: str
    size: int
    mark: str
    sha256: str = ""
    resumable: bool = True


RemoteFiles = Mapping[str, RemoteFile]  # by the name below some directory
ReadFrom = Callable[
    [RemoteFile, str, int], Iterator[bytes]
]  # the file's bytes from an offset on; its name is for errors


class RemoteCopies:
    """Brings versions of one source into the content store; several threads may do so at once."""

    def __init__(
        self,
        store: ContentStore,
        read_from: ReadFrom,
        limits: TreeLimits | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._store = store
        self._read_from = read_from
        self._clock = clock
        self._limits = limits or TreeLimits()
        self._under_way: dict[tuple[str, str], tuple[str, int]] = {}  # the key, and the bytes of all files

    def stored(self, digest: str | None) -> LocalVersion | None:
        """Returns the copy with this digest, if the store has it."""
        return None if digest is None else self._store.get(digest)

    def copy(self, model: str, version: str, place: object, files: RemoteFiles, digest: str | None) -> LocalVersion:
        """Returns a verified copy of the files; content that is known is not copied again.

        `place` tells this source's versions from those of all others. Raises: LoaderError.
        """
        key = self._key(model, version, place, files)
        with self._shown((model, version), key, files), self._store.locked(key):
            seen = self._store.seen(key)
            local = self._store.get(seen) if seen else None
            if local is None:
                local = self._store.put(lambda staging: self._fill(staging, key, files))
                self._store.note(key, local.digest)
                self._store.drop_partial(key)
        if digest is not None and local.digest != digest:
            raise DigestMismatch(f"the version has digest {local.digest}, not {digest}")
        return local

    def digest(self, model: str, version: str, place: object, files: RemoteFiles) -> str:
        """Returns the digest of the files; they are copied where it is not known. Raises: as `copy`."""
        seen = self._store.seen(self._key(model, version, place, files))
        return seen or self.copy(model, version, place, files, None).digest

    def _key(self, model: str, version: str, place: object, files: RemoteFiles) -> str:
        return sha256(f"{place!r} {model} {version} {self._limits!r} {mark_of(files)}".encode()).hexdigest()

    def progress(self, model: str, version: str) -> str:
        """Returns how much of a version that is being copied is here, whichever process copies it; "" where none is."""
        key, total = self._under_way.get((model, version), ("", 0))
        if not total:
            return ""
        return f"{self._store.partial_bytes(key) // _MIB} of {-(-total // _MIB)} MiB are copied"

    @contextmanager
    def _shown(self, of: tuple[str, str], key: str, files: RemoteFiles) -> Iterator[None]:
        self._under_way[of] = (key, sum(one.size for one in files.values()))
        try:
            yield
        finally:
            self._under_way.pop(of, None)

    def _fill(self, staging: Path, key: str, files: RemoteFiles) -> tuple[FileEntry, ...]:
        content = {name: one for name, one in files.items() if name != manifest.FILENAME and not is_hidden(name)}
        self._check(content)
        partial = self._store.partial(key)
        # Known now, not after hours, and again after each next try.
        self._store.check_room(sum(one.size for one in content.values()) - self._store.partial_bytes(key))
        try:
            # First: where it cannot be read, each try would bring all files for nothing.
            listed = self._manifest(files)
            for name, one in sorted(content.items()):
                self._bring(partial / _part_name(name, one), name, one)
            entries = tuple(_placed(partial, staging, name, one) for name, one in sorted(content.items()))
            if listed is not None:
                manifest.compare(listed, entries)
        except LoaderError as error:
            if not error.retryable:
                self._store.drop_partial(key)
            raise
        except OSError:  # the disk, which is full of it
            self._store.drop_partial(key)
            raise
        return entries

    def _check(self, content: RemoteFiles) -> None:
        limits = self._limits
        if not content:
            raise UnsafeSource("the version holds no files: copy the model there")
        if len(content) > limits.max_files:
            raise SourceTooLarge(f"the version has more than {limits.max_files} files")
        if any(one.size < 0 for one in content.values()):
            raise UnsafeSource("a file has less than no bytes, as its source lists it")
        if sum(one.size for one in content.values()) > limits.max_bytes:
            raise SourceTooLarge(f"the version has more than {limits.max_bytes} bytes")
        for name in content:
            parts = name.split("/")
            for part in parts:
                manifest.check_part(part)
            if len(parts) > limits.max_depth:
                raise SourceTooLarge(f"{name!a} lies too deep: names may have {limits.max_depth} parts")

    def _bring(self, part: Path, name: str, one: RemoteFile) -> None:
        """Writes what is missing of the file.

        Raises: SourceChanged (it has another size than it was listed with), SourceUnreadable (it comes too slowly: the
                next try goes on from there, and others are loaded meanwhile).
        """
        with part.open("ab", buffering=0) as copy:
            size = copy.tell()
            if size < one.size and not one.resumable:
                copy.truncate(0)
                size = 0
            if size < one.size:
                since_s, before = self._clock(), size
                for chunk in self._read_from(one, name, size):
                    size += len(chunk)
                    if size > one.size:
                        break
                    _write_all(copy, chunk)
                    past_s = self._clock() - since_s
                    if past_s < _PACE_S:
                        continue
                    if size - before < _LEAST_BYTES_S * past_s and size < one.size:
                        raise SourceUnreadable(
                            f"{name!a}: {size - before} bytes came in {past_s:.0f} s, less than {_LEAST_BYTES_S} a "
                            f"second; the next try {'goes on from there' if one.resumable else 'begins anew'}"
                        )
                    since_s, before = self._clock(), size
        if size != one.size:
            part.unlink()
            raise SourceChanged(f"{name!a} has {size} bytes or more, it was listed with {one.size}")

    def _manifest(self, files: RemoteFiles) -> Mapping[str, str] | None:
        """Returns what the version's manifest lists; None where it has none."""
        listing = files.get(manifest.FILENAME)
        if listing is None:
            return None
        if listing.size > manifest.MAX_BYTES:
            raise SourceTooLarge(f"{manifest.FILENAME} has {listing.size} bytes; at most {manifest.MAX_BYTES}")
        text = read_whole(self._read_from, listing, manifest.FILENAME)
        return manifest.parse(text.decode("ascii", "replace"))


def read_whole(read_from: ReadFrom, one: RemoteFile, name: str, clock: Callable[[], float] = monotonic) -> bytes:
    """Returns the bytes of a small file, as they were listed.

    Raises: SourceChanged, DigestMismatch, SourceUnreadable (it comes too slowly, and others wait); as `read_from`.
    """
    parts: list[bytes] = []
    left, given_s = one.size, _WHOLE_S + one.size / _WHOLE_BYTES_S
    until_s = clock() + given_s
    for chunk in read_from(one, name, 0) if one.size else ():
        parts.append(chunk)
        left -= len(chunk)
        if left < 0:
            break  # whatever more it sends
        if left and clock() > until_s:
            raise SourceUnreadable(f"{name[:80]!a} cannot be read: {one.size - left} bytes came in {given_s:.0f} s")
    if left:
        raise SourceChanged(f"{name[:80]!a} has {one.size - left} bytes or more, it was listed with {one.size}")
    content = b"".join(parts)
    if one.sha256 and (own := sha256(content).hexdigest()) != one.sha256:
        raise DigestMismatch(f"{name[:80]!a} has SHA-256 {own}, its source says {one.sha256}")
    return content


def mark_of(files: RemoteFiles) -> str:
    """Returns a hash that changes with any of the files that are content."""
    seen = sorted((name, one.size, one.mark) for name, one in files.items() if not is_hidden(name))
    return sha256(repr(seen).encode()).hexdigest()


def is_hidden(name: str) -> bool:
    """Whether a part of the name begins with a dot: what is there is no content."""
    return any(part.startswith(".") for part in name.split("/"))


def _part_name(name: str, one: RemoteFile) -> str:
    return sha256(f"{name} {one.size} {one.mark}".encode()).hexdigest()


def _write_all(copy: FileIO, chunk: bytes) -> None:
    """Writes the whole chunk: a disk that becomes full takes a part of it, and says so at the next one only."""
    view = memoryview(chunk)
    while view:
        view = view[copy.write(view) :]


def _placed(partial: Path, staging: Path, name: str, one: RemoteFile) -> FileEntry:
    """Moves a file that is complete to its place, and returns its entry.

    Raises: UnsafeSource, DigestMismatch, SourceChanged (its copy has another size: somebody else wrote to it).
    """
    target = staging / name
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UnsafeSource(f"{name!a} is the name of a file and of files below it") from None
    if target.is_dir():
        raise UnsafeSource(f"{name!a} is the name of a file and of files below it")
    (partial / _part_name(name, one)).rename(target)
    entry = hashed(staging, name)
    if entry.size != one.size:
        raise SourceChanged(f"{name!a} has {entry.size} bytes in its copy, it was listed with {one.size}")
    if one.sha256 and entry.sha256 != one.sha256:
        raise DigestMismatch(f"{name!a} has SHA-256 {entry.sha256}, its source says {one.sha256}")
    return entry
