"""The interval table: every bucket once, the least movement, and the way back."""

import json
import random
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.errors import InvalidArgument
from gateway.routing.decision.interval_table import Interval, Table, moved, rebalance
from gateway.routing.document.bucket import BUCKETS
from tests.routing.documents import weights

ARMS = ["a", "b", "c", "d"]
VECTORS = json.loads(Path(__file__).with_name("golden_tables.json").read_text("utf-8"))


def owners(table: Table) -> dict[str, list[tuple[int, int]]]:
    """The buckets of each arm, as ranges that touch nowhere."""
    ranges: dict[str, list[tuple[int, int]]] = {}
    for interval in table.intervals:
        mine = ranges.setdefault(interval.arm, [])
        if mine and mine[-1][1] == interval.start:
            mine[-1] = (mine[-1][0], interval.end)
        else:
            mine.append((interval.start, interval.end))
    return ranges


def pair(percent: int) -> dict[str, int]:
    return {"stable": BUCKETS - percent * 10_000, "canary": percent * 10_000}


@settings(max_examples=60, deadline=None)
@given(st.lists(weights(ARMS), min_size=2, max_size=8))
def test_each_change_reaches_its_weights_by_the_least_movement(path: list[dict[str, int]]) -> None:
    table = rebalance(None, path[0])
    for wanted in path[1:]:
        held = table.weights()
        new = rebalance(table, wanted)
        assert new.weights() == {arm: size for arm, size in wanted.items() if size}
        assert moved(table, new) == sum(max(0, wanted[arm] - held.get(arm, 0)) for arm in wanted)
        assert moved(table, new) == moved(new, table)
        table = new


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 100), min_size=2, max_size=20))
@example([0, 0])
@example([100] * 20)
@example([0, 100])
def test_with_two_arms_a_weight_is_always_the_same_set(path: list[int]) -> None:
    table = rebalance(None, pair(10))
    seen: dict[int, dict[str, list[tuple[int, int]]]] = {}
    for percent in path:
        table = rebalance(table, pair(percent))
        assert seen.setdefault(percent, owners(table)) == owners(table)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 30_000), min_size=3, max_size=3), min_size=2, max_size=6),
)
def test_arms_that_grow_out_of_one_come_back_the_same(growth: list[list[int]]) -> None:
    path: list[dict[str, int]] = []
    sizes = [0, 0, 0]
    for more in growth:
        sizes = [size + plus for size, plus in zip(sizes, more, strict=True)]
        path.append({"a": BUCKETS - sum(sizes), "b": sizes[0], "c": sizes[1], "d": sizes[2]})
    table = rebalance(None, path[0])
    there = [owners(table)]
    for wanted in path[1:]:
        table = rebalance(table, wanted)
        there.append(owners(table))
    for back in range(len(path) - 2, -1, -1):
        table = rebalance(table, path[back])
        assert owners(table) == there[back]
    for again in range(1, len(path)):
        table = rebalance(table, path[again])
        assert owners(table) == there[again]


def test_a_ramp_up_down_up_returns_the_same_users() -> None:
    table = rebalance(None, pair(1))
    first: dict[int, dict[str, list[tuple[int, int]]]] = {1: owners(table)}
    for percent in (5, 25, 50, 25, 5, 25, 50, 1, 50):
        table = rebalance(table, pair(percent))
        assert first.setdefault(percent, owners(table)) == owners(table)


@given(weights(ARMS), weights(ARMS), st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_the_order_of_the_weights_does_not_matter(
    first: dict[str, int], second: dict[str, int], order: random.Random
) -> None:
    shuffled = list(second.items())
    order.shuffle(shuffled)
    table = rebalance(None, first)
    assert rebalance(table, second) == rebalance(table, dict(shuffled))
    assert rebalance(None, second) == rebalance(None, dict(shuffled))


@given(weights(ARMS), weights(ARMS))
@settings(max_examples=40, deadline=None)
def test_a_table_survives_its_text_form(first: dict[str, int], second: dict[str, int]) -> None:
    table = rebalance(rebalance(None, first), second)
    assert Table.from_value(json.loads(json.dumps(table.to_value()))) == table


def test_intervals_stay_few_under_many_changes() -> None:
    draws = random.Random(5)
    table = rebalance(None, dict.fromkeys(ARMS, BUCKETS // 4))
    for _ in range(500):
        cuts = sorted(draws.sample(range(1, BUCKETS), 3))
        sizes = {arm: b - a for arm, a, b in zip(ARMS, [0, *cuts], [*cuts, BUCKETS], strict=True)}
        table = rebalance(table, sizes)
        assert len(table.intervals) <= 65
        assert max(interval.generation for interval in table.intervals) < 2 * 65


def test_no_change_is_no_change() -> None:
    table = rebalance(rebalance(None, pair(5)), pair(25))
    assert rebalance(table, pair(25)) is table


def test_an_arm_that_leaves_gives_all_to_the_one_that_comes() -> None:
    table = rebalance(None, {"a": 600_000, "b": 400_000})
    new = rebalance(table, {"a": 600_000, "c": 400_000})
    assert owners(new) == {"a": owners(table)["a"], "c": owners(table)["b"]}


def test_renaming_moves_no_boundary() -> None:
    table = rebalance(rebalance(None, pair(5)), pair(25))
    renamed = table.renamed({"stable": "a", "canary": "b"})
    assert [(i.start, i.end) for i in renamed.intervals] == [(i.start, i.end) for i in table.intervals]
    assert renamed.weights() == {"a": 750_000, "b": 250_000}


@given(st.integers(0, BUCKETS - 1), weights(ARMS))
@settings(max_examples=40, deadline=None)
def test_lookup_finds_the_interval_that_holds_the_bucket(bucket: int, wanted: dict[str, int]) -> None:
    table = rebalance(None, wanted)
    [arm] = [i.arm for i in table.intervals if i.start <= bucket < i.end]
    assert table.arm_of(bucket) == arm


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: str(vector["name"]))
def test_golden_tables(vector: dict[str, object]) -> None:
    steps = vector["steps"]
    assert isinstance(steps, list)
    table: Table | None = None
    for step in steps:
        table = rebalance(table, step["weights"])
        assert table.to_value() == step["table"]


@pytest.mark.parametrize(
    "wanted", [{}, {"a": 0}, {"a": BUCKETS - 1}, {"a": BUCKETS + 1, "b": -1}, {"a": BUCKETS, "b": 1}]
)
def test_weights_that_do_not_add_up_are_refused(wanted: dict[str, int]) -> None:
    with pytest.raises(InvalidArgument, match="weights"):
        rebalance(rebalance(None, {"a": BUCKETS}), wanted)


@pytest.mark.parametrize(
    "value",
    [
        None,
        "table",
        {},
        [],
        [[0, BUCKETS, "a"]],
        [[0, BUCKETS, "a", 0, 0]],
        [[0, BUCKETS, 1, 0]],
        [[False, BUCKETS, "a", 0]],
        [[0, BUCKETS, "a", -1]],
        [[0, BUCKETS - 1, "a", 0]],
        [[0, BUCKETS + 1, "a", 0]],
        [[1, BUCKETS, "a", 0]],
        [[0, 5, "a", 0], [4, BUCKETS, "b", 1]],
        [[0, 5, "a", 0], [6, BUCKETS, "b", 1]],
        [[0, 0, "a", 0], [0, BUCKETS, "b", 1]],
        [[0, 5, "a", 0], [5, BUCKETS, "b", 0]],
        [[0, float(BUCKETS), "a", 0]],
    ],
)
def test_text_forms_that_are_no_table_are_refused(value: object) -> None:
    with pytest.raises(InvalidArgument, match="table"):
        Table.from_value(value)


def test_a_table_with_a_hole_cannot_be_made() -> None:
    with pytest.raises(InvalidArgument, match="end at 10, not at 1000000"):
        Table((Interval(0, 10, "a", 0),))
