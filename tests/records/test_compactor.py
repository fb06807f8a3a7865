import asyncio
import errno
import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path
from time import monotonic

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gateway.records.lake.compactor import Compactor, CompactorConfig
from gateway.records.lake.lake_manifest import Manifest
from gateway.records.lake.retention import RetentionLimits, lake_files
from gateway.records.worker.frame import Frame, FrameKind, scan
from gateway.records.worker.record import Record
from gateway.records.worker.segment import OPEN, SEALED, Segment, entries
from gateway.tensor import Datatype, TensorSpec
from tests.records import kill_loop
from tests.records.traffic import NOW_US, append, compactor, lake_ids, lake_rows, open_log, open_stream

HOUR_US = 3_600_000_000


async def _logged(directory: Path, count: int, *, flush_every: int = 1000) -> None:
    log = open_log(directory)
    stream = open_stream(log)
    for number in range(count):
        append(stream, f"r{number}")
        if number % flush_every == flush_every - 1:
            await log.flush()
    await log.close()


async def test_a_batch_is_one_row_per_instance_with_the_columns_of_the_layout(tmp_path: Path) -> None:
    log = open_log(tmp_path / "wal", worker="w3", boot="1234567890abcdef1234567890abcdef")
    append(open_stream(log), "abc", rows=3)
    await log.close()
    compactor(tmp_path / "wal", tmp_path / "lake").step()
    (path,) = (tmp_path / "lake").rglob("*.parquet")
    folder = path.parent.relative_to(tmp_path / "lake").as_posix()
    assert folder == "predictions/model_dir=flights/version_dir=v1/date=2096-10-02/hour=07"
    assert path.name.startswith("gw-w3-1234567890abcdef1234567890abcdef-0-0-")
    table = pq.read_table(path, partitioning=None)
    assert table.column_names == [
        *("ts", "request_id", "request_hash", "row_index", "batch_size", "model", "version", "version_digest"),
        *("arm", "is_shadow"),
        *("primary_version", "rule_rev", "reason", "bucket", "status", "queue_us", "infer_us", "total_us", "sample_p"),
        "sample_reason",
        *(
            "redaction_rev",
            "redacted",
            "gateway",
            "worker",
            "boot",
            "wal_seq",
            "record",
            "f.x_0",
            "f.x_1",
            "f.x_2",
            "f.x_3",
        ),
        *("out.label", "out.scores_0", "out.scores_1", "out.scores_2", "pred_class", "pred_score"),
    ]
    assert table.schema.field("ts").type == pa.timestamp("us", "UTC")
    assert table.schema.field("f.x_0").type == pa.float32()
    rows = table.to_pylist()
    seed = sum(b"abc")
    assert [(row["row_index"], row["batch_size"], row["f.x_1"]) for row in rows] == [
        (index, 3, seed + 4.0 * index + 1) for index in range(3)
    ]
    first = rows[0]
    assert (first["model"], first["version"], first["arm"], first["reason"]) == ("flights", "1", "stable", "SPLIT")
    assert (first["is_shadow"], first["primary_version"]) == (False, "1")
    assert (first["rule_rev"], first["bucket"], first["status"]) == (7, 42, 0)
    assert (first["queue_us"], first["infer_us"], first["total_us"]) == (11, 22, 33)
    assert (first["gateway"], first["worker"], first["boot"].hex()) == ("gw", "w3", "1234567890abcdef1234567890abcdef")
    assert (first["pred_class"], round(first["pred_score"], 3)) == (seed, 0.7)


async def test_rows_of_a_mirror_say_so_and_which_version_answered(tmp_path: Path) -> None:
    log = open_log(tmp_path / "wal")
    append(open_stream(log), "abc")
    append(open_stream(log, shadow_of="7"), "abc")
    await log.close()
    compactor(tmp_path / "wal", tmp_path / "lake").step()
    rows = lake_rows(tmp_path / "lake", columns=["request_id", "version", "is_shadow", "primary_version"])
    assert sorted(rows, key=lambda row: bool(row["is_shadow"])) == [
        {"request_id": "abc", "version": "1", "is_shadow": False, "primary_version": "1"},
        {"request_id": "abc", "version": "1", "is_shadow": True, "primary_version": "7"},
    ]


async def test_rows_go_to_the_hour_and_version_that_they_belong_to(tmp_path: Path) -> None:
    log = open_log(tmp_path / "wal")
    for version in ("1", "next/../up"):
        stream = open_stream(log, version=version)
        for hour in range(3):
            append(stream, f"{version}.{hour}", ts_us=NOW_US + hour * HOUR_US)
    await log.close()
    compactor(tmp_path / "wal", tmp_path / "lake").step()
    lake = tmp_path / "lake"
    files = sorted(file.path.parent.relative_to(lake).as_posix() for file in lake_files(lake))
    assert len(files) == 6
    assert files[0] == "predictions/model_dir=flights/version_dir=v1/date=2096-10-02/hour=07"
    assert files[-1] == "predictions/model_dir=flights/version_dir=vnext%2F..%2Fup/date=2096-10-02/hour=09"
    assert len(set(lake_ids(tmp_path / "lake"))) == 6


async def test_a_large_tensor_is_kept_as_digest_and_statistics(tmp_path: Path) -> None:
    log = open_log(tmp_path / "wal")
    image = TensorSpec("image", Datatype.FP32, (-1, 3, 128, 128))
    anything = TensorSpec("any", Datatype.FP64, (-1, -1))
    stream = log.stream("m", "1", "a", (image, anything), (), "d")
    pixels = np.arange(2 * 3 * 128 * 128, dtype="<f4").reshape(2, 3, 128, 128)
    pixels[1, 0, 0, 0] = np.nan
    small, large = np.ones((2, 3)), np.full((2, 10_000), 2.5)
    for name, other in (("small", small), ("large", large)):
        stream.append(Record(NOW_US, name, 0, "S", 1, 1, 2, 0, 0, 0, [pixels.shape, other.shape], (pixels, other), ()))
    await log.close()
    compactor(tmp_path / "wal", tmp_path / "lake").step()
    rows = {(row["request_id"], row["row_index"]): row for row in lake_rows(tmp_path / "lake")}
    assert len(rows) == 4
    digest = rows["small", 1]["in.image.digest"]
    values = pixels[1].ravel().astype("f8")
    assert digest["nan"] == 1
    assert digest["mean"] == pytest.approx(np.nanmean(values), rel=1e-3)  # of evenly spaced runs, not of all values
    assert digest["std"] == pytest.approx(np.nanstd(values), rel=5e-3)
    assert (digest["min"], digest["max"]) == (np.nanmin(values), np.nanmax(values))
    assert rows["small", 0]["in.image"] is None
    assert rows["small", 0]["in.image.shape"] == [3, 128, 128]
    assert (rows["small", 1]["in.any"], rows["small", 1]["in.any.digest"]) == ([1.0] * 3, None)
    assert rows["large", 1]["in.any"] is None
    assert rows["large", 1]["in.any.digest"]["mean"] == 2.5
    assert rows["large", 1]["in.any.shape"] == [10_000]


async def test_a_shape_that_claims_a_billion_empty_instances_is_one_row(tmp_path: Path) -> None:
    log = open_log(tmp_path / "wal")
    spec = TensorSpec("x", Datatype.FP32, (-1, -1))
    stream = log.stream("m", "1", "a", (spec,), (), "d")
    stream.append(Record(NOW_US, "trick", 0, "S", 1, 1, 10**9, 0, 0, 0, [(10**9, 0)], (b"",), ()))
    await log.close()
    compactor(tmp_path / "wal", tmp_path / "lake").step()
    (row,) = lake_rows(tmp_path / "lake")
    assert (row["request_id"], row["in.x"], row["in.x.shape"]) == ("trick", [], [10**9, 0])


async def test_a_flipped_byte_costs_one_frame_which_is_kept_and_named(tmp_path: Path) -> None:
    await _logged(tmp_path / "wal", 1000, flush_every=100)
    (entry,) = entries(tmp_path / "wal")
    assert entry.segment is not None
    raw = bytearray(entry.path.read_bytes())
    blocks = [f for f in scan(bytes(raw), seed=entry.segment.seed) if isinstance(f, Frame) and f.kind == FrameKind.ROWS]
    raw[blocks[4].offset + 200] ^= 0x10
    entry.path.write_bytes(raw)
    worker = compactor(tmp_path / "wal", tmp_path / "lake")
    worker.step()
    ids = set(lake_ids(tmp_path / "lake"))
    assert ids == {f"r{number}" for number in range(1000) if not 400 <= number < 500}
    assert dict(worker.counts.quarantined) == {"checksum": 1}
    (line,) = Manifest(tmp_path / "lake").entries()
    assert line["damaged"] == [[blocks[4].offset, blocks[4].end - blocks[4].offset, "checksum"]]
    assert line["records"] == 900
    assert isinstance(line["counts"], dict)
    assert line["counts"]["seen"] == 1000
    kept = next((tmp_path / "wal" / "failed").glob("*.frame"))
    assert kept.read_bytes() == bytes(raw[blocks[4].offset : blocks[4].end])


async def test_a_damaged_schema_costs_nothing_because_the_seal_repeats_it(tmp_path: Path) -> None:
    await _logged(tmp_path / "wal", 100)
    (entry,) = entries(tmp_path / "wal")
    assert entry.segment is not None
    raw = bytearray(entry.path.read_bytes())
    schema = next(
        f for f in scan(bytes(raw), seed=entry.segment.seed) if isinstance(f, Frame) and f.kind == FrameKind.SCHEMA
    )
    raw[schema.offset + 30] ^= 1
    entry.path.write_bytes(raw)
    compactor(tmp_path / "wal", tmp_path / "lake").step()
    assert len(lake_ids(tmp_path / "lake")) == 100


async def test_whatever_lies_in_the_log_directory_is_put_aside_and_the_rest_goes_on(tmp_path: Path) -> None:
    log = tmp_path / "wal"
    await _logged(log, 50)
    folder = log / "gw"
    boot = "ab" * 16
    secret = tmp_path / "secret"
    secret.write_text("do not touch")
    (folder / "notes.txt").write_text("alien")
    (folder / f"w0-{boot}-00000001.sealed").write_bytes(b"")
    (folder / f"w0-{boot}-00000002.sealed").write_bytes(os.urandom(5000))
    (folder / f"w0-{boot}-00000003.sealed").symlink_to(secret)
    os.mkfifo(folder / f"w0-{boot}-00000004.sealed")
    (folder / f"w0-{boot}-00000005.wal").mkdir()
    good = next(folder.glob("w0-*-00000000.sealed"))
    (folder / f"w0-{boot}-00000006.sealed").write_bytes(good.read_bytes())  # another segment's frames
    (log / "stray").write_text("alien")
    worker = compactor(log, tmp_path / "lake")
    worker.step()
    assert len(lake_ids(tmp_path / "lake")) == 50
    assert dict(worker.counts.quarantined) == {"alien": 5, "empty": 1, "unreadable": 2}
    assert secret.read_text() == "do not touch"
    assert list(folder.iterdir()) == []
    reasons = [json.loads(line) for line in (log / "failed" / "reasons.jsonl").read_text().splitlines()]
    assert len(reasons) == 8
    worker.step()
    assert sum(worker.counts.quarantined.values()) == 8


async def test_thousands_of_alien_files_do_not_stop_the_rows(tmp_path: Path) -> None:
    await _logged(tmp_path / "wal", 5)
    for number in range(3000):
        (tmp_path / "wal" / "gw" / f"junk{number}").touch()
    worker = compactor(tmp_path / "wal", tmp_path / "lake")
    worker.step()
    assert len(lake_ids(tmp_path / "lake")) == 5
    assert worker.counts.quarantined["alien"] == 3000


async def test_a_living_writers_segment_is_left_alone_and_a_dead_ones_adopted(tmp_path: Path) -> None:
    log = open_log(tmp_path / "wal")
    stream = open_stream(log)
    append(stream, "a")
    await log.flush()
    worker = compactor(tmp_path / "wal", tmp_path / "lake")
    assert worker.step() == 0
    append(stream, "b")
    await log.flush()
    (entry,) = entries(tmp_path / "wal")
    orphan = Segment("gw", "dead", "cd" * 16, 0)
    with orphan.path(tmp_path / "wal", OPEN).open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert worker.step() == 0
    assert worker.step() == 1
    assert dict(worker.counts.quarantined) == {"empty": 1}
    assert entry.path.exists()
    await log.close()
    worker.step()
    assert lake_ids(tmp_path / "lake") == ["a", "b"]


async def test_a_lake_that_cannot_be_written_keeps_the_segments_and_is_reported(tmp_path: Path) -> None:
    await _logged(tmp_path / "wal", 10)
    (tmp_path / "lake").write_text("in the way")
    worker = compactor(tmp_path / "wal", tmp_path / "lake")
    assert worker.step() == 0
    assert worker.counts.failures == 1
    assert os.strerror(errno.ENOTDIR) in worker.counts.error or os.strerror(errno.EEXIST) in worker.counts.error
    assert worker.counts.pending_segments == 1
    (tmp_path / "lake").unlink()
    assert worker.step() == 1
    assert (worker.counts.error, worker.counts.pending_segments) == ("", 0)
    assert len(lake_ids(tmp_path / "lake")) == 10


async def test_a_damaged_manifest_line_is_counted_and_the_next_is_whole(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path)
    manifest.append({"segment": "one"}, now_s=0)
    path = next((tmp_path / "_manifest").iterdir())
    with path.open("ab") as file:
        file.write(b'{"segment": "tw')
    manifest.append({"segment": "three"}, now_s=0)
    path.write_bytes(path.read_bytes().replace(b'"one"', b'"eno"'))
    assert [entry["segment"] for entry in manifest.entries()] == ["three"]
    assert manifest.damaged_lines == 2


async def test_old_rows_expire_and_what_is_over_the_size_goes_oldest_first(tmp_path: Path) -> None:
    log = open_log(tmp_path / "wal")
    stream = open_stream(log)
    for hour in (-100, -2, -1, 0):
        append(stream, f"h{hour}", ts_us=NOW_US + hour * HOUR_US)
    await log.close()
    now = [NOW_US / 1e6]
    limits = RetentionLimits(max_age_s=3600.0 * 50)
    config = CompactorConfig(str(tmp_path / "wal"), str(tmp_path / "lake"), retention=limits)
    worker = Compactor(config, clock=lambda: now[0])
    (tmp_path / "lake" / "mine").mkdir(parents=True)
    (tmp_path / "lake" / "mine" / "old.parquet").write_bytes(b"not of the log")
    worker.step()
    assert lake_ids(tmp_path / "lake") == ["h-2", "h-1", "h0"]
    size = next((tmp_path / "lake").rglob("hour=07/*.parquet")).stat().st_size
    config = CompactorConfig(
        str(tmp_path / "wal"), str(tmp_path / "lake"), retention=RetentionLimits(max_bytes=size + 100)
    )
    Compactor(config, clock=lambda: now[0]).step()
    assert lake_ids(tmp_path / "lake") == ["h0"]
    assert (tmp_path / "lake" / "mine" / "old.parquet").exists()
    assert not (tmp_path / "lake" / "predictions/model_dir=flights/version_dir=v1/date=2096-09-28").exists()


async def test_the_process_reports_and_leaves_every_row_in_parquet_when_its_input_closes(tmp_path: Path) -> None:
    process = await asyncio.to_thread(kill_loop.start_compactor, tmp_path / "wal", tmp_path / "lake")
    await _logged(tmp_path / "wal", 500)
    reports = await asyncio.to_thread(kill_loop.stop_compactor, process)
    assert reports[0] == {"ready": True}
    assert "beat" in reports[-1]
    assert len(lake_ids(tmp_path / "lake")) == 500
    assert not [entry for entry in entries(tmp_path / "wal") if entry.suffix == SEALED]


async def test_the_process_is_nice_unless_it_is_to_hurry(tmp_path: Path) -> None:
    for hurried, niceness in ((False, 10), (True, 0)):
        process = await asyncio.to_thread(
            kill_loop.start_compactor, tmp_path / "wal", tmp_path / "lake", hurried=hurried
        )
        assert process.stdout is not None
        assert json.loads(await asyncio.to_thread(process.stdout.readline)) == {"ready": True}
        assert os.getpriority(os.PRIO_PROCESS, process.pid) == os.getpriority(os.PRIO_PROCESS, 0) + niceness
        await asyncio.to_thread(kill_loop.stop_compactor, process)


async def test_the_process_reports_what_it_put_aside(tmp_path: Path) -> None:
    (tmp_path / "wal" / "gw").mkdir(parents=True)
    (tmp_path / "wal" / "gw" / "stray").write_text("alien")
    process = await asyncio.to_thread(kill_loop.start_compactor, tmp_path / "wal", tmp_path / "lake")
    reports = await asyncio.to_thread(kill_loop.stop_compactor, process)
    assert isinstance(reports[-1]["compactor"], dict)
    assert reports[-1]["compactor"]["quarantined"] == {"alien": 1}


async def test_the_process_ends_in_order_on_sigterm_and_without_a_supervisor(tmp_path: Path) -> None:
    await _logged(tmp_path / "wal", 500)
    await asyncio.to_thread(_run_until_sigterm, tmp_path)
    assert len(lake_ids(tmp_path / "lake")) == 500


def _run_until_sigterm(folder: Path) -> None:
    config = CompactorConfig(str(folder / "wal"), str(folder / "lake"), interval_s=0.02)
    command = [sys.executable, "-m", "gateway.records.lake.compactor_process"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdin is not None
    process.stdin.write(config.to_json() + "\n")
    process.stdin.flush()
    deadline = monotonic() + 20
    while not list(lake_files(folder / "lake")):
        assert monotonic() < deadline
        assert process.poll() is None
    other = subprocess.run(command, input=config.to_json() + "\n", text=True, capture_output=True, check=False)
    assert (other.returncode, "another one" in other.stderr) == (1, True)
    process.terminate()
    _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (0, "")


def test_a_configuration_that_makes_no_sense_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="interval_s is 0"):
        CompactorConfig.from_json('{"log_directory": "a", "lake_directory": "b", "interval_s": 0}')
    with pytest.raises(ValueError, match="colour"):
        CompactorConfig.from_json('{"log_directory": "a", "lake_directory": "b", "colour": 1}')
