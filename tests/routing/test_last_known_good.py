"""The file from which a worker starts while the store is away: whole, checked, or not used at all."""

import asyncio
import os
import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.routing.decision.snapshot import Route, Snapshot
from gateway.routing.store.last_known_good import Keeper, load, load_newest, save
from tests.routing.live import route, until


def snapshot(count: int = 3, revision: int = 9) -> Snapshot:
    committed = []
    for number in range(count):
        made = route(f"m{number}", number + 1)
        committed.append(Route(made.model, number + 1, made.document, made.table, 1000 + number, 0))
    return Snapshot.of("epoch-1", revision, committed)


def test_what_was_saved_is_what_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "w0.routes"
    saved = snapshot()
    save(path, saved)
    loaded = load(path)
    assert loaded is not None
    assert (loaded.epoch, loaded.revision, loaded.digest) == ("epoch-1", 9, saved.digest)
    assert {m: c.route for m, c in loaded.routes.items()} == {m: c.route for m, c in saved.routes.items()}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(path.parent) == ["w0.routes"]


def test_nothing_is_nothing(tmp_path: Path) -> None:
    assert load(tmp_path / "none") is None
    empty = Snapshot("e", 1)
    save(tmp_path / "empty", empty)
    loaded = load(tmp_path / "empty")
    assert loaded is not None
    assert (loaded.epoch, dict(loaded.routes)) == ("e", {})


def test_a_slot_starts_by_the_newest_rules_of_its_host(tmp_path: Path) -> None:
    paths = [tmp_path / f"worker-{slot}" for slot in range(5)]
    assert load_newest(paths[0]) is None
    save(paths[1], snapshot(revision=7))
    save(paths[2], snapshot(revision=9))
    save(tmp_path / "worker-x", snapshot(revision=99))
    save(paths[3], snapshot(revision=11))
    damaged = paths[3].read_bytes()[:-1]
    paths[3].write_bytes(damaged)
    for slot in (0, 1, 2):
        newest = load_newest(paths[slot])
        assert newest is not None
        assert newest.revision == 9
    assert paths[3].read_bytes() == damaged
    (tmp_path / "worker-6").mkdir()
    os.mkfifo(tmp_path / "worker-7")
    save(tmp_path / "alone", snapshot(revision=3))
    alone = load_newest(tmp_path / "alone")
    assert alone is not None
    assert alone.revision == 3


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_is_set_aside_and_never_half_used(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "w0.routes"
    save(path, snapshot())
    good = path.read_bytes()
    kind = data.draw(st.sampled_from(["flip", "cut", "append"]))
    at = data.draw(st.integers(0, len(good) - 1))
    if kind == "flip":
        bad = good[:at] + bytes([good[at] ^ data.draw(st.integers(1, 255))]) + good[at + 1 :]
    else:
        bad = good[:at] if kind == "cut" else good + data.draw(st.binary(min_size=1))
    path.write_bytes(bad)
    assert load(path) is None
    assert not path.exists()
    assert path.with_name("w0.routes.corrupt").read_bytes() == bad


@pytest.mark.parametrize("kind", ["directory", "fifo", "link"])
def test_what_is_no_file_does_not_hold_up_the_start(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "w0.routes"
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        save(tmp_path / "elsewhere", snapshot())
        path.symlink_to(tmp_path / "elsewhere")
    assert load(path) is None


async def test_many_changes_are_saved_once_and_the_newest_wins(tmp_path: Path) -> None:
    path = tmp_path / "w0.routes"
    newest = snapshot(revision=10)
    keeper = Keeper(path, lambda: newest)
    task = asyncio.create_task(keeper.run())
    for revision in range(11, 60):
        newest = snapshot(revision=revision)
        keeper.changed()
    await until(path.exists)
    loaded = load(path)
    assert loaded is not None
    assert loaded.revision == 59
    task.cancel()
    await asyncio.wait([task])


async def test_a_disk_that_takes_nothing_costs_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    keeper = Keeper(blocked / "w0.routes", snapshot)
    await keeper.save()
    assert "not saved" in caplog.text
    blocked.unlink()
    await keeper.save()
    assert load(blocked / "w0.routes") is not None


async def test_what_a_full_disk_did_not_take_is_saved_once_it_has_room(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    keeper = Keeper(blocked / "w0.routes", snapshot, draw=lambda: -0.5, retry_s=0.01)
    task = asyncio.create_task(keeper.run())
    keeper.changed()  # and nothing else does
    await until(lambda: "not saved" in caplog.text)
    blocked.unlink()
    await until((blocked / "w0.routes").exists)
    task.cancel()
    await asyncio.wait([task])
