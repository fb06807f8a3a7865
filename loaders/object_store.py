"""Versions in an object store, with keys `<prefix>/<model>/<version>/<file>`: s3://, gs:// and az://."""

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from importlib.util import find_spec
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit

from loaders import uri
from loaders.errors import LoaderError, SourceNotFound, SourceTooLarge, SourceUnreadable, UnsupportedUri
from loaders.loader import Listing, LocalVersion
from loaders.object_client import ObjectClient, Options
from loaders.obstore_client import azure_client, google_client
from loaders.remote_copy import RemoteCopies, RemoteFile, RemoteFiles, mark_of, read_whole
from loaders.s3_client import S3Client
from loaders.store import ContentStore
from loaders.tree import TreeLimits

_SIDE_DIRECTORY: Final = "warmup"
_MAX_OBJECTS: Final = 1_000_000  # of a repository


@dataclass(frozen=True, slots=True)
class ObjectStoreKind:
    """What tells one kind of object store from the others: its URI, its client, and what brings the client."""

    form: str
    bucket: re.Pattern[str]
    bucket_rule: str
    options: tuple[str, ...]
    module: str
    install: str
    client: Callable[[str, Options], ObjectClient]


KINDS: Final[Mapping[str, ObjectStoreKind]] = {
    "s3": ObjectStoreKind(
        "s3://bucket/prefix?region=...&endpoint=http(s)://host:port",
        re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]\Z", re.ASCII),
        "a bucket has 3 to 63 lower-case letters, digits, . and -",
        ("endpoint", "region"),
        "botocore",
        "pip install 'model-serving-gateway[s3]'",
        S3Client,
    ),
    "gs": ObjectStoreKind(
        "gs://bucket/prefix?endpoint=http(s)://host:port",
        re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]\Z", re.ASCII),
        "a bucket has 3 to 222 lower-case letters, digits, . _ and -",
        ("endpoint",),
        "obstore",
        "pip install 'model-serving-gateway[gcs]'",
        google_client,
    ),
    "az": ObjectStoreKind(
        "az://container/prefix?account=NAME&endpoint=http(s)://host:port",
        re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]\Z", re.ASCII),
        "a container has 3 to 63 lower-case letters, digits and -",
        ("account", "endpoint"),
        "obstore",
        "pip install 'model-serving-gateway[azure]'",
        azure_client,
    ),
}


def missing_client(repository: str) -> str:
    """Returns why no worker could ever make the client of the URI, as where no account or region is named, else ""."""
    parts = urlsplit(canonical(repository))
    kind = KINDS[parts.scheme]
    try:
        kind.client(parts.netloc, dict(parse_qsl(parts.query)))
    except UnsupportedUri as error:
        return f"cannot be read: {error}; it is written {kind.form}"
    except SourceUnreadable:
        pass  # it may end: workers try again
    return ""


class ObjectStoreLoader:
    """The loader of the URIs of `KINDS`."""

    def __init__(self, repository: str, store: ContentStore, *, limits: TreeLimits | None = None) -> None:
        self._uri = canonical(repository)
        parts = urlsplit(self._uri)
        self._prefix = f"{parts.path.strip('/')}/".lstrip("/")
        self._client = KINDS[parts.scheme].client(parts.netloc, dict(parse_qsl(parts.query)))
        self._copies = RemoteCopies(store, self._client.content, limits)
        self._held = threading.local()  # what this thread listed within `one_look`

    @contextmanager
    def one_look(self) -> Iterator[None]:
        """Lists the whole repository once, for all that the thread asks until the end."""
        by_model: dict[str, dict[str, RemoteFile]] = {}
        for name, one in self._listed("").items():
            by_model.setdefault(name.partition("/")[0], {})[name] = one
        self._held.by_model = by_model
        try:
            yield
        finally:
            del self._held.by_model

    def models(self) -> Listing:
        """Returns the first parts of the keys. Raises: SourceNotFound (no bucket), SourceUnreadable."""
        objects = self._below()
        files = {name: "an object: models are prefixes" for name in objects if "/" not in name and name[:1] != "."}
        return Listing(_folders(objects), files, beside=frozenset(name for name in files if not name.endswith(".onnx")))

    def origin(self, model: str) -> str:
        """Returns the URI of the repository."""
        return self._uri

    def versions(self, model: str) -> Listing:
        """Returns the parts of keys below the model. Raises: as `Loader`."""
        return Listing(_folders(self._below(model)), {})

    def stamp(self, model: str) -> str:
        """Returns a hash of the objects beside the versions. Raises: as `Loader`."""
        beside = f"{_SIDE_DIRECTORY}/"
        objects = self._below(model)
        return mark_of({name: one for name, one in objects.items() if "/" not in name or name.startswith(beside)})

    def fingerprint(self, model: str, version: str) -> str:
        """Returns a hash of the version's objects. Raises: as `Loader`."""
        place = f"{self._client.place} {self._prefix} {model} {version}"
        return sha256(f"{place} {mark_of(self._below(model, version))}".encode()).hexdigest()

    def holds(self, model: str, name: str) -> bool:
        """Whether there is such an object, or one below it."""
        try:
            objects = self._below(model)
        except LoaderError:
            return False
        return name in objects or any(one.startswith(f"{name}/") for one in objects)

    def read(self, model: str, name: str, limit: int) -> bytes:
        """Returns the content of an object beside the versions. Raises: as `Loader`."""
        shown = ascii(name[:80])
        one = self._below(model).get(name)
        if one is None:
            raise SourceNotFound(f"{shown} is not there")
        if one.size > limit:
            raise SourceTooLarge(f"{shown} has {one.size} bytes, the limit is {limit}")
        return read_whole(self._client.content, one, name)

    def progress(self, model: str, version: str) -> str:
        """Returns how much of a version that is being copied is here."""
        return self._copies.progress(model, version)

    def digest(self, model: str, version: str) -> str:
        """Returns the digest of the objects as they are listed now. Raises: as `fetch`."""
        return self._copies.digest(model, version, self._place, self._below(model, version))

    def fetch(self, model: str, version: str, *, digest: str | None = None) -> LocalVersion:
        """Returns a verified copy of the version; with `digest`, of exactly that content.

        Each object is taken as it was listed (by its ETag), or the copy fails. Bytes are hashed from the copy.

        Raises: LoaderError; what was copied by then is where the next try goes on.
        """
        known = self._copies.stored(digest)
        if known is not None:
            return known
        return self._copies.copy(model, version, self._place, self._below(model, version), digest)

    @property
    def _place(self) -> object:
        return (self._client.place, self._prefix)

    # ---- the store ----

    def _below(self, *names: str) -> RemoteFiles:
        """Returns the objects below these directories. Raises: SourceNotFound, UnsafeSource, SourceUnreadable."""
        for name in names:
            uri.check_directory_name(name)
        prefix = "".join(f"{name}/" for name in names)
        by_model: Mapping[str, RemoteFiles] | None = getattr(self._held, "by_model", None)
        if by_model is None:
            listed = self._listed(prefix)
        elif names:
            listed = by_model.get(names[0], {})
        else:
            listed = {name: one for objects in by_model.values() for name, one in objects.items()}
        objects = {name.removeprefix(prefix): one for name, one in listed.items() if name.startswith(prefix)}
        if names and not objects:
            raise SourceNotFound(f"{names[-1]!a} is not there")
        return objects

    def _listed(self, prefix: str) -> RemoteFiles:
        """Returns the objects whose names begin with `prefix`, by their names below the repository."""
        objects: dict[str, RemoteFile] = {}
        start = len(self._prefix)
        for key, one in self._client.listed(self._prefix + prefix):
            name = key[start:]
            if name and not name.endswith("/"):  # a directory, as some tools make it
                objects[name] = one
            if len(objects) > _MAX_OBJECTS:
                raise SourceTooLarge(f"the model repository has more than {_MAX_OBJECTS} objects")
        return objects


def canonical(repository: str) -> str:
    """Returns the URI with its options in order. Raises: UnsupportedUri naming what is wrong, or what to install."""
    scheme = uri.scheme_of(repository)
    kind = KINDS[scheme]
    wrong = f"this is not of the form {kind.form}"
    try:
        parts = urlsplit(repository)
        options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    except ValueError:
        raise UnsupportedUri(wrong) from None
    if not kind.bucket.match(parts.netloc) or parts.fragment:
        raise UnsupportedUri(f"{wrong}: {kind.bucket_rule}")
    names = [name for name in parts.path.split("/") if name]
    if any(not name.isprintable() or name in (".", "..") for name in names) or not options.keys() <= set(kind.options):
        raise UnsupportedUri(f"{wrong}: options are {' and '.join(kind.options)}")
    endpoint = options.get("endpoint", "https://")
    if not endpoint.startswith(("http://", "https://")):
        raise UnsupportedUri("endpoint must begin with http:// or https://")
    if "@" in endpoint:
        raise UnsupportedUri("endpoint takes no user and password: credentials are found where the field's tools look")
    if find_spec(kind.module) is None:
        raise UnsupportedUri(f"{scheme}:// needs a client that is not installed: {kind.install}")
    query = urlencode(sorted(options.items()))
    return f"{scheme}://{parts.netloc}" + "".join(f"/{name}" for name in names) + (f"?{query}" if query else "")


def _folders(objects: RemoteFiles) -> tuple[str, ...]:
    names = {name.partition("/")[0] for name in objects if "/" in name}
    return tuple(sorted(name for name in names if name and not name.startswith(".")))
