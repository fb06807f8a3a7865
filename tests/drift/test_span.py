"""Spans of time as an operator writes them."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.drift.report.span import DAY_US, Span, is_span, moment_text, parse_span
from gateway.errors import InvalidArgument

NOV_1 = 1_793_491_200_000_000  # 2026-11-01
NOW_US = NOV_1 + 23 * DAY_US


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("2026-11-01..2026-11-08", Span(NOV_1, NOV_1 + 7 * DAY_US)),
        ("2026-11-01", Span(NOV_1, NOV_1 + DAY_US)),
        ("7d", Span(NOW_US - 7 * DAY_US, NOW_US)),
        ("36h", Span(NOW_US - 36 * 3_600_000_000, NOW_US)),
        ("2026-11-20..", Span(NOV_1 + 19 * DAY_US, NOW_US)),
        ("2026-11-01T06:00 .. 2026-11-01T06:00:01.5Z", Span(NOV_1 + 21_600_000_000, NOV_1 + 21_601_500_000)),
        ("2026-11-01T01:00+01:00..2026-11-02", Span(NOV_1, NOV_1 + DAY_US)),
    ],
)
def test_what_is_written_is_understood(text: str, span: Span) -> None:
    assert parse_span(text, now_us=NOW_US) == span
    assert is_span(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no date"), ("7 days", "no date"), ("0d", "no span"), ("2026-11-31", "no date"),
        ("2026-11-08..2026-11-01", "ends before"), ("2026-11-01..2026-11-01", "ends before"),
        ("2026-11-01T06:00", "one moment"), ("..2026-11-01", "no date"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told(text: str, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        parse_span(text, now_us=NOW_US)


@pytest.mark.parametrize("text", ["data.csv", "../training.parquet", "profile:3", "rows.npz"])
def test_a_file_is_no_span(text: str) -> None:
    assert not is_span(text)


@example(0)
@given(st.integers(0, 4_000_000_000).map(lambda s: s * 1_000_000))
def test_a_moment_is_read_back(moment_us: int) -> None:
    assert parse_span(f"{moment_text(moment_us)}..2200-01-01", now_us=NOW_US).start_us == moment_us
