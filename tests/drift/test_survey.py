"""Time blocks and slices of a window: all of it, nothing twice, never too much at once."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.drift.report import survey
from gateway.drift.report.lake_reader import Lake
from gateway.drift.report.lake_selection import Census, Selection
from gateway.drift.report.span import DAY_US, Span
from gateway.drift.report.survey import cut, slices
from gateway.drift.statistics.building import build_feature
from gateway.records.worker.redaction import Redaction
from gateway.records.worker.redaction_rule import RedactionAction, RedactionRule
from tests.drift.lakes import START_US, lake_of, write_rows

MINUTE_US = 60_000_000


def census(minutes: list[int], rows: list[int]) -> Census:
    every = np.array(rows, np.int64)
    names = np.full(len(minutes), "1")
    return Census(
        names, names, np.array(minutes, np.int64) * MINUTE_US, every, every.astype(float), every.astype(float)
    )


@pytest.mark.parametrize(
    ("length_us", "blocks"),
    [(7 * DAY_US, 7), (DAY_US, 24), (30 * DAY_US, 30), (3_600_000_000, 12), (5 * MINUTE_US, 5), (MINUTE_US, 1),
     (100 * DAY_US, 15)],
)  # fmt: skip
def test_a_window_is_cut_where_people_would(length_us: int, blocks: int) -> None:
    parts = cut(Span(0, length_us))
    assert len(parts) == blocks
    assert (parts[0].start_us, parts[-1].end_us) == (0, length_us)


@example(1, None)
@example(400 * DAY_US, None)
@given(st.integers(1, 400 * DAY_US), st.none() | st.integers(DAY_US // 24, 40 * DAY_US))
def test_blocks_are_the_window_and_nothing_else(length_us: int, every_us: int | None) -> None:
    parts = cut(Span(5, 5 + length_us), every_us)
    assert parts[0].start_us == 5
    assert parts[-1].end_us == 5 + length_us
    assert all(one.end_us == other.start_us for one, other in pairwise(parts))


@example({0: 1}, 1)
@example({179: 500_000}, 60)
@example({0: 7, 1: 7, 2: 7}, 1)
@given(st.dictionaries(st.integers(0, 179), st.integers(1, 500_000), min_size=1), st.integers(1, 60))
def test_slices_hold_every_row_once_and_are_bounded(rows: dict[int, int], width: int) -> None:
    buckets = cut(Span(0, 180 * MINUTE_US), 60 * MINUTE_US)
    minutes = sorted(rows)
    parts = list(slices(census(minutes, [rows[minute] for minute in minutes]), buckets, width))
    most = min(survey._SLICE_ROWS, survey._SLICE_VALUES // width)
    for minute, amount in rows.items():
        holding = [held for _, span, held in parts if span.start_us <= minute * MINUTE_US < span.end_us]
        assert len(holding) == 1
        assert holding[0] <= max(most, amount)
    assert sum(held for _, _, held in parts) == sum(rows.values())
    for bucket, span, _ in parts:
        assert buckets[bucket].start_us <= span.start_us
        assert span.end_us <= buckets[bucket].end_us


def test_rows_without_a_payload_are_not_counted_and_hide_nothing(tmp_path: Path) -> None:
    """The disk was nearly full for a while: those rows were logged without their tensors."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 2)).astype("<f4")
    moments = START_US + np.arange(300) * MINUTE_US
    full = Redaction()
    nothing = Redaction(
        (RedactionRule("homes", "x", RedactionAction.NULL), RedactionRule("homes", "y", RedactionAction.NULL))
    )
    for first, last, redaction in ((0, 100, full), (100, 200, nothing), (200, 300, full)):
        part = slice(first, last)
        write_rows(
            tmp_path, moments[part], {"x": x[part]}, {"y": x[part, 0].copy()}, redaction=redaction,
            names=[f"r{i}" for i in range(first, last)],
        )  # fmt: skip
    features = [build_feature(f"x_{index}", f"f.x_{index}", x[:, index]) for index in range(2)]
    features.append(build_feature("out.y", "out.y", x[:, 0]))
    with Lake(lake_of(tmp_path)) as lake:
        selection = Selection("homes", Span(START_US, START_US + DAY_US))
        parts = survey.survey(
            lake, selection, features, rng=rng, census=lake.census(selection), buckets=cut(selection.span)
        )  # fmt: skip
    assert parts.rows == 300
    for feature in features:
        counts = parts.total(feature.name)
        assert counts is not None
        assert counts.sum() == 200
        assert feature.bins.special(counts)["missing"] == 0
        assert len(parts.sample[feature.name]) == 200
