"""What is particular to object stores, against moto's S3 server: keys are any text, objects change under the copy."""

from pathlib import Path

import pytest

from gateway.serving.catalog import Catalog
from gateway.serving.intents import IntentStore
from gateway.serving.lifecycle import Pipeline
from gateway.serving.probe import Prober
from gateway.serving.repository import ModelRepository
from loaders.errors import LoaderError, SourceChanged, SourceTooLarge, SourceUnreadable, UnsafeSource, UnsupportedUri
from loaders.object_store import ObjectStoreLoader, canonical
from loaders.store import ContentStore
from loaders.tree import TreeLimits
from tests import models
from tests.loaders.repositories import WrittenBucket
from tests.serving.catalogs import answer

pytestmark = pytest.mark.usefixtures("keys")


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def bucket(tmp_path: Path) -> WrittenBucket:
    return WrittenBucket(tmp_path)


@pytest.fixture
def store(tmp_path: Path) -> ContentStore:
    return ContentStore(tmp_path / "store")


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("s3://abc", "s3://abc"),
        ("S3://abc/", "s3://abc"),
        ("s3://abc//a/b/", "s3://abc/a/b"),
        ("s3://abc/a?region=eu-1&endpoint=http://h:1", "s3://abc/a?endpoint=http%3A%2F%2Fh%3A1&region=eu-1"),
    ],
)
def test_forms_of_a_uri(text: str, form: str) -> None:
    assert canonical(text) == form
    assert canonical(form) == form


@pytest.mark.parametrize(
    "text",
    [
        *("s3://", "s3://ab", "s3://A_b", "s3://user@abc", "s3://abc:1", "s3://abc/../x", "s3://abc/a#x"),
        *("s3://abc?secret=x", "s3://abc?region", "s3://abc?endpoint=ftp://x", "s3://abc/a%zz\x00"),
    ],
)
def test_other_uris_are_refused(text: str) -> None:
    with pytest.raises(UnsupportedUri):
        canonical(text)


async def test_a_catalog_serves_from_a_bucket(bucket: WrittenBucket, store: ContentStore, tmp_path: Path) -> None:
    loader = ObjectStoreLoader(bucket.uri, store)
    prober = Prober(tmp_path / "probes")
    catalog = Catalog(
        ModelRepository(loader), Pipeline(loader, prober, intra_threads=1), IntentStore(tmp_path / "state"), store=store
    )
    try:
        bucket.write("m/1/model.onnx", models.affine(2.0))
        bucket.write("m/config.pbtxt", b"max_batch_size: 3")
        bucket.write("notes.txt", b"no model")
        await catalog.poll()
        assert (answer(catalog.newest("m")), catalog.newest("m").max_batch_size) == (2.0, 3)
        assert catalog.passed_over() == {"notes.txt": "an object: models are prefixes"}
        bucket.write("m/2/model.onnx", models.affine(5.0))
        await catalog.poll()
        assert answer(catalog.newest("m")) == 5.0
        bucket.remove("")
        for _ in range(3):
            await catalog.poll()
        assert catalog.trouble == "the model repository cannot be listed: the model repository is not there"
        assert answer(catalog.newest("m")) == 5.0
    finally:
        await catalog.close()


def test_an_object_that_is_written_under_the_copy_ends_it(bucket: WrittenBucket, store: ContentStore) -> None:
    bucket.write("m/1/model.onnx", b"listed")
    loader = ObjectStoreLoader(bucket.uri, store)
    with loader.one_look():
        bucket.write("m/1/model.onnx", b"another")
        with pytest.raises(SourceChanged, match=r"'model\.onnx' was changed while it was copied"):
            loader.fetch("m", "1")
    assert loader.fetch("m", "1").model_file().read_bytes() == b"another"


@pytest.mark.parametrize("name", ["a b", "a//b", "\u00e9.bin"])
def test_keys_that_are_no_file_names_are_refused(name: str, bucket: WrittenBucket, store: ContentStore) -> None:
    bucket.write("m/1/model.onnx", b"x")
    bucket.write(f"m/1/{name}", b"x")
    with pytest.raises(UnsafeSource, match="is refused"):
        ObjectStoreLoader(bucket.uri, store).fetch("m", "1")


@pytest.mark.parametrize("name", ["..", "x/../y", "../../../canary", ".hidden/x"])
def test_keys_with_a_dot_in_front_of_a_part_are_no_content(
    name: str, bucket: WrittenBucket, store: ContentStore, tmp_path: Path
) -> None:
    bucket.write("m/1/model.onnx", b"x")
    bucket.write(f"m/1/{name}", b"canary")
    local = ObjectStoreLoader(bucket.uri, store).fetch("m", "1")
    assert [entry.name for entry in local.files] == ["model.onnx"]
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.read_bytes() == b"canary"]


def test_a_key_below_another_is_refused(bucket: WrittenBucket, store: ContentStore) -> None:
    bucket.write("m/1/model.onnx", b"x")
    bucket.write("m/1/model.onnx/model.onnx", b"x")
    with pytest.raises(UnsafeSource, match="name of a file and of files below it"):
        ObjectStoreLoader(bucket.uri, store).fetch("m", "1")


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (TreeLimits(max_files=1), "more than 1 files"),
        (TreeLimits(max_bytes=3), "more than 3 bytes"),
        (TreeLimits(max_depth=1), "too deep"),
    ],
)
def test_limits(limits: TreeLimits, reason: str, bucket: WrittenBucket, store: ContentStore) -> None:
    bucket.write("m/1/model.onnx", b"xx")
    bucket.write("m/1/d/w.bin", b"xx")
    with pytest.raises(SourceTooLarge, match=reason):
        ObjectStoreLoader(bucket.uri, store, limits=limits).fetch("m", "1")


def test_a_store_that_does_not_answer_is_named_without_its_address(store: ContentStore) -> None:
    loader = ObjectStoreLoader("s3://abc/models?endpoint=http://127.0.0.1:1", store)
    with pytest.raises(SourceUnreadable, match="EndpointConnectionError") as caught:
        loader.models()
    assert "127.0.0.1" not in str(caught.value)


def test_without_keys_nothing_is_read(
    bucket: WrittenBucket, store: ContentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    with pytest.raises(LoaderError, match="NoCredentialsError"):
        ObjectStoreLoader(bucket.uri, store).models()
