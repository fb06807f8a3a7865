"""Looking at a repository, and deciding what to do about what is there."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import FailedPrecondition
from gateway.serving.config_source import EMPTY, parse_json
from gateway.serving.model_config import VersionPolicy
from gateway.serving.repository import (
    CatalogChange,
    Key,
    ModelFolder,
    ModelRepository,
    PlannedChange,
    Presence,
    plan,
    wanted,
)
from gateway.serving.version import VersionState
from loaders.errors import SourceNotFound
from loaders.filesystem import FilesystemLoader
from loaders.schemes import LoaderSettings, open_loader
from loaders.store import ContentStore
from tests import models


def loader_of(root: Path, tmp_path: Path) -> FilesystemLoader:
    return FilesystemLoader(root, ContentStore(tmp_path / "store"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


@pytest.fixture
def repository(root: Path, tmp_path: Path) -> ModelRepository:
    return ModelRepository(loader_of(root, tmp_path))


def test_scan_finds_versions_and_passes_over_the_rest(
    root: Path, tmp_path: Path, repository: ModelRepository, caplog: pytest.LogCaptureFixture
) -> None:
    content = models.affine()
    for version in ("1", "20", "v2.beta", "01", "0", "1e3", ".hidden", "bad name"):
        models.write_version(root, "m", version, content)
    (root / "m" / "docs").mkdir()
    (root / "m" / "3").mkdir()  # a number without a model is a version that will fail, readably
    (root / "m" / "linked").symlink_to("1")
    (root / "m" / "4").symlink_to(tmp_path)
    (root / "m" / "5").symlink_to("nowhere")
    (root / "outside").symlink_to(tmp_path)
    models.write_version(root, ".git", "1", content)
    models.write_version(root, "bad name", "1", content)
    (root / "README.md").write_text("")
    (root / "lost.onnx").write_bytes(content)
    (root / "empty").mkdir()
    caplog.set_level("DEBUG", "gateway.serving.repository")
    folders = repository.scan()
    assert list(folders) == ["m"]
    assert sorted(folders["m"].versions) == ["1", "20", "3", "linked", "v2.beta"]
    assert folders["m"].error == ""
    models.write_version(root, "choosy", "1", content, config="version_policy { specific { versions: 7 } }")
    repository.scan()
    repository.scan()
    assert {path: reason[:16] for path, reason in repository.passed_over.items()} == {
        "bad name": "model name 'bad ",
        "choosy": "its version_poli",
        "empty": "no version direc",
        "README.md": "a file: models a",
        "lost.onnx": "a file: models a",
        "m/0": "version '0' must",
        "m/01": "version '01' mus",
        "m/1e3": "version '1e3' mu",
        "m/bad name": "version 'bad nam",
        "m/docs": "no version: it h",
        "m/4": "'4' is, or lies ",
        "m/5": "'5' is, or lies ",
        "outside": "'outside' is, or",
    }
    assert "--allow-links-to" in repository.passed_over["outside"]
    assert "leads nowhere" in repository.passed_over["m/5"]
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == len(set(told)) == len(repository.passed_over)  # each once
    quiet = [record.args for record in caplog.records if record.levelname != "WARNING"]
    assert [args[0] for args in quiet if isinstance(args, tuple)] == ["README.md"]


def test_a_repository_that_became_empty_is_an_error_and_one_that_was_is_not(
    root: Path, repository: ModelRepository
) -> None:
    assert repository.scan() == {}
    models.write_version(root, "m", "1", models.affine())
    assert list(repository.scan()) == ["m"]
    root.rename(root.with_name("unmounted"))
    root.mkdir()
    (root / "lost+found").mkdir()
    for _ in range(3):
        with pytest.raises(FailedPrecondition, match=r"holds no model any more, it had 1: is its volume mounted\?"):
            repository.scan()
    models.write_version(root, "n", "1", models.affine())
    assert list(repository.scan()) == ["n"]


def test_fingerprints_change_with_files_and_stamps_with_others(root: Path, repository: ModelRepository) -> None:
    models.write_version(root, "m", "1", models.affine(1.0))
    models.write_version(root, "m", "2", models.affine(1.0))
    before = repository.scan()["m"]
    assert repository.scan()["m"] == before
    models.write_version(root, "m", "1", models.affine(2.0))
    after = repository.scan()["m"]
    assert after.versions["1"] != before.versions["1"]
    assert after.versions["2"] == before.versions["2"]
    assert after.stamp == before.stamp
    (root / "m" / "labels.txt").write_text("a\nb\n")
    assert repository.scan()["m"].stamp != before.stamp


def test_the_configured_file_name_makes_a_label_a_version(root: Path, repository: ModelRepository) -> None:
    (root / "m" / "blue").mkdir(parents=True)
    (root / "m" / "blue" / "net.onnx").write_bytes(models.affine())
    assert repository.scan() == {}
    (root / "m" / "config.pbtxt").write_text('default_model_filename: "net.onnx"')
    assert sorted(repository.scan()["m"].versions) == ["blue"]


def test_a_bad_configuration_is_an_error_of_the_model_only(root: Path, repository: ModelRepository) -> None:
    models.write_version(root, "m", "1", models.affine(), config="max_batch_size: x")
    models.write_version(root, "n", "1", models.affine(), config="max_batch_size: 3")
    models.write_version(root, "o", "1", models.affine())
    (root / "o" / "config.pbtxt").symlink_to("/etc/hostname")
    folders = repository.scan()
    assert "max_batch_size" in folders["m"].error
    assert folders["n"].error == ""
    assert "symbolic link" in folders["o"].error


def test_a_repository_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match="cannot be listed"):
        ModelRepository(loader_of(tmp_path / "nowhere", tmp_path)).scan()


def test_a_repository_that_is_away_keeps_its_models_and_the_others_go_on(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    models.write_version(first, "m", "1", models.affine())
    models.write_version(second, "n", "1", models.affine())
    models.write_version(second, "m", "7", models.affine(3.0))
    settings = LoaderSettings(f"{first},{second}", ContentStore(tmp_path / "store"))
    repository = ModelRepository(open_loader(settings))
    before = repository.scan()
    assert {name: (folder.origin, *folder.versions) for name, folder in before.items()} == {
        "m": (str(first), "1"),
        "n": (str(second), "1"),
    }
    assert repository.passed_over == {"m": "model repository 2 has it as well, model repository 1 has precedence"}
    first.rename(tmp_path / "away")
    models.write_version(second, "n", "2", models.affine())
    after = repository.scan()
    assert after["m"] == before["m"]
    assert after["n"].versions.keys() == {"1", "2"}
    assert repository.trouble == "cannot be listed: model repository 1: the model repository is not there"
    first.mkdir()  # what an unmounted volume looks like
    assert repository.scan()["m"] == before["m"]
    assert "model repository 1: it holds no model any more, it had 1" in repository.trouble
    second.rename(tmp_path / "away too")
    with pytest.raises(FailedPrecondition, match="cannot be listed"):
        repository.scan()
    (tmp_path / "away too").rename(second)
    first.rmdir()
    (tmp_path / "away").rename(first)
    assert repository.scan() == after
    assert repository.trouble == ""


def no_file(name: str, limit: int) -> bytes:
    raise SourceNotFound(name)


def folder(name: str, *versions: str, source: str = "{}", stamp: str = "s") -> ModelFolder:
    return ModelFolder(name, no_file, parse_json(source), stamp, {version: f"f{version}" for version in versions})


def test_wanted_is_policy_and_routes_without_what_was_unloaded() -> None:
    latest = '{"version_policy": {"latest": {"num_versions": 1}}}'
    folders = {"a": folder("a", "1", "2", "10", "x", source=latest), "b": folder("b", "1"), "c": folder("c", "1")}
    wishes = wanted(
        folders, {"a": frozenset({"1", "gone"}), "d": frozenset({"5"})}, frozenset({"c"}), {"b": parse_json("{}")}
    )
    assert set(wishes) == {("a", "10"), ("a", "1"), ("a", "gone"), ("b", "1"), ("d", "5")}
    assert wishes["a", "10"] == "s:f10"
    assert wishes["a", "gone"] == wishes["d", "5"] == ""
    kept = {"d": {"5": "digest"}, "a": {"1": "digest"}}
    others = wanted(folders, {"a": frozenset({"1"}), "d": frozenset({"5"})}, frozenset(), {}, kept)
    assert (others["a", "1"], others["d", "5"]) == ("s:f1", "kept:digest")
    assert wishes["b", "1"] not in ("", "s:f1")  # another configuration holds


@pytest.mark.parametrize(
    ("policy", "selected"),
    [
        (VersionPolicy(), {"2", "10", "beta", "9"}),
        (VersionPolicy(latest=1), {"10"}),
        (VersionPolicy(latest=2), {"9", "10"}),
        (VersionPolicy(latest=9), {"2", "10", "beta", "9"}),
        (VersionPolicy(specific=frozenset({"9", "77"})), {"9"}),
    ],
)
def test_policies_select_by_number(policy: VersionPolicy, selected: set[str]) -> None:
    assert policy.select(["10", "9", "beta", "2"]) == selected


A, B = ("m", "1"), ("m", "2")
AVAILABLE, FAILED, UNLOADING, END = (
    VersionState.AVAILABLE,
    VersionState.FAILED,
    VersionState.UNLOADING,
    VersionState.END,
)


@pytest.mark.parametrize(
    ("wishes", "present", "changes"),
    [
        ({A: "f"}, {}, [(CatalogChange.LOAD, A)]),
        ({A: "f", B: "g"}, {}, [(CatalogChange.LOAD, B), (CatalogChange.LOAD, A)]),  # newest first
        ({A: ""}, {}, []),
        ({A: "f"}, {A: Presence(AVAILABLE, serving="f")}, []),
        ({A: ""}, {A: Presence(AVAILABLE, serving="f")}, []),
        ({A: "g"}, {A: Presence(AVAILABLE, serving="f")}, [(CatalogChange.LOAD, A)]),
        ({A: "g"}, {A: Presence(AVAILABLE, serving="f", failed="g")}, []),
        ({A: "f"}, {A: Presence(FAILED, failed="f")}, []),
        ({A: "g"}, {A: Presence(FAILED, failed="f")}, [(CatalogChange.LOAD, A)]),
        ({A: "f"}, {A: Presence(VersionState.LOADING, loading=True)}, []),
        ({}, {A: Presence(VersionState.LOADING, loading=True)}, []),
        ({A: "f"}, {A: Presence(UNLOADING, serving="f")}, [(CatalogChange.REVIVE, A)]),
        ({A: "g"}, {A: Presence(UNLOADING, serving="f")}, [(CatalogChange.LOAD, A)]),
        ({A: "f"}, {A: Presence(END)}, [(CatalogChange.LOAD, A)]),
        ({}, {A: Presence(AVAILABLE, serving="f")}, [(CatalogChange.RETIRE, A)]),
        ({}, {A: Presence(UNLOADING, serving="f")}, []),
        ({}, {A: Presence(FAILED, failed="f")}, [(CatalogChange.FORGET, A)]),
        ({}, {A: Presence(END)}, [(CatalogChange.FORGET, A)]),
        # The old version serves until the new one does.
        ({B: "g"}, {A: Presence(AVAILABLE, serving="f"), B: Presence(FAILED, failed="g")}, []),
        ({B: "g"}, {A: Presence(AVAILABLE, serving="f")}, [(CatalogChange.LOAD, B)]),
        (
            {B: "g"},
            {A: Presence(AVAILABLE, serving="f"), B: Presence(AVAILABLE, serving="g")},
            [(CatalogChange.RETIRE, A)],
        ),
    ],
)
def test_plan(
    wishes: Mapping[Key, str], present: Mapping[Key, Presence], changes: list[tuple[CatalogChange, Key]]
) -> None:
    assert plan(wishes, present) == tuple(PlannedChange(change, *key) for change, key in changes)


def carried_out(
    present: Mapping[Key, Presence], action: PlannedChange, wishes: Mapping[Key, str], works: bool
) -> Presence:
    key = (action.model, action.version)
    if action.change is CatalogChange.LOAD:
        if works:
            return Presence(AVAILABLE, serving=wishes[key])
        before = present.get(key)
        if before is not None and before.state is AVAILABLE:
            return Presence(AVAILABLE, before.serving, failed=wishes[key])
        return Presence(FAILED, failed=wishes[key])
    if action.change is CatalogChange.REVIVE:
        return Presence(AVAILABLE, serving=present[key].serving)
    return Presence(END)


keys = st.tuples(st.sampled_from("mn"), st.sampled_from("123"))
states = st.builds(
    Presence, st.sampled_from((AVAILABLE, FAILED, UNLOADING, END)), st.sampled_from("fg"), st.sampled_from(("", "g"))
)


@given(
    wishes=st.dictionaries(keys, st.sampled_from(("f", "g", "")), max_size=6),
    present=st.dictionaries(keys, states, max_size=6),
    broken=st.sets(keys),
)
def test_plans_settle_and_never_take_the_last_serving_version_of_a_wanted_model(
    wishes: dict[Key, str], present: dict[Key, Presence], broken: set[Key]
) -> None:
    for _ in range(4):
        actions = plan(wishes, present)
        served_before = {key[0] for key, held in present.items() if held.state is AVAILABLE}
        for action in actions:
            key = (action.model, action.version)
            present[key] = carried_out(present, action, wishes, key not in broken)
            if action.change is CatalogChange.FORGET:
                del present[key]
        served = {key[0] for key, held in present.items() if held.state is AVAILABLE}
        assert served >= served_before & {model for model, _ in wishes}
    assert plan(wishes, present) == ()
    for key, fingerprint in wishes.items():
        if fingerprint and key not in broken:
            assert present[key].state is AVAILABLE or present[key].failed == fingerprint


def test_the_empty_source_sets_nothing() -> None:
    assert not EMPTY.fields


@pytest.mark.parametrize("place", ["churn.onnx", "churn"])
def test_one_model_needs_no_repository_around_it(place: str, tmp_path: Path) -> None:
    models.write_version(tmp_path, "churn", "1", models.affine())
    if place == "churn":
        (tmp_path / "churn" / "config.pbtxt").write_text("max_batch_size: 4")
    else:
        (tmp_path / "churn" / "1").rename(tmp_path / "clf")
        (tmp_path / "clf" / "model.onnx").rename(tmp_path / place)
    repository = ModelRepository(open_loader(LoaderSettings(str(tmp_path / place), ContentStore(tmp_path / "store"))))
    [folder] = repository.scan().values()
    assert (folder.name, list(folder.versions), repository.passed_over) == ("churn", ["1"], {})
    assert folder.source.message.max_batch_size == (4 if place == "churn" else 0)
