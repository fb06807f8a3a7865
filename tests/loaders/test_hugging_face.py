"""The hub: a revision, a directory in it, a token that stays with the hub."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from loaders.errors import SourceNotFound, UnsupportedUri
from loaders.loader import Loader
from loaders.schemes import LoaderSettings, canonical, open_loader
from loaders.store import ContentStore
from tests.loaders.registry_server import HubServer, json_answer


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    server = HubServer()
    server.write("bert/main/onnx/model.onnx", b"graph")
    server.write("bert/main/onnx/model.onnx_data", b"weights")
    server.write("bert/main/pytorch_model.bin", b"x" * 100)
    server.write("bert/v1.0/onnx/model.onnx", b"first")
    monkeypatch.setenv("HF_ENDPOINT", f"http://{server.address}")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    yield server
    server.shutdown()
    server.server_close()


def opened(uri: str, tmp_path: Path) -> Loader:
    return open_loader(LoaderSettings(canonical(uri), ContentStore(tmp_path / "store")))


def test_a_directory_of_a_revision_is_a_version(server: HubServer, tmp_path: Path) -> None:
    loader = opened("hf://tests/bert?path=onnx", tmp_path)
    assert loader.models().names == ("bert",)
    assert loader.versions("bert").names == ("main", "v1.0")
    local = loader.fetch("bert", "main")
    assert [entry.name for entry in local.files] == ["model.onnx", "model.onnx_data"]
    one = opened("hf://tests/bert@v1.0?path=onnx", tmp_path)
    assert one.versions("bert").names == ("v1.0",)
    assert one.fetch("bert", "v1.0").model_file().read_bytes() == b"first"
    with pytest.raises(SourceNotFound):
        opened("hf://tests/bert@v2", tmp_path).models()


def test_a_branch_that_moves_is_new_content(server: HubServer, tmp_path: Path) -> None:
    loader = opened("hf://tests/bert@main?path=onnx", tmp_path)
    before = loader.fingerprint("bert", "main")
    server.write("bert/main/onnx/model.onnx", b"better")
    assert loader.fingerprint("bert", "main") != before
    assert loader.fetch("bert", "main").model_file().read_bytes() == b"better"


@pytest.mark.parametrize("by_file", [False, True])
def test_the_token_does_not_follow_a_redirect_to_another_host(
    by_file: bool, server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if by_file:
        (tmp_path / "token").write_text("hf_t0ken\n")
    else:
        monkeypatch.setenv("HF_TOKEN", "hf_t0ken")
    opened("hf://tests/bert?path=onnx", tmp_path).fetch("bert", "main")
    told = {
        path.split("/")[1]: headers.get("authorization")
        for path, headers in zip(server.asked, server.headers_seen, strict=True)
    }
    assert told == {"api": "Bearer hf_t0ken", "tests": "Bearer hf_t0ken", "large": None}


@pytest.mark.parametrize("uri", ["hf://bert", "hf://a/b/c", "hf://a/b@x/y", "hf://a/b?path=../x", "hf://a/b?other=1"])
def test_other_uris_are_refused(uri: str) -> None:
    with pytest.raises(UnsupportedUri, match="hf://organisation/name"):
        canonical(uri)


def test_a_branch_beside_a_tag_of_the_same_commit_is_an_alias(
    server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refs = {
        "branches": [{"name": "main", "targetCommit": "c2"}, {"name": "dev", "targetCommit": "c3"}],
        "tags": [{"name": "v1", "targetCommit": "c1"}, {"name": "v2", "targetCommit": "c2"}],
    }
    monkeypatch.setattr(server, "respond", lambda path, query, headers: json_answer(refs))
    listed = opened("hf://tests/bert", tmp_path).versions("bert")
    assert listed.names == ("dev", "main", "v1", "v2")
    assert listed.aliases == {"main": "v2"}
    assert listed.notes["dev"].lineage == {"commit": "c3"}
