"""Versions that are retired, brought back and deleted, in a directory."""

import os
from pathlib import Path

import pytest

from gateway.errors import FailedPrecondition, NotFound
from gateway.publish.checklist import Checklist
from gateway.publish.publication_record import publish
from gateway.publish.retirement import RETIRED, Retirement, bring_back, delete_retired, retire, retirements
from loaders.filesystem import FilesystemLoader
from loaders.store import ContentStore

RECORD = Retirement("2", "me", 1.0, "old")


def unused() -> None:
    """Says that nothing uses the version."""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "models"
    for version in "12":
        (root / "m" / version).mkdir(parents=True)
        (root / "m" / version / "model.onnx").write_text(version)
    return root


def versions(repository: Path) -> set[str]:
    return {path.name for path in (repository / "m").iterdir() if not path.name.startswith(".")}


def test_a_version_goes_comes_back_and_is_deleted(repository: Path) -> None:
    retire(repository, "m", RECORD, unused)
    assert (versions(repository), retirements(repository, "m")) == ({"1"}, [RECORD])
    bring_back(repository, "m", "2")
    assert (versions(repository), retirements(repository, "m")) == ({"1", "2"}, [])
    assert (repository / "m/2/model.onnx").read_text() == "2"
    with pytest.raises(FailedPrecondition, match="retire it first"):
        delete_retired(repository, "m", "2", deleter="me", now_s=2.0)
    retire(repository, "m", RECORD, unused)
    delete_retired(repository, "m", "2", deleter="you", now_s=2.0)
    assert [path.name for path in (repository / "m" / RETIRED).iterdir()] == ["2.json"]
    assert retirements(repository, "m") == [Retirement("2", "me", 1.0, "old", "you", 2.0)]
    with pytest.raises(NotFound, match="no retired version '2'"):
        bring_back(repository, "m", "2")


def test_what_a_killed_deletion_left_goes_with_a_later_one(repository: Path) -> None:
    retire(repository, "m", RECORD, unused)
    left, young = repository / "m" / RETIRED / ".deleting-left", repository / "m" / RETIRED / ".deleting-young"
    for directory in (left, young):
        (directory / "7").mkdir(parents=True)
        (directory / "7/model.onnx").write_text("half of it")
    os.utime(left, (0, 0))
    delete_retired(repository, "m", "2", deleter="me", now_s=young.stat().st_mtime)
    assert (left.exists(), young.exists()) == (False, True)


@pytest.mark.parametrize("asked_before", [0, 1])
def test_what_is_in_use_before_or_after_the_move_stays(asked_before: int, repository: Path) -> None:
    asked = []

    def check() -> None:
        asked.append(versions(repository))
        if len(asked) > asked_before:
            raise FailedPrecondition("in use")

    with pytest.raises(FailedPrecondition, match="in use"):
        retire(repository, "m", RECORD, check)
    assert asked == [{"1", "2"}, {"1"}][: asked_before + 1]
    assert (versions(repository), retirements(repository, "m")) == ({"1", "2"}, [])


@pytest.mark.parametrize("link", ["m/current", "n/1", "other"])
def test_what_a_link_leads_to_stays(link: str, repository: Path) -> None:
    (repository / "n").mkdir()
    (repository / link).symlink_to(repository / ("m" if link == "other" else "m/2"))
    with pytest.raises(FailedPrecondition, match=f"{link}.* is a link to"):
        retire(repository, "m", RECORD, unused)
    assert (repository / "m/2/model.onnx").is_file()


def test_nothing_takes_the_place_of_another_version(repository: Path) -> None:
    retire(repository, "m", RECORD, unused)
    (repository / "m/2").mkdir()
    (repository / "m/2/model.onnx").write_text("another")
    with pytest.raises(FailedPrecondition, match="another version '2'"):
        bring_back(repository, "m", "2")
    with pytest.raises(FailedPrecondition, match="a retired version '2' already"):
        retire(repository, "m", RECORD, unused)
    with pytest.raises(NotFound, match="no version '3'"):
        retire(repository, "m", Retirement("3", "me", 1.0), unused)


@pytest.mark.parametrize("deleted", [False, True])
def test_the_name_of_a_retired_version_is_never_given_again(deleted: bool, repository: Path, tmp_path: Path) -> None:
    local = FilesystemLoader(repository, ContentStore(tmp_path / "store")).fetch("m", "1")
    checklist = Checklist("m", local.digest, local.size, "")

    def published(version: str = "") -> str:
        return publish(local, repository, checklist, version=version, publisher="me", now_s=1.0, lineage={})

    retire(repository, "m", RECORD, unused)
    if deleted:
        delete_retired(repository, "m", "2", deleter="me", now_s=2.0)
    with pytest.raises(FailedPrecondition, match="or had one"):
        published("2")
    assert published() == "3"
