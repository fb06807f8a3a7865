"""Repositories of every scheme, written by the tests: whoever adds a loader adds its writer here.

A writer puts files where the loader of its scheme finds them; a real server of that kind is started by its fixture.
"""

import os
import shutil
from collections.abc import Callable, Mapping
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

from botocore.session import get_session
from moto.server import ThreadedMotoServer

from tests.loaders.blob_server import ACCOUNT, BlobServer
from tests.loaders.registry_server import HubServer, MlflowServer, OciServer, RegistryServer


class WrittenRepository(Protocol):
    """A repository that a test fills."""

    @property
    def uri(self) -> str: ...

    @property
    def keeps_beside(self) -> bool:
        """Whether files lie beside the versions, too: labels, warm-up data."""

    def write(self, name: str, content: bytes) -> None:
        """Writes or overwrites a file; `name` has '/' between its parts."""

    def remove(self, name: str) -> None:
        """Removes a file, or a directory with all that is in it; "" is the repository itself."""


class WrittenDirectory:
    """A repository on this machine."""

    keeps_beside = True

    def __init__(self, directory: Path) -> None:
        self._root = directory / "repository"
        self._root.mkdir()

    @property
    def uri(self) -> str:
        return str(self._root)

    def write(self, name: str, content: bytes) -> None:
        path = self._root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def remove(self, name: str) -> None:
        path = self._root / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()


class WrittenVersions(WrittenDirectory):
    """Three directories of versions, since each is one model; the third is not there yet."""

    @property
    def uri(self) -> str:
        return ",".join(str(self._root / model) for model in "mno")


class WrittenBucket:
    """A bucket of moto's S3 server, which runs in this process."""

    _SCHEME, _ACCESS = "s3", "private"

    keeps_beside = True

    def __init__(self, directory: Path) -> None:
        self._endpoint = f"http://127.0.0.1:{_moto_port()}"
        self._bucket = f"b{sha256(str(directory).encode()).hexdigest()[:40]}"
        self.client = _client(self._endpoint)
        self.client.create_bucket(Bucket=self._bucket)

    @property
    def uri(self) -> str:
        return f"{self._SCHEME}://{self._bucket}/all/models?endpoint={self._endpoint}"

    def write(self, name: str, content: bytes) -> None:
        place = f"all/models/{name}"
        self.client.put_object(Bucket=self._bucket, Key=place, Body=content, ACL=self._ACCESS)

    def remove(self, name: str) -> None:
        place = "/".join(part for part in ("all/models", name) if part)
        held = self.client.list_objects_v2(Bucket=self._bucket, Prefix=place).get("Contents", ())
        for one in held:
            if one["Key"] == place or one["Key"].startswith(f"{place}/"):
                self.client.delete_object(Bucket=self._bucket, Key=one["Key"])
        if not name:
            self.client.delete_bucket(Bucket=self._bucket)


class WrittenGoogleBucket(WrittenBucket):
    """The same bucket as Google's clients see it: the XML interface of Cloud Storage is that protocol."""

    _SCHEME, _ACCESS = "gs", "public-read"  # it has no account of Google's


class WrittenContainer:
    """A container of a blob server that runs in this process."""

    keeps_beside = True

    def __init__(self, directory: Path) -> None:
        self._server = _blob_server()
        self._container = f"c{sha256(str(directory).encode()).hexdigest()[:40]}"
        self._blobs = self._server.containers[self._container] = {}

    @property
    def uri(self) -> str:
        return f"az://{self._container}/all/models?account={ACCOUNT}&endpoint={self._server.endpoint}"

    def write(self, name: str, content: bytes) -> None:
        self._blobs[f"all/models/{name}"] = content

    def remove(self, name: str) -> None:
        place = "/".join(part for part in ("all/models", name) if part)
        for key in [key for key in self._blobs if key == place or key.startswith(f"{place}/")]:
            del self._blobs[key]
        if not name:
            del self._server.containers[self._container]


class WrittenRegistry:
    """A registry whose server runs in this process; `uri` is made from its address."""

    keeps_beside = False

    def __init__(self, server: RegistryServer, uri: str) -> None:
        self.server = server
        self.uri = uri.replace("ADDRESS", server.address)

    def write(self, name: str, content: bytes) -> None:
        self.server.write(name, content)

    def remove(self, name: str) -> None:
        if name:
            self.server.remove(name)
        else:
            self.server.is_away = True


def written_mlflow(directory: Path) -> WrittenRegistry:
    return WrittenRegistry(MlflowServer(), "mlflow+http://ADDRESS")


def written_artifacts(directory: Path) -> WrittenRegistry:
    """Returns three repositories, since each is one model; the third is not there yet."""
    return WrittenRegistry(OciServer(), ",".join(f"oci+http://ADDRESS/{model}" for model in "mno"))


def written_hub(directory: Path) -> WrittenRegistry:
    """Returns three repositories, likewise; the address of the hub is the environment's."""
    server = HubServer()
    os.environ["HF_ENDPOINT"] = f"http://{server.address}"
    return WrittenRegistry(server, ",".join(f"hf://tests/{model}" for model in "mno"))


class WrittenRepositories:
    """Two repositories: a directory with the models up to "m", and a bucket with the others."""

    keeps_beside = True

    def __init__(self, directory: Path) -> None:
        self._parts = (WrittenDirectory(directory), WrittenBucket(directory))

    @property
    def uri(self) -> str:
        return ",".join(part.uri for part in self._parts)

    def write(self, name: str, content: bytes) -> None:
        self._part(name).write(name, content)

    def remove(self, name: str) -> None:
        for part in (self._part(name),) if name else self._parts:
            part.remove(name)

    def _part(self, name: str) -> WrittenRepository:
        return self._parts[name[:1] > "m"]


@cache
def _client(endpoint: str) -> Any:
    return get_session().create_client(
        "s3",
        region_name="us-east-1",
        endpoint_url=endpoint,
        aws_access_key_id="testing",
        aws_secret_access_key="testing",  # moto takes any
    )


@cache
def _blob_server() -> BlobServer:
    return BlobServer()


@cache
def _moto_port() -> int:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    return server.get_host_and_port()[1]


# By scheme, as in `loaders.schemes`; a writer is made with an empty directory of its own.
WRITERS: Mapping[str, Callable[[Path], WrittenRepository]] = {
    "file": WrittenDirectory,
    "s3": WrittenBucket,
    "gs": WrittenGoogleBucket,
    "az": WrittenContainer,
    "mlflow+http": written_mlflow,
    "oci+http": written_artifacts,
    "hf": written_hub,
}
# Several repositories at once, and another layout.
COMPOSED: Mapping[str, Callable[[Path], WrittenRepository]] = {
    "several": WrittenRepositories,
    "versions": WrittenVersions,
}
# Schemes whose repositories are those of another one: with TLS, or one model of them.
LIKE: Mapping[str, str] = {"mlflow+https": "mlflow+http", "models": "mlflow+http", "oci": "oci+http"}
CANARY = b"canary: outside the repository"


def copies(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "data" / "store").iterdir() if len(path.name) == 64)
