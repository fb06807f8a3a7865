"""Versions that are served from their prepared form, and what is told of those that are not."""

import os
import time
from dataclasses import replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway.serving.prepared_store import MODEL_FILENAME, REFUSAL_REMEMBERED_S, PreparedManifest, PreparedStore, seal
from gateway.serving.preparer import Preparer
from gateway.serving.probe_request import from_json
from gateway.serving.session import WEIGHTS_FILENAME, Session
from loaders.model_signature import TrustedKeys
from tests import models
from tests.serving.catalogs import Fetch, OpenCatalog, opened
from tests.serving.prepared_models import WIDTH, entries, multiplied, preparer, weights


def weights_of(live: OpenCatalog) -> dict[str, str]:
    return {f"{status.model}/{status.version}": status.weights for status in live.catalog.states()}


async def test_a_version_is_served_from_its_prepared_form_which_is_remade_when_damaged(tmp_path: Path) -> None:
    x = weights(3, WIDTH, seed=3)
    expected = Session(multiplied(), intra_threads=1).run(None, {"x": x})[0].tobytes()

    async def served() -> str:
        """Where its weights are; its answers are right."""
        async with opened(tmp_path, preparer=preparer(tmp_path)) as live:
            await live.catalog.poll()
            version = live.catalog.version("m", "1")
            assert version.run_us > 0
            assert version.session is not None
            assert version.session.run(None, {"x": x})[0].tobytes() == expected
            return version.weights

    models.write_version(tmp_path / "models", "m", "1", multiplied())
    assert await served() == "shared"
    (entry,) = entries(tmp_path / "prepared")
    made_ns = (entry / WEIGHTS_FILENAME).stat().st_ctime_ns
    assert await served() == "shared"
    assert (entry / WEIGHTS_FILENAME).stat().st_ctime_ns == made_ns
    (entry / WEIGHTS_FILENAME).chmod(0o600)
    os.truncate(entry / WEIGHTS_FILENAME, 100)
    for _ in range(2):  # at once, by its own weights, and thrown away
        assert await served() == "its own: its prepared form was damaged, and thrown away"
        assert not entry.exists()
    (refused,) = (tmp_path / "prepared").glob("*.refused")
    os.utime(refused, (0, time.time() - REFUSAL_REMEMBERED_S - 1))
    assert await served() == "shared"
    assert (entry / WEIGHTS_FILENAME).stat().st_size > WIDTH * WIDTH * 4


async def test_a_prepared_version_is_loaded_without_its_own_files_being_read(tmp_path: Path) -> None:
    async with opened(tmp_path, preparer=preparer(tmp_path)) as live:
        models.write_version(live.root, "m", "1", multiplied())
        await live.catalog.poll()
        digest = live.catalog.version("m", "1").digest
    copy = tmp_path / "data" / "store" / digest / "model.onnx"
    copy.chmod(0o600)
    copy.write_bytes(b"damaged meanwhile")
    async with opened(tmp_path, preparer=preparer(tmp_path)) as live:
        await live.catalog.poll()
        version = live.catalog.version("m", "1")
        assert (version.weights, version.digest) == ("shared", digest)
        assert copy.read_bytes() == b"damaged meanwhile"
        models.write_version(live.root, "m", "1", multiplied(by=2))  # what lies there is looked at all the same
        await live.catalog.poll()
        version = live.catalog.version("m", "1")
        x = weights(3, WIDTH, seed=3)
        assert version.session is not None
        expected = Session(multiplied(by=2), intra_threads=1).run(None, {"x": x})[0]
        assert version.session.run(None, {"x": x})[0].tobytes() == expected.tobytes()
        assert version.weights == "shared"
        assert len(entries(tmp_path / "prepared")) == 2


async def test_what_was_prepared_of_an_unsigned_version_serves_nobody_who_asks_for_signatures(tmp_path: Path) -> None:
    async with opened(tmp_path, preparer=preparer(tmp_path)) as live:
        models.write_version(live.root, "m", "1", multiplied())
        await live.catalog.poll()
        assert live.catalog.version("m", "1").weights == "shared"
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    (tmp_path / "keys.pem").write_bytes(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    trusted = TrustedKeys(tmp_path / "keys.pem")
    async with opened(tmp_path, preparer=preparer(tmp_path), trusted_keys=trusted) as live:
        await live.catalog.poll()
        assert "the version is not signed, and a signature is required" in live.reason("m", "1")


def test_a_note_of_another_content_is_none(prepared_store: PreparedStore, fetch: Fetch) -> None:
    local = fetch(multiplied())
    prepared_store.note_copy("place", local)
    assert prepared_store.noted_copy("place") == local
    assert prepared_store.noted_copy("elsewhere") is None
    prepared_store.note_copy("place", replace(local, files=(replace(local.files[0], sha256="0" * 64),)))
    assert prepared_store.noted_copy("place") is None
    prepared_store.note_copy("place", replace(local, path=local.path / "gone"))
    assert prepared_store.noted_copy("place") is None


async def test_a_whole_entry_that_the_runtime_refuses_is_not_made_again_and_again(tmp_path: Path) -> None:
    async with opened(tmp_path, preparer=preparer(tmp_path)) as live:
        models.write_version(live.root, "m", "1", multiplied())
        await live.catalog.poll()
    entry = entries(tmp_path / "prepared")[0]
    manifest = (entry / "prepared.json").read_bytes()
    (entry / WEIGHTS_FILENAME).chmod(0o600)
    (entry / MODEL_FILENAME).chmod(0o600)
    (entry / MODEL_FILENAME).write_bytes(b"no model")
    key = from_json(manifest, PreparedManifest).key
    seal(entry, key)
    async with opened(tmp_path, preparer=preparer(tmp_path)) as live:
        await live.catalog.poll()
        assert "could not be loaded" in live.catalog.version("m", "1").weights
    assert not entries(tmp_path / "prepared")


async def test_what_is_not_prepared_says_why(tmp_path: Path) -> None:
    small = Preparer(tmp_path / "prepared", min_bytes=1 << 20, max_bytes=1 << 30)
    async with opened(tmp_path, preparer=small) as live:
        models.write_version(live.root, "m", "1", multiplied())
        await live.catalog.poll()
        assert weights_of(live) == {
            "m/1": "its own: its weights have 16384 bytes, fewer than 1048576 (--prepare-min-bytes)"
        }
    assert not (tmp_path / "prepared").exists()


async def test_a_prepared_form_that_cannot_be_kept_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "prepared").write_text("no directory")
    async with opened(tmp_path, preparer=preparer(tmp_path)) as live:
        models.write_version(live.root, "m", "1", multiplied())
        await live.catalog.poll()
        assert live.catalog.version("m", "1").weights == "its own: prepared models cannot be kept: File exists"
