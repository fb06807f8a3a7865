"""What the recovery table of docs/log.md promises and no other file of this room shows."""

import re
from pathlib import Path
from uuid import uuid4

import pytest

from gateway.records.worker.frame import Frame, FrameKind, scan
from gateway.records.worker.reading import read
from gateway.records.worker.record import Record
from gateway.records.worker.segment import SEALED, Segment, entries
from gateway.records.worker.stream_schema import StreamSchema
from gateway.records.worker.wal import Chunk, SegmentLimits, WalWriter
from gateway.tensor import Datatype, TensorSpec
from tests.records.labels import label, lake_labels, open_labels
from tests.records.traffic import NOW_US, append, compactor, lake_ids, lake_rows, open_log, open_stream

HOUR_US = 3_600_000_000
PAGE = 4096
TESTS = Path(__file__).parents[1]
DOCUMENT = TESTS.parent / "docs" / "log.md"


async def test_a_clock_that_steps_back_changes_no_order(tmp_path: Path) -> None:
    log = open_log(tmp_path / "wal")
    stream = open_stream(log)
    moments = [NOW_US, NOW_US + 5, NOW_US - HOUR_US, NOW_US - HOUR_US + 5, NOW_US + 9]
    for number, moment in enumerate(moments):
        append(stream, f"r{number}", ts_us=moment)
        await log.flush()
    await log.close()
    compactor(tmp_path / "wal", tmp_path / "lake").step()
    rows = lake_rows(tmp_path / "lake")
    ordered = sorted(rows, key=lambda row: (row["boot"], row["wal_seq"], row["record"]))
    assert [row["request_id"] for row in ordered] == [f"r{number}" for number in range(5)]
    by_hour = {path.parent.name: path for path in (tmp_path / "lake").rglob("*.parquet")}
    assert sorted(by_hour) == ["hour=06", "hour=07"]


async def test_a_version_whose_tensors_are_others_has_files_of_its_own(tmp_path: Path) -> None:
    log = open_log(tmp_path / "wal")
    append(open_stream(log), "a")
    wide = TensorSpec("x", Datatype.FP64, (-1, 2))
    other = log.stream("flights", "1", "stable", (wide,), (), "sha256:bb")
    other.append(Record(NOW_US, "b", 0, "SPLIT", 1, 1, 1, 0, 0, 0, None, (bytes(16),), ()))
    await log.close()
    compactor(tmp_path / "wal", tmp_path / "lake").step()
    assert len(list((tmp_path / "lake").rglob("*.parquet"))) == 2
    columns = {
        row["request_id"]: sorted(name for name in row if name.startswith("f.")) for row in lake_rows(tmp_path / "lake")
    }
    assert columns == {"a": ["f.x_0", "f.x_1", "f.x_2", "f.x_3"], "b": ["f.x_0", "f.x_1"]}


async def test_rows_that_do_not_fit_the_schema_beside_them_are_put_aside_and_counted(tmp_path: Path) -> None:
    log = open_log(tmp_path / "source")
    append(open_stream(log), "a")
    await log.close()
    (entry,) = entries(tmp_path / "source")
    assert entry.segment is not None
    frames = [f for f in scan(entry.path.read_bytes(), seed=entry.segment.seed) if isinstance(f, Frame)]
    rows = next(bytes(frame.body) for frame in frames if frame.kind == FrameKind.ROWS)
    narrow = StreamSchema("flights", "1", "stable", "d", (TensorSpec("x", Datatype.FP32, (-1, 3)),), ())
    writer = WalWriter(tmp_path / "wal", Segment("gw", "w0", uuid4().hex, 0), SegmentLimits(), lambda: 0.0)
    writer.write([Chunk(0, narrow, rows)])
    writer.seal({})
    worker = compactor(tmp_path / "wal", tmp_path / "lake")
    worker.step()
    assert lake_ids(tmp_path / "lake") == []
    assert dict(worker.counts.quarantined) == {"content": 1}
    assert [path.suffix for path in (tmp_path / "wal" / "failed").iterdir() if path.suffix != ".jsonl"] == [".frame"]


@pytest.mark.parametrize("zeroed", [False, True], ids=["tail lost", "tail of zeros"])
async def test_after_a_power_loss_everything_before_the_lost_pages_is_there(tmp_path: Path, zeroed: bool) -> None:
    """A file system that lost power has the pages that were forced, and behind them less, or zeros."""
    log = open_log(tmp_path / "wal")
    stream = open_stream(log)
    for turn in range(40):
        for number in range(10):
            append(stream, f"{turn}.{number}")
        await log.flush()
    await log.close()
    (entry,) = entries(tmp_path / "wal")
    assert entry.segment is not None
    raw = entry.path.read_bytes()
    kept = len(raw) // 2 // PAGE * PAGE
    whole = [f for f in scan(raw[:kept], seed=entry.segment.seed) if isinstance(f, Frame) and f.kind == FrameKind.ROWS]
    entry.path.write_bytes(raw[:kept] + (bytes(len(raw) - kept) if zeroed else b""))
    worker = compactor(tmp_path / "wal", tmp_path / "lake")
    worker.step()
    assert len(lake_ids(tmp_path / "lake")) == 10 * len(whole) > 0
    assert worker.counts.torn_bytes + sum(worker.counts.quarantined.values()) > 0


async def test_labels_are_forced_to_the_disk_before_they_are_acknowledged(tmp_path: Path) -> None:
    """What is on the disk when the answer comes is all there, however the writer ends: here, not at all."""
    log = open_labels(tmp_path / "wal")
    await log.write([label(f"r{number}") for number in range(100)])
    (entry,) = entries(tmp_path / "wal")
    assert entry.segment is not None
    copy = Segment("gw", "copy", entry.segment.boot, entry.segment.seq)
    assert sum(len(labels) for _, labels in read(entry.path.read_bytes(), entry.segment).labels) == 100
    target = copy.path(tmp_path / "crashed", SEALED)
    target.parent.mkdir(parents=True)
    target.write_bytes(entry.path.read_bytes())
    compactor(tmp_path / "crashed", tmp_path / "lake").step()
    assert len(lake_labels(tmp_path / "lake")) == 100
    await log.close()


def test_every_test_that_the_page_names_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", DOCUMENT.read_text()))
    assert len(named) > 20
    existing = {
        name
        for path in TESTS.rglob("test_*.py")
        for name in re.findall(r"^(?:async )?def (test_\w+)", path.read_text(), re.M)
    }
    assert named <= existing, named - existing


async def test_the_page_names_every_column_in_the_order_of_the_files(tmp_path: Path) -> None:
    log, feedback = open_log(tmp_path / "wal"), open_labels(tmp_path / "wal")
    append(open_stream(log), "a")
    await log.close()
    await feedback.write([label("a")])
    await feedback.close()
    compactor(tmp_path / "wal", tmp_path / "lake").step()
    text = DOCUMENT.read_text()
    for title, rows in (("### Rows", lake_rows(tmp_path / "lake")), ("### Labels", lake_labels(tmp_path / "lake"))):
        table = text.split(title, 1)[1].split("\n#", 1)[0]
        named = [name for cell in re.findall(r"^\| (`.*?) \|", table, re.M) for name in re.findall(r"`([^`]+)`", cell)]
        written = [name for name in rows[0] if not name.startswith(("f.", "out."))]
        assert [name for name in named if not name.startswith(("f.", "in.", "out."))] == written
