"""The store of verified copies: one of each content, bounded, never taken from who reads it."""

import fcntl
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from loaders.errors import LoaderError, StoreUnwritable
from loaders.filesystem import FilesystemLoader
from loaders.loader import FileEntry
from loaders.store import ContentStore, hashed
from tests.loaders.repositories import copies


def test_many_at_once_make_one_copy(repository: Path, tmp_path: Path) -> None:
    (repository / "m/1/weights.bin").write_bytes(os.urandom(1 << 20))
    barrier = threading.Barrier(6)
    results: list[str] = []

    def fetch() -> None:
        loader = FilesystemLoader(repository, ContentStore(tmp_path / "data/store"))
        barrier.wait()
        results.append(loader.fetch("m", "1").digest)

    threads = [threading.Thread(target=fetch) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == copies(tmp_path) * 6
    assert not list((tmp_path / "data/store/staging").iterdir())


def test_collect_keeps_what_is_used_or_young(loader: FilesystemLoader, repository: Path, store: ContentStore) -> None:
    shutil.copytree(repository / "m/1", repository / "m/2")
    (repository / "m/2/model.onnx").write_bytes(b"second")
    first, second = loader.fetch("m", "1"), loader.fetch("m", "2")
    now_s = time.time()
    for copy in (first, second):
        os.utime(copy.path, (now_s - 7200, now_s - 7200))
    assert store.collect(now_s=now_s, unused_s=9000).removed == ()
    store.keep([first.digest, "f" * 64])  # one that is not there is no fault
    assert store.collect(now_s=now_s, unused_s=3600).removed == (second.digest,)
    assert store.get(second.digest) is None
    assert store.get(first.digest) == first
    assert loader.fetch("m", "2") == second  # copied again


@pytest.mark.parametrize(
    ("limit", "left", "excess"), [(5000, [1, 2, 3, 4], 0), (4000, [1, 3, 4], 0), (2200, [1, 3], 0), (0, [1], 1077)]
)
def test_beyond_the_limit_the_least_recently_used_goes_unless_it_is_marked(
    limit: int, left: list[int], excess: int, repository: Path, tmp_path: Path
) -> None:
    store = ContentStore(tmp_path / "data" / "store", max_bytes=limit)
    loader = FilesystemLoader(repository, store)
    now_s = time.time()
    fetched = {}
    for version, age_s in ((1, 900), (2, 800), (3, 600), (4, 700)):
        (repository / f"m/{version}").mkdir(exist_ok=True)
        (repository / f"m/{version}/model.onnx").write_bytes(bytes([version]) * 1000)
        fetched[version] = loader.fetch("m", str(version))
        os.utime(fetched[version].path, (now_s - age_s, now_s - age_s))
    store.keep([fetched[1].digest])
    collected = store.collect(now_s=now_s, unused_s=86_400, marked_s=300)
    assert [version for version, copy in fetched.items() if copy.path.is_dir()] == left
    assert collected.excess_bytes == excess
    assert set(collected.removed) == {copy.digest for version, copy in fetched.items() if version not in left}


def test_a_copy_that_was_handed_out_is_there_whoever_collects_meanwhile(repository: Path, tmp_path: Path) -> None:
    """Two stores over one directory, as two processes have them: what `get` hands out stays."""
    used, collecting = (ContentStore(tmp_path / "data" / "store", max_bytes=0) for _ in range(2))
    loader = FilesystemLoader(repository, used)
    for _ in range(60):
        copy = loader.fetch("m", "1")
        os.utime(copy.path, (0, 0))
        now_s = time.time()
        collector = threading.Thread(target=lambda: collecting.collect(now_s=now_s, unused_s=now_s, marked_s=300))  # noqa: B023
        collector.start()
        handed_out = used.get(copy.digest)
        collector.join()
        assert (handed_out is None) or copy.model_file().read_bytes() == b"model bytes"


def test_what_is_read_by_another_process_is_not_collected(
    loader: FilesystemLoader, repository: Path, store: ContentStore, tmp_path: Path
) -> None:
    copy = loader.fetch("m", "1")
    now_s = time.time()
    os.utime(copy.path, (0, 0))
    reader = os.open(tmp_path / "data/store/locks/collecting", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(reader, fcntl.LOCK_SH)  # as `get` does in another process
        assert store.collect(now_s=now_s, unused_s=3600).removed == ()
        assert store.get(copy.digest) == copy
    finally:
        os.close(reader)
    os.utime(copy.path, (0, 0))
    assert store.collect(now_s=now_s, unused_s=3600).removed == (copy.digest,)


def test_what_cannot_be_locked_ends_no_collection(
    loader: FilesystemLoader, repository: Path, store: ContentStore, tmp_path: Path
) -> None:
    copy, locks = loader.fetch("m", "1"), tmp_path / "data/store/locks"
    (locks / "folder").mkdir()
    (locks / "left").touch()
    for path in (copy.path, locks / "folder", locks / "left"):
        os.utime(path, (0, 0))
    assert store.collect(now_s=time.time(), unused_s=3600).removed == (copy.digest,)
    assert {path.name for path in locks.iterdir()} == {"collecting", "folder"}


def test_a_copy_of_a_directory_stays_while_it_is_made_however_old_it_looks(store: ContentStore, tmp_path: Path) -> None:
    """A clock that is set forward makes everything old, and a slow disk what is written at its beginning."""
    collecting = ContentStore(tmp_path / "data/store")

    def fill(staging: Path) -> tuple[FileEntry, ...]:
        (staging / "model.onnx").write_bytes(b"model bytes")
        collecting.collect(now_s=time.time() + 1e6, unused_s=3600)
        return (hashed(staging, "model.onnx"),)

    copy = store.put(fill)
    assert copy.model_file().read_bytes() == b"model bytes"
    assert not list((tmp_path / "data/store/staging").iterdir())
    assert {path.name for path in (tmp_path / "data/store/locks").iterdir()} <= {"collecting"}


def test_what_a_killed_process_was_copying_is_removed_unless_its_lock_cannot_be_read(
    store: ContentStore, tmp_path: Path
) -> None:
    root = tmp_path / "data/store"
    for path in (root / "staging/killed", root / "partial/killed", root / "partial/unknown"):
        path.mkdir()
    (root / "locks/killed").touch()
    (root / "locks/unknown").mkdir()
    store.collect(now_s=time.time() + 1e6, unused_s=3600)
    assert not list((root / "staging").iterdir())
    assert [path.name for path in (root / "partial").iterdir()] == ["unknown"]


_COLLECTS = """
import fcntl, os, sys, time
from pathlib import Path
from loaders.store import ContentStore

root = Path(sys.argv[1])

def hook(event, arguments):
    if event == "shutil.rmtree":
        lock = os.open(root / "locks" / Path(arguments[0]).name, os.O_RDWR)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("held")

sys.addaudithook(hook)
ContentStore(root).collect(now_s=time.time() + 1e6, unused_s=3600)
"""


def test_no_copier_gets_a_directory_that_is_being_removed(store: ContentStore, tmp_path: Path) -> None:
    (tmp_path / "data/store/partial/left").mkdir()
    command = [sys.executable, "-c", _COLLECTS, str(tmp_path / "data/store")]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "held\n"
    assert not list((tmp_path / "data/store/partial").iterdir())


def test_a_store_that_cannot_be_written_says_so(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreUnwritable) as caught:
        ContentStore(tmp_path / "file" / "store")
    assert caught.value.retryable
    assert isinstance(caught.value, LoaderError)
