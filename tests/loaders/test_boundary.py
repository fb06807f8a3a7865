"""Symbolic links: those inside the boundary are followed, no other leads to a file (P24, P25)."""

import os
import threading
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from loaders.errors import LoaderError, SourceNotFound, UnsafeSource
from loaders.filesystem import FilesystemLoader
from loaders.store import ContentStore

CANARY = b"canary: outside the repository"
MODEL = b"model bytes"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "repository").mkdir()
    (tmp_path / "outside" / "1").mkdir(parents=True)
    (tmp_path / "outside" / "1" / "model.onnx").write_bytes(CANARY)
    (tmp_path / "outside" / "labels.txt").write_bytes(CANARY)
    (tmp_path / "cache" / "blobs").mkdir(parents=True)
    (tmp_path / "cache" / "blobs" / "abc").write_bytes(MODEL)
    return tmp_path / "repository"


def loader(root: Path, *links_to: Path) -> FilesystemLoader:
    return FilesystemLoader(root, ContentStore(root.parent / "store"), links_to=links_to)


def write(path: Path, content: bytes = MODEL) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def content(loader: FilesystemLoader, version: str = "1") -> bytes:
    return loader.fetch("m", version).model_file().read_bytes()


def holds_canary(root: Path) -> bool:
    store = root.parent / "store"
    return any(CANARY in path.read_bytes() for path in store.rglob("*") if path.is_file())


def _config_map(root: Path) -> None:
    write(root / "m/1/..2024_11_29/model.onnx")
    (root / "m/1/..data").symlink_to("..2024_11_29")
    (root / "m/1/model.onnx").symlink_to("..data/model.onnx")


def _current(root: Path) -> None:
    write(root / "m/3/model.onnx")
    (root / "m/1").symlink_to("3")


def _linked_model(root: Path) -> None:
    write(root / "shared/1/model.onnx")
    (root / "m").symlink_to("shared")


def _absolute(root: Path) -> None:
    write(root / "shared/1/model.onnx")
    (root / "m/1").mkdir(parents=True)
    (root / "m/1/model.onnx").symlink_to(root / "shared/1/model.onnx")


def _chain_up_and_down(root: Path) -> None:
    write(root / "pool/deep/x")
    (root / "m/1").mkdir(parents=True)
    (root / "m/1/model.onnx").symlink_to("../../a/b/x")
    (root / "a").symlink_to("pool/./deep/..")
    (root / "pool/b").symlink_to("../pool//deep")


@pytest.mark.parametrize("make", [_config_map, _current, _linked_model, _absolute, _chain_up_and_down])
def test_links_inside_the_repository_are_followed(make: Callable[[Path], None], root: Path) -> None:
    make(root)
    assert "m" in loader(root).models().names
    assert "1" in loader(root).versions("m").names
    assert content(loader(root)) == MODEL


def _hugging_face(root: Path) -> None:
    snapshot = root.parent / "cache/snapshots/main"
    snapshot.mkdir(parents=True)
    (snapshot / "model.onnx").symlink_to("../../blobs/abc")
    (root / "m").mkdir()
    (root / "m/1").symlink_to(snapshot)


def _file_outside(root: Path) -> None:
    (root / "m/1").mkdir(parents=True)
    (root / "m/1/model.onnx").symlink_to("../../../cache/blobs/abc")


def _linked_model_outside(root: Path) -> None:
    write(root.parent / "cache/m/1/model.onnx")
    (root / "m").symlink_to(root.parent / "cache/m")


@pytest.mark.parametrize("make", [_hugging_face, _file_outside, _linked_model_outside])
def test_links_outside_are_followed_where_they_are_allowed(make: Callable[[Path], None], root: Path) -> None:
    make(root)
    with pytest.raises(UnsafeSource, match="leads out of the model repository: refused; --allow-links-to"):
        loader(root).fetch("m", "1")
    with pytest.raises(UnsafeSource):
        loader(root, root.parent / "cachet", root.parent / "cache/blobs/abc").fetch("m", "1")
    assert content(loader(root, root.parent / "cache")) == MODEL
    (root.parent / "alias").symlink_to("cache")
    assert content(loader(root, root.parent / "alias")) == MODEL


def _escape(root: Path, target: str | Path, name: str = "m/1/model.onnx") -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).symlink_to(target)


def _up_from_an_allowed_place(root: Path) -> None:
    _escape(root, "../../../cache/up/1/model.onnx")
    _escape(root.parent / "cache", "../outside", "up")


def _allowed_name_as_a_prefix(root: Path) -> None:
    write(root.parent / "cache-of-others/x", CANARY)
    _escape(root, root.parent / "cache-of-others/x")


ESCAPES: dict[str, Callable[[Path], None]] = {
    "file": lambda root: _escape(root, root.parent / "outside/1/model.onnx"),
    "file, relative": lambda root: _escape(root, "../../../outside/1/model.onnx"),
    "version": lambda root: _escape(root, root.parent / "outside/1", "m/1"),
    "model": lambda root: _escape(root, "../outside", "m"),
    "up from an allowed place": _up_from_an_allowed_place,
    "allowed name as a prefix": _allowed_name_as_a_prefix,
    "dots after an allowed name": lambda root: _escape(root, f"{root.parent}/cache/../outside/1/model.onnx"),
    "dots above the root of the machine": lambda root: _escape(root, "../" * 60 + "etc/hostname"),
    "procfs": lambda root: _escape(root, "/proc/self/root/etc/hostname"),
}


@pytest.mark.parametrize("make", ESCAPES.values(), ids=ESCAPES.keys())
def test_no_link_leads_outside(make: Callable[[Path], None], root: Path) -> None:
    make(root)
    with pytest.raises(UnsafeSource, match="--allow-links-to") as caught:
        loader(root, root.parent / "cache").fetch("m", "1")
    assert str(root.parent) not in str(caught.value)
    assert not holds_canary(root)


def test_files_beside_the_versions_follow_the_same_rule(root: Path) -> None:
    write(root / "m/1/model.onnx")
    write(root / "shared/labels.txt", b"a\n")
    _escape(root, "../shared/labels.txt", "m/labels.txt")
    _escape(root, "../../outside/labels.txt", "m/stolen.txt")
    _escape(root, "../../outside", "m/up")
    os.link(root.parent / "outside/labels.txt", root / "m/hard.txt")
    os.mkfifo(root / "m/pipe")
    reader = loader(root)
    assert reader.read("m", "labels.txt", 10) == b"a\n"
    for name in ("stolen.txt", "up/labels.txt", "hard.txt", "pipe", "1", "../shared/labels.txt"):
        with pytest.raises(UnsafeSource):
            reader.read("m", name, 1000)
    assert set(reader.versions("m").refused) == {"stolen.txt", "up"}
    before = reader.stamp("m")
    (root / "m/labels.txt").unlink()
    _escape(root, "../shared/others.txt", "m/labels.txt")
    write(root / "shared/others.txt", b"b\n")
    assert reader.stamp("m") != before


def test_links_in_a_circle_and_into_nothing_are_told(root: Path) -> None:
    write(root / "m/1/model.onnx")
    (root / "m/1/self").symlink_to("self")
    with pytest.raises(UnsafeSource, match="leads to itself"):
        loader(root).fetch("m", "1")
    (root / "m/1/self").unlink()
    (root / "m/1/again").symlink_to(".")
    with pytest.raises(UnsafeSource, match="directory that holds it"):
        loader(root).fetch("m", "1")
    (root / "m/1/again").unlink()
    (root / "m/2").symlink_to("9")
    with pytest.raises(SourceNotFound, match="leads nowhere"):
        loader(root).fetch("m", "2")


def test_a_link_that_is_set_anew_is_other_content(root: Path) -> None:
    _config_map(root)
    reader = loader(root)
    before, first = reader.fingerprint("m", "1"), reader.fetch("m", "1")
    write(root / "m/1/..2024_11_30/model.onnx", b"newer")
    (root / "m/1/..next").symlink_to("..2024_11_30")
    (root / "m/1/..next").rename(root / "m/1/..data")
    assert reader.fingerprint("m", "1") != before
    assert reader.fetch("m", "1").digest != first.digest
    assert content(reader) == b"newer"


def test_a_race_reads_nothing_outside(root: Path) -> None:
    """While one thread swaps file, link and directory for ways out, every fetch is the model's bytes or an error."""
    write(root / "m/1/model.onnx")
    stop = threading.Event()

    def swap() -> None:
        place, spare = root / "m/1", root / "m/spare"
        for target in cycle(("../../outside/1", "spare")):
            place.rename(spare)
            place.symlink_to(target)
            place.unlink()
            spare.rename(place)
            model, kept = place / "model.onnx", place / "kept"
            model.rename(kept)
            model.symlink_to("../../../outside/1/model.onnx")
            model.unlink()
            kept.rename(model)
            if stop.is_set():
                return

    swapper = threading.Thread(target=swap)
    swapper.start()
    outcomes: set[bytes] = set()
    try:
        for _ in range(300):
            try:
                local = loader(root).fetch("m", "1")
                outcomes.update((local.path / entry.name).read_bytes() for entry in local.files)
            except LoaderError:
                outcomes.add(b"refused")
    finally:
        stop.set()
        swapper.join()
    assert outcomes <= {MODEL, b"refused"}
    assert not holds_canary(root)


PARTS = st.lists(st.sampled_from(["..", ".", "a", "b", "m", "1", "model.onnx", "outside", "cache", "up"]), max_size=6)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(targets=st.lists(PARTS.map("/".join), min_size=3, max_size=3), absolute=st.booleans())
@example(targets=["", "", ""], absolute=True)
@example(targets=["..", "..", ".."], absolute=False)
@example(targets=["../m/b", "../b/a", "../outside"], absolute=False)
def test_wherever_links_point_only_the_inside_is_read(targets: list[str], absolute: bool, root: Path) -> None:
    write(root / "m/1/model.onnx")
    for name, target in zip(("a", "m/b", "m/1/x"), targets, strict=True):
        (root / name).unlink(missing_ok=True)
        if target:
            (root / name).symlink_to(f"{root.parent}/{target}" if absolute else target)
    reader = loader(root, root.parent / "cache")
    place = root / "m/1/x"
    real = os.path.realpath(place)
    inside = real.startswith((f"{root.resolve()}/", f"{(root.parent / 'cache').resolve()}/"))
    if not (inside and place.is_file()):
        with pytest.raises(LoaderError):
            reader.read("m", "1/x", 1000)
    else:
        assert reader.read("m", "1/x", 1000) == place.read_bytes()
    assert not holds_canary(root)
