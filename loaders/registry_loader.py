"""Versions in a registry: a service that lists models, their versions and the files of each, under names of its own."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final, Protocol

from loaders import uri
from loaders.errors import MALFORMED, LoaderError, SourceNotFound, SourceTooLarge, SourceUnreadable
from loaders.loader import NO_NOTES, Listing, LocalVersion, VersionNotes
from loaders.remote_copy import RemoteCopies, RemoteFile, RemoteFiles, is_hidden, read_whole
from loaders.store import ContentStore
from loaders.tree import TreeLimits

_MAX_READ: Final = 256 << 20
_ANSWER: Final = "the registry cannot be read: it answers what is not of its protocol"


@dataclass(frozen=True, slots=True)
class RegisteredVersion:
    """A version as its registry lists it. `mark` changes with the content, `place` is how its files are found."""

    place: str
    mark: str
    notes: VersionNotes = NO_NOTES


@dataclass(frozen=True, slots=True)
class RegisteredModel:
    """A model as its registry lists it, with the files beside its versions that the registry keeps for it, and the
    names that it moves from version to version."""

    versions: Mapping[str, RegisteredVersion]
    beside: Mapping[str, bytes] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)


class ModelRegistry(Protocol):
    """What a registry's loader needs of its client; errors are those of `loaders.errors`."""

    @property
    def uri(self) -> str:
        """Returns what tells this registry, and what is read of it, from others."""

    def listed(self) -> Mapping[str, RegisteredModel]:
        """Returns every model. Raises: SourceNotFound, SourceUnreadable."""

    def files(self, version: RegisteredVersion) -> RemoteFiles:
        """Returns the files of a version. Raises: LoaderError."""

    def content(self, one: RemoteFile, name: str, offset: int) -> Iterator[bytes]:
        """Yields a file's bytes from `offset` on. Raises: LoaderError."""


def moving_names(versions: Mapping[str, RegisteredVersion], fixed: Callable[[str], bool]) -> dict[str, str]:
    """Returns the names of content that has a `fixed` name too, each with that name; of several the greatest."""
    by_mark: dict[str, str] = {}
    for name in sorted(filter(fixed, versions), key=lambda name: (len(name), name)):
        by_mark[versions[name].mark] = name
    return {
        name: by_mark[one.mark]
        for name, one in versions.items()
        if one.mark and one.mark in by_mark and not fixed(name)
    }


class RegistryLoader:
    """The loader of a registry."""

    def __init__(self, registry: ModelRegistry, store: ContentStore, *, limits: TreeLimits | None = None) -> None:
        self._registry = registry
        self._copies = RemoteCopies(store, registry.content, limits)
        self._held = threading.local()  # what this thread listed within `one_look`
        self._looked: Mapping[str, RegisteredModel] = {}  # what the newest look has found

    @contextmanager
    def one_look(self) -> Iterator[None]:
        """Lists the registry once, for all that the thread asks until the end."""
        self._held.models = self._looked = self._listed()
        try:
            yield
        finally:
            del self._held.models

    def models(self) -> Listing:
        """Returns the models that have versions. Raises: SourceNotFound, SourceUnreadable."""
        return Listing(tuple(sorted(self._models())), {})

    def origin(self, model: str) -> str:
        """Returns the URI of the registry."""
        return self._registry.uri

    def versions(self, model: str) -> Listing:
        """Returns the versions of the model. Raises: as `Loader`."""
        one = self._model(model)
        names = tuple(sorted(name for name in one.versions if not is_hidden(name)))
        notes = {name: one.versions[name].notes for name in names if one.versions[name].notes != NO_NOTES}
        return Listing(names, {}, aliases=one.aliases, notes=notes)

    def stamp(self, model: str) -> str:
        """Returns a hash of what the registry keeps beside the versions. Raises: as `Loader`."""
        return sha256(repr(sorted(self._model(model).beside.items())).encode()).hexdigest()

    def fingerprint(self, model: str, version: str) -> str:
        """Returns a hash of the version's mark. Raises: as `Loader`."""
        one = self._version(model, version)
        return sha256(f"{self._registry.uri} {model} {version} {one.place} {one.mark}".encode()).hexdigest()

    def holds(self, model: str, name: str) -> bool:
        """Whether there is such a file, or one below it."""
        try:
            files = self._files_at(model, name)
        except LoaderError:
            return False
        rest = name.partition("/")[2]
        return name in self._model(model).beside or rest in files or any(one.startswith(f"{rest}/") for one in files)

    def read(self, model: str, name: str, limit: int) -> bytes:
        """Returns the content of a file below the model. Raises: as `Loader`."""
        shown = ascii(name[:80])
        looked = self._looked.get(model) if is_hidden(name) else None
        content = (self._model(model) if looked is None else looked).beside.get(name)
        if content is None:
            one = self._files_at(model, name).get(name.partition("/")[2])
            if one is None:
                raise SourceNotFound(f"{shown} is not there")
            if one.size > min(limit, _MAX_READ):
                raise SourceTooLarge(f"{shown} has {one.size} bytes, the limit is {limit}")
            content = read_whole(self._registry.content, one, name)
        if len(content) > limit:
            raise SourceTooLarge(f"{shown} has {len(content)} bytes, the limit is {limit}")
        return content

    def progress(self, model: str, version: str) -> str:
        """Returns how much of a version that is being copied is here."""
        return self._copies.progress(model, version)

    def digest(self, model: str, version: str) -> str:
        """Returns the digest of the version as the newest look has found it. Raises: as `fetch`."""
        return self._copies.digest(model, version, *self._content(model, version))

    def fetch(self, model: str, version: str, *, digest: str | None = None) -> LocalVersion:
        """Returns a verified copy of the version; with `digest`, of exactly that content.

        It is the version as the newest look has found it: whoever loads a thousand lists the registry once.

        Raises: LoaderError; what was copied by then is where the next try goes on.
        """
        known = self._copies.stored(digest)
        if known is not None:
            return known
        return self._copies.copy(model, version, *self._content(model, version), digest)

    def _content(self, model: str, version: str) -> tuple[object, RemoteFiles]:
        """Returns where the version lies, and its files, as the newest look has found it."""
        looked = self._looked.get(model)
        one = looked.versions.get(version) if looked is not None else None
        if one is None:
            one = self._version(model, version)
        return (self._registry.uri, one.place, one.mark), self._files(one)

    def _models(self) -> Mapping[str, RegisteredModel]:
        models: Mapping[str, RegisteredModel] | None = getattr(self._held, "models", None)
        listed = self._listed() if models is None else models
        return {name: one for name, one in listed.items() if not is_hidden(name)}

    def _model(self, model: str) -> RegisteredModel:
        uri.check_directory_name(model)
        one = self._models().get(model)
        if one is None:
            raise SourceNotFound(f"{model!a} is not there")
        return one

    def _version(self, model: str, version: str) -> RegisteredVersion:
        uri.check_directory_name(version)
        one = self._model(model).versions.get(version)
        if one is None:
            raise SourceNotFound(f"{version!a} is not there")
        return one

    def _files_at(self, model: str, name: str) -> RemoteFiles:
        """Returns the files of the version in which the file of that name lies, none where it lies in none."""
        first = name.partition("/")[0]
        if is_hidden(first) and model in self._looked:
            return {}  # no version has such a name
        version = self._model(model).versions.get(first)
        return {} if version is None else self._files(version)

    def _listed(self) -> Mapping[str, RegisteredModel]:
        try:
            return self._registry.listed()
        except MALFORMED as error:
            raise SourceUnreadable(_ANSWER) from error

    def _files(self, version: RegisteredVersion) -> RemoteFiles:
        try:
            return self._registry.files(version)
        except MALFORMED as error:
            raise SourceUnreadable(_ANSWER) from error
