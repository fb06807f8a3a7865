"""Servers of the parts of registries' protocols that readers use, for tests; each file of a version has content."""

import json
import threading
from collections.abc import Callable
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from loaders.loader import Loader
from loaders.schemes import LoaderSettings, canonical, open_loader
from loaders.source_credentials import basic
from loaders.store import ContentStore

TITLE = "org.opencontainers.image.title"
Answer = tuple[int, bytes, dict[str, str]]
Versions = dict[str, dict[str, bytes]]  # the files of each version


def json_answer(value: object) -> Answer:
    return 200, json.dumps(value).encode(), {"Content-Type": "application/json"}


class RegistryServer(ThreadingHTTPServer):
    """Answers GET by a function of path, query and headers."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Requests)
        self.models: dict[str, Versions] = {}
        self.writes: dict[tuple[str, str], int] = {}  # of model and version
        self.is_away = False
        self.asked: list[str] = []
        self.headers_seen: list[dict[str, str]] = []
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    def write(self, name: str, content: bytes) -> None:
        model, version, file = name.split("/", 2)
        self.models.setdefault(model, {}).setdefault(version, {})[file] = content
        self.writes[model, version] = self.writes.get((model, version), 0) + 1

    def remove(self, name: str) -> None:
        model, version, file = (*name.split("/", 2), "", "")[:3]
        if file:
            self.write(name, b"")
            del self.models[model][version][file]
        elif version:
            del self.models[model][version]
        else:
            del self.models[model]

    def respond(self, path: str, query: dict[str, str], headers: dict[str, str]) -> Answer:
        raise NotImplementedError


class _Requests(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: RegistryServer

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.asked.append(parts.path)
        self.server.headers_seen.append(headers)
        status, body, more = (
            (503, b"", {}) if self.server.is_away else self.server.respond(unquote(parts.path), query, headers)
        )
        span = headers.get("range", "")
        if status == 200 and span:
            start = int(span.removeprefix("bytes=").partition("-")[0])
            more = {**more, "Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"}
            status, body = 206, body[start:]
        self.send_response(status)
        for name, value in {**more, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


class MlflowServer(RegistryServer):
    """A model registry as `mlflow server` keeps it; `test_mlflow.py` compares it with a real one."""

    def __init__(self) -> None:
        super().__init__()
        self.aliases: dict[tuple[str, str], str] = {}
        self.tags: dict[str, dict[str, str]] = {}
        self.version_tags: dict[tuple[str, str], dict[str, str]] = {}

    def respond(self, path: str, query: dict[str, str], headers: dict[str, str]) -> Answer:
        """Returns what MLflow answers."""
        place = path.removeprefix("/api/2.0/")
        if place == "mlflow-artifacts/artifacts":
            return self._listed(query["path"])
        if place.startswith("mlflow-artifacts/artifacts/"):
            model, version, file = place.removeprefix("mlflow-artifacts/artifacts/").split("/", 2)
            content = self.models.get(model, {}).get(version, {}).get(file)
            return (404, b"{}", {}) if content is None else (200, content, {})
        asked: dict[str, Callable[[dict[str, str]], object | None]] = {
            "mlflow/registered-models/search": self._search,
            "mlflow/registered-models/get": self._get,
            "mlflow/model-versions/search": self._versions,
            "mlflow/model-versions/get-download-uri": lambda query: {
                "artifact_uri": f"mlflow-artifacts:/{query['name']}/{query['version']}"
            },
        }
        value = asked[place](query)
        return (404, b'{"error_code": "RESOURCE_DOES_NOT_EXIST"}', {}) if value is None else json_answer(value)

    def _model(self, name: str) -> dict[str, Any]:
        tags = [{"key": key, "value": value} for key, value in self.tags.get(name, {}).items()]
        aliases = [
            {"alias": alias, "version": version} for (model, alias), version in self.aliases.items() if model == name
        ]
        return {"name": name, "tags": tags, "aliases": aliases}

    def _search(self, query: dict[str, str]) -> object:
        names = sorted(self.models)
        start = int(query.get("page_token", "0"))  # a page of one model, so that pages are read
        more = {"next_page_token": str(start + 1)} if start + 1 < len(names) else {}
        return {"registered_models": [self._model(name) for name in names[start : start + 1]], **more}

    def _get(self, query: dict[str, str]) -> object | None:
        return {"registered_model": self._model(query["name"])} if query["name"] in self.models else None

    def _versions(self, query: dict[str, str]) -> object:
        wanted = query.get("filter", "").removeprefix("name='").removesuffix("'")
        return {
            "model_versions": [
                {"name": model, "version": version, "status": "READY", "source": f"mlflow-artifacts:/{model}/{version}"}
                | {"creation_timestamp": self.writes[model, version], "run_id": f"run-{version}", "user_id": "ann"}
                | {"tags": [{"key": k, "value": v} for k, v in self.version_tags.get((model, version), {}).items()]}
                for model, versions in sorted(self.models.items())
                for version in versions
                if wanted in ("", model)
            ]
        }

    def _listed(self, place: str) -> Answer:
        model, version, *below = place.split("/")
        prefix = "".join(f"{part}/" for part in below)
        files: dict[str, dict[str, Any]] = {}
        for name, content in self.models.get(model, {}).get(version, {}).items():
            if name.startswith(prefix):
                own, slash, _ = name.removeprefix(prefix).partition("/")
                files[own] = {"path": own, "is_dir": bool(slash), "file_size": len(content)}
        return json_answer({"files": list(files.values())})


class OciServer(RegistryServer):
    """A registry of containers that holds artifacts as `oras push` makes them; with `password` it asks who comes."""

    def __init__(self) -> None:
        super().__init__()
        self.password = ""
        self.annotations: dict[str, str] = {}

    def respond(self, path: str, query: dict[str, str], headers: dict[str, str]) -> Answer:
        """Returns what the distribution specification says."""
        if path == "/token":
            login = basic("me", self.password)
            return json_answer({"token": "t0ken"}) if headers.get("authorization") == login else (401, b"", {})
        if self.password and headers.get("authorization") != "Bearer t0ken":
            realm = f'Bearer realm="http://{self.address}/token",service="registry",scope="repository:m:pull"'
            return 401, b"", {"WWW-Authenticate": realm}
        _, _, model, kind, name = path.split("/", 4)
        versions = self.models.get(model)
        if versions is None:
            return 404, b"{}", {}
        if kind == "tags":
            return self._tags(sorted(versions), query)
        if kind == "blobs":
            blobs = {sha256_of(content): content for files in versions.values() for content in files.values()}
            return (200, blobs[name], {}) if name in blobs else (404, b"{}", {})
        manifests = {version: self._manifest(files) for version, files in versions.items()}
        by_digest = {sha256_of(text): text for text in manifests.values()}
        text = manifests.get(name) or by_digest.get(name)
        return (404, b"{}", {}) if text is None else (200, text, {"Docker-Content-Digest": sha256_of(text)})

    def _tags(self, tags: list[str], query: dict[str, str]) -> Answer:
        rest = [tag for tag in tags if tag > query.get("last", "")]
        status, body, headers = json_answer({"name": "m", "tags": rest[:1]})  # a page of one, so that pages are read
        if len(rest) > 1:
            headers["Link"] = f'</v2/m/tags/list?n=1&last={rest[0]}>; rel="next"'
        return status, body, headers

    def _manifest(self, files: dict[str, bytes]) -> bytes:
        layers = [
            {"digest": sha256_of(content), "size": len(content), "annotations": {TITLE: name}}
            for name, content in files.items()
        ]
        annotations = {"annotations": self.annotations} if self.annotations else {}
        return json.dumps({"schemaVersion": 2, "layers": layers, **annotations}).encode()


class HubServer(RegistryServer):
    """The hub of Hugging Face: repositories of one organisation, whose revisions are the versions."""

    def respond(self, path: str, query: dict[str, str], headers: dict[str, str]) -> Answer:
        """Returns what the hub says; large files come by a redirect."""
        parts = path.strip("/").split("/")
        if parts[0] == "large":
            return 200, self.models[parts[1]][parts[2].rpartition("-")[0]]["/".join(parts[3:])], {}
        if parts[0] != "api":
            model, commit, file = parts[1], parts[3], "/".join(parts[4:])
            return 302, b"", {"Location": f"http://localhost:{self.server_address[1]}/large/{model}/{commit}/{file}"}
        model, what, *rest = parts[3:]
        versions = self.models.get(model)
        if versions is None:
            return 404, b"{}", {}
        commits = {version: f"{version}-{self.writes[model, version]}" for version in versions}
        if what == "refs":
            refs = [{"name": version, "targetCommit": commit} for version, commit in commits.items()]
            return json_answer({"branches": refs[:1], "tags": refs[1:]})
        if what == "revision":
            return json_answer({"sha": commits[rest[0]]}) if rest[0] in commits else (404, b"{}", {})
        version, below = rest[0].rpartition("-")[0], "".join(f"{part}/" for part in rest[1:])
        return json_answer(
            [
                {"type": "file", "path": name, "size": 130, "oid": "0" * 40}
                | {"lfs": {"oid": sha256_of(content).removeprefix("sha256:"), "size": len(content)}}
                for name, content in versions[version].items()
                if name.startswith(below)
            ]
        )


def sha256_of(content: bytes) -> str:
    return f"sha256:{sha256(content).hexdigest()}"


def ended(server: RegistryServer) -> None:
    server.shutdown()
    server.server_close()


def opened(uri: str, tmp_path: Path) -> Loader:
    return open_loader(LoaderSettings(canonical(uri), ContentStore(tmp_path / "store")))
