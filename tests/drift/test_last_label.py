"""Which of several labels of a row holds: that of the latest label time, then the one received last."""

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.drift.report.lake_reader import Lake
from gateway.drift.report.lake_selection import Selection
from gateway.drift.report.span import Span
from gateway.records.lake import parquet
from gateway.records.lake.label_table import label_tables
from gateway.records.worker.label import Label
from gateway.records.worker.segment import Segment

T_US = 1_800_000_000_000_000
SEGMENT = Segment("gw", "w0.feedback", "ab" * 16, 0)
SAID = st.one_of(
    st.tuples(st.just("number"), st.sampled_from([0.0, 1.0, 2.5])),
    st.tuples(st.just("text"), st.sampled_from(["cat", "dog"])),
    st.just(("", None)),
)
FACTS = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 3), SAID, st.sampled_from([None, 0.0, -1.0])),
    max_size=12,
)


def said(kind: str, value: Any) -> dict[str, Any]:
    return {kind: value} if kind else {}


@settings(max_examples=40, deadline=None)
@example(facts=[])
@example(facts=[(0, 0, 0, ("", None), None)])
@example(facts=[(0, 0, 0, ("", None), 0.0)])
@example(facts=[(1, 1, 0, ("text", "cat"), None)] * 9)
@given(facts=FACTS)
def test_the_last_label_and_the_last_reward_hold_each_for_itself(
    tmp_path_factory: pytest.TempPathFactory, facts: list[tuple[int, int, int, tuple[str, Any], float | None]]
) -> None:
    lake_dir = tmp_path_factory.mktemp("lake")
    labels = [
        Label("m", row, 0, T_US + at, T_US + received, reward=reward, **said(kind, value))
        for at, received, row, (kind, value), reward in facts
        if kind or reward is not None
    ]
    for folder, rows in label_tables([(0, labels)], SEGMENT):
        parquet.publish(rows, lake_dir, folder, "labels.parquet")
    last_label: dict[int, Label] = {}
    last_reward: dict[int, Label] = {}
    for label in sorted(labels, key=lambda label: (label.label_us, label.received_us)):  # stable: then by number
        if label.number is not None or label.text is not None:
            last_label[label.request_hash] = label
        if label.reward is not None:
            last_reward[label.request_hash] = label
    expected = {
        row: (
            last_label[row].number if row in last_label else None,
            last_label[row].text if row in last_label else None,
            last_reward[row].reward if row in last_reward else None,
        )
        for row in {label.request_hash for label in labels}
    }
    with Lake(lake_dir) as lake:
        wanted = "SELECT request_hash, label_num, label_text, reward FROM"
        answered = list(lake.query(f"{wanted} labels").rows)
        assert lake.label_count("m") == len(expected)
        # What reports join is there once somebody gave feedback: without any the model has no file of it.
        first = "SELECT request_hash, epoch_us(first_received_ts) FROM last_labels"
        joined = list(lake.query(f"{wanted} last_labels").rows) if expected else []
        received = dict(lake.query(first).rows) if expected else {}
        assert len(lake.labelled(Selection("m", Span(T_US, T_US + 10)), {"label": "l.label_num"})["label"]) == 0
    assert {row: tuple(rest) for row, *rest in answered} == expected
    assert {row: tuple(rest) for row, *rest in joined} == expected
    assert received == {
        row: min(label.received_us for label in labels if label.request_hash == row) for row in expected
    }
