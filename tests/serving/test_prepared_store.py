"""The store of prepared models: nothing half there, nothing of others, bounded."""

import os
import time
from pathlib import Path

import pytest

from gateway.serving.prepared_store import MODEL_FILENAME, REFUSAL_REMEMBERED_S, PreparedStore, Refusal
from gateway.serving.session import WEIGHTS_FILENAME
from tests import models
from tests.serving.catalogs import opened
from tests.serving.prepared_models import entries, multiplied, preparer, put


@pytest.mark.parametrize("name", [MODEL_FILENAME, WEIGHTS_FILENAME, "prepared.json"])
@pytest.mark.parametrize("harm", ["cut", "flipped", "no text", "gone"])
def test_a_damaged_entry_is_removed(name: str, harm: str, prepared_store: PreparedStore, tmp_path: Path) -> None:
    put(prepared_store, "key")
    with prepared_store.opened("key") as entry:
        assert entry is not None
    file = entries(tmp_path / "prepared")[0] / name
    file.chmod(0o600)
    content = file.read_bytes()
    if harm == "cut":
        os.truncate(file, len(content) - 1)
    elif harm == "flipped":
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif harm == "no text":
        file.write_bytes(content[:2] + b"\xff" + content[3:])
    else:
        file.unlink()
    with prepared_store.opened("key") as entry:
        assert entry is None
    assert not entries(tmp_path / "prepared")


def test_an_entry_of_another_key_is_not_opened(prepared_store: PreparedStore, tmp_path: Path) -> None:
    put(prepared_store, "key")
    put(prepared_store, "other")
    with prepared_store.opened("other") as entry:
        assert entry is not None
        place = entry.model.parent
    with prepared_store.opened("key") as entry:
        assert entry is not None
        os.rename(place, tmp_path / "away")
        os.rename(entry.model.parent, place)
    with prepared_store.opened("other") as entry:
        assert entry is None


def test_a_directory_that_others_may_write_to_is_not_used(prepared_store: PreparedStore, tmp_path: Path) -> None:
    put(prepared_store, "key")
    (tmp_path / "prepared").chmod(0o770)
    with pytest.raises(PermissionError), prepared_store.opened("key"):
        pass


def test_the_least_recently_used_entries_make_room(tmp_path: Path) -> None:
    directory = tmp_path / "prepared"
    prepared_store = PreparedStore(directory, max_bytes=1 << 20)
    prepared_store.make()
    for count, key in enumerate("abc"):
        put(prepared_store, key, 300_000)
        os.utime(max(entries(directory), key=lambda path: path.stat().st_mtime), (count, count))
    with prepared_store.opened("a") as entry:  # used last
        assert entry is not None
    put(prepared_store, "d", 300_000)
    assert [prepared_store.has(key) for key in "abcd"] == [True, False, True, True]
    assert prepared_store.bytes() <= prepared_store.max_bytes
    staging = prepared_store.stage()
    (staging / WEIGHTS_FILENAME).write_bytes(bytes(2 << 20))
    assert not prepared_store.publish("e", staging)
    assert [prepared_store.has(key) for key in "abcde"] == [True, False, True, True, False]


async def test_what_a_worker_serves_from_is_in_use(tmp_path: Path) -> None:
    async with opened(tmp_path, preparer=preparer(tmp_path)) as live:
        models.write_version(live.root, "m", "1", multiplied())
        await live.catalog.poll()
        (entry,) = entries(tmp_path / "prepared")
        os.utime(entry, (0, 0))
        await live.catalog.copies.tend(time.time())
        assert entry.stat().st_mtime > 0


def test_an_entry_that_is_removed_stays_with_who_has_opened_it(prepared_store: PreparedStore) -> None:
    put(prepared_store, "key")
    with prepared_store.opened("key") as entry:
        assert entry is not None
        held = (entry.model.parent / WEIGHTS_FILENAME).open("rb")
    prepared_store.remove("key")
    with held:
        assert len(held.read()) == 1000


def test_reasons_are_remembered_for_as_long_as_they_hold(prepared_store: PreparedStore) -> None:
    for lasting in (True, False):
        prepared_store.refuse("key", Refusal("full", lasting=lasting))
        noted_s = prepared_store._refused("key").stat().st_mtime
        later_s = noted_s + REFUSAL_REMEMBERED_S + 1
        assert prepared_store.refusal("key", asked_at=noted_s) is not None
        assert (prepared_store.refusal("key", asked_at=later_s) is not None) is lasting
        assert (prepared_store.refusal("key", asked_at=noted_s + 1, again=True) is not None) is lasting
    assert prepared_store.refusal("key", asked_at=noted_s - 1, again=True) is not None  # found while this one waited
    put(prepared_store, "key")
    assert prepared_store.refusal("key", asked_at=noted_s) is None
