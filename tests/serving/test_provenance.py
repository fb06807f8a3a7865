"""Where a version comes from, by its record, its model and its cards."""

import json
from pathlib import Path

import onnx
import pytest

from gateway.serving.provenance import RECORDS, Provenance, provenance
from loaders.filesystem import FilesystemLoader
from loaders.loader import LocalVersion, VersionNotes
from loaders.store import ContentStore
from tests import models
from tests.serving.catalogs import opened

OF_CARD = {"epochs": "3", "quoted": "a: b # c", "day": "2026-11-30"}
CARD = """# a card
data: card  # of 2026
epochs: 3
nested: {a: 1}
list: [1]
deep:
  inner: 1
quoted: 'a: b # c'
day: 2026-11-30
anchor: &a x
"""


def local(tmp_path: Path, **files: str) -> LocalVersion:
    version = tmp_path / "repository" / "m" / "1"
    version.mkdir(parents=True)
    (version / "model.onnx").write_bytes(b"model")
    for name, text in files.items():
        (version / name.replace("_", ".")).write_text(text)
    return FilesystemLoader(tmp_path / "repository", ContentStore(tmp_path / "store")).fetch("m", "1")


def record(digest: str, **lineage: str) -> bytes:
    facts = {"version": "1", "digest": digest, "publisher": "ci", "published_at": 7.5, "lineage": lineage}
    return json.dumps(facts).encode()


def test_the_record_is_believed_before_the_model_and_the_model_before_cards(tmp_path: Path) -> None:
    version = local(tmp_path, modelcard_yaml=CARD, MLmodel="run_id: 8c1e\n")
    metadata = {"data": "metadata", "revision": "metadata"}
    seen = provenance(version, metadata, record(version.digest, revision="4f2a"), signature_checked=False)
    assert seen.lineage == {"revision": "4f2a", "data": "metadata", **OF_CARD, "run_id": "8c1e"}
    assert (seen.publisher, seen.published_s, seen.signature) == ("ci", 7.5, "none")
    assert seen.size_bytes == version.size


def test_what_the_source_keeps_is_believed_after_the_record_and_before_the_model(tmp_path: Path) -> None:
    version = local(tmp_path, MLmodel="run_id: of-card\n")
    notes = VersionNotes("ann", 3.5, {"data": "tag", "run_id": "8c1e"})
    seen = provenance(version, {"data": "metadata", "x": "y"}, None, notes, signature_checked=False)
    assert seen.lineage == {"data": "tag", "run_id": "8c1e", "x": "y"}
    assert (seen.publisher, seen.published_s) == ("ann", 3.5)
    published = provenance(version, {}, record(version.digest, data="record"), notes, signature_checked=False)
    assert published.lineage == {"data": "record", "run_id": "8c1e"}
    assert (published.publisher, published.published_s) == ("ci", 7.5)


@pytest.mark.parametrize("text", [None, b"", b"{}", b"\xff", b"[1]", record("0" * 64)])
def test_a_record_of_something_else_says_nothing(text: bytes | None, tmp_path: Path) -> None:
    version = local(tmp_path, model_sig="x")
    seen = provenance(version, {}, text, signature_checked=False)
    assert seen == Provenance(version.size, "not checked")
    assert provenance(version, {}, text, signature_checked=True).signature == "checked"


@pytest.mark.parametrize("card", ["- a\n", "a: [", "\x00", "a: &a [*a]", "[" * 60_000, "x: " + "y" * 70_000, "1: 2"])
def test_a_card_that_is_none_says_nothing(card: str, tmp_path: Path) -> None:
    assert provenance(local(tmp_path, modelcard_yaml=card), {}, None, signature_checked=False).lineage == {}


def test_what_is_told_is_bounded(tmp_path: Path) -> None:
    metadata = {f"k{number}": "v" * 1000 for number in range(100)}
    seen = provenance(local(tmp_path), metadata, None, signature_checked=False)
    assert len(seen.lineage) == 64
    assert max(map(len, seen.lineage.values())) == 500


async def test_a_loaded_version_knows_its_repository_and_its_model(tmp_path: Path) -> None:
    async with opened(tmp_path) as live:
        model = onnx.load_from_string(models.affine())
        onnx.helper.set_model_props(model, {"run": "8c1e"})
        models.write_version(live.root, "m", "1", model.SerializeToString())
        await live.catalog.poll()
        version = live.catalog.newest("m")
        assert version.provenance.lineage == {"run": "8c1e"}
        assert live.catalog.origin("m") == str(live.root)
        (live.root / "m" / RECORDS).mkdir()
        models.write_version(live.root, "m", "2", models.affine(3.0))
        digest = FilesystemLoader(live.root, ContentStore(tmp_path / "other")).fetch("m", "2").digest
        (live.root / "m" / RECORDS / "2.json").write_bytes(record(digest))
        await live.catalog.poll()
        origin, run_us, memory_bytes = live.catalog.details("m", "2")
        assert (origin.publisher, run_us > 0, memory_bytes > 0) == ("ci", True, True)
        assert live.catalog.details("m", "3") == (Provenance(), 0.0, 0)
