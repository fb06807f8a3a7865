"""Copies from elsewhere: they resume, say how far they are, and never mix two contents."""

import os
import resource
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from loaders.errors import LoaderError, SourceUnreadable, StoreUnwritable
from loaders.object_store import ObjectStoreLoader
from loaders.remote_copy import RemoteCopies, RemoteFile
from loaders.store import ContentStore
from loaders.tree import TreeLimits
from tests.loaders.blob_server import ACCOUNT, BlobServer

MIB = 1 << 20
CONTENT = os.urandom(3 * MIB)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[BlobServer]:
    monkeypatch.setenv("AZURE_SKIP_SIGNATURE", "true")
    server = BlobServer()
    server.containers["abc"] = {"m/1/model.onnx": CONTENT, "m/1/a.bin": b"a"}
    yield server
    server.shutdown()
    server.server_close()


def loader(server: BlobServer, store: ContentStore) -> ObjectStoreLoader:
    return ObjectStoreLoader(f"az://abc?account={ACCOUNT}&endpoint={server.endpoint}", store)


def broken_off(server: BlobServer, store: ContentStore) -> None:
    server.breaks_after = MIB // 2  # the client itself asks for the rest twice
    with pytest.raises(LoaderError) as raised:
        loader(server, store).fetch("m", "1")
    assert raised.value.retryable
    server.breaks_after = None
    server.starts.clear()


def test_a_copy_goes_on_where_its_source_broke_off(server: BlobServer, tmp_path: Path) -> None:
    store = ContentStore(tmp_path / "store")
    broken_off(server, store)
    local = loader(server, store).fetch("m", "1")
    assert local.model_file().read_bytes() == CONTENT
    assert len(server.starts) == 1  # a.bin is here already
    assert server.starts[0] >= MIB
    assert not list((tmp_path / "store" / "partial").iterdir())
    assert not list((tmp_path / "store" / "staging").iterdir())


def test_what_was_changed_meanwhile_begins_anew(server: BlobServer, tmp_path: Path) -> None:
    store = ContentStore(tmp_path / "store")
    broken_off(server, store)
    other = os.urandom(3 * MIB)
    server.containers["abc"]["m/1/model.onnx"] = other
    assert loader(server, store).fetch("m", "1").model_file().read_bytes() == other
    assert 0 in server.starts


def test_what_is_left_of_a_copy_goes_when_nobody_comes_back_for_it(server: BlobServer, tmp_path: Path) -> None:
    store = ContentStore(tmp_path / "store")
    broken_off(server, store)
    (partial,) = (tmp_path / "store" / "partial").iterdir()
    now_s = partial.stat().st_mtime
    store.collect(now_s=now_s + 50, unused_s=100)
    assert partial.exists()
    store.collect(now_s=now_s + 150, unused_s=100)
    assert not partial.exists()


def test_what_is_being_copied_stays_however_long_it_takes(tmp_path: Path) -> None:
    """Its parts went after a day: the copy then failed at its end, and began anew, for ever."""
    store, key = ContentStore(tmp_path / "store"), "a" * 64
    with store.locked(key):
        partial = store.partial(key)
        now_s = partial.stat().st_mtime
        ContentStore(tmp_path / "store").collect(now_s=now_s + 150, unused_s=100)
        assert partial.exists()
    store.collect(now_s=now_s + 150, unused_s=100)
    assert not partial.exists()


def test_refused_content_leaves_nothing(server: BlobServer, tmp_path: Path) -> None:
    server.containers["abc"]["m/1/manifest.sha256"] = f"{'0' * 64}  model.onnx\n".encode()
    with pytest.raises(LoaderError, match="not listed in manifest"):
        loader(server, ContentStore(tmp_path / "store")).fetch("m", "1")
    assert not list((tmp_path / "store" / "partial").iterdir())


def test_every_process_can_say_how_far_a_copy_is(server: BlobServer, tmp_path: Path) -> None:
    store, asked = ContentStore(tmp_path / "store"), []

    class Watched(ContentStore):
        """Asks, when the lock is held, as another thread would."""

        def partial(self, key: str) -> Path:
            asked.append(copying.progress("m", "1"))
            return super().partial(key)

    broken_off(server, store)
    copying = loader(server, Watched(tmp_path / "store"))
    copying.fetch("m", "1")
    assert asked == ["1 of 4 MiB are copied"]
    assert copying.progress("m", "1") == ""


class Trickle:
    """A source that sends little by little, on a clock of its own that runs ahead with every piece."""

    def __init__(self, size: int, step_s: float) -> None:
        self.now_s = 0.0
        self.starts: list[int] = []
        self._size, self._step_s = size, step_s

    def read(self, one: RemoteFile, name: str, offset: int) -> Iterator[bytes]:
        self.starts.append(offset)
        for start in range(offset, one.size, self._size):
            self.now_s += self._step_s
            yield CONTENT[start : min(one.size, start + self._size)]


def test_a_source_that_hardly_sends_anything_is_given_up_and_gone_on_with(tmp_path: Path) -> None:
    """Or it would hold a thread for ever, and a few of them all loads of the worker."""
    file = {"model.onnx": RemoteFile("p", 200_000, "mark")}
    slow, store = Trickle(20_000, 25.0), ContentStore(tmp_path / "store")
    copies = RemoteCopies(store, slow.read, clock=lambda: slow.now_s)
    with pytest.raises(SourceUnreadable, match="60000 bytes came in 75 s, less than 4096 a second"):
        copies.copy("m", "1", "place", file, None)
    quick = Trickle(250_000, 61.0)
    local = RemoteCopies(store, quick.read, clock=lambda: quick.now_s).copy("m", "1", "place", file, None)
    assert local.model_file().read_bytes() == CONTENT[:200_000]
    assert (slow.starts, quick.starts) == ([0], [60_000])


def test_what_nothing_ties_to_its_first_half_begins_anew(tmp_path: Path) -> None:
    """The second half of other content would make a file that nobody has ever written."""
    file = {"model.onnx": RemoteFile("p", 200_000, "mark", resumable=False), "a.bin": RemoteFile("p", 0, "mark")}
    slow, store = Trickle(20_000, 25.0), ContentStore(tmp_path / "store")
    with pytest.raises(SourceUnreadable, match="the next try begins anew"):
        RemoteCopies(store, slow.read, clock=lambda: slow.now_s).copy("m", "1", "place", file, None)
    quick = Trickle(250_000, 61.0)
    local = RemoteCopies(store, quick.read, clock=lambda: quick.now_s).copy("m", "1", "place", file, None)
    assert local.model_file().read_bytes() == CONTENT[:200_000]
    assert quick.starts == [0]


def test_a_disk_that_takes_a_part_of_the_last_bytes_makes_no_copy(tmp_path: Path) -> None:
    """A write that is cut short raises nothing: the file was taken for whole, with the digest of what was there."""
    store = ContentStore(tmp_path / "store")
    copies = RemoteCopies(store, lambda one, name, offset: iter([b"x" * 8192]))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(StoreUnwritable):
            copies.copy("m", "1", "place", {"model.onnx": RemoteFile("", 8192, "mark")}, None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list((tmp_path / "store" / "seen").iterdir())


def test_what_has_no_room_is_not_begun(tmp_path: Path) -> None:
    """Or else it would be brought again and again, each time up to where the disk is full."""
    read: list[str] = []

    def content(one: RemoteFile, name: str, offset: int) -> Iterator[bytes]:
        read.append(name)
        yield b""

    copies = RemoteCopies(ContentStore(tmp_path / "store"), content, TreeLimits(max_bytes=1 << 62))
    with pytest.raises(StoreUnwritable, match=f"bytes free, the version needs {1 << 60} more"):
        copies.copy("m", "1", "place", {"model.onnx": RemoteFile("", 1 << 60, "mark")}, None)
    assert not read


def test_a_manifest_that_cannot_be_read_costs_no_copy_of_the_files(tmp_path: Path) -> None:
    """Such as one without the permission: each try brought all of the version."""
    read: list[str] = []

    def content(one: RemoteFile, name: str, offset: int) -> Iterator[bytes]:
        read.append(name)
        if name == "manifest.sha256":
            raise SourceUnreadable(f"{name} cannot be read: the object store answers 'AccessDenied'")
        yield b"x" * one.size

    files = {name: RemoteFile("", 100, "mark") for name in ("model.onnx", "manifest.sha256")}
    with pytest.raises(SourceUnreadable, match="AccessDenied"):
        RemoteCopies(ContentStore(tmp_path / "store"), content).copy("m", "1", "place", files, None)
    assert read == ["manifest.sha256"]


def test_a_copy_under_way_keeps_no_other_waiting(tmp_path: Path) -> None:
    """Locks shared by their first digit let a download of hours hold up every sixteenth version of the host."""
    store = ContentStore(tmp_path / "store")
    entered = threading.Event()

    def other() -> None:
        with store.locked("0" * 63 + "1"):
            entered.set()

    thread = threading.Thread(target=other, daemon=True)
    with store.locked("0" * 64):
        thread.start()
        assert entered.wait(20)
    thread.join(20)
    assert not list((tmp_path / "store" / "locks").iterdir())


def test_one_at_a_time_holds_the_lock_of_a_key(tmp_path: Path) -> None:
    """Whoever waited for the file that the one before removed takes the file that is there by then."""
    store, key = ContentStore(tmp_path / "store"), "a" * 64
    inside, most, at_once = 0, 0, threading.Lock()

    def enter() -> None:
        nonlocal inside, most
        for _ in range(50):
            with store.locked(key):
                with at_once:
                    inside += 1
                    most = max(most, inside)
                with at_once:
                    inside -= 1

    threads = [threading.Thread(target=enter) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (most, inside) == (1, 0)


def test_the_lock_of_a_process_that_was_killed_goes_with_the_rest(tmp_path: Path) -> None:
    store = ContentStore(tmp_path / "store")
    left = tmp_path / "store" / "locks" / ("b" * 64)
    left.touch()
    now_s = left.stat().st_mtime + 150
    with store.locked("c" * 64):
        store.collect(now_s=now_s, unused_s=100)
        assert not left.exists()
        assert (left.parent / ("c" * 64)).exists(), "somebody holds it"
