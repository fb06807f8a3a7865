"""Rows as numbers, for comparisons of whole rows."""

import numpy as np
import pytest

from gateway.drift.building import build_embedding, build_feature
from gateway.drift.column import Column, as_column
from gateway.drift.domain_classifier import Feature
from gateway.drift.vectors import compare_embedding, compare_rows, encode
from gateway.drift.verdict import State


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
    found = compare_rows("x", np.zeros((99, 1)), np.zeros((500, 1)), [Feature("x", (0,))], rng=np.random.default_rng(0))
    assert found.state is State.INSUFFICIENT
    assert "100 of each" in found.note


@pytest.mark.parametrize(("shift", "state"), [(0.0, State.OK), (3.0, State.CRIT)])
def test_an_embedding_is_compared_on_the_components_of_its_profile(shift: float, state: State) -> None:
    rng = np.random.default_rng(1)
    scale = np.linspace(2, 0.1, 40)
    kept = build_embedding("in.text", rng.normal(size=(2000, 40)) * scale)
    vectors = rng.normal(size=(800, 40)) * scale
    vectors[:, 0] += shift
    assert compare_embedding(kept, vectors, rng=rng).state is state
