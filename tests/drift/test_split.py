"""Whether an uneven split is found, and an even one is not called uneven."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from gateway.drift.statistics.split import (
    BUCKETS,
    SplitVerdict,
    bucket_feature,
    confirm_split,
    judge_split,
    narrow_counts,
)
from gateway.drift.statistics.verdict import DriftState

OK, WARN, CRIT, LITTLE = DriftState.OK, DriftState.WARN, DriftState.CRIT, DriftState.INSUFFICIENT


def narrow(buckets: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    return narrow_counts(bucket_feature().bins.count(buckets))


def judged(
    requests: int, *, keys: int = 0, lost: float = 0.0, arm: float = 0.1, windows: int = 100
) -> list[DriftState]:
    """States of windows: uniform buckets, or those of so many keys; a share of an arm's requests is lost."""
    rng = np.random.default_rng(requests)
    result = []
    for _ in range(windows):
        buckets = rng.integers(0, BUCKETS, requests)
        if keys:
            buckets = rng.integers(0, BUCKETS, keys)[rng.integers(0, keys, requests)]
        gone = (buckets < arm * BUCKETS) & (rng.uniform(size=requests) < lost)
        result.append(judge_split(narrow(buckets[~gone])).state)
    return result


def test_each_bucket_has_its_place() -> None:
    counts = narrow(np.array([0, 4_999, 5_000, 999_999]))
    assert (counts[0], counts[1], counts[-1]) == (2, 1, 1)
    assert (len(counts), counts.sum()) == (200, 4)


@pytest.mark.parametrize("requests", [2000, 20_000, 200_000])
@pytest.mark.parametrize("keys", [0, 2000])
def test_an_even_split_is_no_alarm_also_where_keys_come_often(requests: int, keys: int) -> None:
    assert sum(state >= WARN for state in judged(requests, keys=keys)) <= 2


@pytest.mark.parametrize("requests", [5000, 50_000])
def test_an_arm_that_loses_its_requests_is_found(requests: int) -> None:
    assert set(judged(requests, lost=1.0)) == {CRIT}
    assert sum(state >= WARN for state in judged(requests, lost=0.5)) >= 95


def test_few_requests_say_nothing() -> None:
    assert set(judged(500, lost=1.0, windows=3)) == {LITTLE}


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ([OK], OK), ([CRIT], LITTLE), ([CRIT, CRIT, CRIT], CRIT), ([WARN, CRIT, CRIT], WARN), ([OK, CRIT, CRIT], OK),
        ([LITTLE, CRIT, CRIT], OK), ([CRIT, CRIT, LITTLE], LITTLE),
    ],
)  # fmt: skip
def test_an_alarm_needs_three_windows(states: Sequence[DriftState], expected: DriftState) -> None:
    assert confirm_split([SplitVerdict(state, 0.1, 0.0, 9000) for state in states], 3).state is expected
