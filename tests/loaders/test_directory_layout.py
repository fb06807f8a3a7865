"""Directories of versions, repositories of models and plain model files, told apart."""

from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from loaders.directory_layout import holds_versions, versions_alone
from loaders.errors import LoaderError, SourceNotFound, SourceTooLarge, SourceUnreadable, UnsafeSource
from loaders.loader import Loader
from loaders.schemes import LoaderSettings, canonical, missing, open_loader
from loaders.store import ContentStore


def write(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)


def loader_of(place: Path, tmp_path: Path) -> Loader:
    return open_loader(LoaderSettings(canonical(str(place)), ContentStore(tmp_path / "store")))


@pytest.mark.parametrize(
    ("names", "models"),
    [
        (["1/model.onnx"], ["churn"]),
        (["1/model.onnx", "2/weights.bin", "warmup/x", "stable/model.onnx", "config.pbtxt"], ["churn"]),
        (["1/model.onnx/model.onnx"], ["churn"]),  # a directory of that name, as Triton allows it
        (["a/1/model.onnx", "1/1/model.onnx"], ["1", "a"]),
        (["a/1/model.onnx", "1/model.onnx"], ["a"]),
        (["01/model.onnx"], ["01"]),
        (["1/other.onnx"], ["1"]),
        ([".1/model.onnx", "a/.keep"], ["a"]),
    ],
)
def test_what_lies_in_a_directory_says_what_it_is(names: list[str], models: list[str], tmp_path: Path) -> None:
    root = tmp_path / "churn"
    write(root, *names)
    loader = loader_of(root, tmp_path)
    assert list(loader.models().names) == models
    assert holds_versions(root) == (models == ["churn"])
    for model in models:
        loader.versions(model)
    with pytest.raises(LoaderError):
        loader.versions("absent")


def test_a_version_beside_models_is_passed_over_by_what_was_seen(tmp_path: Path) -> None:
    write(tmp_path / "r", "a/1/model.onnx", "2/model.onnx", "loose.onnx")
    refused = loader_of(tmp_path / "r", tmp_path).models().refused
    assert refused["2"] == "a version (model.onnx is in it) beside models (a): put it into its model's directory"
    assert refused["loose.onnx"].endswith("name the file itself to serve it alone")


@pytest.mark.parametrize(("before", "after"), [("1/model.onnx", "a/1/model.onnx"), ("a/1/model.onnx", "1/model.onnx")])
def test_a_directory_stays_what_it_was(before: str, after: str, tmp_path: Path) -> None:
    root = tmp_path / "churn"
    write(root, before)
    loader = loader_of(root, tmp_path)
    models = loader.models().names
    root.rename(tmp_path / "old")
    write(root, after)
    if models == ("churn",):
        (tmp_path / "old" / "1").rename(root / "1")
    with pytest.raises(SourceUnreadable, match="nothing is changed; take away what does not belong there"):
        loader.models()
    assert loader_of(root, tmp_path).models().names  # to who starts anew it is what it is


def test_versions_that_are_replaced_or_unmounted_make_no_models_of_them(tmp_path: Path) -> None:
    root = tmp_path / "churn"
    write(root, "1/model.onnx")
    loader = loader_of(root, tmp_path)
    assert loader.models().names == ("churn",)
    (root / "1" / "model.onnx").unlink()
    assert loader.models().names == ("churn",)
    (root / "1").rmdir()
    assert loader.models().names == ()


NAMES = st.sampled_from(["1", "2", "30", "a", "stable", "warmup", "01"])


@given(st.lists(NAMES, unique=True), st.sets(NAMES))
@example([], set())
@example(["1"], {"1"})
@example(["1", "2"], {"2"})
@example(["1", "a"], {"1"})
def test_the_order_says_nothing_and_a_number_with_a_model_is_needed(names: list[str], holding: set[str]) -> None:
    def judged(listed: Iterable[str]) -> bool | None:
        return versions_alone(list(listed), holding.__contains__)

    assert judged(names) is judged(reversed(names))
    if judged(names):
        assert {name for name in names if name in ("1", "2", "30")} & holding
        assert judged([*names, "strange"]) is False


def test_a_model_file_is_one_version_with_its_external_data(tmp_path: Path) -> None:
    root = tmp_path / "exports"
    write(root, "clf.onnx", "clf.onnx.data", "clf.onnx_data_1", "other.onnx", "config.pbtxt", "clf.txt")
    loader = loader_of(root / "clf.onnx", tmp_path)
    assert (loader.models().names, loader.versions("clf").names) == (("clf",), ("1",))
    assert loader.origin("clf") == str(root / "clf.onnx")
    local = loader.fetch("clf", "1")
    assert [entry.name for entry in local.files] == ["clf.onnx.data", "clf.onnx_data_1", "model.onnx"]
    assert local.model_file().read_text() == "clf.onnx"
    assert loader.read("clf", "1/model.onnx", 8) == b"clf.onnx"
    assert loader.holds("clf", "1/clf.onnx.data")
    for name in ("config.pbtxt", "1/config.pbtxt", "clf.onnx", "../exports/config.pbtxt", "2/model.onnx"):
        assert not loader.holds("clf", name)
        with pytest.raises((SourceNotFound, UnsafeSource)):
            loader.read("clf", name, 100)
    with pytest.raises(SourceTooLarge):
        loader.read("clf", "1/model.onnx", 7)
    seen = loader.fingerprint("clf", "1")
    write(root, "unrelated")
    assert loader.fingerprint("clf", "1") == seen
    (root / "clf.onnx").write_text("newer")
    assert loader.fingerprint("clf", "1") != seen
    assert loader.fetch("clf", "1").digest != local.digest
    (root / "clf.onnx").unlink()
    assert loader.fetch("clf", "1", digest=local.digest) == local
    for ask in (loader.models, lambda: loader.fetch("clf", "1"), lambda: loader.versions("clf")):
        with pytest.raises(SourceNotFound):
            ask()


def test_a_model_file_may_be_named_by_its_directory_and_lead_nowhere_outside(tmp_path: Path) -> None:
    write(tmp_path / "churn", "model.onnx")
    assert loader_of(tmp_path / "churn" / "model.onnx", tmp_path).models().names == ("churn",)
    (tmp_path / "churn" / "linked.onnx").symlink_to(tmp_path / "secret")
    (tmp_path / "secret").write_text("secret")
    with pytest.raises(UnsafeSource, match="--allow-links-to"):
        loader_of(tmp_path / "churn" / "linked.onnx", tmp_path).models()
    write(tmp_path, "two words.onnx")
    listing = loader_of(tmp_path / "two words.onnx", tmp_path).models()
    assert listing.names == ()
    assert "rename it" in listing.refused["two words"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("notes.txt", "its name does not end in .onnx"),
        ("churn/3/model.onnx", "is version 3 of a model: name the directory of its versions"),
        ("absent.onnx", "is not there"),
        ("clf.onnx", ""),
        ("churn", ""),
    ],
)
def test_a_path_that_is_no_repository_is_told_by_what_is_there(name: str, reason: str, tmp_path: Path) -> None:
    write(tmp_path, "notes.txt", "churn/3/model.onnx", "clf.onnx")
    told = missing(str(tmp_path / name))
    assert reason in told
    assert bool(told) == bool(reason)
