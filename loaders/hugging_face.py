"""Versions in a repository of the Hugging Face hub: hf://organisation/name, with a version for each branch and tag.

`@revision` behind it is that version alone; `?path=onnx` is the directory in which the model lies. The hub is the one
that HF_ENDPOINT names. Large files are checked against the SHA-256 that the hub has for them.

Source: https://huggingface.co/docs/hub/api
"""

import re
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Final
from urllib.parse import quote

from loaders.errors import SourceNotFound, SourceTooLarge, SourceUnreadable, UnsupportedUri
from loaders.http_source import HttpSource
from loaders.loader import VersionNotes
from loaders.registry_loader import RegisteredModel, RegisteredVersion, moving_names
from loaders.remote_copy import RemoteFile, RemoteFiles
from loaders.source_credentials import hub_endpoint, hub_headers

INSTALL: Final = "pip install 'model-serving-gateway[huggingface]'"
FORM: Final = "hf://organisation/name[@revision][?path=directory]"
_URI: Final = re.compile(
    r"hf://(?P<name>[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95})(?:@(?P<revision>[A-Za-z0-9][\w.-]{0,127}))?"
    r"(?:\?path=(?P<path>[\w.-]+(?:/[\w.-]+)*))?\Z",
    re.ASCII,
)
_MAX_FILES: Final = 20_000  # of a repository


class HuggingFaceHub:
    """A client of one repository."""

    def __init__(self, uri: str) -> None:
        match = _URI.match(uri)
        assert match is not None, "the URI is in the canonical form"
        self._uri = uri
        self._name = match["name"]
        self._model = self._name.rpartition("/")[2]
        self._revision = match["revision"] or ""
        self._path = match["path"] or ""
        self._http = HttpSource(hub_endpoint(), "the hub", hub_headers)

    @property
    def uri(self) -> str:
        """Returns the URI of the repository."""
        return self._uri

    def listed(self) -> Mapping[str, RegisteredModel]:
        """Returns the model with its branches and tags. Raises: as `ModelRegistry`."""
        if self._revision:
            answer = self._http.json(f"/api/models/{self._name}/revision/{self._revision}", "the revision")
            commits, tags = {self._revision: str(answer["sha"])}, frozenset[str]()
        else:
            answer = self._http.json(f"/api/models/{self._name}/refs", "the repository")
            refs = [*answer.get("branches", ()), *answer.get("tags", ())]
            commits = {str(ref["name"]): str(ref["targetCommit"]) for ref in refs}
            tags = frozenset(str(ref["name"]) for ref in answer.get("tags", ()))
        versions = {
            name: RegisteredVersion(commit, commit, VersionNotes(lineage={"commit": commit}))
            for name, commit in commits.items()
            if "/" not in name
        }
        # A branch beside a tag of the same commit.
        return {self._model: RegisteredModel(versions, aliases=moving_names(versions, tags.__contains__))}

    def files(self, version: RegisteredVersion) -> RemoteFiles:
        """Returns the files of a commit. Raises: as `ModelRegistry`."""
        below = f"{self._path}/" if self._path else ""
        path = f"/api/models/{self._name}/tree/{version.place}/{quote(self._path)}".rstrip("/") + "?recursive=true"
        files: dict[str, RemoteFile] = {}
        for answer in self._http.pages(path, "the version's directory"):
            if not isinstance(answer, list):
                raise SourceUnreadable("the version's directory cannot be read: the hub answers what it should not")
            for one in answer:
                if one.get("type") == "file":
                    large = one.get("lfs") or {}
                    place = f"/{self._name}/resolve/{version.place}/{quote(one['path'])}"
                    size, sha256 = int(large.get("size", one["size"])), str(large.get("oid", ""))
                    files[one["path"].removeprefix(below)] = RemoteFile(place, size, sha256 or str(one["oid"]), sha256)
            if len(files) > _MAX_FILES:
                raise SourceTooLarge(f"the version has more than {_MAX_FILES} files")
        if not files:
            raise SourceNotFound("the version holds no files there")
        return files

    def content(self, one: RemoteFile, name: str, offset: int) -> Iterator[bytes]:
        """Yields the file's bytes. Raises: as `ModelRegistry`."""
        return self._http.content(one.place, one, name, offset)


def canonical(repository: str) -> str:
    """Returns the URI in one form. Raises: UnsupportedUri naming what is wrong, or what to install."""
    scheme, separator, rest = repository.strip().rstrip("/").partition("://")
    text = scheme.lower() + separator + rest
    match = _URI.match(text)
    if match is None or ".." in (match["path"] or "").split("/"):
        raise UnsupportedUri(f"this is not of the form {FORM}")
    if find_spec("urllib3") is None:
        raise UnsupportedUri(f"hf:// needs a client that is not installed: {INSTALL}")
    return text
