"""Tallies on disk: what is in them after kills, damage and new bins; windows that add up."""

import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.drift.online.counting import LoggedArm
from gateway.drift.online.tally_store import Book, Part, Subject, TallyStore
from gateway.drift.online.windows import (
    DAY_S,
    HOUR_S,
    MINUTE_S,
    WEIGHT_ONE,
    CellLayout,
    Tally,
    TallySeries,
    window_counts,
)
from gateway.drift.statistics.building import build_feature
from tests.drift.tally_writer import ARM, LAYOUT, SUBJECTS, one_row, recovered, rows

FEATURE = build_feature("x", "f.x", np.arange(1000.0))
WIDE = CellLayout("7", (FEATURE,))
VERSION = Subject("a/b", "version/..")


def tally(values: list[float]) -> Tally:
    counted = Tally.empty(WIDE)
    counted.counts[:] = FEATURE.bins.count(np.array(values, np.float64)) * WEIGHT_ONE
    counted.sums[:3] = len(values), len(values) * WEIGHT_ONE, len(values)
    return counted


@pytest.mark.slow
def test_kills_at_random_moments_lose_no_segment_and_count_none_twice(tmp_path: Path) -> None:
    rng = random.Random(4)
    for _ in range(12):
        command = [sys.executable, "-m", "tests.drift.tally_writer", str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            for _ in range(rng.randint(1, 40)):
                writer.stdout.readline()
            writer.send_signal(signal.SIGKILL)
        store, books, done = recovered(tmp_path)
        assert rows(books) == [len(done), len(done) // 2]
        assert store.damaged == 0
    assert len(done) > 100


@settings(max_examples=60, deadline=None)
@example(steps=[])
@example(steps=["kill"])
@example(steps=["prepare"] * 9 + ["kill"])
@given(st.lists(st.sampled_from(["prepare", "done", "save", "kill"]), max_size=30))
def test_any_order_of_steps_counts_what_the_manifest_names(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str]
) -> None:
    directory = tmp_path_factory.mktemp("store")
    store, books, _ = recovered(directory)
    pending: dict[str, list[Part]] = {}
    number, done = 0, 0
    for step in steps:
        if step == "prepare":
            number += 1
            pending[f"s{number}"] = [Part(SUBJECTS[0], LAYOUT, {(ARM, 60): one_row()})]
            store.prepare(f"s{number}", pending[f"s{number}"])
        elif step == "done" and pending:
            segment, parts = pending.popitem()
            with (directory / "manifest").open("a") as manifest:
                manifest.write(f"{segment}\n")
            done += 1
            for part in parts:
                books.setdefault(part.subject, Book(part.subject, LAYOUT)).add(ARM, 60, one_row())
        elif step == "save":
            store.checkpoint(list(books.values()), pending)
        elif step == "kill":
            store.close()
            store, books, _ = recovered(directory)
            pending.clear()
        assert rows(books)[0] == done
    store.close()
    assert rows(recovered(directory)[1])[0] == done


def test_what_is_damaged_is_counted_and_the_rest_is_kept(tmp_path: Path) -> None:
    store = TallyStore(tmp_path)
    for number in range(3):
        store.prepare(f"s{number}", [Part(VERSION, WIDE, {(ARM, 60): tally([1.0])})])
    store.close()
    (journal,) = tmp_path.glob("journal-*.log")
    data = bytearray(journal.read_bytes())
    data[len(data) // 2] ^= 0xFF
    journal.write_bytes(data + b"\xabWL1 torn")
    again = TallyStore(tmp_path)
    books = again.recover(lambda _: WIDE, lambda _: True)
    assert books[VERSION].series[ARM].sum(0, HOUR_S).rows == 2
    assert again.damaged == 1


def test_tallies_in_other_bins_are_left_behind(tmp_path: Path) -> None:
    store = TallyStore(tmp_path)
    book = Book(VERSION, WIDE)
    book.add(ARM, 60, tally([1.0, 2.0]))
    store.checkpoint([book], {})
    store.prepare("s", [Part(VERSION, WIDE, {(ARM, 60): tally([3.0])})])
    store.close()
    same = TallyStore(tmp_path).recover(lambda _: WIDE, lambda _: True)
    assert same[VERSION].series[ARM].sum(0, HOUR_S).rows == 3
    assert TallyStore(tmp_path).recover(lambda _: CellLayout("8", (FEATURE,)), lambda _: True) == {}
    assert TallyStore(tmp_path).recover(lambda _: None, lambda _: True) == {}


def test_what_no_manifest_names_is_not_counted(tmp_path: Path) -> None:
    store = TallyStore(tmp_path)
    store.prepare("s", [Part(VERSION, WIDE, {(ARM, 60): tally([3.0])})])
    store.close()
    assert TallyStore(tmp_path).recover(lambda _: WIDE, lambda _: False) == {}


@settings(max_examples=60, deadline=None)
@example([])
@example([(0, [])])
@example([(0, [1.0] * 5)] * 9)
@given(st.lists(st.tuples(st.integers(0, 3 * 1440), st.lists(st.floats(-10, 2000), max_size=5)), max_size=30))
def test_hours_and_days_are_the_sums_of_their_minutes(batches: list[tuple[int, list[float]]]) -> None:
    series = TallySeries(WIDE)
    for minute, values in batches:
        series.add(minute * MINUTE_S, tally(values))
    for length_s in (HOUR_S, DAY_S):
        for start_s, counted in series.buckets[length_s].items():
            inside = [v for minute, values in batches if start_s <= minute * 60 < start_s + length_s for v in values]
            assert counted.rows == len(inside)
            assert (counted.counts == FEATURE.bins.count(np.array(inside, np.float64)) * WEIGHT_ONE).all()
    whole = series.sum(0, 4 * DAY_S)
    assert whole.rows == sum(len(values) for _, values in batches)


def test_windows_grow_until_they_have_their_rows() -> None:
    series = TallySeries(WIDE)
    for hour in range(10):
        series.add(hour * HOUR_S, tally([1.0] * 30))
    series.add(10 * HOUR_S, tally([1.0] * 200))
    windows = series.windows(11 * HOUR_S, HOUR_S, 100, 3)
    assert [(window.end_s - window.start_s) // HOUR_S for window in windows] == [4, 4, 1]
    assert [window.tally.rows for window in windows] == [120, 120, 200]
    assert windows[0].end_s == windows[1].start_s


def test_a_window_of_a_week_without_rows_ends_the_search() -> None:
    series = TallySeries(WIDE)
    series.add(0, tally([1.0] * 150))
    windows = series.windows(100 * HOUR_S, HOUR_S, 100, 3)
    assert [window.tally.rows for window in windows] == [150, 0]


def test_only_so_many_buckets_are_kept() -> None:
    series = TallySeries(WIDE)
    for minute in range(1000):
        series.add(minute * MINUTE_S, tally([1.0]))
    assert len(series.buckets[MINUTE_S]) == 240
    assert min(series.buckets[MINUTE_S]) == 760 * MINUTE_S
    assert series.sum(0, DAY_S).rows == 1000


def test_weighed_rows_are_worth_fewer() -> None:
    counted = tally([5.0] * 40)
    counted.counts *= 4
    counted.sums[1], counted.sums[2] = 40 * 4 * WEIGHT_ONE, 40 * 16
    assert window_counts(WIDE, counted)["x"].sum() == pytest.approx(40.0)
    assert window_counts(WIDE, Tally.empty(WIDE)) == {}


def test_arms_are_told_apart() -> None:
    assert sorted([LoggedArm("2", "b", False), LoggedArm("1", "b", True), LoggedArm("1", "b", False)])[0] == LoggedArm(
        "1", "b", False
    )
