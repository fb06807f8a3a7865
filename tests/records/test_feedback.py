"""Labels: acknowledged is on the disk, in the lake once, whatever is killed."""

import asyncio
import random
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from time import monotonic

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gateway.api.feedback_token import KEY_BYTES, Tokens
from gateway.errors import ResourceExhausted, Unavailable
from gateway.records.lake.compactor import Compactor, CompactorConfig
from gateway.records.lake.lake_manifest import Manifest
from gateway.records.lake.retention import RetentionLimits
from gateway.records.worker.feedback_log import FeedbackLimits
from gateway.records.worker.frame import Frame, FrameKind, scan
from gateway.records.worker.label import Label, decode_labels, encode_labels, request_hash
from gateway.records.worker.reading import read
from gateway.records.worker.segment import OPEN, SEALED, entries
from gateway.records.worker.wal import SegmentLimits
from tests.machine_load import as_loaded
from tests.records import kill_loop
from tests.records.labels import label, lake_labels, open_labels
from tests.records.traffic import NOW_US, append, compactor, lake_rows, open_log, open_stream

DAY_US = 86_400_000_000


async def test_a_label_is_written_when_its_call_returns(tmp_path: Path) -> None:
    log = open_labels(tmp_path)
    await log.write([label("a"), label("b", number=None)])
    (entry,) = entries(tmp_path)
    assert entry.segment is not None
    assert (entry.suffix, entry.segment.worker) == (OPEN, "w0.feedback")
    assert read(entry.path.read_bytes(), entry.segment).labels == [(0, [label("a"), label("b", number=None)])]
    assert dict(log.counts) == {"accepted": 2, "refused": 0, "unwritten": 0}
    await log.close()
    with pytest.raises(Unavailable, match="stopping"):
        await log.write([label("c")])


async def test_calls_that_come_while_the_disk_works_share_the_next_write_and_each_stays_whole(tmp_path: Path) -> None:
    log = open_labels(tmp_path)
    await asyncio.gather(*(log.write([label(f"{call}.{index}") for index in range(3)]) for call in range(200)))
    await log.close()
    (entry,) = entries(tmp_path)
    assert entry.segment is not None
    content = read(entry.path.read_bytes(), entry.segment)
    assert [first for first, _ in content.labels] == [3 * call for call in range(200)]
    assert {len(labels) for _, labels in content.labels} == {3}
    assert content.seal == {"accepted": 600, "refused": 0, "unwritten": 0}


async def test_too_many_that_wait_are_refused_and_counted(tmp_path: Path) -> None:
    log = open_labels(tmp_path, limits=FeedbackLimits(max_waiting=5))
    first = asyncio.create_task(log.write([label(str(index)) for index in range(4)]))
    await asyncio.sleep(0)
    with pytest.raises(ResourceExhausted, match="4 labels wait for the disk, at most 5"):
        await log.write([label("x"), label("y")])
    await first
    await log.write([label("x"), label("y")])
    await log.close()
    assert dict(log.counts) == {"accepted": 6, "refused": 2, "unwritten": 0}


async def test_a_disk_that_refuses_is_told_to_the_caller_and_the_next_call_tries_again(tmp_path: Path) -> None:
    log = open_labels(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))  # EFBIG stands for a full disk's ENOSPC
    try:
        with pytest.raises(Unavailable, match=r"not written \(disk_full\): send again"):
            await log.write([label(f"big.{number}") for number in range(1000)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    await log.write([label("small")])
    await log.close()
    compactor(tmp_path, tmp_path / "lake").step()
    assert [row["request_id"] for row in lake_labels(tmp_path / "lake")] == ["small"]
    assert dict(log.counts) == {"accepted": 1, "refused": 0, "unwritten": 1000}


async def test_labels_cannot_fill_the_disk(tmp_path: Path) -> None:
    log = open_labels(tmp_path, limits=FeedbackLimits(disk_off=0.0))
    with pytest.raises(Unavailable, match="disk_full"):
        await log.write([label("a")])
    await log.close()
    assert (list(entries(tmp_path)), log.counts["unwritten"]) == ([], 1)


async def test_segments_end_by_themselves_so_that_few_labels_do_not_wait(tmp_path: Path) -> None:
    limits = FeedbackLimits(tend_interval_s=0.01, segment=SegmentLimits(max_age_s=0.05))
    log = open_labels(tmp_path, limits=limits)
    running = asyncio.create_task(log.run())
    await log.write([label("a")])
    async with asyncio.timeout(as_loaded(10)):
        while True:
            await asyncio.sleep(0.01)
            if [entry.suffix for entry in entries(tmp_path)] == [SEALED]:
                break
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await log.close()


async def test_labels_come_to_the_lake_by_model_and_day_of_receipt_with_the_columns_of_the_layout(
    tmp_path: Path,
) -> None:
    log = open_labels(tmp_path / "wal")
    by_token = Label("flights", 2**64 - 1, 3, 5, NOW_US, version="7", predicted_us=9, text="late", reward=0.5)
    await log.write([label("a"), by_token, label("b", received_us=NOW_US + DAY_US)])
    await log.write([label("c", model="digits")])
    await log.close()
    compactor(tmp_path / "wal", tmp_path / "lake").step()
    lake = tmp_path / "lake"
    files = sorted(path.parent.relative_to(lake).as_posix() for path in lake.rglob("*.parquet"))
    assert files == [
        *("labels/model_dir=digits/date=2096-10-02", "labels/model_dir=flights/date=2096-10-02"),
        "labels/model_dir=flights/date=2096-10-03",
    ]
    table = pq.read_table(next(lake.glob("labels/model_dir=flights/date=2096-10-02/*.parquet")), partitioning=None)
    assert table.column_names == [
        *("model", "request_id", "request_hash", "row_index", "label_num", "label_text", "reward", "label_ts"),
        *("received_ts", "source", "version", "predicted_ts", "gateway", "worker", "boot", "wal_seq", "record"),
    ]
    assert table.schema.field("label_ts").type == pa.timestamp("us", "UTC")
    first, second = table.to_pylist()
    assert (first["request_id"], first["request_hash"], first["row_index"]) == ("a", request_hash("a"), 0)
    assert (first["label_num"], first["label_text"], first["reward"], first["version"]) == (1.0, None, None, None)
    assert (second["request_id"], second["request_hash"], second["row_index"]) == (None, 2**64 - 1, 3)
    assert (second["label_num"], second["label_text"], second["reward"], second["version"]) == (None, "late", 0.5, "7")
    assert (second["worker"], second["wal_seq"], second["record"]) == ("w0.feedback", 0, 1)
    (line,) = Manifest(lake).entries()
    assert (line["labels"], line["rows"], line["records"]) == (4, 0, 0)


async def test_a_token_and_an_id_name_the_same_row_of_the_lake(tmp_path: Path) -> None:
    log = open_log(tmp_path / "wal")
    append(open_stream(log), "abc", rows=2)
    await log.close()
    compactor(tmp_path / "wal", tmp_path / "lake").step()
    tokens = Tokens(bytes(KEY_BYTES))
    token = tokens.verify(tokens.stamp("flights", "1", "stable", 7).mint("abc").decode())
    hashes = {row["request_hash"] for row in lake_rows(tmp_path / "lake", columns=["request_hash"])}
    assert hashes == {request_hash("abc")} == {int.from_bytes(token.request_hash, "big")}


def test_no_acknowledged_label_is_lost_or_twice_when_writers_and_compactors_are_killed(tmp_path: Path) -> None:
    rng = random.Random(7)
    log, lake = tmp_path / "wal", tmp_path / "lake"
    promised: dict[str, int] = {}
    for number in range(5):
        prefix = f"w{number}"
        command = [sys.executable, "-m", "tests.records.label_writer", str(log), prefix]
        writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        process = kill_loop.start_compactor(log, lake)
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        promised[prefix] = kill_loop.kill_after(writer, rng.uniform(0.05, 0.25))
        kill_loop.read_until(process, monotonic() + rng.uniform(0.0, 0.4))
    kill_loop.stop_compactor(kill_loop.start_compactor(log, lake))
    ids = [row["request_id"] for row in lake_labels(lake)]
    expected = {f"{prefix}.{number}" for prefix, count in promised.items() for number in range(count)}
    assert sum(promised.values()) > 1000
    assert (expected - set(ids), len(ids)) == (set(), len(set(ids)))
    assert len(ids) % 10 == 0  # calls of ten: each is there whole or not at all


async def test_a_compactor_killed_after_any_part_of_the_work_does_labels_again_to_the_same_end(tmp_path: Path) -> None:
    log, pristine, lake = tmp_path / "wal", tmp_path / "pristine", tmp_path / "lake"
    writer = open_labels(pristine)
    await writer.write([label(f"{model}.{number}", model=model) for model in ("a", "b") for number in range(50)])
    await writer.close()
    for count in range(1, 6):
        shutil.copytree(pristine, log, dirs_exist_ok=True)
        command = [sys.executable, "-m", "tests.records.interrupted", str(log), str(lake), str(count)]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
        assert done.returncode == -signal.SIGKILL, done.stderr
        compactor(log, lake).step()
        ids = [row["request_id"] for row in lake_labels(lake)]
        assert (len(ids), len(set(ids))) == (100, 100)
        assert list(entries(log)) == []
        shutil.rmtree(lake)


async def test_a_flipped_byte_costs_the_labels_of_one_call(tmp_path: Path) -> None:
    log = open_labels(tmp_path / "wal")
    for call in range(5):
        await log.write([label(f"{call}.{index}") for index in range(4)])
    await log.close()
    (entry,) = entries(tmp_path / "wal")
    assert entry.segment is not None
    raw = bytearray(entry.path.read_bytes())
    frames = [
        f for f in scan(bytes(raw), seed=entry.segment.seed) if isinstance(f, Frame) and f.kind == FrameKind.LABELS
    ]
    raw[frames[2].offset + 40] ^= 1
    entry.path.write_bytes(raw)
    worker = compactor(tmp_path / "wal", tmp_path / "lake")
    worker.step()
    assert {row["request_id"][0] for row in lake_labels(tmp_path / "lake")} == {"0", "1", "3", "4"}
    assert dict(worker.counts.quarantined) == {"checksum": 1}


async def test_labels_expire_with_the_rows_that_came_on_the_day_of_their_receipt(tmp_path: Path) -> None:
    log = open_labels(tmp_path / "wal")
    await log.write([label("old", received_us=NOW_US - 3 * DAY_US), label("new")])
    await log.close()
    limits = RetentionLimits(max_age_s=2 * 86400.0)
    config = CompactorConfig(str(tmp_path / "wal"), str(tmp_path / "lake"), retention=limits)
    Compactor(config, clock=lambda: NOW_US / 1e6).step()
    assert [row["request_id"] for row in lake_labels(tmp_path / "lake")] == ["new"]


def test_a_frame_gives_back_its_labels_and_random_bytes_are_none() -> None:
    labels = [label("a"), Label("m", 0, 2**31 - 1, 1, 2, text="ä", reward=-1.5)]
    assert decode_labels(encode_labels(labels, first_record=2**40)) == (2**40, labels)
    with pytest.raises(ValueError, match="MessagePack"):
        decode_labels(bytes([FrameKind.LABELS]) + bytes(8) + b"\xc1")


def test_a_slow_sync_delays_only_who_waits_for_it(tmp_path: Path) -> None:
    """fdatasync takes 300 ms: the loop turns on, and predictions and labels are written all the same."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed; it makes fdatasync slow")
    probe = [strace, "-f", "--seccomp-bpf", "-o", "/dev/null", "-e", "trace=fdatasync"]
    probe += ["-e", "inject=fdatasync:delay_enter=300000"]
    if subprocess.run([*probe, "true"], check=False, capture_output=True).returncode:
        pytest.skip("strace may not trace here")
    command = [*probe, sys.executable, "-m", "tests.records.slow_sync", str(tmp_path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    late_ms, label_ms, written, dropped, accepted = map(float, done.stdout.split())
    assert late_ms < 250
    assert label_ms >= 300
    assert (written, dropped, accepted) == (2000, 0, 5)
