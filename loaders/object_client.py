"""What an object store's loader needs of a client of it."""

from collections.abc import Iterator, Mapping
from typing import Protocol

from loaders.remote_copy import RemoteFile


class ObjectClient(Protocol):
    """A client of one bucket; errors are those of `loaders.errors`, without addresses and keys."""

    @property
    def place(self) -> str:
        """Returns what tells this store from others."""

    def listed(self, prefix: str) -> Iterator[tuple[str, RemoteFile]]:
        """Yields key and object of all whose keys begin with `prefix`. Raises: SourceNotFound, SourceUnreadable."""

    def content(self, one: RemoteFile, name: str, offset: int) -> Iterator[bytes]:
        """Yields the object's bytes from `offset` on, as long as it is the one that was listed.

        Raises: SourceChanged, SourceNotFound, SourceUnreadable.
        """


Options = Mapping[str, str]


def not_made(error: Exception) -> str:
    """Returns why there is no client, as its library says it in the first line of its error.

    Nothing was asked for yet, so that line names no address.
    """
    why = str(error).partition("\n")[0].strip()[:200]
    return f"the object store's client cannot be made: {why or type(error).__name__}"
