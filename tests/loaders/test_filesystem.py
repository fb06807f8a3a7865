"""From a version directory to a verified copy; table D rows 70, 71, 80 and faults F18, F19."""

import fcntl
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from loaders.boundary import Boundary, Location
from loaders.errors import (
    DigestMismatch,
    LoaderError,
    SourceChanged,
    SourceNotFound,
    SourceTooLarge,
    StoreUnwritable,
    UnsafeSource,
)
from loaders.filesystem import FilesystemLoader
from loaders.loader import FileEntry, LocalVersion
from loaders.store import ContentStore
from loaders.tree import TreeLimits, opened_file, walk

CANARY = b"canary: outside the repository"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    version = tmp_path / "repository" / "m" / "1"
    version.mkdir(parents=True)
    (version / "model.onnx").write_bytes(b"model bytes")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_bytes(CANARY)
    return tmp_path / "repository"


@pytest.fixture
def store(tmp_path: Path) -> ContentStore:
    return ContentStore(tmp_path / "data" / "store")


@pytest.fixture
def loader(repository: Path, store: ContentStore) -> FilesystemLoader:
    return FilesystemLoader(repository, store)


def copies(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "data" / "store").iterdir() if len(path.name) == 64)


def holds_canary(tmp_path: Path) -> bool:
    return any(CANARY in path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file())


def test_copy_has_the_bytes_and_their_digests(loader: FilesystemLoader, repository: Path) -> None:
    (repository / "m/1/weights").mkdir()
    (repository / "m/1/weights/a.bin").write_bytes(b"w" * 100_000)
    (repository / "m/1/.DS_Store").write_bytes(b"not content")
    local = loader.fetch("m", "1")
    assert [(entry.name, entry.size) for entry in local.files] == [("model.onnx", 11), ("weights/a.bin", 100_000)]
    assert local.model_file().read_bytes() == b"model bytes"
    assert local.size == 100_011
    for entry in local.files:
        data = (local.path / entry.name).read_bytes()
        assert sha256(data).hexdigest() == entry.sha256
        assert (local.path / entry.name).stat().st_mode & 0o777 == 0o444


def test_digest_is_what_sha256sum_says(loader: FilesystemLoader, repository: Path) -> None:
    local = loader.fetch("m", "1")
    printed = subprocess.run("sha256sum * | sha256sum", shell=True, cwd=repository / "m/1", capture_output=True)
    assert printed.stdout.split()[0].decode() == local.digest
    subprocess.run(["sha256sum", "-c", "manifest.sha256"], cwd=local.path, check=True, capture_output=True)


def test_same_content_is_one_copy(loader: FilesystemLoader, repository: Path, tmp_path: Path) -> None:
    shutil.copytree(repository / "m/1", repository / "m/2")
    first, second = loader.fetch("m", "1"), loader.fetch("m", "2")
    inode = first.model_file().stat().st_ino
    assert first == second
    assert loader.fetch("m", "1").model_file().stat().st_ino == inode
    assert copies(tmp_path) == [first.digest]


def test_copy_does_not_follow_the_source(loader: FilesystemLoader, repository: Path) -> None:
    local = loader.fetch("m", "1")
    (repository / "m/1/model.onnx").write_bytes(b"swapped after the digest")
    assert local.model_file().read_bytes() == b"model bytes"
    assert loader.fetch("m", "1").digest != local.digest


def test_stored_content_outlives_the_repository(loader: FilesystemLoader, repository: Path) -> None:
    local = loader.fetch("m", "1")
    shutil.rmtree(repository)
    assert loader.fetch("m", "1", digest=local.digest) == local
    with pytest.raises(SourceNotFound):
        loader.fetch("m", "1")


def test_other_content_than_asked_for_is_refused(loader: FilesystemLoader, repository: Path) -> None:
    with pytest.raises(DigestMismatch, match="not 0000"):
        loader.fetch("m", "1", digest="0" * 64)


def test_damaged_copy_is_made_again(loader: FilesystemLoader, repository: Path) -> None:
    local = loader.fetch("m", "1")
    local.model_file().chmod(0o644)
    local.model_file().write_bytes(b"model bitez")
    assert loader.fetch("m", "1") == local
    assert local.model_file().read_bytes() == b"model bytes"
    local.model_file().unlink()
    assert loader.fetch("m", "1") == local
    (local.path / "manifest.sha256").chmod(0o644)
    (local.path / "manifest.sha256").write_bytes(b"\xff garbage")
    assert loader.fetch("m", "1") == local


def test_manifest_beside_the_model_is_held_to(loader: FilesystemLoader, repository: Path) -> None:
    digest = sha256(b"model bytes").hexdigest()
    without = loader.fetch("m", "1").digest
    (repository / "m/1/manifest.sha256").write_text(f"{digest}  model.onnx\n")
    assert loader.fetch("m", "1").digest == without
    (repository / "m/1/model.onnx").write_bytes(b"model bitez")
    with pytest.raises(DigestMismatch, match=r"'model\.onnx' has SHA-256"):
        loader.fetch("m", "1")


def _symlink(version: Path, outside: Path) -> None:
    (version / "weights.bin").symlink_to(outside / "secret")


def _symlinked_parent(version: Path, outside: Path) -> None:
    (version / "weights").symlink_to(outside)


def _symlinked_version(version: Path, outside: Path) -> None:
    shutil.rmtree(version)
    version.symlink_to(outside)


def _symlinked_model(version: Path, outside: Path) -> None:
    shutil.rmtree(version.parent)
    (outside / "1").mkdir()
    version.parent.symlink_to(outside)


def _hard_link(version: Path, outside: Path) -> None:
    os.link(outside / "secret", version / "weights.bin")


def _fifo(version: Path, outside: Path) -> None:
    (version / "model.onnx").unlink()
    os.mkfifo(version / "model.onnx")


def _socket(version: Path, outside: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(version / "s"))


def _device(version: Path, outside: Path) -> None:
    try:
        os.mknod(version / "zero", 0o600 | 0o020000, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("making devices is not allowed here")


def _bad_name(version: Path, outside: Path) -> None:
    (version / "a\nb").write_bytes(b"")


def _empty(version: Path, outside: Path) -> None:
    (version / "model.onnx").unlink()


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (_symlink, "symbolic link"),
        (_symlinked_parent, "symbolic link"),
        (_symlinked_version, "symbolic link"),
        (_symlinked_model, "symbolic link"),
        (_hard_link, "2 hard links"),
        (_fifo, "a FIFO"),
        (_socket, "a socket"),
        (_device, "a character device"),
        (_bad_name, "'a\\\\nb' is refused"),
        (_empty, "holds no files"),
    ],
)
def test_refuses(
    make: Callable[[Path, Path], None], text: str, loader: FilesystemLoader, repository: Path, tmp_path: Path
) -> None:
    make(repository / "m/1", tmp_path / "outside")
    with pytest.raises(UnsafeSource, match=text) as caught:
        loader.fetch("m", "1")
    assert str(tmp_path) not in str(caught.value)
    assert copies(tmp_path) == []
    assert not holds_canary(tmp_path)
    assert not list((tmp_path / "data/store/staging").iterdir())


def test_hard_links_can_be_allowed(repository: Path, store: ContentStore) -> None:
    os.link(repository / "m/1/model.onnx", repository / "m/1/again.onnx")
    local = FilesystemLoader(repository, store, limits=TreeLimits(allow_hard_links=True)).fetch("m", "1")
    assert len(local.files) == 2


def test_root_may_be_a_link(repository: Path, store: ContentStore, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(repository)
    assert FilesystemLoader(tmp_path / "link", store).fetch("m", "1").files


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        (TreeLimits(max_files=2), "more than 2 files"),
        (TreeLimits(max_bytes=13), "more than 13 bytes"),
        (TreeLimits(max_depth=1), "too deep"),
    ],
)
def test_limits(limits: TreeLimits, text: str, repository: Path, store: ContentStore) -> None:
    (repository / "m/1/d").mkdir()
    for name in ("a", "b", "d/c"):
        (repository / "m/1" / name).write_bytes(b"x")
    with pytest.raises(SourceTooLarge, match=text):
        FilesystemLoader(repository, store, limits=limits).fetch("m", "1")


@pytest.mark.parametrize("layout", ["missing", "directory"])
def test_no_model_file(layout: str, loader: FilesystemLoader, repository: Path) -> None:
    (repository / "m/1/model.onnx").unlink()
    (repository / "m/1/other").write_bytes(b"x")
    if layout == "directory":
        (repository / "m/1/model.onnx").mkdir()
        (repository / "m/1/model.onnx/weights.bin").write_bytes(b"x")
    local = loader.fetch("m", "1")
    with pytest.raises(SourceNotFound, match=r"model\.onnx"):
        local.model_file()


def test_model_in_a_directory(loader: FilesystemLoader, repository: Path) -> None:
    (repository / "m/1/model.onnx").unlink()
    (repository / "m/1/model.onnx").mkdir()
    (repository / "m/1/model.onnx/model.onnx").write_bytes(b"x")
    local = loader.fetch("m", "1")
    assert local.model_file() == local.path / "model.onnx/model.onnx"


def test_fingerprint_follows_every_change(loader: FilesystemLoader, repository: Path) -> None:
    version = repository / "m/1"
    model = version / "model.onnx"
    seen = [loader.fingerprint("m", "1")]
    assert loader.fingerprint("m", "1") == seen[0]

    def changed() -> None:
        now = loader.fingerprint("m", "1")
        assert now not in seen
        seen.append(now)

    (version / "weights.bin").write_bytes(b"x")
    changed()
    status = model.stat()
    model.write_bytes(b"model bitez")
    os.utime(model, ns=(status.st_atime_ns, status.st_mtime_ns))  # the change time still tells
    changed()
    os.mkfifo(version / "pipe")  # refused by fetch, and seen here
    changed()
    (version / "weights.bin").rename(version / "w.bin")
    changed()
    with pytest.raises(SourceNotFound):
        loader.fingerprint("m", "2")


def test_file_swapped_between_walk_and_open_is_noticed(repository: Path, tmp_path: Path) -> None:
    model = repository / "m/1/model.onnx"
    boundary, version, limits = Boundary(str(repository)), Location(0, ("m", "1")), TreeLimits()
    (file,) = walk(boundary, version, limits)
    model.unlink()
    model.symlink_to(tmp_path / "outside/secret")
    with pytest.raises(UnsafeSource), opened_file(boundary, version, file, limits):
        pass
    model.unlink()
    model.write_bytes(b"model bytes")
    with pytest.raises(SourceChanged), opened_file(boundary, version, file, limits):
        pass
    (file,) = walk(boundary, version, limits)
    with pytest.raises(SourceChanged), opened_file(boundary, version, file, limits):
        model.write_bytes(b"longer than before")


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


def test_a_store_that_cannot_be_written_says_so(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreUnwritable) as caught:
        ContentStore(tmp_path / "file" / "store")
    assert caught.value.retryable
    assert isinstance(caught.value, LoaderError)


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (
            ("resnet.onnx", "labels.txt"),
            "but 'labels.txt', 'resnet.onnx': rename 'resnet.onnx', or name it as",
        ),
        (("a.onnx", "b.onnx"), "but 'a.onnx', 'b.onnx': name one of them as default_model_filename in config.pbtxt"),
        (("model.pt",), "but 'model.pt': export the model as ONNX under that name; no other format is served"),
        (tuple(f"part-{number}" for number in range(9)), "'part-4' and 4 more: export the model as ONNX"),
        (("evil\x1b[2J.onnx",), r"but 'evil\x1b[2J.onnx': rename 'evil\x1b[2J.onnx'"),
        (("model.onnx.bak",), "but 'model.onnx.bak': export the model as ONNX under that name"),
    ],
)
def test_a_missing_model_is_told_with_what_is_there_and_what_to_do(names: tuple[str, ...], says: str) -> None:
    local = LocalVersion(Path("/nowhere"), "d", tuple(FileEntry(name, 1, "") for name in sorted(names)))
    with pytest.raises(SourceNotFound) as caught:
        local.model_file()
    assert str(caught.value).startswith("the version directory holds no file 'model.onnx' ")
    assert says in str(caught.value)
    assert "'scores.onnx'" in _refusal(local, "scores.onnx")


def test_an_empty_version_says_so() -> None:
    assert "it is empty: copy the model there" in _refusal(LocalVersion(Path("/nowhere"), "d", ()), "model.onnx")


def _refusal(local: LocalVersion, filename: str) -> str:
    with pytest.raises(SourceNotFound) as caught:
        local.model_file(filename)
    return str(caught.value)
