from hypothesis import example, given
from hypothesis import strategies as st

from gateway.backoff import Backoff


@given(st.floats(0.001, 10), st.floats(1, 1000), st.integers(0, 10**6), st.floats(0, 1))
@example(0.25, 15.0, 0, 0.0)
@example(0.25, 15.0, 1, 1.0)
def test_delays_double_to_the_longest_and_at_most_half_is_chance(
    first_s: float, ratio: float, failures: int, draw: float
) -> None:
    backoff = Backoff(first_s, first_s * ratio)
    delay_s = backoff.delay_s(failures, draw)
    whole_s = min(backoff.longest_s, first_s * 2.0 ** min(failures - 1, 100)) if failures else 0.0
    assert whole_s / 2 <= delay_s <= whole_s
    assert backoff.delay_s(failures) == whole_s
