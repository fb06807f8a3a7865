"""What waits for a sink: nothing is lost by a kill, everything is bounded."""

import asyncio
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gateway.records.lake.keeping import Keeping
from gateway.records.lake.outbox import Outbox
from gateway.records.lake.parquet import Published
from gateway.records.lake.stored_rows import Unreadable, stored_rows
from gateway.records.worker.record import Record
from gateway.tensor import Datatype, TensorSpec
from tests.records.outboxes import compact, fill
from tests.records.traffic import NOW_US, append, lake_rows, open_log, open_stream


def waiting(outbox: Outbox) -> list[str]:
    """Ids of all rows that wait, in order."""
    return [row.request_id for item in outbox.items() for rows in stored_rows(outbox.rows_of(item)) for row in rows]


def put(lake: Path, name: str, *, at_s: float, size: int = 100) -> None:
    (lake / name).write_bytes(bytes(size))
    Outbox(lake, "s").put(Published(name, 10, size), now_s=at_s)


async def test_files_wait_though_the_lake_deletes_them_and_cost_nothing_while_it_does_not(tmp_path: Path) -> None:
    await fill(tmp_path, "s", segments=2, rows=5)
    outbox = Outbox(tmp_path / "lake", "s")
    (first, second) = outbox.items()
    assert (
        first.rows,
        first.path.startswith("predictions/model_dir=flights/version_dir=v1/date=2096-10-02/hour=07/gw-w0-"),
    ) == (5, True)
    assert outbox.rows_of(first).samefile(tmp_path / "lake" / first.path)
    (tmp_path / "lake" / first.path).unlink()
    assert sorted(waiting(outbox)) == [f"{segment}.{number}" for segment in (0, 1) for number in range(5)]
    outbox.remove(first)
    outbox.remove(second)
    assert (waiting(outbox), list(outbox.folder.iterdir())) == ([], [])
    assert len(lake_rows(tmp_path / "lake")) == 5


async def test_a_compactor_killed_at_any_point_leaves_every_row_for_the_sink_once(tmp_path: Path) -> None:
    log = open_log(tmp_path / "pristine")
    for model in ("a", "b"):
        append(open_stream(log, model=model), model, rows=3)
    await log.close()
    for count in range(1, 6):
        shutil.copytree(tmp_path / "pristine", tmp_path / "wal", dirs_exist_ok=True)
        places = [str(tmp_path / "wal"), str(tmp_path / "lake")]
        command = [sys.executable, "-m", "tests.records.interrupted", *places, str(count), "s"]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
        assert done.returncode == -signal.SIGKILL, done.stderr
        compact(tmp_path, "s")
        assert sorted(waiting(Outbox(tmp_path / "lake", "s"))) == ["a"] * 3 + ["b"] * 3
        shutil.rmtree(tmp_path / "lake")


def test_what_is_too_old_or_too_much_goes_oldest_first(tmp_path: Path) -> None:
    for number in range(5):
        put(tmp_path, f"f{number}", at_s=number)
    outbox = Outbox(tmp_path, "s")
    gone = outbox.expire(Keeping(max_age_s=8.5, max_bytes=1000), now_s=10.0)
    assert [item.path for item in gone] == ["f0", "f1"]
    gone = outbox.expire(Keeping(max_age_s=100, max_bytes=200), now_s=10.0)
    assert [item.path for item in gone] == ["f2"]
    assert [item.path for item in Outbox(tmp_path, "s").items()] == ["f3", "f4"]


def test_a_file_put_again_waits_once(tmp_path: Path) -> None:
    put(tmp_path, "f", at_s=1)
    put(tmp_path, "f", at_s=2)
    assert [item.at_s for item in Outbox(tmp_path, "s").items()] == [2]
    assert len(list(Outbox(tmp_path, "s").folder.iterdir())) == 2


def test_the_outbox_of_a_sink_that_is_gone_is_emptied_in_time(tmp_path: Path) -> None:
    put(tmp_path, "f", at_s=1)
    assert [outbox.folder.name for outbox in Outbox.others(tmp_path, ["s"])] == []
    (other,) = Outbox.others(tmp_path, ["t"])
    assert other.expire(now_s=7000.0) == []
    assert [item.path for item in other.expire(now_s=7202.0)] == ["f"]


def test_a_damaged_note_or_cursor_is_no_obstacle(tmp_path: Path) -> None:
    put(tmp_path, "f", at_s=1)
    outbox = Outbox(tmp_path, "s")
    (item,) = outbox.items()
    outbox.advance(item, 7)
    assert Outbox(tmp_path, "s").cursor() == (item.key, 7)
    (outbox.folder / "cursor.json").write_text("{")
    (outbox.folder / "damaged.note").write_text("[]")
    again = Outbox(tmp_path, "s")
    assert (again.cursor(), [item.path for item in again.items()]) == (("", 0), ["f"])


def test_rows_that_a_kill_left_without_a_note_are_swept_in_time(tmp_path: Path) -> None:
    put(tmp_path, "f", at_s=1)
    put(tmp_path, "g", at_s=1)
    outbox = Outbox(tmp_path, "s")
    lone, kept = (outbox.rows_of(item) for item in outbox.items())
    lone.with_suffix(".note").unlink()
    outbox.sweep(now_s=lone.stat().st_ctime + 3000)
    assert lone.exists()
    outbox.sweep(now_s=lone.stat().st_ctime + 3601)
    assert (lone.exists(), kept.exists()) == (False, True)


async def test_rows_are_read_from_any_place_with_ids_that_stay_the_same(tmp_path: Path) -> None:
    await fill(tmp_path, "s", rows=1201, labels=2)
    outbox = Outbox(tmp_path / "lake", "s")
    predictions, labels = outbox.items()
    whole = [row for rows in stored_rows(outbox.rows_of(predictions)) for row in rows]
    assert len({row.id for row in whole}) == 1201
    for start in (1, 999, 1000, 1001, 1200, 1201):
        assert [row for rows in stored_rows(outbox.rows_of(predictions), start=start) for row in rows] == whole[start:]
    assert {row.kind for row in whole} == {"prediction"}
    (first, second) = [row for rows in stored_rows(outbox.rows_of(labels)) for row in rows]
    assert (first.kind, first.model, first.request_id) == ("label", "flights", "0.0")
    assert first.id.endswith("/0")
    assert second.id.endswith("/1")


async def test_large_rows_are_read_few_at_a_time(tmp_path: Path) -> None:
    log = open_log(tmp_path / "wal")
    wide = TensorSpec("x", Datatype.FP32, (-1, -1))
    stream = log.stream("m", "1", "a", (wide,), (), "d")
    rng = np.random.default_rng(1)
    for number in range(200):
        values = rng.random((1, 16_000), dtype="f4")
        stream.append(Record(NOW_US, f"r{number}", 0, "S", 1, 1, 1, 0, 0, 0, [values.shape], (values,), ()))
        if number % 100 == 0:
            await log.flush()
    await log.close()
    compact(tmp_path, "s")
    outbox = Outbox(tmp_path / "lake", "s")
    batches = [len(rows) for item in outbox.items() for rows in stored_rows(outbox.rows_of(item))]
    assert sum(batches) == 200
    assert max(batches) < 100


def test_what_is_no_parquet_file_says_so(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"PAR1 nothing")
    with pytest.raises(Unreadable):
        list(stored_rows(tmp_path / "f"))
