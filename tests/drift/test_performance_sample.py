"""The sample of rows that wait for labels: each row has the right one in any order, evenly drawn, in bounded memory."""

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.drift.online.counting import LoggedArm
from gateway.drift.online.performance_sample import (
    KEPT_US,
    LABEL,
    MAX_ARMS,
    MAX_TEXTS,
    NO_LABEL_US,
    NO_TEXT,
    OTHER_TEXT,
    RECENT_US,
    PerformanceSample,
    SampleRows,
    pack,
    row_keys,
    row_type,
    unpack,
)

ARM = LoggedArm("1", "a", False)
NOW_US = 10**15
LIMIT = 1000


def rows_of(hashes: list[int], *, ts_us: int = NOW_US, width: int = 1) -> SampleRows:
    result = np.zeros(len(hashes), row_type(width))
    result["key"] = keys_of(hashes)
    result["ts_us"], result["p"] = ts_us, 1.0
    result["label"], result["label_text"], result["label_us"], result["said"] = np.nan, NO_TEXT, NO_LABEL_US, NO_TEXT
    return result


def keys_of(hashes: list[int]) -> Any:
    return row_keys(np.array(hashes, np.uint64), np.zeros(len(hashes), np.int64))


def labels_of(given: list[tuple[int, float, int, int]]) -> SampleRows:
    """Labels as (request, label, time of the label, receipt)."""
    result = np.zeros(len(given), LABEL)
    result["key"] = keys_of([one[0] for one in given])
    result["label"], result["label_text"] = [one[1] for one in given], NO_TEXT
    result["label_us"], result["received_us"] = [one[2] for one in given], [one[3] for one in given]
    return result


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("rows"), st.lists(st.integers(0, 12), min_size=1, max_size=6)),
        st.tuples(
            st.just("labels"),
            st.lists(st.tuples(st.integers(0, 12), st.integers(0, 3), st.integers(0, 4)), min_size=1, max_size=6),
        ),
    ),
    max_size=12,
)


@example([], True)
@example([("labels", [(1, 1, 1)])], True)
@example([("rows", [1]), ("labels", [(1, 1, 1)] * 6)], False)
@given(EVENTS, st.booleans())
def test_each_row_has_the_label_that_holds_however_rows_and_labels_come(events: list[Any], twice: bool) -> None:
    """Twice: a segment that is done again after a kill is seen again."""
    sample, seen, truth = PerformanceSample(), set(), dict[int, tuple[int, int, float]]()
    clock = 0
    for kind, items in events:
        if kind == "rows":
            seen |= set(items)
            for _ in range(2 if twice else 1):
                sample.add(ARM, rows_of(items), limit=LIMIT)
            continue
        made = []
        for request, label, label_us in items:
            clock += 1
            made.append((request, float(label), label_us, NOW_US + clock))
            if (label_us, NOW_US + clock) >= truth.get(request, (-1, 0, 0.0))[:2]:
                truth[request] = (label_us, NOW_US + clock, float(label))
        for _ in range(2 if twice else 1):
            sample.label(labels_of(made), limit=LIMIT)
    result = sample.arms[ARM].rows if seen else rows_of([])
    assert sorted(result["key"].tolist()) == sorted(keys_of(sorted(seen)).tolist())
    expected = {int(keys_of([request])[0]): label for request, (_, _, label) in truth.items() if request in seen}
    got = {int(row["key"]): float(row["label"]) for row in result if row["label_us"] != NO_LABEL_US}
    assert got == expected


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1), st.floats(0.05, 0.95))
def test_of_many_rows_an_even_sample_is_kept_that_knows_the_share(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    sample, hashes = PerformanceSample(), rng.integers(0, 2**63, 20_000).tolist()
    for start in range(0, len(hashes), 1000):
        sample.add(ARM, rows_of(hashes[start : start + 1000]), limit=LIMIT)
        assert len(sample.arms[ARM].rows) <= LIMIT
    chosen = rng.random(len(hashes)) < share
    sample.label(labels_of([(one, float(up), 1, NOW_US) for one, up in zip(hashes, chosen, strict=True)]), limit=LIMIT)
    result = sample.arms[ARM].rows
    assert (result["label_us"] == 1).all()
    assert len(sample.recent) <= LIMIT
    weights = np.exp2(result["level"].astype(float))
    assert weights.sum() == pytest.approx(20_000, rel=0.25)
    assert np.average(result["label"], weights=weights) == pytest.approx(share, abs=5 * 0.5 / np.sqrt(len(result)))


def test_a_log_that_keeps_requests_by_their_hash_is_drawn_from_evenly() -> None:
    """Sampling at 1 % leaves requests whose hash is small; those that a rule keeps have any."""
    rng = np.random.default_rng(0)
    small, any_ = (rng.integers(0, bound, 5000, np.uint64).tolist() for bound in (2**64 // 100, 2**64 - 1))
    sample = PerformanceSample()
    sample.add(ARM, rows_of(small), limit=LIMIT)
    sample.add(ARM, rows_of(any_), limit=LIMIT)
    kept = np.isin(sample.arms[ARM].rows["key"], keys_of(small))
    assert kept.mean() == pytest.approx(0.5, abs=0.1)


def test_rows_leave_after_a_week_and_labels_wait_an_hour() -> None:
    sample = PerformanceSample()
    sample.add(ARM, rows_of([1]), limit=LIMIT)
    sample.label(labels_of([(2, 1.0, 1, NOW_US)]), limit=LIMIT)
    sample.forget(NOW_US + RECENT_US, limit=LIMIT)
    assert (len(sample.recent), len(sample.arms[ARM].rows)) == (1, 1)
    sample.forget(NOW_US + RECENT_US + 1, limit=LIMIT)
    assert len(sample.recent) == 0
    sample.forget(NOW_US + KEPT_US + 1, limit=LIMIT)
    assert sample.arms == {}


def test_a_busy_week_makes_room_for_a_quiet_one() -> None:
    sample = PerformanceSample()
    sample.add(ARM, rows_of(list(range(10_000))), limit=LIMIT)
    busy = sample.arms[ARM].level
    later_us = NOW_US + KEPT_US + 1
    sample.add(ARM, rows_of(list(range(10_000, 10_100)), ts_us=later_us), limit=LIMIT)
    for _ in range(busy):
        sample.forget(later_us, limit=LIMIT)
    assert (busy > 3, sample.arms[ARM].level) == (True, 0)
    sample.add(ARM, rows_of(list(range(10_100, 10_200)), ts_us=later_us), limit=LIMIT)
    assert np.exp2(sample.arms[ARM].rows["level"].astype(float)).sum() == pytest.approx(200, rel=0.7)


def test_where_arms_become_many_each_gives_rows_up() -> None:
    sample = PerformanceSample()
    sample.add(ARM, rows_of(list(range(900))), limit=LIMIT)
    sample.forget(NOW_US, limit=100)
    result = sample.arms[ARM].rows
    assert 25 < len(result) <= 100
    assert np.exp2(result["level"].astype(float)).sum() == pytest.approx(900, rel=0.4)


def test_a_mirror_gets_the_labels_of_those_who_served() -> None:
    sample, mirror = PerformanceSample(), LoggedArm("2", "m", True)
    sample.add(ARM, rows_of([1, 2]), limit=LIMIT)
    sample.add(mirror, rows_of([1, 2]), limit=LIMIT)
    sample.label(labels_of([(1, 3.0, 1, 1)]), limit=LIMIT)
    assert [np.nansum(one.rows["label"]) for one in sample.arms.values()] == [3.0, 3.0]


def test_arms_are_bounded_and_another_width_begins_anew() -> None:
    sample = PerformanceSample()
    for number in range(MAX_ARMS + 5):
        sample.add(LoggedArm("1", f"a{number}", False), rows_of([number]), limit=LIMIT)
    assert [arm.arm for arm in sample.arms] == [f"a{number}" for number in range(5, MAX_ARMS + 5)]
    sample.add(LoggedArm("1", "a7", False), rows_of([100], width=3), limit=LIMIT)
    assert (sample.arms[LoggedArm("1", "a7", False)].width, len(sample.arms[LoggedArm("1", "a7", False)].rows)) == (
        3,
        1,
    )


def test_texts_are_bounded_and_those_that_no_row_has_give_way() -> None:
    sample = PerformanceSample()
    assert sample.text_codes(["rain", "sun", "rain"]).tolist() == [0, 1, 0]
    rows = rows_of([1, 2])
    rows["said"] = [1, 0]
    sample.add(ARM, rows, limit=LIMIT)
    assert sample.text_codes([f"odd {number}" for number in range(MAX_TEXTS)])[-2:].tolist() == [OTHER_TEXT] * 2
    assert len(sample.texts) == MAX_TEXTS
    assert sample.text_codes(["fog"]).tolist() == [OTHER_TEXT]
    sample.forget(NOW_US, limit=LIMIT)
    assert list(sample.texts) == ["rain", "sun"]
    assert sorted(sample.arms[ARM].rows["said"].tolist()) == [0, 1]
    assert sample.text_codes(["fog"]).tolist() == [2]


@example([], [])
@example([("rows", [1])], ["", "a"])
@given(EVENTS, st.lists(st.text(max_size=5), max_size=4))
def test_what_is_packed_is_read_back(events: list[Any], texts: list[str]) -> None:
    sample = PerformanceSample()
    sample.text_codes(texts)
    for kind, items in events:
        if kind == "rows":
            sample.add(ARM, rows_of(items, width=2), limit=LIMIT)
        else:
            sample.label(labels_of([(one, float(two), 1, NOW_US + three) for one, two, three in items]), limit=LIMIT)
    model, again = unpack(pack("m/1", sample))
    assert (model, again.texts, again.recent.tobytes()) == ("m/1", sample.texts, sample.recent.tobytes())
    assert {arm: (one.rows.tobytes(), one.level) for arm, one in again.arms.items()} == {
        arm: (one.rows.tobytes(), one.level) for arm, one in sample.arms.items()
    }


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x80", pack("m", PerformanceSample())[:-4]])
def test_what_is_damaged_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"data|type|Object|truncated"):
        unpack(data)
