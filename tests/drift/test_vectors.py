"""Rows as numbers, for comparisons of whole rows."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.drift.report.vectors import compare_embedding, compare_rows, encode
from gateway.drift.statistics.building import build_embedding, build_feature
from gateway.drift.statistics.column import Column, as_column
from gateway.drift.statistics.domain_classifier import Feature
from gateway.drift.statistics.time_blocks import BlockedRows, cut_blocks
from gateway.drift.statistics.verdict import DriftState


def test_numbers_are_deviations_categories_are_indicators_and_what_is_missing_shows() -> None:
    number = np.arange(100) % 10 * 1.0  # mean 4.5
    town = np.array(["north", "south"] * 50, object)
    code = np.array([3, 7] * 50)
    features = [build_feature(name, name, values) for name, values in (("n", number), ("t", town), ("c", code))]
    before = {"n": as_column("n", number), "t": as_column("t", town), "c": as_column("c", code)}
    now = {
        "n": as_column("n", np.array([4.5, np.nan, 1e9])),
        "t": Column(np.array([0, 1, 0]), np.array([False, False, True]), ("south", "elsewhere")),
        "c": as_column("c", np.array([7, 3, 99])),
    }
    reference, current, named = encode(features, before, now)
    assert [feature.name for feature in named] == ["n", "t", "c"]
    assert reference.shape[1] == current.shape[1] == sum(len(feature.columns) for feature in named)
    assert current[:, named[0].columns[0]].tolist() == [0.0, 0.0, 8.0]  # as far as counts
    assert current[:, named[0].columns[1]].tolist() == [0.0, 1.0, 0.0]
    for feature in named[1:]:
        assert current[:, list(feature.columns)].sum(axis=1).tolist() == [1.0, 1.0, 1.0]
    assert len({tuple(row) for row in current[:, list(named[1].columns)]}) == 3
    assert np.isfinite(reference).all()


def test_a_feature_that_never_varies_has_no_part() -> None:
    same = build_feature("s", "s", np.full(50, 4.5))
    column = {"s": as_column("s", np.full(50, 4.5))}
    assert encode([same], column, column)[2] == ()


def test_few_rows_are_not_compared() -> None:
    few, many = BlockedRows.in_order(np.zeros((99, 1))), BlockedRows.in_order(np.zeros((500, 1)))
    compared = compare_rows("x", few, many, [Feature("x", (0,))], rng=np.random.default_rng(0))
    assert compared.state is DriftState.INSUFFICIENT
    assert "100 of each" in compared.note


def test_rows_of_few_requests_are_not_compared_however_many_they_are() -> None:
    values = np.random.default_rng(0).normal(size=(500, 1))
    requests = BlockedRows.in_order(values, np.arange(500) // 100)
    compared = compare_rows(
        "x", BlockedRows.in_order(values), requests, [Feature("x", (0,))], rng=np.random.default_rng(0)
    )
    assert compared.state is DriftState.INSUFFICIENT
    assert "20 and 5 time blocks, 8 of each" in compared.note


@example([0])
@example([7] * 300)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=300))
def test_blocks_are_in_order_and_rows_of_one_moment_stay_together(compared: list[int]) -> None:
    moments = np.sort(np.array(compared, np.int64))
    blocks = cut_blocks(moments)
    assert blocks[0] == 0
    assert set(np.diff(blocks).tolist()) <= {0, 1}
    assert blocks[-1] < 20
    for moment in np.unique(moments):
        assert len(set(blocks[moments == moment].tolist())) == 1
    alone = cut_blocks(np.arange(len(moments)))
    assert np.ptp(np.bincount(alone)) <= 1
    assert BlockedRows(moments[:, None].astype(float), blocks).count == blocks[-1] + 1


def test_a_draw_keeps_order_and_blocks() -> None:
    rows = BlockedRows.in_order(np.arange(1000.0)[:, None])
    drawn = rows.drawn(100, np.random.default_rng(0))
    assert (np.diff(drawn.values[:, 0]) > 0).all()
    assert drawn.count == 20
    assert (drawn.blocks == drawn.values[:, 0] // 50).all()


def test_a_season_that_the_reference_has_seen_is_no_shift_of_whole_rows() -> None:
    """A hundred days, each with weather of its own; the window is one more day, and then one with another sensor."""
    rng = np.random.default_rng(6)
    days = rng.normal(size=(101, 3)).repeat(200, axis=0) + rng.normal(size=(20_200, 3))
    reference, window = days[:-200], days[-200:].copy()
    named = [Feature(name, (index,)) for index, name in enumerate("abc")]
    one = len(window) / len(reference)

    def state(now: npt.NDArray[np.float64], share: float) -> DriftState:
        return compare_rows(
            "x", BlockedRows.in_order(reference), BlockedRows.in_order(now), named, share=share, rng=rng
        ).state

    assert state(window, 1.0) is DriftState.CRIT
    assert state(window, one) is DriftState.OK
    window[:, 1] += 6.0
    assert state(window, one) is DriftState.CRIT


@pytest.mark.parametrize(("shift", "state"), [(0.0, DriftState.OK), (3.0, DriftState.CRIT)])
def test_an_embedding_is_compared_on_the_components_of_its_profile(shift: float, state: DriftState) -> None:
    rng = np.random.default_rng(1)
    scale = np.linspace(2, 0.1, 40)
    kept = build_embedding("in.text", rng.normal(size=(2000, 40)) * scale)
    vectors = rng.normal(size=(800, 40)) * scale
    vectors[:, 0] += shift
    moments = np.arange(len(vectors))
    assert compare_embedding(kept, vectors, moments, rows=800, rng=rng).state is state
