"""Files of a segment that another release published, without the line that says so, are not there beside its own."""

from pathlib import Path

import pytest

from gateway.records.lake.compactor import Compactor, CompactorConfig
from gateway.records.lake.lake_manifest import Manifest
from gateway.records.lake.retention import lake_files
from gateway.records.worker.segment import entries
from tests.records.labels import label, open_labels
from tests.records.traffic import append, compactor, lake_ids, open_log, open_stream


async def logged(directory: Path, *names: str) -> None:
    log = open_log(directory)
    for name in names:
        append(open_stream(log), name)
    await log.close()


def stopped_before_its_line(log: Path, lake: Path) -> Compactor:
    """A compactor that has published the files of every segment, and written no line."""
    worker = Compactor(CompactorConfig(str(log), str(lake)))
    for entry in list(entries(log)):
        work = worker.compact(entry)
        while next(work) != "published":
            pass
    return worker


@pytest.mark.parametrize("other", ["other folder", "other name", "both"])
async def test_an_upgrade_in_the_middle_of_a_segment_leaves_no_row_twice(tmp_path: Path, other: str) -> None:
    log, lake = tmp_path / "wal", tmp_path / "lake"
    await logged(log, "a", "b")
    stopped_before_its_line(log, lake)
    (file,) = lake_files(lake)
    folder = file.path.parent
    if other != "other name":  # as earlier releases laid it out
        folder = lake / "model=flights" / "version=1" / folder.parent.name / folder.name
        folder.mkdir(parents=True)
    name = file.path.name if other == "other folder" else f"{file.path.stem[:-8]}0123abcd.parquet"
    file.path.rename(folder / name)
    compactor(log, lake).step()
    assert sorted(lake_ids(lake)) == ["a", "b"]
    assert len(list(lake_files(lake))) == 1
    assert not (lake / "model=flights").exists()


async def test_labels_of_such_a_segment_are_not_there_twice_either(tmp_path: Path) -> None:
    log, lake = tmp_path / "wal", tmp_path / "lake"
    labels = open_labels(log)
    await labels.write([label("a")])
    await labels.close()
    stopped_before_its_line(log, lake)
    (file,) = lake_files(lake)
    old = lake / "feedback" / "model=flights" / file.path.parent.name
    old.mkdir(parents=True)
    file.path.rename(old / file.path.name)
    compactor(log, lake).step()
    (left,) = lake_files(lake)
    assert left.path == file.path


async def test_files_that_a_line_names_and_those_of_other_segments_stay(tmp_path: Path) -> None:
    log, lake = tmp_path / "wal", tmp_path / "lake"
    await logged(log, "done")
    worker = Compactor(CompactorConfig(str(log), str(lake)))
    (entry,) = entries(log)
    for part in worker.compact(entry):
        if part == "recorded":
            break  # killed before the segment is deleted
    assert entry.path.exists()
    await logged(log, "waits")
    again = compactor(log, lake)
    again.step()
    assert sorted(lake_ids(lake)) == ["done", "waits"]
    await logged(log, "later")
    compactor(log, lake).step()
    assert sorted(lake_ids(lake)) == ["done", "later", "waits"]
    assert len(list(Manifest(lake).entries())) == 3
