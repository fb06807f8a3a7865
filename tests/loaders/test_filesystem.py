"""From a version directory to a verified copy; table D rows 70, 71, 80 and faults F18, F19."""

import os
import shutil
import socket
import subprocess
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from loaders.boundary import Boundary, Location
from loaders.errors import DigestMismatch, SourceChanged, SourceNotFound, SourceTooLarge, UnsafeSource
from loaders.filesystem import FilesystemLoader
from loaders.loader import FileEntry, LocalVersion
from loaders.store import ContentStore
from loaders.tree import TreeLimits, opened_file, walk
from tests.loaders.repositories import CANARY, copies


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
