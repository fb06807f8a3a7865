"""The budget of fallbacks over time, whatever passes between a request and its fall."""

from hypothesis import example, given
from hypothesis import strategies as st

from gateway.routing.document.bucket import BUCKETS
from gateway.serving.budget import SLOT_NS, Budget

SECOND = 1_000_000_000
# When each request comes after the one before, and how long it takes until it falls.
REQUESTS = st.lists(st.tuples(st.integers(0, 2 * SECOND), st.integers(0, 25 * SECOND)), min_size=1, max_size=60)


def fallen(requests: list[tuple[int, int]], share: int) -> list[bool]:
    """Which of the requests may fall back, all of which want to, in the order of their falls."""
    budget, begun, now = Budget(), [], 100 * SECOND
    for gap, took in requests:
        now += gap
        begun.append((now, took))
    moments = [(at, 0, at) for at, _ in begun] + [(at + took, 1, at) for at, took in begun]
    may = []
    for at, falls, began in sorted(moments):
        if not falls:
            budget.request(at)
            continue
        may.append(budget.allows(share, began, at))
        if may[-1]:
            budget.charge(began, at)
    return may


@given(requests=REQUESTS)
@example(requests=[(0, SECOND)])
@example(requests=[(SLOT_NS, SLOT_NS)] * 30)  # each falls in the second after its own
@example(requests=[(SLOT_NS, 15 * SECOND)] * 30)  # and when it has left the window
def test_at_all_of_it_no_request_is_refused(requests: list[tuple[int, int]]) -> None:
    assert all(fallen(requests, BUCKETS))


@given(requests=st.lists(st.tuples(st.integers(0, SECOND // 100), st.integers(0, SECOND)), min_size=20, max_size=60))
def test_no_more_than_the_share_falls(requests: list[tuple[int, int]]) -> None:
    assert sum(fallen(requests, BUCKETS // 2)) <= max(1, len(requests) // 2)


def test_nothing_falls_where_nothing_may() -> None:
    assert not any(fallen([(SECOND, 0)] * 20, 0))
