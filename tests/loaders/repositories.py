"""Repositories of every scheme, written by the tests: whoever adds a loader adds its writer here.

A writer puts files where the loader of its scheme finds them; a real server of that kind is started by its fixture.
"""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol


class WrittenRepository(Protocol):
    """A repository that a test fills."""

    @property
    def uri(self) -> str: ...

    def write(self, name: str, content: bytes) -> None:
        """Writes or overwrites a file; `name` has '/' between its parts."""

    def remove(self, name: str) -> None:
        """Removes a file, or a directory with all that is in it; "" is the repository itself."""


class WrittenDirectory:
    """A repository on this machine."""

    def __init__(self, directory: Path) -> None:
        self._root = directory / "repository"
        self._root.mkdir()

    @property
    def uri(self) -> str:
        return str(self._root)

    def write(self, name: str, content: bytes) -> None:
        path = self._root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def remove(self, name: str) -> None:
        path = self._root / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()


# By scheme, as in `loaders.schemes`; a writer is made with an empty directory of its own.
WRITERS: Mapping[str, Callable[[Path], WrittenRepository]] = {"file": WrittenDirectory}
