"""Files of the lake that are damaged, or none: readers and merging go on with the others, and each is counted."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.drift.report.lake_reader import Lake
from gateway.records.lake.compactor import Compactor, CompactorConfig
from gateway.records.lake.damaged_parquet import DamagedParquet
from gateway.records.lake.inspection import damage
from gateway.records.lake.parquet_merge import merge
from gateway.records.lake.retention import RetentionLimits, lake_files
from gateway.records.lake.stored_rows import Unreadable, stored_rows
from tests.records.labels import label, open_labels
from tests.records.traffic import append, lake_ids, open_log, open_stream

LATER_S = 5e9
PATTERN = "predictions/model_dir=*/version_dir=*/date=*/hour=*/*.parquet"


async def lake_with_three_files(folder: Path) -> list[Path]:
    for worker in "abc":
        log = open_log(folder / "wal", worker=worker)
        for number in range(200):
            append(open_stream(log), f"{worker}{number}")
        await log.close()
    compactor_of(folder, now_s=LATER_S - 1e5).step()
    return sorted((folder / "lake").glob(PATTERN))


def compactor_of(folder: Path, *, now_s: float = LATER_S) -> Compactor:
    retention = RetentionLimits(max_age_s=1e12, failed_max_age_s=1e12)
    config = CompactorConfig(str(folder / "wal"), str(folder / "lake"), retention=retention)
    return Compactor(config, clock=lambda: now_s)


def rows_of(folder: Path) -> tuple[int, list[str]]:
    with Lake(folder / "lake") as lake:
        ((rows,),) = lake.query("SELECT count(f.x_0) FROM (SELECT {'x_0': \"f.x_0\"} AS f FROM predictions)").rows
        return rows, lake.left_out


ALIENS: dict[str, Callable[[Path], object]] = {
    "link": lambda path: path.symlink_to("/etc/passwd"),
    "dangling link": lambda path: path.symlink_to("/nowhere"),
    "pipe": lambda path: os.mkfifo(path),
    "folder": lambda path: path.mkdir(),
    "empty": lambda path: path.touch(),
    "text": lambda path: path.write_text("no rows, but more than twelve bytes"),
}
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda data: data[: len(data) // 2],
    "footer lost": lambda data: data[:-8],
    "garbage appended": lambda data: data + b"garbage!",
    "beginning lost": lambda data: data[4:],
    "length of the footer": lambda data: data[:-8] + b"\xff\xff\xff\x7f" + data[-4:],
}


@pytest.mark.parametrize("kind", ALIENS)
async def test_what_is_no_file_of_the_lake_hides_no_row_and_is_put_aside(tmp_path: Path, kind: str) -> None:
    files = await lake_with_three_files(tmp_path)
    alien = files[0].with_name(f"a-{files[0].name}")
    ALIENS[kind](alien)
    rows, left_out = rows_of(tmp_path)
    assert rows == 600
    assert [words.split(" is left out")[0] for words in left_out] == [alien.name] * (kind in ("empty", "text"))
    worker = compactor_of(tmp_path)
    for _ in range(2):
        worker.step()
    assert dict(worker.counts.quarantined) == {"lake": 1}
    assert (worker.counts.failures, worker.counts.merged_folders) == (0, 1)
    assert alien not in list(files[0].parent.iterdir())
    assert rows_of(tmp_path) == (600, [])
    assert len(lake_ids(tmp_path / "lake")) == len(set(lake_ids(tmp_path / "lake"))) == 600


@pytest.mark.parametrize("kind", DAMAGES)
async def test_a_damaged_file_costs_its_own_rows_and_is_named(tmp_path: Path, kind: str) -> None:
    files = await lake_with_three_files(tmp_path)
    files[1].write_bytes(DAMAGES[kind](files[1].read_bytes()))
    rows, (words,) = rows_of(tmp_path)
    assert rows == 400
    assert words.startswith(f"{files[1].name} is left out: ")
    worker = compactor_of(tmp_path)
    for _ in range(2):
        worker.step()
    assert dict(worker.counts.quarantined) == {"lake": 1}
    assert (worker.counts.failures, worker.counts.merged_folders) == (0, 1)
    assert rows_of(tmp_path) == (400, [])
    kept = [path for path in (tmp_path / "wal" / "failed").iterdir() if path.suffix == ".parquet"]
    assert len(kept) == 1


async def test_a_damaged_file_of_labels_costs_its_own(tmp_path: Path) -> None:
    for name in ("a", "b"):
        labels = open_labels(tmp_path / "wal", worker=name)
        await labels.write([label(name)])
        await labels.close()
    compactor_of(tmp_path).step()
    first, _ = sorted(file.path for file in lake_files(tmp_path / "lake"))
    first.write_bytes(first.read_bytes()[:-8])
    with Lake(tmp_path / "lake") as lake:
        assert list(lake.query("SELECT count(*) FROM labels").rows) == [(1,)]
        assert len(lake.left_out) == 1


async def test_a_flipped_byte_inside_is_never_merged_or_sent(tmp_path: Path) -> None:
    """The pages have checksums: what they say is another value is not read."""
    files = await lake_with_three_files(tmp_path)
    data = bytearray(files[1].read_bytes())
    data[len(data) // 3] ^= 0x10
    files[1].write_bytes(bytes(data))
    assert damage(files[1]) == ""
    with pytest.raises(DamagedParquet, match=files[1].name):
        merge(files, tmp_path / "merged.parquet")
    with pytest.raises(Unreadable):
        list(stored_rows(files[1]))
    before = {path: path.read_bytes() for path in files}
    worker = compactor_of(tmp_path)
    for _ in range(3):
        worker.step()
    assert (worker.counts.failures, worker.counts.merged_folders) == (0, 1)
    assert {path: path.read_bytes() for path in files} == before


async def test_thousands_of_files_are_looked_at_once(tmp_path: Path) -> None:
    (file, *_) = await lake_with_three_files(tmp_path)
    for number in range(2000):
        os.link(file, file.with_name(f"a{number}-{file.name}"))
        (file.with_name(f"b{number}-{file.name}")).touch()
        (tmp_path / "wal" / "gw" / f"junk{number}").touch()
    worker = compactor_of(tmp_path)
    beats: list[None] = []
    worker.step(lambda: beats.append(None))
    assert len(beats) > 3 * 2000  # however many there are, it is never silent
    assert dict(worker.counts.quarantined) == {"lake": 2000, "alien": 2000}
    assert len(list((tmp_path / "lake").glob(PATTERN))) == 2003
