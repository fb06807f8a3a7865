"""What every loader must do, run on the loader of each scheme in the table."""

import shutil
import subprocess
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from loaders.errors import DigestMismatch, LoaderError, SourceNotFound, SourceTooLarge, SourceUnreadable, UnsafeSource
from loaders.loader import Loader
from loaders.schemes import SCHEMES, LoaderSettings, canonical, open_loader
from loaders.store import ContentStore
from tests.loaders.repositories import COMPOSED, LIKE, WRITERS, WrittenRepository

FILES = {
    "m/1/model.onnx": b"model bytes",
    "m/1/weights/a.bin": b"w" * 70_000,
    "m/20/model.onnx": b"newer bytes",
    "m/labels.txt": b"a\nb\n",
    "m/warmup/x": b"data",
    "n/1/model.onnx": b"another model",
}


BESIDE = ("m/labels.txt", "m/warmup/x")


@pytest.fixture(params=(*WRITERS, *COMPOSED))
def written(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WrittenRepository:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    for name in ("AWS_EC2_METADATA_DISABLED", "GOOGLE_SKIP_SIGNATURE", "AZURE_SKIP_SIGNATURE"):
        monkeypatch.setenv(name, "true")
    monkeypatch.setenv("HF_ENDPOINT", "")  # its writer sets it
    repository = {**WRITERS, **COMPOSED}[request.param](tmp_path)
    for name, content in FILES.items():
        if repository.keeps_beside or name not in BESIDE:
            repository.write(name, content)
    return repository


@pytest.fixture
def beside(written: WrittenRepository) -> WrittenRepository:
    """Returns a repository with files beside the versions."""
    if not written.keeps_beside:
        pytest.skip("what lies there are versions alone")
    return written


@pytest.fixture
def store(tmp_path: Path) -> ContentStore:
    return ContentStore(tmp_path / "store")


@pytest.fixture
def loader(written: WrittenRepository, store: ContentStore) -> Loader:
    return open_loader(LoaderSettings(canonical(written.uri), store))


def test_every_scheme_has_its_repository_here() -> None:
    assert WRITERS.keys() | LIKE.keys() == SCHEMES.keys()
    assert set(LIKE.values()) <= WRITERS.keys()


def test_the_canonical_form_means_the_same(written: WrittenRepository) -> None:
    assert canonical(canonical(written.uri)) == canonical(written.uri)


def test_an_origin_is_the_uri_of_the_models_own_repository(written: WrittenRepository, loader: Loader) -> None:
    origins = {loader.origin("m"), loader.origin("n")}
    assert origins <= set(canonical(written.uri).split(","))
    assert len(origins) == (1 if "," not in written.uri else 2)


def test_models_and_versions_are_listed_in_order(loader: Loader) -> None:
    assert loader.models().names == ("m", "n")
    assert [name for name in loader.versions("m").names if name != "warmup"] == ["1", "20"]
    with pytest.raises(SourceNotFound):
        loader.versions("absent")


def test_within_one_look_what_is_asked_fits_together(written: WrittenRepository, loader: Loader) -> None:
    with loader.one_look():
        assert loader.models().names == ("m", "n")
        assert loader.versions("n").names == ("1",)
        assert loader.read("m", "20/model.onnx", 20) == b"newer bytes"
    written.write("o/1/model.onnx", b"a third model")
    assert loader.models().names == ("m", "n", "o")
    written.remove("")
    with pytest.raises((SourceNotFound, SourceUnreadable)), loader.one_look():
        loader.models()


@pytest.mark.usefixtures("beside")
def test_what_is_beside_the_versions_can_be_read(loader: Loader) -> None:
    assert loader.read("m", "labels.txt", 4) == b"a\nb\n"
    assert loader.read("m", "warmup/x", 100) == b"data"
    assert loader.versions("m").names == ("1", "20", "warmup")


def test_files_are_read_within_limits(loader: Loader) -> None:
    assert loader.read("m", "1/model.onnx", 11) == b"model bytes"
    assert loader.holds("m", "1/model.onnx")
    assert not loader.holds("m", "2/model.onnx")
    with pytest.raises(SourceTooLarge, match="limit is 3"):
        loader.read("m", "20/model.onnx", 3)
    with pytest.raises(SourceNotFound, match=r"config\.pbtxt"):
        loader.read("m", "config.pbtxt", 100)


def test_a_stamp_follows_what_is_beside_the_versions(beside: WrittenRepository, loader: Loader) -> None:
    written = beside
    seen = {loader.stamp("m")}
    written.write("m/20/model.onnx", b"newest bytes")
    assert loader.stamp("m") in seen
    for name, content in {"m/labels.txt": b"c\n", "m/warmup/x": b"other", "m/config.pbtxt": b"# none"}.items():
        written.write(name, content)
        assert loader.stamp("m") not in seen
        seen.add(loader.stamp("m"))


def test_a_fingerprint_follows_the_versions_content(written: WrittenRepository, loader: Loader) -> None:
    other = loader.fingerprint("m", "20")
    seen = {loader.fingerprint("m", "1")}
    if written.keeps_beside:
        written.write("m/labels.txt", b"c\n")
    assert loader.fingerprint("m", "1") in seen
    for name, content in {"model.onnx": b"model bytez", "more.bin": b""}.items():
        written.write(f"m/1/{name}", content)
        assert loader.fingerprint("m", "1") not in seen
        seen.add(loader.fingerprint("m", "1"))
    written.remove("m/1/more.bin")
    assert loader.fingerprint("m", "1") not in seen - {loader.fingerprint("m", "1")}
    assert loader.fingerprint("m", "20") == other
    with pytest.raises(SourceNotFound):
        loader.fingerprint("m", "2")


def test_a_copy_has_the_bytes_and_the_digest_of_sha256sum(loader: Loader) -> None:
    local = loader.fetch("m", "1")
    assert [(entry.name, entry.size) for entry in local.files] == [("model.onnx", 11), ("weights/a.bin", 70_000)]
    for entry in local.files:
        content = (local.path / entry.name).read_bytes()
        assert content == FILES[f"m/1/{entry.name}"]
        assert sha256(content).hexdigest() == entry.sha256
    subprocess.run(["sha256sum", "-c", "manifest.sha256"], cwd=local.path, check=True, capture_output=True)
    assert local.digest == sha256((local.path / "manifest.sha256").read_bytes()).hexdigest()
    assert loader.fetch("m", "1") == local


def test_a_digest_follows_the_source_and_what_was_copied_is_not_read_again(
    written: WrittenRepository, loader: Loader
) -> None:
    local = loader.fetch("m", "1")
    shutil.rmtree(local.path)
    assert loader.digest("m", "1") == local.digest
    assert not local.path.exists()
    written.write("m/1/model.onnx", b"overwritten")
    assert loader.digest("m", "1") not in (local.digest, loader.digest("m", "20"))
    assert loader.digest("m", "1") == loader.fetch("m", "1").digest
    with pytest.raises(SourceNotFound):
        loader.digest("m", "2")


def test_names_with_a_dot_in_front_are_no_content(written: WrittenRepository, loader: Loader) -> None:
    before = loader.fetch("m", "1")
    for name in ("m/1/.DS_Store", "m/.hidden/model.onnx", ".git/1/model.onnx"):
        written.write(name, b"not content")
    assert loader.fetch("m", "1") == before
    assert [name for name in loader.versions("m").names if name != "warmup"] == ["1", "20"]
    assert loader.models().names == ("m", "n")


def test_a_copy_outlives_its_source(written: WrittenRepository, loader: Loader) -> None:
    local = loader.fetch("m", "1")
    written.write("m/1/model.onnx", b"overwritten")
    assert loader.fetch("m", "1").digest != local.digest
    assert loader.fetch("m", "1", digest=local.digest) == local
    written.remove("m/1")
    assert loader.fetch("m", "1", digest=local.digest) == local
    assert local.model_file().read_bytes() == b"model bytes"
    with pytest.raises(SourceNotFound):
        loader.fetch("m", "1")


def test_a_cache_that_is_cleared_meanwhile_is_made_again(
    written: WrittenRepository, loader: Loader, store: ContentStore, tmp_path: Path
) -> None:
    loader.fetch("m", "1")
    shutil.rmtree(tmp_path / "store")
    assert loader.fetch("m", "20").model_file().read_bytes() == b"newer bytes"
    shutil.rmtree(tmp_path / "store" / "staging")
    assert loader.fetch("m", "1").model_file().read_bytes() == b"model bytes"
    shutil.rmtree(tmp_path / "store")
    assert store.collect(now_s=0.0, unused_s=1.0).removed == ()


def test_other_content_than_asked_for_is_refused(written: WrittenRepository, loader: Loader) -> None:
    with pytest.raises(DigestMismatch):
        loader.fetch("m", "1", digest="0" * 64)
    written.write("n/1/manifest.sha256", f"{'0' * 64}  model.onnx\n".encode())
    with pytest.raises(DigestMismatch, match=r"'model\.onnx' has SHA-256"):
        loader.fetch("n", "1")


def test_a_version_without_files_is_refused(written: WrittenRepository, loader: Loader) -> None:
    written.write("m/3/.gitkeep", b"")
    with pytest.raises((UnsafeSource, SourceNotFound)):
        loader.fetch("m", "3")


def test_a_repository_that_is_gone_is_an_error(written: WrittenRepository, loader: Loader) -> None:
    written.remove("")
    with pytest.raises((SourceNotFound, SourceUnreadable)):
        loader.models()


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])  # each is 20 requests
@given(name=st.text(max_size=30) | st.lists(st.sampled_from(["..", ".", "", "m", "1", "/", "etc"])).map("/".join))
@example(name="")
@example(name="..")
@example(name="../canary")
@example(name="/etc/passwd")
@example(name="m/../../canary")
@example(name="a\0b")
def test_no_name_reads_what_is_outside(
    name: str, written: WrittenRepository, loader: Loader, store: ContentStore, tmp_path: Path
) -> None:
    (tmp_path / "canary").write_bytes(b"canary")
    (tmp_path / "1").mkdir(exist_ok=True)
    (tmp_path / "1" / "model.onnx").write_bytes(b"canary")

    def answer(ask: Callable[[], bytes]) -> bytes | str:
        try:
            return ask()
        except LoaderError as error:
            return str(error)

    for content in (
        answer(lambda: loader.read("m", name, 1 << 20)),
        answer(lambda: loader.read(name, "1/model.onnx", 1 << 20)),
        answer(lambda: loader.fetch(name, "1").model_file().read_bytes()),
        answer(lambda: loader.fetch("m", name).model_file().read_bytes()),
    ):
        assert content in FILES.values() or (isinstance(content, str) and str(tmp_path) not in content)
