"""Prepared models of this host: a version in ONNX Runtime's optimised form, its weights in a file that processes map.

    <directory>/<key>/             model.onnx, weights.bin, prepared.json; 0400, the directories 0700
    <directory>/<key>.refused      why this version cannot be prepared
    <directory>/copies/            which verified copy a version of the repository was prepared from
    <directory>/staging/           the preparation under way
    <directory>/preparing          lock: one preparation at a time on this host
    <directory>/using              lock: shared by who opens a model, held alone by who removes one

Order: an entry appears complete and synced, by rename, or not at all; it never changes. Who maps its weights keeps them
       when it is removed. Its bytes are hashed whenever it is opened; one that does not have its hashes, or is of
       another key, is removed, and made again after an hour.
"""

import os
import re
import shutil
import stat
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from time import time
from typing import Final

import msgspec
import xxhash

from gateway.serving.host_lock import blocking_lock
from gateway.serving.probe_request import ProbeRequest, from_json, to_json
from gateway.serving.run_environment import RunEnvironment
from gateway.serving.session import WEIGHTS_FILENAME, runtime_key
from loaders import manifest
from loaders.loader import LocalVersion

MODEL_FILENAME: Final = "model.onnx"
MANIFEST_FILENAME: Final = "prepared.json"
REFUSAL_REMEMBERED_S: Final = 3600.0  # of a reason that may pass: a busy machine, a full disk
_FORM: Final = 1  # part of every key: an entry in another form is never read
_NOTE_KEPT_S: Final = 90 * 86_400.0  # after its last use
_CHUNK: Final = 1 << 20
_NAME: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


class DamagedEntry(Exception):
    """Raised when an entry is not what was written: a file is missing, shorter, other than its hash, of another key."""


class FileHash(msgspec.Struct, frozen=True):
    """A file of an entry; `xxh3` is XXH3-128 in hex, which finds damage. Who may write here needs no damage."""

    size: int
    xxh3: str


class PreparedManifest(msgspec.Struct, frozen=True):
    """Describes an entry: the key that it was made for, in full, and its files by name."""

    key: str
    files: Mapping[str, FileHash]


class _Keyed(msgspec.Struct, frozen=True):
    """The part of a key that says of which content an entry is."""

    digest: str = ""


class Refusal(msgspec.Struct, frozen=True):
    """Says why a version is not prepared. One that is not `lasting` holds for a while.

    `stepped_back`: whether the workers went before who tried it.
    """

    reason: str
    lasting: bool = True
    stepped_back: bool = True


@dataclass(frozen=True, slots=True)
class PreparedEntry:
    """Holds a prepared model that was found whole. Units: `size` bytes on the disk."""

    model: Path
    size: int


def preparation_key(request: ProbeRequest, environment: RunEnvironment) -> str:
    """Returns all that a prepared model depends on, as text: content, runtime, providers, processor and options."""
    parts = {
        "form": _FORM,
        "digest": request.local.digest,
        "filename": request.filename,
        "runtime": runtime_key(),
        "cpu": environment.cpu,
        "features": environment.features,
        "threads": [request.intra_threads, request.inter_threads],
        "options": dict(request.options),
    }
    return msgspec.json.encode(parts, order="deterministic").decode()


class PreparedStore:
    """Keeps prepared models in a directory that the processes of a host share.

    Units: `max_bytes` of all entries together; it holds at every moment.
    """

    def __init__(self, directory: Path, *, max_bytes: int) -> None:
        self._directory = directory
        self.max_bytes = max_bytes

    @property
    def preparing_lock(self) -> Path:
        """The lock that a preparation holds."""
        return self._directory / "preparing"

    def make(self) -> None:
        """Makes the directory, or checks that it is this user's alone.

        Raises: OSError, PermissionError if others may write to it.
        """
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = self._directory.stat()
        if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise PermissionError(1, "the directory of prepared models is open to other users", str(self._directory))

    def note_copy(self, place: str, local: LocalVersion) -> None:
        """Notes that what `place` names is this verified copy. Raises: OSError."""
        note = self._note(place)
        note.parent.mkdir(mode=0o700, exist_ok=True)
        staging = note.with_suffix(f".{os.getpid()}")
        staging.write_bytes(to_json(local))
        os.replace(staging, note)

    def noted_copy(self, place: str) -> LocalVersion | None:
        """Returns the copy that was noted for the place, if it is still there; its bytes are not read again."""
        note = self._note(place)
        try:
            local = from_json(note.read_bytes(), LocalVersion)
            os.utime(note)
        except (OSError, ValueError):
            return None
        return local if local.digest == manifest.digest_of(local.files) and local.path.is_dir() else None

    @contextmanager
    def opened(self, key: str) -> Iterator[PreparedEntry | None]:
        """Yields the entry of the key, its bytes hashed anew, or None; it is not removed meanwhile.

        A damaged entry is removed, and not made again soon: whatever damaged it may do so again, and the version has
        its own weights. The thread must open no other entry meanwhile.

        Raises: OSError, where the store cannot be read.
        """
        path = self._path(key)
        if not path.is_dir():
            yield None
            return
        self.make()
        with blocking_lock(self._directory / "using", shared=True):
            entry, is_damaged = None, False
            try:
                entry = _checked(path, key)
            except FileNotFoundError:
                is_damaged = path.is_dir()
            except DamagedEntry:
                is_damaged = True
            if entry is not None:
                with suppress(OSError):
                    os.utime(path)  # the least recently used goes first
                yield entry
                return
        if is_damaged:
            self.remove(key)
            self.refuse(key, Refusal("its prepared form was damaged, and thrown away", lasting=False))
        yield None

    def has(self, key: str) -> bool:
        """Returns whether there is an entry of the key, whole or not."""
        return self._path(key).is_dir()

    def refusal(self, key: str, *, asked_at: float, again: bool = False) -> Refusal | None:
        """Returns why the key is not prepared, if that is known and still holds.

        A reason that may pass holds for an hour, or with `again` only if it was found since `asked_at`.

        Units: `asked_at` seconds since the epoch.
        """
        path = self._refused(key)
        try:
            noted_at = path.stat().st_mtime
            refusal = msgspec.json.decode(path.read_bytes(), type=Refusal)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return None
        holds = noted_at >= asked_at if again else asked_at - noted_at < REFUSAL_REMEMBERED_S
        return refusal if refusal.lasting or holds else None

    def refuse(self, key: str, refusal: Refusal) -> None:
        """Notes why the key is not prepared. Raises: OSError."""
        path = self._refused(key)
        staging = path.with_suffix(f".{os.getpid()}")
        staging.write_bytes(msgspec.json.encode(refusal))
        os.replace(staging, path)

    def stage(self) -> Path:
        """Returns an empty directory for one preparation, in which nothing is left of another that was killed.

        Order:  the caller holds `preparing_lock`, and calls `unstage` at the end.
        Raises: OSError.
        """
        self.unstage()
        staging = self._directory / "staging"
        staging.mkdir(mode=0o700)
        return staging

    def unstage(self) -> None:
        """Removes what is left of a preparation; the caller holds `preparing_lock`."""
        shutil.rmtree(self._directory / "staging", ignore_errors=True)

    def free_bytes(self) -> int:
        """Returns how many bytes of the disk are free for this user. Raises: OSError."""
        return shutil.disk_usage(self._directory).free

    def publish(self, key: str, staging: Path) -> bool:
        """Makes the staged files the entry of the key, once the least recently used entries have made room for it.

        Returns False, and leaves all as it is, if it alone has more bytes than the store may have.

        Raises: OSError.
        """
        size = _size_of(staging)
        if size > self.max_bytes:
            return False
        target = self._path(key)
        with blocking_lock(self._directory / "using"):
            self._drop(target)
            self._make_room(size)
            os.rename(staging, target)
            _sync(self._directory)
        self._refused(key).unlink(missing_ok=True)
        self._forget_copies()
        return True

    def remove(self, key: str) -> None:
        """Removes the entry of the key, if there is one. Raises: OSError."""
        with blocking_lock(self._directory / "using"):
            self._drop(self._path(key))

    def keep(self, digests: Collection[str]) -> None:
        """Marks the entries of versions with these digests as used now. Raises: OSError."""
        if not digests or not self._directory.is_dir():
            return
        for _, path, _ in self._entries():
            with suppress(FileNotFoundError, msgspec.MsgspecError):
                description = msgspec.json.decode((path / MANIFEST_FILENAME).read_bytes(), type=PreparedManifest)
                if msgspec.json.decode(description.key, type=_Keyed).digest in digests:
                    os.utime(path)

    def bytes(self) -> int:
        """Returns the bytes of all entries."""
        return sum(size for _, _, size in self._entries())

    def _make_room(self, size: int) -> None:
        entries = sorted(self._entries())
        total = sum(entry_size for _, _, entry_size in entries)
        for _, path, entry_size in entries:
            if total + size <= self.max_bytes:
                return
            self._drop(path)
            total -= entry_size

    def _entries(self) -> Iterator[tuple[float, Path, int]]:
        """Yields when each entry was used last, where it is and its size in bytes."""
        for path in self._directory.iterdir():
            if _NAME.fullmatch(path.name):
                with suppress(FileNotFoundError):
                    yield path.stat().st_mtime, path, _size_of(path)

    def _drop(self, path: Path) -> None:
        """Takes an entry away at once, then from the disk; `using` is held."""
        away = self._directory / f"removed.{os.getpid()}.{path.name}"
        with suppress(FileNotFoundError):
            os.rename(path, away)
        for left in self._directory.glob("removed.*/"):
            shutil.rmtree(left, ignore_errors=True)

    def _forget_copies(self) -> None:
        for note in (self._directory / "copies").glob("*"):
            with suppress(FileNotFoundError):
                if time() - note.stat().st_mtime > _NOTE_KEPT_S:
                    note.unlink()

    def _note(self, place: str) -> Path:
        return self._directory / "copies" / sha256(place.encode()).hexdigest()

    def _path(self, key: str) -> Path:
        return self._directory / sha256(key.encode()).hexdigest()

    def _refused(self, key: str) -> Path:
        return self._path(key).with_suffix(".refused")


def seal(directory: Path, key: str) -> None:
    """Writes the manifest of a directory that holds a prepared model, and syncs all of it to the disk.

    Raises: OSError.
    """
    files = {}
    for name in (MODEL_FILENAME, WEIGHTS_FILENAME):
        path = directory / name
        _sync(path)
        path.chmod(stat.S_IRUSR)
        files[name] = _hashed(path)
    description = directory / MANIFEST_FILENAME
    description.write_bytes(msgspec.json.encode(PreparedManifest(key, files)))
    _sync(description)
    _sync(directory)


def _checked(path: Path, key: str) -> PreparedEntry:
    """Returns the entry, if it is whole and of this key. Raises: DamagedEntry, FileNotFoundError, OSError."""
    try:
        description = msgspec.json.decode((path / MANIFEST_FILENAME).read_bytes(), type=PreparedManifest)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DamagedEntry("its manifest cannot be read") from error
    if description.key != key or description.files.keys() != {MODEL_FILENAME, WEIGHTS_FILENAME}:
        raise DamagedEntry("it was made for another key")
    for name, written in description.files.items():
        if (path / name).lstat().st_size != written.size or _hashed(path / name) != written:
            raise DamagedEntry(f"{name} is not what was written")
    return PreparedEntry(path / MODEL_FILENAME, sum(written.size for written in description.files.values()))


def _hashed(path: Path) -> FileHash:
    """Returns the file's hash. It is read, not mapped: a file that shrinks ends the check, not the process."""
    digest, size = xxhash.xxh3_128(), 0
    buffer = memoryview(bytearray(_CHUNK))
    with open(os.open(path, _READ), "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
            size += count
    return FileHash(size, digest.hexdigest())


def _size_of(directory: Path) -> int:
    return sum(entry.stat().st_size for entry in os.scandir(directory))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
