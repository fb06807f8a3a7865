"""The table of URI schemes: which loader a repository's URI is read by. Whoever adds a loader adds its line here."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from loaders import object_store, uri
from loaders.errors import UnsupportedUri
from loaders.filesystem import FilesystemLoader, missing_directory
from loaders.loader import Loader
from loaders.store import ContentStore


@dataclass(frozen=True, slots=True)
class LoaderSettings:
    """What every loader is made with: the URI of its repository, where copies go, where links may lead."""

    uri: str
    store: ContentStore
    links_to: Sequence[Path] = ()


@dataclass(frozen=True, slots=True)
class Scheme:
    """One form of URI: `form` is how it is written.

    `canonical` returns a URI in one form, or raises UnsupportedUri; `missing` returns why a start without it is a
    mistake, "" if it is there or only a scan can tell.
    """

    form: str
    canonical: Callable[[str], str]
    missing: Callable[[str], str]
    loader: Callable[[LoaderSettings], Loader]


SCHEMES: Final[Mapping[str, Scheme]] = {
    "file": Scheme(
        "a path or file://",
        uri.local_path,
        missing_directory,
        lambda settings: FilesystemLoader(settings.uri, settings.store, links_to=settings.links_to),
    ),
    "s3": Scheme(
        "s3://",
        object_store.canonical,
        lambda repository: "",
        lambda settings: object_store.ObjectStoreLoader(settings.uri, settings.store),
    ),
}


def canonical(repository: str) -> str:
    """Returns the URI in the form in which it means the same from everywhere: paths are absolute.

    Raises: UnsupportedUri; for an unknown scheme it names those that are known.
    """
    return _scheme(repository).canonical(repository)


def missing(repository: str) -> str:
    """Returns why the gateway should not start with this repository, "" if nothing speaks against it."""
    return _scheme(repository).missing(repository)


def open_loader(settings: LoaderSettings) -> Loader:
    """Returns the loader of the repository. Raises: UnsupportedUri, as `canonical`."""
    return _scheme(settings.uri).loader(settings)


def _scheme(repository: str) -> Scheme:
    name = uri.scheme_of(repository)
    scheme = SCHEMES.get(name)
    if scheme is None:
        known = ", ".join(scheme.form for scheme in SCHEMES.values())
        raise UnsupportedUri(f"no loader for {name[:40]}:// URIs, only for {known}; mount what lies elsewhere")
    return scheme
