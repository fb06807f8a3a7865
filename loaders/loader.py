"""The contract of every loader, and the values it returns."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from loaders.errors import SourceNotFound

_NAMES_SHOWN = 5


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of a version. `name` is relative, with '/' between its parts; `sha256` is lower-case hex."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class LocalVersion:
    """Holds a verified copy of one version's files, which never changes again.

    Order:  `files` are sorted by name; every file below `path` is in `files`, with that size and SHA-256.
    Source: `digest` is the SHA-256 of the manifest (loaders.manifest).
    """

    path: Path
    digest: str
    files: tuple[FileEntry, ...]

    @property
    def size(self) -> int:
        """Returns the total size of the files in bytes."""
        return sum(entry.size for entry in self.files)

    def model_file(self, filename: str = "model.onnx") -> Path:
        """Returns the path of the model: `filename`, or `filename/filename` if the former is a directory.

        Raises: SourceNotFound.
        """
        names = {entry.name for entry in self.files}
        for name in (filename, f"{filename}/{filename}"):
            if name in names:
                return self.path / name
        if any(name.startswith(f"{filename}/") for name in names):
            raise SourceNotFound(f"{filename!r} is a directory without a file {filename!r} in it")
        raise SourceNotFound(_missing(filename, sorted(names)))


def _missing(filename: str, names: Sequence[str]) -> str:
    """Returns a text that says what is there instead of the model's file, and what to do about it."""
    lacks = f"the version directory holds no file {filename!r}"
    if not names:
        return f"{lacks}, it is empty: copy the model there"
    shown = ", ".join(map(repr, names[:_NAMES_SHOWN]))
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    models = [name for name in names if name.endswith(".onnx")]
    if len(models) == 1:
        advice = f"rename {models[0]!r}, or name it as default_model_filename in config.pbtxt"
    elif models:
        advice = "name one of them as default_model_filename in config.pbtxt"
    else:
        advice = "export the model as ONNX under that name; no other format is served"
    return f"{lacks} but {shown}{more}: {advice}"


@dataclass(frozen=True, slots=True)
class VersionNotes:
    """Holds what a source keeps of a version beside its files: who put it there, when, and where it comes from.

    Units: seconds since the epoch, 0.0 where it is not known.
    """

    publisher: str = ""
    published_s: float = 0.0
    lineage: Mapping[str, str] = field(default_factory=dict)


NO_NOTES: Final = VersionNotes()


@dataclass(frozen=True, slots=True)
class Listing:
    """The directories at one place of a repository by name, sorted; `refused` has what else is there, and why.

    `unreadable` has the origins (`Loader.origin`) that could not be listed, and why: what they have is not known.
    `aliases`, of a model, are the names that its source moves from version to version, each with the version that it
    names now; `notes` are what the source keeps of its versions, by name.
    `beside` are those of `refused` that nobody takes for a model, such as a README.
    """

    names: tuple[str, ...]
    refused: Mapping[str, str]
    unreadable: Mapping[str, str] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, VersionNotes] = field(default_factory=dict)
    beside: frozenset[str] = frozenset()


class Loader(Protocol):
    """One model repository, `<model>/<version>/` and files beside the versions; brings versions to this machine.

    Every method blocks, so call it on a thread; several threads may call at once. Names of models, versions and files
    are whatever the caller was given: a loader reads nothing outside its repository for any of them.
    """

    def one_look(self) -> AbstractContextManager[None]:
        """Returns what a scan holds: until its end, all that this thread asks may be answered from one look.

        Raises: on entering, as `models`.
        """

    def models(self) -> Listing:
        """Returns the models' directories. Raises: SourceNotFound, SourceUnreadable, if the repository is not there."""

    def origin(self, model: str) -> str:
        """Returns the URI of the repository that has the model; "" where none of several has it."""

    def versions(self, model: str) -> Listing:
        """Returns the directories of a model: its versions, and others. Raises: SourceNotFound, SourceUnreadable."""

    def stamp(self, model: str) -> str:
        """Returns a short text that changes when a file beside the versions may have changed.

        Those are the files of the model's directory and of `warmup` in it.

        Raises: SourceNotFound, SourceUnreadable.
        """

    def fingerprint(self, model: str, version: str) -> str:
        """Returns a short text that changes when the version's content may have changed; does not read the files.

        Raises: SourceNotFound, UnsafeSource, SourceUnreadable.
        """

    def holds(self, model: str, name: str) -> bool:
        """Whether there is a file (or a directory) `name`, its parts with '/' between them, below the model's."""

    def read(self, model: str, name: str, limit: int) -> bytes:
        """Returns the content of a file below the model's directory, of at most `limit` bytes.

        Raises: SourceNotFound, UnsafeSource (a name or a link that leads outside), SourceTooLarge, SourceUnreadable.
        """

    def progress(self, model: str, version: str) -> str:
        """Returns how far a `fetch` of the version is that takes long, as text for people; "" where none is running."""

    def digest(self, model: str, version: str) -> str:
        """Returns the digest of the version as its source has it now; what was copied before is not read again.

        Raises: as `fetch`.
        """

    def fetch(self, model: str, version: str, *, digest: str | None = None) -> LocalVersion:
        """Returns a verified copy of the version; with `digest`, of exactly that content, from the store if it has it.

        Raises: LoaderError; nothing is left behind then.
        """
