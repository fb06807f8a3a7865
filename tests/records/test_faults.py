"""Killed processes and sick disks: nothing acknowledged is lost, nothing is twice, everything else is counted."""

import asyncio
import itertools
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp

import pytest

from gateway.records.lake.compactor import Compactor, CompactorConfig
from gateway.records.lake.retention import RetentionLimits
from gateway.records.worker.prediction_log import LogLimits
from gateway.records.worker.reading import read
from gateway.records.worker.segment import OPEN, SEALED, SUSPECT, entries
from tests.records import kill_loop
from tests.records.traffic import append, balanced, compactor, lake_ids, open_log, open_stream
from tests.small_disk import remount, small_disk


# Each round kills a writer and a compactor.
@pytest.mark.parametrize("rounds", [6, pytest.param(200, marks=[pytest.mark.long, pytest.mark.timeout(3600)])])
def test_no_row_is_lost_or_twice_when_writers_and_compactors_are_killed(tmp_path: Path, rounds: int) -> None:
    result = kill_loop.run(tmp_path, rounds=rounds, seed=20)
    assert result.acknowledged > 0
    assert (result.lost, result.twice) == (0, 0), result


async def test_a_compactor_killed_after_any_part_of_the_work_does_it_again_to_the_same_end(tmp_path: Path) -> None:
    log, pristine, lake = tmp_path / "wal", tmp_path / "pristine", tmp_path / "lake"
    writer = open_log(pristine)
    for model in ("flights", "digits"):
        stream = open_stream(writer, model=model)
        for number in range(300):
            append(stream, f"{model}.{number}", rows=2)
    await writer.close()
    parts = ["read", "published", "published", "recorded", "discarded"]
    for count in range(1, len(parts)):
        shutil.copytree(pristine, log, dirs_exist_ok=True)
        command = [sys.executable, "-m", "tests.records.interrupted", str(log), str(lake), str(count)]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout.split()) == (-signal.SIGKILL, parts[:count]), done.stderr
        compactor(log, lake).step()
        ids = lake_ids(lake)
        assert (len(ids), len(set(ids))) == (1200, 600)
        assert not [entry for entry in entries(log) if entry.suffix in (OPEN, SEALED)]
        assert list((lake / "_tmp").glob("*")) == []
        shutil.rmtree(lake)


def test_a_half_written_parquet_file_is_swept_and_never_seen(tmp_path: Path) -> None:
    (tmp_path / "lake" / "_tmp").mkdir(parents=True)
    (tmp_path / "lake" / "_tmp" / "half.parquet").write_bytes(b"PAR1 half")
    compactor(tmp_path / "wal", tmp_path / "lake").step()
    assert list(tmp_path.rglob("*.parquet")) == []


async def test_a_log_that_is_deleted_again_and_again_with_its_lake_comes_back(tmp_path: Path) -> None:
    directory, lake = tmp_path / "log" / "wal", tmp_path / "log" / "lake"
    log = open_log(directory)
    stream = open_stream(log)
    follower = compactor(directory, lake)
    for number in range(3):
        append(stream, f"gone.{number}")
        await log.flush()
        follower.step()
        shutil.rmtree(tmp_path / "log")
    append(stream, "kept")
    await log.close()
    follower.step()
    assert lake_ids(lake) == ["kept"]
    assert (balanced(log.counts()), log.counts().error) == (True, "")


async def test_a_file_at_its_size_limit_loses_nothing_and_one_too_small_for_a_flush_is_counted(tmp_path: Path) -> None:
    """RLIMIT_FSIZE gives the EFBIG that a full disk's ENOSPC stands for."""
    log = open_log(tmp_path / "wal")
    stream = open_stream(log)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, hard))
    try:
        for turn in range(20):
            for number in range(100):
                append(stream, f"r{turn}.{number}")
            await log.flush()
        assert (log.counts().written, dict(log.counts().dropped)) == (2000, {})
        for number in range(5000):
            append(stream, f"big.{number}")
        await log.flush()
        assert dict(log.counts().dropped) == {"disk_full": 5000}
        assert log.counts().error
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    append(stream, "recovered")
    await log.close()
    assert balanced(log.counts())
    assert log.counts().error == ""
    worker = compactor(tmp_path / "wal", tmp_path / "lake")
    worker.step()
    assert (len(lake_ids(tmp_path / "lake")), dict(worker.counts.quarantined)) == (2001, {})


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one mebibyte."""
    with small_disk(tmp_path / "disk", "1m"):
        yield tmp_path / "disk"


async def test_a_full_disk_costs_counted_rows_and_recovers_without_a_restart(disk: Path, tmp_path: Path) -> None:
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(700_000))
    log = open_log(disk / "wal", limits=LogLimits(disk_metadata=1.0, disk_off=1.0))
    stream = open_stream(log)
    number = 0
    while not log.counts().dropped:
        assert number < 20_000
        for _ in range(200):
            append(stream, f"r{number}")
            number += 1
        await log.flush()
        assert balanced(log.counts())
    assert set(log.counts().dropped) == {"disk_full"}
    assert log.counts().error
    lost = sum(log.counts().dropped.values())
    ballast.unlink()
    append(stream, "recovered")
    await log.flush()
    assert (sum(log.counts().dropped.values()), log.counts().error) == (lost, "")
    await log.close()
    counts = log.counts()
    assert balanced(counts)
    compactor(disk / "wal", tmp_path / "lake").step()
    ids = lake_ids(tmp_path / "lake")
    assert len(ids) == len(set(ids)) == counts.written
    assert "recovered" in ids


async def test_a_disk_that_became_read_only_costs_counted_rows_until_it_is_writable_again(disk: Path) -> None:
    log = open_log(disk / "wal", limits=LogLimits(disk_sample=1.0, disk_metadata=1.0, disk_off=1.0))
    stream = open_stream(log)
    append(stream, "before")
    await log.flush()
    await log.close()  # a file that is open for writing would hold the disk
    log = open_log(disk / "wal", limits=LogLimits(disk_sample=1.0, disk_metadata=1.0, disk_off=1.0))
    stream = open_stream(log)
    remount(disk, "1m", read_only=True)
    append(stream, "lost")
    await log.flush()
    assert (log.counts().written, dict(log.counts().dropped)) == (0, {"disk_error": 1})
    assert "Read-only" in log.counts().error
    remount(disk, "1m")
    append(stream, "after")
    await log.close()
    assert (log.counts().written, log.counts().error) == (1, "")
    assert balanced(log.counts())


async def test_a_disk_that_fills_up_while_files_are_merged_costs_nothing(disk: Path, tmp_path: Path) -> None:
    for number in range(4):
        log = open_log(tmp_path / "wal", worker=f"w{number}")
        stream = open_stream(log)
        for row in range(1500):
            append(stream, f"{number}.{row}")
        await log.close()
    lake = disk / "lake"
    moments = itertools.count(5e9, 100.0)
    worker = Compactor(
        CompactorConfig(str(tmp_path / "wal"), str(lake), retention=RetentionLimits(max_age_s=1e12)),
        clock=lambda: next(moments),
    )
    worker.step()
    assert len(lake_ids(lake)) == 6000
    ballast = disk / "ballast"
    with pytest.raises(OSError, match="No space left"):
        ballast.write_bytes(bytes(1 << 20))
    worker.step()
    assert (worker.counts.failures, worker.counts.merged_folders) == (1, 0)
    assert "No space left" in worker.counts.error
    assert len(lake_ids(lake)) == len(set(lake_ids(lake))) == 6000
    ballast.unlink()
    for _ in range(2):
        worker.step()
    assert worker.counts.merged_folders == 1
    assert len(list(lake.glob("predictions/model_dir=*/**/*.parquet"))) == 1
    assert len(lake_ids(lake)) == len(set(lake_ids(lake))) == 6000


def test_a_directory_without_permission_costs_counted_rows_until_it_is_given(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to become somebody who may not write")
    folder = Path(mkdtemp(prefix="forbidden"))
    folder.chmod(0o755)
    writer = subprocess.Popen(
        [sys.executable, "-m", "tests.records.writer", str(folder / "wal"), "w0", "--as-nobody"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        written, dropped = map(int, writer.stdout.readline().split())
        assert (written, dropped) == (0, 200)
        folder.chmod(0o777)
        for line in writer.stdout:
            if int(line.split()[0]):
                break
        assert writer.poll() is None
    finally:
        writer.kill()
        writer.wait()
        assert writer.stdout is not None
        writer.stdout.close()
    compactor(folder / "wal", tmp_path / "lake").step()
    shutil.rmtree(folder)
    assert lake_ids(tmp_path / "lake")


def injected(calls: str, fault: str) -> list[str]:
    """The words before a command that give its system calls a fault; the test is skipped where that is not possible."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed; it makes system calls fail")
    words = [strace, "-f", "-o", "/dev/null", "-e", f"trace={calls}", "-e", f"inject={calls}:{fault}"]
    if subprocess.run([*words, "true"], check=False, capture_output=True).returncode:
        pytest.skip("strace may not trace here")
    return words


def test_a_segment_whose_sync_failed_is_set_aside_and_its_rows_that_read_back_are_kept(tmp_path: Path) -> None:
    failing = injected("fdatasync", "error=EIO:when=1")
    script = (
        "import asyncio, sys; from pathlib import Path\n"
        "from gateway.records.worker.prediction_log import LogLimits; from gateway.records.worker.wal import *\n"
        "from tests.records.traffic import *\n"
        "async def go():\n"
        "    log = open_log(Path(sys.argv[1]), limits=LogLimits(segment=SegmentLimits(durability=Durability.ALWAYS)))\n"
        "    stream = open_stream(log)\n"
        "    for name in ('a', 'b'):\n"
        "        append(stream, name); await log.flush()\n"
        "    await log.close()\n"
        "    counts = log.counts(); print(counts.written, counts.suspect_segments, sum(counts.dropped.values()))\n"
        "asyncio.run(go())\n"
    )
    log = tmp_path / "wal"
    done = subprocess.run(
        [*failing, sys.executable, "-c", script, str(log)], check=True, capture_output=True, text=True
    )
    assert done.stdout.split() == ["2", "1", "0"]
    assert sorted(entry.suffix for entry in entries(log)) == [SEALED, SUSPECT]
    compactor(log, tmp_path / "lake").step()
    assert sorted(lake_ids(tmp_path / "lake")) == ["a", "b"]
    assert [path.suffix for path in (log / "failed").iterdir() if path.name != "reasons.jsonl"] == [SUSPECT]


async def test_a_directory_that_is_replaced_by_a_file_costs_counted_rows_until_it_is_gone(tmp_path: Path) -> None:
    folder = tmp_path / "wal"
    log = open_log(folder)
    stream = open_stream(log)
    append(stream, "before")
    await log.flush()
    folder.rename(tmp_path / "moved")
    folder.write_text("somebody's notes")
    append(stream, "goes into the open segment, or is lost")
    await log.flush()
    await log.close()
    log = open_log(folder)  # the next start
    stream = open_stream(log)
    append(stream, "lost")
    await log.flush()
    assert dict(log.counts().dropped) == {"disk_error": 1}
    assert log.counts().error
    assert folder.read_text() == "somebody's notes"
    folder.unlink()
    append(stream, "after")
    await log.close()
    assert (log.counts().written, log.counts().error) == (1, "")
    assert balanced(log.counts())
    compactor(folder, tmp_path / "lake").step()
    assert lake_ids(tmp_path / "lake") == ["after"]


def test_a_disk_that_takes_half_a_second_for_each_sync_delays_no_request(tmp_path: Path) -> None:
    slow = injected("fdatasync,fsync", "delay_enter=500ms")
    script = (
        "import asyncio, sys; from pathlib import Path\n"
        "from gateway.records.worker.prediction_log import LogLimits; from gateway.records.worker.wal import *\n"
        "from tests.records.traffic import *\n"
        "async def go():\n"
        "    log = open_log(Path(sys.argv[1]), limits=LogLimits(segment=SegmentLimits(durability=Durability.ALWAYS)))\n"
        "    stream = open_stream(log); running = asyncio.create_task(log.run())\n"
        "    for number in range(2000):\n"
        "        append(stream, f'r{number}')\n"
        "        if number % 100 == 0: await log.flush() if number == 0 else await asyncio.sleep(0)\n"
        "    waiting = log.counts().buffered\n"
        "    running.cancel(); await log.close()\n"
        "    counts = log.counts(); print(waiting, counts.written, sum(counts.dropped.values()), counts.flush_ns)\n"
        "asyncio.run(go())\n"
    )
    command = [*slow, sys.executable, "-c", script, str(tmp_path / "wal")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    waiting, written, dropped, flush_ns = map(int, done.stdout.split())
    assert waiting > 0  # requests went on while the disk was at work: none waited for it
    assert (written, dropped) == (2000, 0)
    assert flush_ns >= 1_000_000_000
    compactor(tmp_path / "wal", tmp_path / "lake").step()
    assert len(lake_ids(tmp_path / "lake")) == 2000


def test_a_writer_killed_in_the_middle_of_a_write_loses_the_torn_tail_only(tmp_path: Path) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-m", "tests.records.writer", str(tmp_path / "wal"), "w0"], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    for _ in range(4):
        writer.stdout.readline()
    writer.kill()
    writer.communicate()
    (path, segment) = next((e.path, e.segment) for e in entries(tmp_path / "wal") if e.suffix == OPEN and e.segment)
    whole = sum(len(block.table) for block in read(path.read_bytes(), segment).blocks())
    with path.open("ab") as file:
        file.write(path.read_bytes()[:7])
    worker = compactor(tmp_path / "wal", tmp_path / "lake")
    worker.step()
    assert worker.counts.adopted == 1
    assert worker.counts.torn_bytes >= 7
    assert len(lake_ids(tmp_path / "lake")) >= whole > 0
    assert dict(worker.counts.quarantined) == {}
