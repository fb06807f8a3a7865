"""The drift monitor in the compactor: what it counts, what it says, and that a kill changes neither."""

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.drift.online.tally_store import Subject
from gateway.drift.online.windows import WEIGHT_ONE
from gateway.drift.statistics.reference_profile import Profile
from gateway.records.worker.record import Record
from gateway.records.worker.sampling import CHOSEN_COPY
from gateway.telemetry.published import published
from tests.drift.logged import BEGIN_S, HOUR_S, after, log_rows, save_profile, watched
from tests.records.traffic import LABEL, SCORES, X, open_log

RNG = np.random.default_rng(11)
VERSION = Subject("flights", "version/1")
Numbers = np.typing.NDArray[Any]


def batch(hour: int, rows: int, *, shift: float = 0.0, score: float = 0.5) -> tuple[int, Numbers, Numbers]:
    x = RNG.normal(shift, size=(rows, 4)).astype(np.float32)
    return BEGIN_S + hour * HOUR_S + 60, x, np.clip(RNG.normal(score, 0.1, size=rows), 0, 1).astype(np.float32)


def reference(directory: Path, version: str = "1") -> Profile:
    x = RNG.normal(size=(8000, 4))
    return save_profile(directory, x, np.clip(RNG.normal(0.5, 0.1, size=8000), 0, 1), version=version)


def report(directory: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((directory / "published" / "drift.json").read_text())
    return told


def compact(directory: Path, hours: int) -> dict[str, Any]:
    """Everything that is in the log goes to the lake; what the monitor says after so many hours."""
    worker, _ = watched(directory, hours=hours)
    worker.step()
    worker.tend(last=True)
    return report(directory)


async def test_a_drift_that_lasts_is_found_after_three_windows(tmp_path: Path) -> None:
    reference(tmp_path)
    quiet = [batch(hour, 400) for hour in range(4)]
    await log_rows(tmp_path, quiet)
    assert [arm["state"] for arm in compact(tmp_path, 4)["arms"]] == ["ok"]
    for hour, expected in ((4, "ok"), (5, "ok"), (6, "crit")):
        await log_rows(tmp_path, [batch(hour, 400, shift=1.5)])
        (arm,) = compact(tmp_path, hour + 1)["arms"]
        assert arm["state"] == expected
    worst = arm["features"][0]
    assert worst["statistic"] == "psi"
    assert worst["direction"] == "higher"
    assert worst["streak"] == 3
    assert worst["n"] == 400
    assert (arm["version"], arm["arm"], arm["rows"], arm["profile_revision"]) == ("1", "stable", 400, 1)
    assert {one["feature"] for one in arm["features"] if one["output"]} == {"pred_class", "pred_score"}


async def test_a_prediction_that_drifts_is_found_where_the_inputs_do_not(tmp_path: Path) -> None:
    reference(tmp_path)
    await log_rows(tmp_path, [batch(hour, 400, score=0.5 if hour < 3 else 0.7) for hour in range(6)])
    (arm,) = compact(tmp_path, 6)["arms"]
    drifted = {one["feature"] for one in arm["features"] if one["state"] in ("warn", "crit")}
    assert drifted == {"pred_score"}
    assert arm["score_cusum"]["alarm"]
    assert arm["score_cusum"]["direction"] == "higher"


async def test_counts_are_those_of_the_rows(tmp_path: Path) -> None:
    profile = reference(tmp_path)
    batches = [batch(hour, 50) for hour in (0, 0, 1, 3)]
    await log_rows(tmp_path, batches)
    worker, monitor = watched(tmp_path)
    worker.step()
    book = monitor._books[VERSION]
    (series,) = book.series.values()
    total = series.sum(BEGIN_S, BEGIN_S + 20 * HOUR_S)
    assert total.rows == 200
    for feature, place in zip(book.layout.features[:4], book.layout.places, strict=False):
        values = np.concatenate([x[:, int(feature.name[-1])] for _, x, _ in batches])
        assert (total.counts[place] == WEIGHT_ONE * profile.features[int(feature.name[-1])].bins.count(values)).all()
    hour = series.sum(BEGIN_S, BEGIN_S + HOUR_S)
    assert hour.rows == 100


async def test_sampled_rows_are_weighed(tmp_path: Path) -> None:
    """Rows with another probability stand for more; the window is worth fewer rows than they are in number."""
    reference(tmp_path)
    await log_rows(tmp_path, [batch(0, 100)])
    worker, monitor = watched(tmp_path)
    worker.step()
    (series,) = monitor._books[VERSION].series.values()
    tally = series.sum(BEGIN_S, BEGIN_S + HOUR_S)
    assert tally.row_value == 1.0
    tally.sums[1:3] = 100 * 0.5 * WEIGHT_ONE * (1 + 3), 50 * 1 + 50 * 9
    assert tally.row_value == pytest.approx(200**2 / 500 / 100)


async def test_errors_are_counted_and_are_no_missing_values(tmp_path: Path) -> None:
    reference(tmp_path)
    quiet = [batch(0, 500)]
    await log_rows(tmp_path, quiet)
    await log_rows(tmp_path, [batch(0, 1) for _ in range(30)], code=13)
    worker, monitor = watched(tmp_path)
    worker.step()
    (series,) = monitor._books[VERSION].series.values()
    tally = series.sum(BEGIN_S, BEGIN_S + HOUR_S)
    assert (tally.rows, tally.ended) == (500, 530)
    assert tally.error_share == pytest.approx(30 / 530)


async def test_missing_values_are_told_and_a_metric(tmp_path: Path) -> None:
    reference(tmp_path)
    batches = [batch(hour, 400) for hour in range(3)]
    for _, x, _ in batches:
        x[:40, 2] = np.nan
    await log_rows(tmp_path, batches)
    (arm,) = compact(tmp_path, 3)["arms"]
    worst = arm["features"][0]
    assert (worst["feature"], worst["statistic"], worst["state"]) == ("x_2", "missing", "crit")
    metrics = published(tmp_path / "published")
    missing = {labels["feature"]: value for _, labels, value in metrics["gateway_missing_ratio"]}
    assert missing["x_2"] == pytest.approx(0.1)
    states = {labels["feature"]: value for _, labels, value in metrics["gateway_drift_state"]}
    assert states["x_2"] == 2
    assert [value for _, _, value in metrics["gateway_drift_arm_state"]] == [2]


async def test_a_new_category_is_named(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    _, x, scores = batch(0, 4000)
    x[:, 3] = rng.integers(0, 3, 4000)
    save_profile(tmp_path, x, scores)
    batches = [batch(hour, 400) for hour in range(3)]
    for _, own, _ in batches:
        own[:, 3] = rng.integers(0, 3, 400)
        own[:40, 3] = 7
    await log_rows(tmp_path, batches)
    (arm,) = compact(tmp_path, 3)["arms"]
    worst = arm["features"][0]
    assert (worst["feature"], worst["statistic"], worst["direction"]) == ("x_3", "unseen", "new: 7")


async def test_few_rows_make_longer_windows_and_too_few_say_nothing(tmp_path: Path) -> None:
    reference(tmp_path)
    await log_rows(tmp_path, [batch(0, 60)])
    (arm,) = compact(tmp_path, 1)["arms"]
    assert arm["state"] == "insufficient"
    await log_rows(tmp_path, [batch(hour, 60) for hour in range(1, 16)])
    (arm,) = compact(tmp_path, 16)["arms"]
    assert arm["state"] == "ok"
    assert arm["end_s"] - arm["start_s"] == 4 * HOUR_S
    assert arm["rows"] == 240


async def test_without_a_profile_nothing_is_counted_and_with_one_the_next_rows_are(tmp_path: Path) -> None:
    worker, monitor = watched(tmp_path)
    await log_rows(tmp_path, [batch(0, 300)])
    worker.step()
    monitor.tend(after(20), last=False)
    assert monitor.rows == 0
    reference(tmp_path)
    monitor.tend(after(20) + 10, last=False)
    await log_rows(tmp_path, [batch(1, 300)])
    worker.step()
    assert monitor.rows == 300
    reference(tmp_path)  # revision 2 has other bins: what was counted in the old ones cannot be compared
    monitor.tend(after(20) + 20, last=False)
    assert VERSION not in monitor._books
    assert report(tmp_path)["arms"] == []
    await log_rows(tmp_path, [batch(2, 100)])
    worker.step()
    (series,) = monitor._books[VERSION].series.values()
    assert series.sum(BEGIN_S, BEGIN_S + 20 * HOUR_S).rows == 100


async def test_arms_are_compared_in_the_same_bins(tmp_path: Path) -> None:
    reference(tmp_path)
    for hour in range(3):
        await log_rows(tmp_path, [batch(hour, 500)], arm="a")
        await log_rows(tmp_path, [batch(hour, 400, score=0.65)], version="2", arm="b")
        await log_rows(tmp_path, [batch(hour, 400)], version="3", arm="c")
    told = {one["arm"]: one for one in compact(tmp_path, 3)["comparisons"]}
    assert set(told) == {"b", "c"}
    assert told["b"]["against"] == {"version": "1", "arm": "a"}
    scores = {arm: {one["feature"]: one["state"] for one in comparison["outputs"]} for arm, comparison in told.items()}
    assert scores["b"] == {"pred_class": "ok", "pred_score": "crit"}
    assert scores["c"] == {"pred_class": "ok", "pred_score": "ok"}


async def log_mirrored(directory: Path, reason: str = "SHADOW") -> None:
    """Writes a segment that holds 1000 answers and those of a mirror, as a worker does: 970 are the same."""
    log = open_log(directory / "wal")
    for version, shadow_of, right in (("1", "", 1000), ("2", "1", 970)):
        stream = log.stream(
            "flights", version, "stable" if not shadow_of else "mirror", (X,), (LABEL, SCORES), "d", shadow_of
        )
        at_s, x, _ = batch(0, 1)
        why = reason if shadow_of else "SPLIT"
        for number in range(1000):
            if why == CHOSEN_COPY and number < right:
                continue
            label = np.array([0 if number < right else 1], "<i8")
            outputs = (label.tobytes(), np.array([0.1, 0.7, 0.2], "<f4").tobytes())
            inputs = (x.tobytes(),)
            stream.append(Record(at_s * 1_000_000, f"r{number}", 0, why, 7, 42, 1, 1, 2, 3, None, inputs, outputs))
    await log.close()


async def test_mirrors_are_compared_with_those_who_served(tmp_path: Path) -> None:
    """No version needs a profile for that."""
    await log_mirrored(tmp_path)
    (mirror,) = compact(tmp_path, 1)["mirrors"]
    assert (mirror["version"], mirror["arm"], mirror["pairs"]) == ("2", "mirror", 1000)
    assert mirror["agreement"] == pytest.approx(0.97)
    assert mirror["state"] == "warn"
    metrics = published(tmp_path / "published")
    ((_, labels, value),) = metrics["gateway_shadow_agreement_ratio"]
    assert labels == {"model": "flights", "version": "2", "arm": "mirror"}
    assert value == pytest.approx(0.97)


async def test_copies_that_are_logged_because_they_differ_are_no_sample(tmp_path: Path) -> None:
    """The other 970 copies agreed, and no row of them is there."""
    save_profile(tmp_path, *batch(0, 500)[1:], version="2")
    await log_mirrored(tmp_path, CHOSEN_COPY)
    told = compact(tmp_path, 1)
    assert (told["mirrors"], told["arms"]) == ([], [])


async def test_a_kill_after_any_part_loses_no_segment_and_counts_none_twice(tmp_path: Path) -> None:
    """Two segments; killed after 1, 2, 3, ... parts until it is no more; then a compactor that ends in order."""
    parts, finished = 0, False
    while not finished:
        parts += 1
        directory = tmp_path / str(parts)
        reference(directory)
        for hour in range(2):
            await log_rows(directory, [batch(hour, 70 + hour)])
        command = [sys.executable, "-m", "tests.drift.interrupted", str(directory), str(parts)]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
        finished = done.returncode == 0
        assert finished or done.returncode == -signal.SIGKILL, done.stderr
        worker, monitor = watched(directory)
        worker.step()
        worker.tend(last=True)
        _, again = watched(directory)
        for one in (monitor, again):
            (series,) = one._books[VERSION].series.values()
            hours = [series.sum(BEGIN_S + hour * HOUR_S, BEGIN_S + (hour + 1) * HOUR_S) for hour in range(2)]
            assert [tally.rows for tally in hours] == [70, 71], f"killed after {parts} parts: {done.stdout}"
            assert [int(tally.counts.sum()) for tally in hours] == [WEIGHT_ONE * n * 6 for n in (70, 71)]
    assert parts > 9


async def test_a_disk_that_refuses_costs_no_row_in_the_lake(tmp_path: Path) -> None:
    reference(tmp_path)
    worker, monitor = watched(tmp_path)
    (tmp_path / "lake" / "_state").mkdir(parents=True)
    (tmp_path / "lake" / "_state" / "drift").write_text("a file where a folder should be")
    await log_rows(tmp_path, [batch(0, 100)])
    worker.step()
    worker.tend(last=True)
    assert worker.counts.rows == 100
    assert monitor.rows == 100
    assert monitor.failures["disk"] >= 1


async def test_a_damaged_profile_is_told_and_the_older_one_stays(tmp_path: Path) -> None:
    reference(tmp_path)
    worker, monitor = watched(tmp_path)
    (tmp_path / "data" / "profiles" / "flights" / "1" / "2.json").write_text("{")
    await log_rows(tmp_path, [batch(0, 100)])
    worker.step()
    monitor.tend(after(20), last=False)
    assert monitor.rows == 100
    failures = {
        labels["reason"]: value for _, labels, value in published(tmp_path / "published")["gateway_drift_failures"]
    }
    assert failures["profile"] >= 1
