"""How features are drawn: shares of cells that add up, a bounded number of them."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.drift.online.assessment import DRAWN_CELLS, bars
from gateway.drift.statistics.bins import CategoryBins
from gateway.drift.statistics.reference_profile import FeatureKind, FeatureProfile

CATEGORIES = tuple(f"c{number:02}" for number in range(40))
BINS = CategoryBins(CATEGORIES)
CELLS = len(BINS.cells)
COUNTS = st.lists(st.integers(0, 1000), min_size=CELLS, max_size=CELLS)
FEATURE = FeatureProfile("x", "", FeatureKind.CATEGORY, BINS, (0,) * CELLS, 0, 0, 0, 0, 0, 0)


@given(COUNTS, COUNTS)
@example([0] * CELLS, [0] * CELLS)
@example([1] * CELLS, [1] * CELLS)
@example([0] * CELLS, [5] + [0] * (CELLS - 1))
def test_shares_add_up_to_all_rows(reference: list[int], window: list[int]) -> None:
    drawn = bars(replace(FEATURE, counts=tuple(reference), n=sum(reference)), np.array(window))
    assert len(drawn) <= DRAWN_CELLS + 1
    for side, counts in (("reference", reference), ("window", window)):
        assert sum(getattr(bar, side) for bar in drawn) == pytest.approx(1.0 if any(counts) else 0.0)
    assert all(bar.reference or bar.window for bar in drawn)


def test_the_fullest_cells_are_drawn_in_their_order() -> None:
    window = np.zeros(CELLS)
    window[[3, 1]] = 10, 30
    assert bars(FEATURE, window) == (("c01", 0.0, 0.75), ("c03", 0.0, 0.25))
