"""The loader of another package: whatever it raises is an error of its source, and takes nothing else away."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from loaders.errors import LoaderError, SourceUnreadable
from loaders.loader import Listing, Loader, LocalVersion

T = TypeVar("T")

logger = logging.getLogger(__name__)


class GuardedLoader:
    """Asks the loader of a scheme; what it raises that is no LoaderError is a source that cannot be read.

    The log has where it came from, once for each text.
    """

    def __init__(self, scheme: str, loader: Loader) -> None:
        self._scheme = scheme
        self._loader = loader
        self._logged = ""

    @contextmanager
    def one_look(self) -> Iterator[None]:
        """Holds the loader's own look. Raises: as `models`."""
        look = self._guarded(self._loader.one_look)
        self._guarded(look.__enter__)
        try:
            yield
        finally:
            self._guarded(lambda: look.__exit__(None, None, None))

    def models(self) -> Listing:
        """Returns what the loader does. Raises: as `Loader`."""
        return self._guarded(self._loader.models)

    def origin(self, model: str) -> str:
        """Returns what the loader does; "" where it cannot tell."""
        try:
            return self._guarded(lambda: self._loader.origin(model))
        except LoaderError:
            return ""

    def versions(self, model: str) -> Listing:
        """Returns what the loader does. Raises: as `Loader`."""
        return self._guarded(lambda: self._loader.versions(model))

    def stamp(self, model: str) -> str:
        """Returns what the loader does. Raises: as `Loader`."""
        return self._guarded(lambda: self._loader.stamp(model))

    def fingerprint(self, model: str, version: str) -> str:
        """Returns what the loader does. Raises: as `Loader`."""
        return self._guarded(lambda: self._loader.fingerprint(model, version))

    def holds(self, model: str, name: str) -> bool:
        """Whether the loader says so."""
        try:
            return self._guarded(lambda: self._loader.holds(model, name))
        except LoaderError:
            return False

    def read(self, model: str, name: str, limit: int) -> bytes:
        """Returns what the loader does. Raises: as `Loader`."""
        return self._guarded(lambda: self._loader.read(model, name, limit))

    def progress(self, model: str, version: str) -> str:
        """Returns what the loader does; "" where it cannot tell."""
        try:
            return self._guarded(lambda: self._loader.progress(model, version))
        except LoaderError:
            return ""

    def digest(self, model: str, version: str) -> str:
        """Returns what the loader does. Raises: as `Loader`."""
        return self._guarded(lambda: self._loader.digest(model, version))

    def fetch(self, model: str, version: str, *, digest: str | None = None) -> LocalVersion:
        """Returns what the loader does. Raises: as `Loader`."""
        return self._guarded(lambda: self._loader.fetch(model, version, digest=digest))

    def _guarded(self, ask: Callable[[], T]) -> T:
        try:
            return ask()
        except LoaderError:
            raise
        except Exception as error:  # the boundary to code of others: no worker ends with it
            text = f"the loader of {self._scheme}:// URIs failed: {type(error).__name__}"
            if text != self._logged:
                self._logged = text
                logger.exception("%s", text)
            raise SourceUnreadable(f"{text}, see the log") from error
