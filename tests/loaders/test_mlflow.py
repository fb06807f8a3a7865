"""The registry of MLflow: one model, an alias that moves, what is refused; and a real server."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from loaders.errors import LoaderError, SourceNotFound, SourceUnreadable, UnsafeSource, UnsupportedUri
from loaders.loader import Loader, VersionNotes
from loaders.schemes import LoaderSettings, canonical, open_loader
from loaders.store import ContentStore
from tests.loaders.mlflow_server import needs_mlflow, real_mlflow
from tests.loaders.registry_server import Answer, MlflowServer, json_answer


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[MlflowServer]:
    server = MlflowServer()
    for version in ("1", "2"):
        server.write(f"digits/{version}/model.onnx", f"model {version}".encode())
        server.write(f"digits/{version}/MLmodel", b"flavors: {onnx: {data: model.onnx}}")
    server.write("flights/7/model.onnx", b"flights")
    server.aliases["digits", "champion"] = "1"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{server.address}")
    yield server
    server.shutdown()
    server.server_close()


def opened(uri: str, tmp_path: Path) -> Loader:
    return open_loader(LoaderSettings(canonical(uri), ContentStore(tmp_path / "store")))


@pytest.mark.parametrize(
    ("uri", "versions"),
    [("models:/digits", ("1", "2")), ("models:/digits/2", ("2",)), ("models:/digits@champion", ("1",))],
)
def test_one_model_is_read(uri: str, versions: tuple[str, ...], server: MlflowServer, tmp_path: Path) -> None:
    loader = opened(uri, tmp_path)
    assert loader.models().names == ("digits",)
    assert loader.versions("digits").names == versions
    local = loader.fetch("digits", versions[-1])
    assert local.model_file().read_bytes() == f"model {versions[-1]}".encode()
    assert loader.origin("digits") == uri


def test_an_alias_is_followed(server: MlflowServer, tmp_path: Path) -> None:
    loader = opened("models:/digits@champion", tmp_path)
    assert loader.versions("digits").names == ("1",)
    server.aliases["digits", "champion"] = "2"
    assert loader.versions("digits").names == ("2",)
    del server.aliases["digits", "champion"]
    with pytest.raises(SourceNotFound):
        loader.models()


def test_a_configuration_is_a_tag_of_the_model(server: MlflowServer, tmp_path: Path) -> None:
    loader = opened("models:/digits", tmp_path)
    with pytest.raises(SourceNotFound):
        loader.read("digits", "config.pbtxt", 1000)
    before = loader.stamp("digits")
    server.tags["digits"] = {"config.pbtxt": "max_batch_size: 3", "other": "x"}
    assert loader.read("digits", "config.pbtxt", 1000) == b"max_batch_size: 3"
    assert loader.stamp("digits") != before


def test_what_the_registry_keeps_of_a_version_is_its_lineage(server: MlflowServer, tmp_path: Path) -> None:
    server.version_tags["digits", "2"] = {"data": "s3://train/7", "revision": "4f2a"}
    notes = opened("models:/digits", tmp_path).versions("digits").notes
    assert notes["1"] == VersionNotes("ann", 0.002, {"run_id": "run-1"})
    assert notes["2"].lineage == {"data": "s3://train/7", "revision": "4f2a", "run_id": "run-2"}


def test_versions_that_were_looked_at_are_copied_without_listing_everything_again(
    server: MlflowServer, tmp_path: Path
) -> None:
    """Or a thousand versions would list a registry of a thousand a thousand times."""
    loader = opened(f"mlflow+http://{server.address}", tmp_path)
    with loader.one_look():
        assert loader.versions("digits").names == ("1", "2")
    server.asked.clear()
    for model, version in (("digits", "1"), ("digits", "2"), ("flights", "7")):
        loader.fetch(model, version)
        with pytest.raises(SourceNotFound):
            loader.read(model, f".publications/{version}.json", 100)
    assert not [path for path in server.asked if path.endswith("/search")]
    server.write("digits/3/model.onnx", b"model 3")
    assert loader.fetch("digits", "3").model_file().read_bytes() == b"model 3", "a new one is looked for"


def test_who_asks_is_told_to_the_server(server: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loader = opened("models:/digits", tmp_path)
    loader.models()
    assert "authorization" not in server.headers_seen[-1]
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "t0ken")
    loader.models()
    assert server.headers_seen[-1]["authorization"] == "Bearer t0ken"
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "s3cret")
    loader.models()
    assert server.headers_seen[-1]["authorization"] == "Basic bWU6czNjcmV0"


def test_artifacts_on_the_disk_of_the_server_are_refused_with_the_cure(
    server: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = server.respond

    def respond(path: str, query: dict[str, str], headers: dict[str, str]) -> Answer:
        if path.endswith("get-download-uri"):
            return json_answer({"artifact_uri": "file:///etc"})
        return own(path, query, headers)

    monkeypatch.setattr(server, "respond", respond)
    with pytest.raises(UnsafeSource, match="--serve-artifacts"):
        opened("models:/digits", tmp_path).fetch("digits", "1")


def test_a_server_that_is_away_or_is_none_is_named_without_its_address(server: MlflowServer, tmp_path: Path) -> None:
    loader = opened(f"mlflow+http://{server.address}", tmp_path)
    server.is_away = True
    with pytest.raises(SourceUnreadable, match="the MLflow server answers 503") as raised:
        loader.models()
    assert "127.0.0.1" not in str(raised.value)
    with pytest.raises(LoaderError):
        opened("mlflow+http://127.0.0.1:1", tmp_path).models()


@pytest.mark.parametrize(
    "uri",
    [
        "models:/",
        "models:/a/b",
        "models:/a@",
        "models:/a@x/1",
        "mlflow+http://",
        "mlflow+http://u:p@h",
        "mlflow+http://h?x",
    ],
)
def test_other_uris_are_refused(uri: str, server: MlflowServer) -> None:
    with pytest.raises(UnsupportedUri, match="mlflow"):
        canonical(uri)


def test_without_an_address_a_model_cannot_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(UnsupportedUri, match="set MLFLOW_TRACKING_URI"):
        canonical("models:/digits")


CLIENT = """
client.create_registered_model("digits", tags={"config.pbtxt": "max_batch_size: 3"})
for number in (1, 2):
    run = client.create_run(client.create_experiment(f"e{number}"))
    client.log_artifacts(run.info.run_id, f"{sys.argv[2]}/{number}", "model")
    client.create_model_version("digits", f"{run.info.artifact_uri}/model", run.info.run_id)
client.set_registered_model_alias("digits", "champion", "1")
client.set_model_version_tag("digits", "1", "data", "mnist")
"""


@needs_mlflow
@pytest.mark.long
@pytest.mark.timeout(400)
def test_a_real_server_answers_as_the_one_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in ("1", "2"):
        (tmp_path / "made" / number / "data").mkdir(parents=True)
        (tmp_path / "made" / number / "model.onnx").write_bytes(f"model {number}".encode())
        (tmp_path / "made" / number / "data" / "weights.bin").write_bytes(b"w" * 3_000_000)
    with real_mlflow(tmp_path) as mlflow:
        mlflow.client(CLIENT, str(tmp_path / "made"))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow.address)
        whole, champion = opened(f"mlflow+{mlflow.address}", tmp_path), opened("models:/digits@champion", tmp_path)
        assert whole.models().names == ("digits",)
        assert whole.versions("digits").names == ("1", "2")
        assert whole.versions("digits").aliases == {"champion": "1"}
        notes = whole.versions("digits").notes["1"]
        assert (notes.lineage["data"], len(notes.lineage["run_id"]), notes.published_s > 0) == ("mnist", 32, True)
        assert champion.versions("digits").names == ("1",)
        assert whole.read("digits", "config.pbtxt", 100) == b"max_batch_size: 3"
        local = champion.fetch("digits", "1")
        assert [entry.name for entry in local.files] == ["data/weights.bin", "model.onnx"]
        assert local.model_file().read_bytes() == b"model 1"
        with pytest.raises(SourceNotFound):
            opened("models:/digits@absent", tmp_path).models()
