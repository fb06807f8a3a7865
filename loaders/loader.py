"""The contract of every loader, and the value it returns."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from loaders.errors import SourceNotFound


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of a version. `name` is relative, with '/' between its parts; `sha256` is lower-case hex."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class LocalVersion:
    """A verified copy of one version's files that nobody writes to any more.

    Order:  `files` are sorted by name; every file below `path` is in `files`, with that size and SHA-256.
    Source: `digest` is the SHA-256 of the manifest (loaders.manifest).
    """

    path: Path
    digest: str
    files: tuple[FileEntry, ...]

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(entry.size for entry in self.files)

    def model_file(self, filename: str = "model.onnx") -> Path:
        """The path of the model: `filename`, or `filename/filename` where the former is a directory.

        Raises: SourceNotFound.
        """
        names = {entry.name for entry in self.files}
        for name in (filename, f"{filename}/{filename}"):
            if name in names:
                return self.path / name
        if any(name.startswith(f"{filename}/") for name in names):
            raise SourceNotFound(f"{filename!r} is a directory without a file {filename!r} in it")
        raise SourceNotFound(f"the version directory holds no file {filename!r}")


class Loader(Protocol):
    """Brings the files of one version to this machine. Both methods block: call them on a thread."""

    def fetch(self, uri: str, *, digest: str | None = None) -> LocalVersion:
        """A verified copy of the version. With `digest`: of exactly that content, from the store where it is known.

        Raises: LoaderError; nothing is left behind then.
        """

    def fingerprint(self, uri: str) -> str:
        """A short text that changes when the content may have changed; does not read the files.

        Raises: UnsupportedUri, SourceNotFound, SourceUnreadable.
        """
