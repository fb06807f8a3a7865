"""Small files of a past hour become few: no row lost, none twice, whenever it is killed."""

import shutil
from itertools import count
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from gateway.drift.report.lake_reader import Lake
from gateway.records.lake.compactor import Compactor, CompactorConfig
from gateway.records.lake.lake_manifest import Manifest
from gateway.records.lake.merging import Job, MergeLimits, Merger, jobs, pending_names
from gateway.records.lake.outbox import Outbox
from gateway.records.lake.retention import RetentionLimits, StoredFile
from gateway.records.worker.segment import entries
from tests.records.traffic import NOW_US, append, lake_ids, lake_rows, open_log, open_stream

LATER_S = NOW_US / 1e6 + 7200.0
HOUR_US = 3_600_000_000
PARTS = ["merged", "linked", "planned", "recorded", "moved", "moved"]


async def filled(folder: Path, *, segments: int = 4, sinks: tuple[str, ...] = ()) -> Compactor:
    """A lake with that many files of one hour, and one of the next."""
    for number in range(segments):
        log = open_log(folder / "wal", worker=f"w{number}")
        stream = open_stream(log)
        for row in range(50):
            append(stream, f"{number}.{row}", rows=2)
        if not number:
            append(stream, "next", ts_us=NOW_US + HOUR_US)
        await log.close()
    worker = reopened(folder, sinks=sinks)
    worker.step()
    return worker


def reopened(folder: Path, *, sinks: tuple[str, ...] = ()) -> Compactor:
    config = CompactorConfig(
        str(folder / "wal"),
        str(folder / "lake"),
        retention_interval_s=1e-9,
        retention=RetentionLimits(max_age_s=1e12),
        sinks=sinks,
    )
    moments = count(LATER_S, 0.001)
    return Compactor(config, clock=lambda: next(moments))


def files(folder: Path) -> list[str]:
    return sorted(
        path.relative_to(folder / "lake").as_posix()
        for path in folder.glob("lake/predictions/model_dir=*/**/*.parquet")
    )


def expected(segments: int = 4) -> list[str]:
    return sorted([f"{number}.{row}" for number in range(segments) for row in range(50)] * 2 + ["next"])


async def test_the_files_of_an_hour_become_one_with_the_same_rows_and_columns(tmp_path: Path) -> None:
    worker = await filled(tmp_path, sinks=("archive",))
    before = sorted(map(repr, lake_rows(tmp_path / "lake")))
    waiting = sorted(path.name for path in Outbox(tmp_path / "lake", "archive").folder.iterdir())
    assert len(files(tmp_path)) == 5
    for _ in range(3):
        worker.step()
    merged, single = files(tmp_path)
    assert Path(merged).name.startswith("merged-")
    assert "merged-" not in single
    assert sorted(map(repr, lake_rows(tmp_path / "lake"))) == before
    assert sorted(lake_ids(tmp_path / "lake")) == expected()
    assert pq.ParquetFile(tmp_path / "lake" / merged).metadata.num_row_groups == 1
    assert sorted(path.name for path in Outbox(tmp_path / "lake", "archive").folder.iterdir()) == waiting
    (line,) = [entry for entry in Manifest(tmp_path / "lake").entries() if "merged" in entry]
    assert {len(names) for names in line["merged"].values()} == {4}  # type: ignore[attr-defined]
    assert not list((tmp_path / "lake" / "_merge").iterdir())
    assert worker.counts.merged_folders == 1


async def test_a_late_file_joins_what_was_merged_before(tmp_path: Path) -> None:
    worker = await filled(tmp_path)
    worker.step()
    log = open_log(tmp_path / "wal", worker="late")
    append(open_stream(log), "late")
    await log.close()
    for _ in range(3):
        worker.step()
    assert len(files(tmp_path)) == 2
    assert sorted(lake_ids(tmp_path / "lake")) == sorted([*expected(), "late"])


@pytest.mark.parametrize("parts", range(1, len(PARTS) + 1))
async def test_killed_after_any_part_it_comes_to_the_same_end_and_readers_see_no_row_twice(
    tmp_path: Path, parts: int
) -> None:
    await filled(tmp_path)
    lake = tmp_path / "lake"
    merger = Merger(lake, Manifest(lake), MergeLimits())
    (job,) = merger.find(pending_names(entries(tmp_path / "wal")), now_s=LATER_S)
    work = merger.merge(job, now_s=LATER_S)
    for part in PARTS[:parts]:
        assert next(work) == part
    seen = lake_ids(lake)
    between = PARTS[:parts] == [*PARTS[:-2], "moved"]
    assert sorted(seen) == (["next"] if between else expected())  # the hour is away between the two moves
    work.close()  # a process that dies gives its locks back
    log = open_log(tmp_path / "wal", worker="new")  # a segment of the same hour came meanwhile
    append(open_stream(log), "new")
    await log.close()
    worker = reopened(tmp_path)  # all that it knows is on the disk, as after a kill
    for _ in range(4):
        worker.step()
    assert len(files(tmp_path)) == 2
    assert sorted(lake_ids(lake)) == sorted([*expected(), "new"])
    assert not list((lake / "_merge").iterdir())


async def test_a_reader_finds_what_it_has_listed_and_is_waited_for(tmp_path: Path) -> None:
    worker = await filled(tmp_path)
    lake = tmp_path / "lake"
    before = files(tmp_path)
    with Lake(lake) as reader:
        assert reader.models() == ("flights",)
        for _ in range(4):
            worker.step()
        assert files(tmp_path) == before
        assert not list((lake / "_merge").iterdir())
        (answer,) = reader.query("SELECT count(*) FROM predictions").rows
    for _ in range(3):
        worker.step()
    assert len(files(tmp_path)) == 2
    with Lake(lake) as reader:
        assert list(reader.query("SELECT count(*) FROM predictions").rows) == [answer]


async def test_a_second_move_that_failed_is_made_up_for_though_late_files_came(tmp_path: Path) -> None:
    await filled(tmp_path)
    lake = tmp_path / "lake"
    merger = Merger(lake, Manifest(lake), MergeLimits())
    (job,) = merger.find((), now_s=LATER_S)
    work = merger.merge(job, now_s=LATER_S)
    for part in PARTS[:-1]:
        assert next(work) == part
    work.close()
    late = lake / job.folder / "gw-late-0-0-0-aaaaaaaa.parquet"
    late.parent.mkdir()
    shutil.copy(lake / next(name for name in files(tmp_path)), late)
    assert sorted(lake_ids(lake)) == ["next", "next"]
    merger.find((), now_s=LATER_S)
    assert sorted(lake_ids(lake)) == sorted([*expected(), "next"])
    assert not list((lake / "_merge").iterdir())


async def test_files_that_may_be_written_once_more_are_left_alone(tmp_path: Path) -> None:
    """A compactor that was killed before the manifest line does its segment again."""
    worker = await filled(tmp_path, segments=2)
    pristine = tmp_path / "again"
    log = open_log(pristine, worker="again")
    append(open_stream(log), "again")
    await log.close()
    shutil.copytree(pristine, tmp_path / "wal", dirs_exist_ok=True)
    (entry,) = entries(tmp_path / "wal")
    work = worker.compact(entry)
    assert [next(work), next(work)] == ["read", "published"]
    lake = tmp_path / "lake"
    (job,) = Merger(lake, Manifest(lake), MergeLimits()).find(pending_names([entry]), now_s=LATER_S)
    assert [len(names) for _, names in job.runs] == [2]


async def test_a_file_that_cannot_be_read_leaves_its_folder_as_it_is(tmp_path: Path) -> None:
    worker = await filled(tmp_path)
    (name,) = (name for name in files(tmp_path) if "/gw-w1-" in name)
    path = tmp_path / "lake" / name
    data = path.read_bytes()
    damaged = data[:4] + bytes(len(data) // 2) + data[4 + len(data) // 2 :]  # its end is as it was
    path.write_bytes(damaged)
    before = files(tmp_path)
    for _ in range(3):
        worker.step()
    assert files(tmp_path) == before
    assert path.read_bytes() == damaged
    assert not list((tmp_path / "lake" / "_merge").iterdir())


def stored(
    name: str, size: int = 10, folder: str = "predictions/model_dir=m/version_dir=v1/date=2026-01-01/hour=05"
) -> StoredFile:
    return StoredFile(1000.0, Path("/lake") / folder / name, size)


def test_what_is_merged_is_small_old_and_of_one_kind() -> None:
    limits = MergeLimits(small_bytes=100, target_bytes=25, quiet_s=60.0)
    files = [stored(f"gw-w-b-{n}-{n}-aa.parquet") for n in range(5)] + [stored("gw-w-b-7-7-bb.parquet")]
    files += [stored("gw-w-b-8-8-aa.parquet", 100)]
    labels = "labels/model_dir=m/date=2026-01-01"
    files += [stored(f"gw-w.feedback-b-{n}-{n}.parquet", folder=labels) for n in range(2)]
    made = jobs(files, Path("/lake"), {"gw-w-b-4-4"}, 1061.0, limits)
    names = [f"gw-w-b-{n}-{n}-aa.parquet" for n in range(4)]
    assert made == [
        Job(labels, (("labels", ("gw-w.feedback-b-0-0.parquet", "gw-w.feedback-b-1-1.parquet")),)),
        Job(
            "predictions/model_dir=m/version_dir=v1/date=2026-01-01/hour=05",
            (("aa", tuple(names[:2])), ("aa", tuple(names[2:]))),
        ),
    ]
    assert jobs(files, Path("/lake"), set(), 1059.0, limits) == []
