"""The table of URI schemes: which loader a repository's URI is read by. Whoever adds a loader adds its line here.

Another package adds a scheme by an entry point of the group `gateway.loaders`: its name is the scheme, its object a
`Scheme`. It is imported where a URI of that scheme is named. A scheme of the table cannot be taken over.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Final

from loaders import hugging_face, mlflow_registry, object_store, oci_registry, uri
from loaders.errors import UnsupportedUri
from loaders.filesystem import FilesystemLoader
from loaders.guarded_loader import GuardedLoader
from loaders.hugging_face import HuggingFaceHub
from loaders.loader import Loader
from loaders.mlflow_registry import MlflowRegistry
from loaders.oci_registry import OciRegistry
from loaders.plain_file import PlainFileLoader, is_plain_file, missing_place
from loaders.registry_loader import ModelRegistry, RegistryLoader
from loaders.repository_union import RepositoryUnion
from loaders.store import ContentStore

GROUP: Final = "gateway.loaders"


@dataclass(frozen=True, slots=True)
class LoaderSettings:
    """What loaders are made with: the URI of the repository (of several, with commas between), where copies go, where
    links may lead.
    """

    uri: str
    store: ContentStore
    links_to: Sequence[Path] = ()


@dataclass(frozen=True, slots=True)
class Scheme:
    """One form of URI: `form` is how it is written.

    `canonical` returns a URI in one form, or raises UnsupportedUri; `missing` returns why a start without it is a
    mistake, "" if it is there or only a scan can tell. `loader` is given the settings with this one URI.
    """

    form: str
    canonical: Callable[[str], str]
    missing: Callable[[str], str]
    loader: Callable[[LoaderSettings], Loader]


def _registry(form: str, canonical: Callable[[str], str], registry: Callable[[str], ModelRegistry]) -> Scheme:
    return Scheme(
        form,
        canonical,
        lambda repository: "",
        lambda settings: RegistryLoader(registry(settings.uri), settings.store),
    )


def _local(settings: LoaderSettings) -> Loader:
    made = PlainFileLoader if is_plain_file(settings.uri) else FilesystemLoader
    return made(settings.uri, settings.store, links_to=settings.links_to)


SCHEMES: Final[Mapping[str, Scheme]] = {
    "file": Scheme(
        "a path or file://",
        uri.canonical_path,
        missing_place,
        _local,
    ),
    **{
        scheme: Scheme(
            f"{scheme}://",
            object_store.canonical,
            object_store.missing_client,
            lambda settings: object_store.ObjectStoreLoader(settings.uri, settings.store),
        )
        for scheme in object_store.KINDS
    },
    "mlflow+http": _registry("mlflow+http://", mlflow_registry.canonical, MlflowRegistry),
    "mlflow+https": _registry("mlflow+https://", mlflow_registry.canonical, MlflowRegistry),
    "models": _registry("models:/", mlflow_registry.canonical, MlflowRegistry),
    "oci": _registry("oci://", oci_registry.canonical, OciRegistry),
    "oci+http": _registry("oci+http://", oci_registry.canonical, OciRegistry),
    "hf": _registry("hf://", hugging_face.canonical, HuggingFaceHub),
}


def canonical(repositories: str) -> str:
    """Returns the URIs in the form in which they mean the same from everywhere: paths are absolute.

    Raises: UnsupportedUri; for an unknown scheme it names those that are known.
    """
    forms = [_scheme(one).canonical(one) for one in uri.split_uris(repositories)]
    for number, form in enumerate(forms):
        if form in forms[:number]:
            first = forms.index(form) + 1
            raise UnsupportedUri(f"repository {number + 1} is repository {first} once more: name it once")
    return ",".join(forms)


def missing(repositories: str) -> str:
    """Returns which repository speaks against a start of the gateway and why, "" if none does."""
    for one in uri.split_uris(repositories):
        if reason := _scheme(one).missing(one):
            return f"{one!r} {reason}"
    return ""


def open_loader(settings: LoaderSettings) -> Loader:
    """Returns the loader of the repository, or of several as one. Raises: UnsupportedUri, as `canonical`."""
    loaders = {
        one: _scheme(one).loader(LoaderSettings(one, settings.store, settings.links_to))
        for one in uri.split_uris(settings.uri)
    }
    return next(iter(loaders.values())) if len(loaders) == 1 else RepositoryUnion(loaders, settings.store)


def _scheme(repository: str) -> Scheme:
    name = uri.scheme_of(repository)
    return SCHEMES.get(name) or _scheme_of_others(name)


def _scheme_of_others(name: str) -> Scheme:
    """Returns the scheme that an installed package adds. Raises: UnsupportedUri, naming what is known."""
    added = {point.name: point for point in entry_points(group=GROUP) if point.name not in SCHEMES}
    if name not in added:
        known = ", ".join([*(scheme.form for scheme in SCHEMES.values()), *(f"{other}://" for other in sorted(added))])
        raise UnsupportedUri(f"no loader for {name[:40]}:// URIs, only for {known}; mount what lies elsewhere")
    point = added[name]
    try:
        scheme = point.load()
    except (ImportError, AttributeError) as error:
        raise UnsupportedUri(f"the loader of {name}:// URIs, {point.value!r}, cannot be imported: {error}") from error
    if not isinstance(scheme, Scheme):
        raise UnsupportedUri(f"the loader of {name}:// URIs, {point.value!r}, is no loaders.schemes.Scheme")
    opened = scheme.loader
    return replace(scheme, loader=lambda settings: GuardedLoader(name, opened(settings)))
