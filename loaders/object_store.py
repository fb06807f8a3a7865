"""Versions in an object store: s3://bucket/prefix, with keys `<prefix>/<model>/<version>/<file>`.

The store is Amazon's, or one that speaks its protocol (`?endpoint=`). Keys come from where AWS clients look for them:
the environment, ~/.aws, the instance's or the pod's role.
"""

import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit

from loaders import manifest, uri
from loaders.errors import (
    DigestMismatch,
    LoaderError,
    SourceChanged,
    SourceNotFound,
    SourceTooLarge,
    SourceUnreadable,
    UnsafeSource,
    UnsupportedUri,
)
from loaders.loader import FileEntry, Listing, LocalVersion
from loaders.store import ContentStore, hashed
from loaders.tree import TreeLimits

INSTALL: Final = "pip install 'model-serving-gateway[s3]'"
_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]\Z", re.ASCII)
_OPTIONS: Final = ("endpoint", "region")
_SIDE_DIRECTORY: Final = "warmup"
_CHUNK: Final = 8 << 20
_MAX_OBJECTS: Final = 1_000_000  # of a repository
# What a store answers where something is not there, or is another than when it was listed.
_ABSENT: Final = frozenset({"404", "NoSuchBucket", "NoSuchKey"})
_CHANGED: Final = frozenset({"412", "PreconditionFailed"})


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object as it was listed; `etag` changes with its content."""

    key: str
    size: int
    etag: str


Objects = Mapping[str, StoredObject]  # by the name below some prefix


class ObjectStoreLoader:
    """The loader of s3:// URIs."""

    def __init__(self, repository: str, store: ContentStore, *, limits: TreeLimits | None = None) -> None:
        self._uri = canonical(repository)
        parts = urlsplit(self._uri)
        options = dict(parse_qsl(parts.query))
        self._bucket = parts.netloc
        self._prefix = f"{parts.path.strip('/')}/".lstrip("/")
        self._store = store
        self._limits = limits or TreeLimits()
        self._client = _client(options.get("endpoint", ""), options.get("region", ""))
        self._held = threading.local()  # what this thread listed within `one_look`

    @contextmanager
    def one_look(self) -> Iterator[None]:
        """Lists the whole repository once, for all that the thread asks until the end."""
        by_model: dict[str, dict[str, StoredObject]] = {}
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
        return Listing(_folders(objects), files)

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
        return _stamp({name: one for name, one in objects.items() if "/" not in name or name.startswith(beside)})

    def fingerprint(self, model: str, version: str) -> str:
        """Returns a hash of the version's objects. Raises: as `Loader`."""
        return self._key(model, version, self._below(model, version))

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
        return b"".join(self._content(one, name))

    def fetch(self, model: str, version: str, *, digest: str | None = None) -> LocalVersion:
        """Returns a verified copy of the version; with `digest`, of exactly that content.

        Each object is taken as it was listed (by its ETag), or the copy fails. Bytes are hashed from the copy.

        Raises: LoaderError; nothing is left behind then.
        """
        if digest is not None and (known := self._store.get(digest)) is not None:
            return known
        objects = self._below(model, version)
        key = self._key(model, version, objects)
        with self._store.locked(key):
            seen = self._store.seen(key)
            local = self._store.get(seen) if seen else None
            if local is None:
                local = self._store.put(lambda staging: self._fill(staging, objects))
                self._store.note(key, local.digest)
        if digest is not None and local.digest != digest:
            raise DigestMismatch(f"the version has digest {local.digest}, not {digest}")
        return local

    def _key(self, model: str, version: str, objects: Objects) -> str:
        place = (self._client.meta.endpoint_url, self._bucket, self._prefix, model, version, self._limits)
        return sha256(f"{place!r} {_stamp(objects)}".encode()).hexdigest()

    def _fill(self, staging: Path, objects: Objects) -> tuple[FileEntry, ...]:
        content = {name: one for name, one in objects.items() if name != manifest.FILENAME and not _is_hidden(name)}
        if not content:
            raise UnsafeSource("the version holds no files: copy the model there")
        if len(content) > self._limits.max_files:
            raise SourceTooLarge(f"the version has more than {self._limits.max_files} files")
        if sum(one.size for one in content.values()) > self._limits.max_bytes:
            raise SourceTooLarge(f"the version has more than {self._limits.max_bytes} bytes")
        files = tuple(self._copy(staging, name, one) for name, one in sorted(content.items()))
        listing = objects.get(manifest.FILENAME)
        if listing is not None:
            if listing.size > manifest.MAX_BYTES:
                raise SourceTooLarge(f"{manifest.FILENAME} has {listing.size} bytes; at most {manifest.MAX_BYTES}")
            text = b"".join(self._content(listing, manifest.FILENAME))
            manifest.compare(manifest.parse(text.decode("ascii", "replace")), files)
        return files

    def _copy(self, staging: Path, name: str, one: StoredObject) -> FileEntry:
        parts = name.split("/")
        for part in parts:
            manifest.check_part(part)
        if len(parts) > self._limits.max_depth:
            raise SourceTooLarge(f"{name!a} lies too deep: names may have {self._limits.max_depth} parts")
        target = staging / name
        try:
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            copy = target.open("xb", buffering=0)
        except (FileExistsError, NotADirectoryError):
            raise UnsafeSource(f"{name!a} is the name of a file and of files below it") from None
        with copy:
            for chunk in self._content(one, name):
                copy.write(chunk)
        entry = hashed(staging, name)
        if entry.size != one.size:
            raise SourceChanged(f"{name!a} has {entry.size} bytes, it was listed with {one.size}")
        return entry

    # ---- the store ----

    def _below(self, *names: str) -> Objects:
        """Returns the objects below these directories. Raises: SourceNotFound, UnsafeSource, SourceUnreadable."""
        for name in names:
            uri.check_directory_name(name)
        prefix = "".join(f"{name}/" for name in names)
        by_model: Mapping[str, Objects] | None = getattr(self._held, "by_model", None)
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

    def _listed(self, prefix: str) -> Objects:
        """Returns the objects whose names begin with `prefix`, by their names below the repository."""
        objects: dict[str, StoredObject] = {}
        start = len(self._prefix)
        with _explained("the model repository"):
            pages = self._client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix + prefix):
                for one in page.get("Contents", ()):
                    name = one["Key"][start:]
                    if name and not name.endswith("/"):  # a directory, as some tools make it
                        objects[name] = StoredObject(one["Key"], one["Size"], one["ETag"])
                if len(objects) > _MAX_OBJECTS:
                    raise SourceTooLarge(f"the model repository has more than {_MAX_OBJECTS} objects")
        return objects

    def _content(self, one: StoredObject, name: str) -> Iterator[bytes]:
        with _explained(ascii(name[:80])):
            body = self._client.get_object(Bucket=self._bucket, Key=one.key, IfMatch=one.etag)["Body"]
            try:
                yield from body.iter_chunks(_CHUNK)
            finally:
                body.close()


def canonical(repository: str) -> str:
    """Returns the URI with its options in order. Raises: UnsupportedUri naming what is wrong, or what to install."""
    form = "s3://bucket/prefix?region=...&endpoint=http(s)://host:port"
    try:
        parts = urlsplit(repository)
        options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    except ValueError:
        raise UnsupportedUri(f"this is not of the form {form}") from None
    if parts.scheme.lower() != "s3" or not _BUCKET.match(parts.netloc) or parts.fragment:
        raise UnsupportedUri(
            f"this is not of the form {form}: a bucket has 3 to 63 lower-case letters, digits, . and -"
        )
    names = [name for name in parts.path.split("/") if name]
    if any(not name.isprintable() or name in (".", "..") for name in names) or not options.keys() <= set(_OPTIONS):
        raise UnsupportedUri(f"this is not of the form {form}: options are {' and '.join(_OPTIONS)}")
    if not options.get("endpoint", "https://").startswith(("http://", "https://")):
        raise UnsupportedUri("endpoint must begin with http:// or https://")
    if "@" in options.get("endpoint", ""):
        raise UnsupportedUri("endpoint takes no user and password: keys are found where AWS clients look for them")
    if find_spec("botocore") is None:
        raise UnsupportedUri(f"s3:// needs a client that is not installed: {INSTALL}")
    query = urlencode(sorted(options.items()))
    return f"s3://{parts.netloc}" + "".join(f"/{name}" for name in names) + (f"?{query}" if query else "")


def _client(endpoint: str, region: str) -> Any:
    from botocore.config import Config  # an extra, and 20 MiB: only for whom it serves
    from botocore.exceptions import BotoCoreError
    from botocore.session import get_session

    # Stores beside Amazon's know no bucket.host names and not every one of them the newest checksums.
    compatible = Config(
        connect_timeout=5,
        read_timeout=30,
        retries={"total_max_attempts": 3, "mode": "standard"},
        response_checksum_validation="when_required",
        s3={"addressing_style": "path" if endpoint else "auto"},
    )
    try:
        return get_session().create_client(
            "s3",
            region_name=region or ("us-east-1" if endpoint else None),
            endpoint_url=endpoint or None,
            config=compatible,
        )
    except (BotoCoreError, ValueError) as error:
        raise UnsupportedUri(f"the object store's client cannot be made: {type(error).__name__}") from error


@contextmanager
def _explained(shown: str) -> Iterator[None]:
    """Turns the client's errors into ours, without addresses and keys."""
    from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

    try:
        yield
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        if code in _ABSENT:
            raise SourceNotFound(f"{shown} is not there") from None
        if code in _CHANGED:
            raise SourceChanged(f"{shown} was changed while it was copied") from None
        raise SourceUnreadable(f"{shown} cannot be read: the object store answers {code[:80]!a}") from error
    except HTTPClientError as error:
        raise SourceUnreadable(f"{shown} cannot be read: {type(error).__name__}") from error
    except (BotoCoreError, OSError) as error:
        raise SourceUnreadable(f"{shown} cannot be read: {type(error).__name__}") from error


def _folders(objects: Objects) -> tuple[str, ...]:
    names = {name.partition("/")[0] for name in objects if "/" in name}
    return tuple(sorted(name for name in names if name and not name.startswith(".")))


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))


def _stamp(objects: Objects) -> str:
    seen = sorted((name, one.size, one.etag) for name, one in objects.items() if not _is_hidden(name))
    return sha256(repr(seen).encode()).hexdigest()
