"""A registry of containers: one tag, who asks, and what is no artifact."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from loaders.errors import DigestMismatch, SourceUnreadable, UnsafeSource, UnsupportedUri
from loaders.loader import Loader
from loaders.schemes import LoaderSettings, canonical, open_loader
from loaders.store import ContentStore
from tests.loaders.registry_server import TITLE, Answer, OciServer


@pytest.fixture
def server() -> Iterator[OciServer]:
    server = OciServer()
    for version in ("1", "2"):
        server.write(f"m/{version}/model.onnx", f"model {version}".encode())
    yield server
    server.shutdown()
    server.server_close()


def opened(server: OciServer, tmp_path: Path, repository: str = "m") -> Loader:
    uri = canonical(f"OCI+http://{server.address}/{repository}")
    return open_loader(LoaderSettings(uri, ContentStore(tmp_path / "store")))


def test_one_tag_is_one_version(server: OciServer, tmp_path: Path) -> None:
    loader = opened(server, tmp_path, "m:2")
    assert loader.versions("m").names == ("2",)
    assert loader.fetch("m", "2").model_file().read_bytes() == b"model 2"
    before = loader.fingerprint("m", "2")
    server.write("m/2/model.onnx", b"moved")  # a tag is moved to another manifest
    assert loader.fingerprint("m", "2") != before
    assert loader.fetch("m", "2").model_file().read_bytes() == b"moved"


def test_a_registry_that_asks_who_comes_is_told(
    server: OciServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    server.password = "s3cret"
    with pytest.raises(SourceUnreadable, match="credentials lack"):
        opened(server, tmp_path).models()
    auth = base64.b64encode(b"me:s3cret").decode()
    (tmp_path / "config.json").write_text(json.dumps({"auths": {server.address: {"auth": auth}}, "other": 1}))
    assert opened(server, tmp_path).fetch("m", "1").model_file().read_bytes() == b"model 1"


def test_a_helper_of_the_system_is_asked_for_the_login(
    server: OciServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helper = tmp_path / "docker-credential-here"
    helper.write_text('#!/bin/sh\necho \'{"ServerURL": "x", "Username": "me", "Secret": "s3cret"}\'\n')
    helper.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"credsStore": "here"}))
    server.password = "s3cret"
    assert opened(server, tmp_path).models().names == ("m",)


@pytest.mark.parametrize(
    ("manifest", "reason"),
    [
        ({"manifests": []}, "no artifact with files"),
        ({"layers": [{"digest": "sha256:" + "0" * 64, "size": 1}]}, "no layer of the artifact has a name"),
        (
            {"layers": [{"digest": f"sha256:{n * 64}", "size": 1, "annotations": {TITLE: "model.onnx"}} for n in "01"]},
            "two layers",
        ),
        ({"layers": [{"digest": "md5:0", "size": 1, "annotations": {TITLE: "model.onnx"}}]}, "packed directory"),
    ],
)
def test_what_is_no_artifact_is_refused(
    manifest: dict[str, object], reason: str, server: OciServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_manifest", lambda files: json.dumps(manifest).encode())
    with pytest.raises(UnsafeSource, match=reason):
        opened(server, tmp_path).fetch("m", "1")


def test_bytes_that_are_not_those_of_their_digest_are_refused(server: OciServer, tmp_path: Path) -> None:
    own, loader = server.respond, opened(server, tmp_path)
    server.respond = lambda path, query, headers: (  # type: ignore[method-assign]
        (200, b"modem 1", {}) if "/blobs/" in path else own(path, query, headers)
    )
    with pytest.raises(DigestMismatch, match="its source says"):
        loader.fetch("m", "1")
    server.respond = own  # type: ignore[method-assign]
    assert loader.fetch("m", "1").model_file().read_bytes() == b"model 1"


def test_a_manifest_that_is_not_the_one_asked_for_is_refused(
    server: OciServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its layers have digests of their own, so other files would come with a proof that they are right."""
    own, loader = server.respond, opened(server, tmp_path)
    own_digest = loader.fingerprint("m", "1")

    def another(path: str, query: dict[str, str], headers: dict[str, str]) -> Answer:
        """Answers with the other version's manifest, and tells no digest, where one is asked for by its digest."""
        status, body, more = own(path, query, headers)
        by_digest = "/manifests/sha256:" in path
        return (200, own("/v2/m/manifests/2", query, headers)[1], {}) if by_digest else (status, body, more)

    def lying(path: str, query: dict[str, str], headers: dict[str, str]) -> Answer:
        status, body, more = own(path, query, headers)
        told = {"Docker-Content-Digest": f"sha256:{'0' * 64}"} if path.endswith("/manifests/1") else more
        return status, body, told

    monkeypatch.setattr(server, "respond", another)
    with pytest.raises(DigestMismatch, match="the manifest was asked for by sha256:"):
        loader.fetch("m", "1")
    monkeypatch.setattr(server, "respond", lying)
    with pytest.raises(DigestMismatch, match="the registry says that it has sha256:000"):
        loader.fetch("m", "1")
    assert loader.versions("m").names == ("1", "2"), "a tag that lies takes no other version away"
    assert loader.fetch("m", "2").model_file().read_bytes() == b"model 2"
    monkeypatch.setattr(server, "respond", own)
    assert loader.fingerprint("m", "1") == own_digest
    assert loader.fetch("m", "1").model_file().read_bytes() == b"model 1"


def test_a_registry_that_tells_no_digest_is_read_by_the_bytes(
    server: OciServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = server.respond
    monkeypatch.setattr(server, "respond", lambda path, query, headers: (*own(path, query, headers)[:2], {}))
    assert opened(server, tmp_path, "m:2").fetch("m", "2").model_file().read_bytes() == b"model 2"


def test_annotations_are_lineage_and_a_tag_beside_a_number_is_an_alias(server: OciServer, tmp_path: Path) -> None:
    server.annotations = {"org.opencontainers.image.revision": "4f2a"}
    server.write("m/latest/model.onnx", b"model 2")
    listed = opened(server, tmp_path).versions("m")
    assert listed.aliases == {"latest": "2"}
    assert listed.notes["2"].lineage["org.opencontainers.image.revision"] == "4f2a"
    assert listed.notes["2"].lineage["manifest"].startswith("sha256:")


@pytest.mark.parametrize(
    "uri", ["oci://host", "oci://host/UPPER", "oci://u:p@host/m", "oci://host/../m", "oci://host/m@x"]
)
def test_other_uris_are_refused(uri: str) -> None:
    with pytest.raises(UnsupportedUri, match="oci://registry/repository"):
        canonical(uri)
