"""Versions in an MLflow model registry, over its REST interface.

    mlflow+https://host[:port][/path]       every registered model of that server
    models:/name, models:/name/3            one model, or one version of it, at MLFLOW_TRACKING_URI
    models:/name@champion                   the version that the alias names now

The files of a version are its artifacts: through the server (`mlflow-artifacts:`, which is how `mlflow server` keeps
them unless told otherwise), or in the object store where the server put them. `config.pbtxt` is the tag of that name of
the registered model.

Source: https://mlflow.org/docs/latest/api_reference/rest-api.html
"""

import re
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import PurePosixPath
from typing import Any, Final
from urllib.parse import quote, urlsplit

from loaders import object_store
from loaders.errors import SourceNotFound, SourceTooLarge, SourceUnreadable, UnsafeSource, UnsupportedUri
from loaders.http_source import HttpSource
from loaders.loader import VersionNotes
from loaders.object_client import ObjectClient
from loaders.registry_loader import RegisteredModel, RegisteredVersion
from loaders.remote_copy import RemoteFile, RemoteFiles
from loaders.source_credentials import mlflow_headers, s3_endpoint, tracking_uri

INSTALL: Final = "pip install 'model-serving-gateway[mlflow]'"
_FORMS: Final = "mlflow+http(s)://host:port, models:/name, models:/name/3 and models:/name@alias"
_SERVER: Final = re.compile(r"mlflow\+(?P<url>https?://[^/?#@\s]+(?:/[^?#@\s]*)?)\Z")
_ONE: Final = re.compile(r"models:/+(?P<name>[^/@,\s]{1,250})(?:/(?P<version>[0-9]{1,18})|@(?P<alias>[\w-]{1,250}))?\Z")
_API: Final = "/api/2.0/mlflow"
_PAGES: Final = 1000  # of so many versions each
_MAX_FILES: Final = 4096
_TOO_MANY: Final = f"the version has more than {_MAX_FILES} files and directories"
_MAX_DEPTH: Final = 32  # of directories; the copy takes fewer
_CONFIG: Final = "config.pbtxt"


class MlflowRegistry:
    """A client of a registry, or of one model in it."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        one = _ONE.match(uri)
        server = _SERVER.match(uri)
        base = server["url"] if server is not None else _tracking_server()
        self._name = one["name"] if one is not None else ""
        self._version = (one["version"] or "") if one is not None else ""
        self._alias = (one["alias"] or "") if one is not None else ""
        self._http = HttpSource(base, "the MLflow server", mlflow_headers)
        self._stores: dict[str, tuple[ObjectClient, str]] = {}  # what a file's place begins with -> its store

    @property
    def uri(self) -> str:
        """Returns the URI of the registry; of one model also where its registry is."""
        return self._uri

    def listed(self) -> Mapping[str, RegisteredModel]:
        """Returns the models with the versions that are READY. Raises: as `ModelRegistry`."""
        by_model: dict[str, dict[str, RegisteredVersion]] = {}
        beside: dict[str, dict[str, bytes]] = {}
        aliases: dict[str, dict[str, str]] = {}
        chosen = self._version
        for model in self._models():
            name = model["name"]
            by_model[name] = {}
            aliases[name] = {str(one["alias"]): str(one["version"]) for one in model.get("aliases", ())}
            if self._alias:
                chosen = _named_by(self._alias, aliases[name])
            tags = {tag.get("key"): tag.get("value", "") for tag in model.get("tags", ())}
            beside[name] = {_CONFIG: tags[_CONFIG].encode()} if _CONFIG in tags else {}
        for one in self._versions():
            version = str(one["version"])
            if one["name"] in by_model and one.get("status", "READY") == "READY" and chosen in ("", version):
                mark = f"{one.get('creation_timestamp')} {one.get('run_id')} {one.get('source')}"
                by_model[one["name"]][version] = RegisteredVersion(f"{one['name']}\n{version}", mark, _notes(one))
        return {name: RegisteredModel(versions, beside[name], aliases[name]) for name, versions in by_model.items()}

    def files(self, version: RegisteredVersion) -> RemoteFiles:
        """Returns the artifacts. Raises: as `ModelRegistry`."""
        name, number = version.place.split("\n")
        answer = self._asked("/model-versions/get-download-uri", {"name": name, "version": number})
        place = str(answer.get("artifact_uri", ""))
        parts = urlsplit(place)
        if parts.scheme == "mlflow-artifacts":
            return self._served_files(parts.path.strip("/"), version.mark)
        if parts.scheme in object_store.KINDS:
            return self._stored_files(parts.scheme, parts.netloc, f"{parts.path.strip('/')}/")
        raise UnsafeSource(
            f"the registry keeps the artifacts of this version at a place of the kind {parts.scheme[:40] or 'path'!r}, "
            f"which cannot be read from here: start `mlflow server` with --serve-artifacts, or with an object store"
        )

    def content(self, one: RemoteFile, name: str, offset: int) -> Iterator[bytes]:
        """Yields the artifact's bytes. Raises: as `ModelRegistry`."""
        kind, _, place = one.place.partition(" ")
        if kind != "served":
            store = self._stores[kind][0]
            return store.content(RemoteFile(place, one.size, one.mark), name, offset)
        return self._http.content(f"/api/2.0/mlflow-artifacts/artifacts/{quote(place)}", one, name, offset)

    def _models(self) -> Iterator[Mapping[str, Any]]:
        if self._name:
            answer = self._asked("/registered-models/get", {"name": self._name})
            yield answer["registered_model"]
            return
        yield from self._pages("/registered-models/search", "registered_models", {})

    def _versions(self) -> Iterator[Mapping[str, Any]]:
        quoted = self._name.replace("'", "\\'")
        yield from self._pages(
            "/model-versions/search", "model_versions", {"filter": f"name='{quoted}'"} if self._name else {}
        )

    def _asked(self, path: str, fields: Mapping[str, str]) -> Mapping[str, Any]:
        answer = self._http.json(_API + path, "the model registry", fields=fields)
        if not isinstance(answer, dict):
            raise SourceUnreadable("the model registry cannot be read: it answers what MLflow does not")
        return answer

    def _pages(self, path: str, key: str, fields: Mapping[str, str]) -> Iterator[Mapping[str, Any]]:
        token = ""
        for _ in range(_PAGES):
            asked = {**fields, "max_results": "1000", **({"page_token": token} if token else {})}
            answer = self._asked(path, asked)
            yield from answer.get(key, ())
            token = str(answer.get("next_page_token") or "")
            if not token:
                return
        raise SourceTooLarge(f"the model registry has more than {_PAGES * 1000} entries")

    def _served_files(self, top: str, mark: str) -> RemoteFiles:
        files: dict[str, RemoteFile] = {}
        pending, asked = [""], 0
        while pending:
            asked += 1
            below = pending.pop()
            if below.count("/") >= _MAX_DEPTH:
                raise SourceTooLarge(f"the version has directories below {_MAX_DEPTH} others")
            place = f"{top}/{below}".rstrip("/")
            answer = self._http.json(
                "/api/2.0/mlflow-artifacts/artifacts", "the version's directory", fields={"path": place}
            )
            for one in answer.get("files", ()):
                name = f"{below}/{PurePosixPath(str(one['path'])).name}".lstrip("/")
                if one.get("is_dir"):
                    pending.append(name)
                else:
                    # The server says of no artifact whether it is the one of an hour ago: neither ETag nor digest.
                    size = int(one.get("file_size", 0))
                    files[name] = RemoteFile(f"served {top}/{name}", size, mark, resumable=False)
            if len(files) + len(pending) + asked > _MAX_FILES:
                raise SourceTooLarge(_TOO_MANY)
        if not files:
            raise SourceNotFound("the version has no artifacts")
        return files

    def _stored_files(self, scheme: str, bucket: str, prefix: str) -> RemoteFiles:
        key = f"{scheme}://{bucket}"
        if key not in self._stores:
            endpoint = s3_endpoint() if scheme == "s3" else ""
            object_store.canonical(key)  # says what must be installed
            client = object_store.KINDS[scheme].client(bucket, {"endpoint": endpoint} if endpoint else {})
            self._stores[key] = (client, bucket)
        files: dict[str, RemoteFile] = {}
        for place, one in self._stores[key][0].listed(prefix):
            files[place.removeprefix(prefix)] = RemoteFile(f"{key} {one.place}", one.size, one.mark)
            if len(files) > _MAX_FILES:
                raise SourceTooLarge(_TOO_MANY)
        if not files:
            raise SourceNotFound("the version has no artifacts")
        return files


def _notes(version: Mapping[str, Any]) -> VersionNotes:
    """Returns who registered the version and when, its tags, and the run that it comes from."""
    lineage = {str(tag["key"]): str(tag.get("value", "")) for tag in version.get("tags", ())}
    lineage |= {name: str(version[name]) for name in ("run_id", "description") if version.get(name)}
    published_s = int(version.get("creation_timestamp") or 0) / 1000
    return VersionNotes(str(version.get("user_id") or ""), published_s, lineage)


def _named_by(alias: str, aliases: Mapping[str, str]) -> str:
    """Returns the version that an alias of the model names. Raises: SourceNotFound."""
    if alias not in aliases:
        raise SourceNotFound(f"the model has no alias {alias[:80]!a}")
    return aliases[alias]


def canonical(repository: str) -> str:
    """Returns the URI in one form. Raises: UnsupportedUri naming what is wrong, or what to install."""
    text = repository.strip().rstrip("/")
    scheme, colon, rest = text.partition(":")
    text = scheme.lower() + colon + rest
    if find_spec("urllib3") is None:
        raise UnsupportedUri(f"{scheme}: needs a client that is not installed: {INSTALL}")
    one = _ONE.match(text)
    if one is not None:
        _tracking_server()
        tail = f"/{int(one['version'])}" if one["version"] else f"@{one['alias']}" if one["alias"] else ""
        return f"models:/{one['name']}{tail}"
    if _SERVER.match(text) is None:
        raise UnsupportedUri(f"this is not of one of the forms {_FORMS}")
    return text


def _tracking_server() -> str:
    """Returns the address of the registry for `models:/`. Raises: UnsupportedUri, if the environment names none."""
    address = tracking_uri()
    if not address.startswith(("http://", "https://")):
        raise UnsupportedUri("models:/ needs the address of the registry: set MLFLOW_TRACKING_URI=http(s)://host:port")
    return address
