"""How many calls are on their way to a version."""

from time import monotonic_ns

from hypothesis import example, given
from hypothesis import strategies as st

from gateway.serving.arrivals import Arrivals

SECOND = 1_000_000_000


@given(st.lists(st.booleans(), max_size=50))
@example([])
@example([True])
@example([False])
def test_those_that_have_ended_are_not_counted_whatever_their_order(ended: list[bool]) -> None:
    arrivals = Arrivals()
    begun = [arrivals.begin(waits=False) for _ in ended]
    for arrival, is_over in zip(begun, ended, strict=True):
        if is_over:
            arrival.end()
            arrival.end()
    assert arrivals.count(monotonic_ns()) == ended.count(False)


def test_who_takes_long_to_send_is_not_waited_for() -> None:
    arrivals = Arrivals()
    arrival = arrivals.begin(waits=True)
    assert arrivals.count(arrival.begun_ns + SECOND) == 1
    assert arrivals.count(arrival.begun_ns + SECOND + 1) == 0
