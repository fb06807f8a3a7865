"""Records found again in write-ahead logs: the newest of an id, the newest of a model, and where was looked."""

from pathlib import Path
from time import time_ns

from gateway.records.worker.lookup import find, newest
from gateway.records.worker.record import Record
from tests.records.traffic import NOW_US, append, open_log, open_stream


async def test_the_newest_record_of_an_id_is_found_in_open_and_sealed_segments(tmp_path: Path) -> None:
    sealed, written = open_log(tmp_path, worker="w0"), open_log(tmp_path, worker="w1")
    for number in range(50):
        append(open_stream(sealed), f"r{number}", ts_us=NOW_US + number)
        append(open_stream(written), f"s{number}", ts_us=NOW_US + number)
    append(open_stream(written), "s7", ts_us=NOW_US + 999)
    await sealed.close()
    await written.flush()
    search = find(tmp_path, "flights", "r7")
    assert search.row is not None
    assert (search.row.request_id, search.row.worker, search.row.ts_us) == ("r7", "w0", NOW_US + 7)
    again = find(tmp_path, "flights", "s7").row
    assert again is not None
    assert again.ts_us == NOW_US + 999
    assert find(tmp_path, "digits", "r7").row is None
    missing = find(tmp_path, "flights", "r")
    assert missing.row is None
    assert missing.searched[0].startswith("the write-ahead logs of the answering host: 2 segments")
    assert str(tmp_path) not in " ".join(missing.searched)  # whoever asks need not know where the host keeps it
    await written.close()


async def test_the_newest_records_of_a_model_over_all_workers(tmp_path: Path) -> None:
    logs = [open_log(tmp_path, worker=f"w{index}") for index in range(2)]
    begun_us = time_ns() // 1000 - 40
    for number in range(40):
        open_stream(logs[number % 2]).append(
            Record(begun_us + number, "r", 0, "SPLIT", number, 42, 1, 1, 1, 1, None, (), ())
        )
        append(open_stream(logs[number % 2], model="digits"), f"d{number}", ts_us=NOW_US + number)
    for log in logs:
        await log.flush()
    marks = newest(tmp_path, "flights", 10).marks
    assert [revision for revision, _ in marks] == list(range(39, 29, -1))
    assert len(newest(tmp_path, "flights", 1000).marks) == 40
    assert newest(tmp_path, "nobody", 10).marks == ()
    for log in logs:
        await log.close()


def test_no_log_is_no_record(tmp_path: Path) -> None:
    assert find(tmp_path / "none", "flights", "r").row is None
    assert newest(tmp_path / "none", "flights", 10).marks == ()
