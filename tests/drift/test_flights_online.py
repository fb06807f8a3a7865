"""The flights of 2015 through the log, the compactor and its monitor, day by day: the same answer as from the table."""

import calendar
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gateway.drift.online.assessment import ArmAssessment, Schedule, assess_version
from gateway.drift.online.tally_store import Subject
from gateway.drift.profile_files import ProfileFiles
from gateway.drift.statistics.building import build_profile
from gateway.drift.statistics.verdict import DriftRule, DriftState
from gateway.records.worker.record import Record
from gateway.tensor import Datatype, TensorSpec
from tests.drift.logged import watched
from tests.drift.reference_data import FLIGHT_FEATURES, Table, days, flights, rows
from tests.records.traffic import SCORES, open_log

DAY_S = 86_400
INPUTS = tuple(
    TensorSpec(name, Datatype.BYTES if name == "AIRLINE" else Datatype.FP32, (-1, 1)) for name in FLIGHT_FEATURES
)


def midnight_s(day: str) -> int:
    return calendar.timegm(time.strptime(day, "%Y-%m-%d"))


def tensors(table: Table) -> Iterator[bytes]:
    """The inputs as a client sends them: float32 with NaN for what is missing, texts with their lengths."""
    for name in FLIGHT_FEATURES:
        if name == "AIRLINE":
            yield b"".join(struct.pack("<I", len(text)) + text.encode() for text in table[name].tolist())
        else:
            yield table[name].astype("<f4").tobytes()


async def log_year(directory: Path) -> None:
    log = open_log(directory / "wal")
    stream = log.stream("flights", "1", "stable", INPUTS, (SCORES,), "sha256:aa", "")
    for day, table in days(flights(), "2015-02-01", "2016-01-01"):
        count = len(table["DATE"])
        scores = np.tile(np.array([0.2, 0.7, 0.1], "<f4"), (count, 1)).tobytes()
        moment_us = (midnight_s(day) + 12 * 3600) * 1_000_000
        stream.append(
            Record(moment_us, day, 0, "DEFAULT", 1, -1, count, 1, 2, 3, None, tuple(tensors(table)), (scores,))
        )
    await log.close()


@pytest.mark.slow
async def test_the_monitor_finds_the_airline_on_the_third_of_july_and_nothing_else(tmp_path: Path) -> None:
    january = rows(flights(), flights()["DATE"] < "2015-02-01")
    inputs = {f"f.{name}": january[name] for name in FLIGHT_FEATURES}
    profile = build_profile("flights", "1", inputs, {}, created_at=1.0, source="January 2015")
    ProfileFiles(tmp_path / "data").save(profile)
    await log_year(tmp_path)
    worker, monitor = watched(tmp_path)
    worker.step()
    assert monitor.rows == len(flights()["DATE"]) - len(january["DATE"])
    book = monitor._books[Subject("flights", "version/1")]

    def assessed(day: str) -> ArmAssessment:
        """As the monitor sees it in the night after that day."""
        schedule = Schedule(DAY_S)
        (result,) = assess_version(book, profile, schedule, DriftRule(), now_s=midnight_s(day) + DAY_S + 200)
        return result

    every = [day for day, _ in days(flights(), "2015-02-04", "2016-01-01")]
    looked = [day for day in every if "2015-06-24" <= day <= "2015-07-10"] + every[::12]
    for day in sorted(set(looked)):
        alarms = {one.feature: one for one in assessed(day).verdicts if one.state >= DriftState.WARN}
        assert set(alarms) == ({"AIRLINE"} if day >= "2015-07-03" else set()), day
    first = next(one for one in assessed("2015-07-03").verdicts if one.feature == "AIRLINE")
    assert (first.state, first.statistic, first.direction, first.streak) == (DriftState.CRIT, "vanished", "US", 3)
