"""Versions in a registry of containers, as artifacts: oci://registry/repository, with a tag for each version.

The repository's last part is the model; `:tag` behind it is that version alone. A version is what `oras push` makes of
files: a manifest whose layers have their names in the annotation `org.opencontainers.image.title`. Each file is checked
against the digest that the manifest has for it, and the manifest against the digest by which it was asked for.

Source: https://github.com/opencontainers/distribution-spec, https://github.com/oras-project/oras-www (artifacts)
"""

import re
from collections.abc import Iterator, Mapping
from hashlib import sha256
from importlib.util import find_spec
from typing import Any, Final
from urllib.parse import urlencode

from loaders.errors import (
    DigestMismatch,
    SourceNotFound,
    SourceTooLarge,
    SourceUnreadable,
    UnsafeSource,
    UnsupportedUri,
)
from loaders.http_source import Headers, HttpSource
from loaders.loader import VersionNotes
from loaders.registry_loader import RegisteredModel, RegisteredVersion, moving_names
from loaders.remote_copy import RemoteFile, RemoteFiles
from loaders.source_credentials import basic, container_login

INSTALL: Final = "pip install 'model-serving-gateway[oci]'"
FORM: Final = "oci://registry/repository[:tag] (oci+http:// without TLS)"
_URI: Final = re.compile(
    r"(?P<scheme>oci|oci\+http)://(?P<host>[A-Za-z0-9.-]+(?::[0-9]{1,5})?)/"
    r"(?P<repository>[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*)(?::(?P<tag>[A-Za-z0-9_][\w.-]{0,127}))?\Z",
    re.ASCII,
)
_MANIFESTS: Final = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.artifact.manifest.v1+json"
_TITLE: Final = "org.opencontainers.image.title"
_UNPACK: Final = "io.deis.oras.content.unpack"
_DIGEST: Final = re.compile(r"sha256:(?P<hex>[0-9a-f]{64})\Z", re.ASCII)
_CHALLENGE: Final = re.compile(r'(\w+)="([^"]*)"')
_MAX_TAGS: Final = 1000


class OciRegistry:
    """A client of one repository."""

    def __init__(self, uri: str) -> None:
        match = _URI.match(uri)
        assert match is not None, "the URI is in the canonical form"
        self._uri = uri
        self._host = match["host"]
        self._repository = match["repository"]
        self._model = self._repository.rpartition("/")[2]
        self._tag = match["tag"] or ""
        self._token: Headers = {}
        self._scheme = "http" if match["scheme"] == "oci+http" else "https"
        self._http = HttpSource(f"{self._scheme}://{self._host}", "the registry", lambda: self._token, self._login)

    @property
    def uri(self) -> str:
        """Returns the URI of the repository."""
        return self._uri

    def listed(self) -> Mapping[str, RegisteredModel]:
        """Returns the model with its tags. Raises: as `ModelRegistry`."""
        if self._tag:
            manifest, digest = self._manifest(self._tag)
            versions = {self._tag: RegisteredVersion(self._tag, digest, _notes(manifest, digest))}
        else:
            versions = {tag: self._version(tag) for tag in self._tags()}
        # `latest` beside `3` of the same content.
        return {self._model: RegisteredModel(versions, aliases=moving_names(versions, str.isdigit))}

    def files(self, version: RegisteredVersion) -> RemoteFiles:
        """Returns the layers that have names. Raises: as `ModelRegistry`; UnsafeSource (no such artifact)."""
        manifest, _ = self._manifest(version.mark or version.place)
        if not isinstance(manifest.get("layers"), list):
            raise UnsafeSource("the tag names no artifact with files: push the files with `oras push`")
        files: dict[str, RemoteFile] = {}
        for layer in manifest["layers"]:
            notes = layer.get("annotations") or {}
            digest = _DIGEST.match(str(layer.get("digest")))
            name = str(notes.get(_TITLE, ""))
            if not name:
                continue
            if notes.get(_UNPACK) == "true" or digest is None:
                raise UnsafeSource(f"{name[:80]!a} is a packed directory: name its files to `oras push` one by one")
            if name in files:
                raise UnsafeSource(f"two layers of the artifact have the name {name[:80]!a}: push each file once")
            files[name] = RemoteFile(layer["digest"], int(layer["size"]), layer["digest"], digest["hex"])
        if not files:
            raise UnsafeSource(f"no layer of the artifact has a name ({_TITLE}): push the files with `oras push`")
        return files

    def content(self, one: RemoteFile, name: str, offset: int) -> Iterator[bytes]:
        """Yields the file's bytes. Raises: as `ModelRegistry`."""
        return self._http.content(f"/v2/{self._repository}/blobs/{one.place}", one, name, offset)

    def _tags(self) -> list[str]:
        tags: list[str] = []
        for answer in self._http.pages(f"/v2/{self._repository}/tags/list?n=1000", "the repository"):
            tags += [str(tag) for tag in answer.get("tags") or ()]
            if len(tags) > _MAX_TAGS:
                raise SourceTooLarge(f"the repository has more than {_MAX_TAGS} tags: name one, {FORM}")
        return tags

    def _version(self, tag: str) -> RegisteredVersion:
        """Returns the tag as a version, without a mark where it is something else: that takes no other version away."""
        try:
            manifest, digest = self._manifest(tag)
        except (SourceNotFound, DigestMismatch):
            # An index of images, say, or a tag that was removed since the list; a copy of it says what is wrong.
            return RegisteredVersion(tag, "")
        return RegisteredVersion(tag, digest, _notes(manifest, digest))

    def _manifest(self, tag: str) -> tuple[Mapping[str, Any], str]:
        """Returns the manifest of a tag or digest, and the digest of its bytes.

        Raises: as `ModelRegistry`; DigestMismatch (other bytes than were asked for, or than the registry itself says).
        """
        path, shown = f"/v2/{self._repository}/manifests/{tag}", ascii(tag[:80])
        content, headers = self._http.raw(path, shown, headers={"Accept": _MANIFESTS})
        own = f"sha256:{sha256(content).hexdigest()}"
        asked = (tag, "the manifest was asked for by") if _DIGEST.match(tag) else ("", "")
        told = (headers.get("docker-content-digest", ""), "the registry says that it has")
        for digest, whose in (asked, told):
            if _DIGEST.match(digest) and digest != own:
                raise DigestMismatch(f"the manifest of {shown} has digest {own}, {whose} {digest}")
        answer = self._http.parsed(content, shown)
        if not isinstance(answer, dict):
            raise SourceUnreadable(f"{shown} cannot be read: the registry answers what is no manifest")
        return answer, own

    def _login(self, challenge: str) -> bool:
        """Gets what the registry asks for in answer to a request without it; whether there is something new."""
        user, password = container_login(self._host)
        login = {"Authorization": basic(user, password)} if user else {}
        kind, _, rest = challenge.partition(" ")
        if kind.lower() != "bearer":
            self._token, before = login, self._token
            return bool(login) and login != before
        asked = dict(_CHALLENGE.findall(rest))
        realm = asked.pop("realm", "")
        if not realm.startswith(("https://", f"{self._scheme}://")):  # a password goes there
            return False
        source = HttpSource(realm, "the registry's login", lambda: login)
        answer = source.json(f"?{urlencode(asked)}" if asked else "", "the token")
        token = answer.get("token") or answer.get("access_token") if isinstance(answer, dict) else None
        self._token = {"Authorization": f"Bearer {token}"} if token else {}
        return bool(token)


def _notes(manifest: Mapping[str, Any], digest: str) -> VersionNotes:
    """Returns the annotations of the manifest, as `oras push --annotation` writes them, and its digest."""
    notes = manifest.get("annotations")
    told = {str(name): str(value) for name, value in notes.items()} if isinstance(notes, dict) else {}
    return VersionNotes(lineage={**told, "manifest": digest})


def canonical(repository: str) -> str:
    """Returns the URI in one form. Raises: UnsupportedUri naming what is wrong, or what to install."""
    scheme, separator, rest = repository.strip().rstrip("/").partition("://")
    text = scheme.lower() + separator + rest
    if _URI.match(text) is None:
        raise UnsupportedUri(f"this is not of the form {FORM}; repositories are in lower case")
    if find_spec("urllib3") is None:
        raise UnsupportedUri(f"oci:// needs a client that is not installed: {INSTALL}")
    return text
