"""The circuit breaker and the budget, whose clock is the test's."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.routing.document.bucket import BUCKETS
from gateway.routing.document.safeguard import Breaker
from gateway.serving.breaker import MOVES, Admittance, BreakerEvent, BreakerState, CircuitBreaker, IllegalBreakerMove
from gateway.serving.budget import SLOT_NS, SLOTS, Budget

MS = 1_000_000
SETTINGS = Breaker(consecutive=3, window_ms=1000, open_ms=500)


def tripped(at_ms: int = 0) -> CircuitBreaker:
    breaker = CircuitBreaker()
    for _ in range(SETTINGS.consecutive):
        breaker.failed(SETTINGS, at_ms * MS, probe=False)
    return breaker


def test_it_opens_at_the_last_of_so_many_failures_in_a_row() -> None:
    breaker = CircuitBreaker()
    assert [breaker.failed(SETTINGS, at * MS, probe=False) for at in (0, 400, 900)] == [False, False, True]
    assert breaker.admit(SETTINGS, 900 * MS) is Admittance.REFUSE


def test_a_success_between_failures_starts_the_count_again() -> None:
    breaker = CircuitBreaker()
    for failed in (True, True, False, True, True):
        if failed:
            assert not breaker.failed(SETTINGS, 0, probe=False)
        else:
            assert not breaker.succeeded(probe=False)
    assert breaker.admit(SETTINGS, 0) is Admittance.PASS


def test_failures_that_are_far_apart_do_not_open_it() -> None:
    breaker = CircuitBreaker()
    assert not any(breaker.failed(SETTINGS, at * MS, probe=False) for at in range(0, 10_000, 501))
    assert breaker.failed(SETTINGS, 10_020 * MS, probe=False) is False
    assert breaker.failed(SETTINGS, 10_021 * MS, probe=False) is True


def test_after_its_time_one_call_is_let_through_and_decides() -> None:
    breaker = tripped()
    assert breaker.admit(SETTINGS, 499 * MS) is Admittance.REFUSE
    assert breaker.state(SETTINGS, 500 * MS) is BreakerState.HALF_OPEN
    assert [breaker.admit(SETTINGS, 500 * MS) for _ in range(3)] == [
        Admittance.PROBE,
        Admittance.REFUSE,
        Admittance.REFUSE,
    ]
    assert breaker.failed(SETTINGS, 600 * MS, probe=True)
    assert breaker.admit(SETTINGS, 1099 * MS) is Admittance.REFUSE
    assert breaker.admit(SETTINGS, 1100 * MS) is Admittance.PROBE
    assert breaker.succeeded(probe=True)
    assert [breaker.admit(SETTINGS, 1100 * MS) for _ in range(2)] == [Admittance.PASS, Admittance.PASS]


def test_a_probe_that_says_nothing_gives_its_place_to_the_next_call() -> None:
    breaker = tripped()
    assert breaker.admit(SETTINGS, 500 * MS) is Admittance.PROBE
    breaker.abandoned(probe=True)
    assert breaker.admit(SETTINGS, 500 * MS) is Admittance.PROBE


def test_late_outcomes_of_calls_from_before_change_nothing() -> None:
    breaker = tripped()
    breaker.succeeded(probe=False)
    breaker.abandoned(probe=False)
    assert not breaker.failed(SETTINGS, 400 * MS, probe=False)
    assert breaker.admit(SETTINGS, 500 * MS) is Admittance.PROBE  # the late failure did not put it off
    breaker.succeeded(probe=False)
    assert breaker.state(SETTINGS, 500 * MS) is BreakerState.PROBING


def test_changed_settings_hold_at_once() -> None:
    breaker = tripped()
    assert breaker.admit(Breaker(consecutive=3, window_ms=1000, open_ms=10), 10 * MS) is Admittance.PROBE
    fresh = CircuitBreaker()
    assert not fresh.failed(SETTINGS, 0, probe=False)
    assert fresh.failed(Breaker(consecutive=2, window_ms=1000, open_ms=10), 0, probe=False)


def test_every_state_is_reached_and_left() -> None:
    assert {state for state, _ in MOVES} == set(BreakerState) == set(MOVES.values())
    assert {event for _, event in MOVES} == set(BreakerEvent)


def test_an_outcome_without_a_probe_is_a_fault() -> None:
    with pytest.raises(IllegalBreakerMove):
        CircuitBreaker().succeeded(probe=True)


class AnyHistory(RuleBasedStateMachine):
    """Calls begin and end in any order, and time passes; the rules of the breaker hold all the while."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker = CircuitBreaker()
        self.now_ns = 0
        self.running: list[bool] = []  # whether each is a probe
        self.in_a_row = 0
        self.opened_ns: int | None = None

    @rule(ms=st.integers(1, 700))
    def time_passes(self, ms: int) -> None:
        self.now_ns += ms * MS

    @rule()
    def call(self) -> None:
        before = self.breaker.state(SETTINGS, self.now_ns)
        admittance = self.breaker.admit(SETTINGS, self.now_ns)
        expected = {BreakerState.CLOSED: Admittance.PASS, BreakerState.HALF_OPEN: Admittance.PROBE}.get(
            before, Admittance.REFUSE
        )
        assert admittance is expected
        if admittance is Admittance.REFUSE and self.opened_ns is not None and True not in self.running:
            assert self.now_ns - self.opened_ns < SETTINGS.open_ms * MS
        if admittance is not Admittance.REFUSE:
            self.running.append(admittance is Admittance.PROBE)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), how=st.sampled_from(["succeeded", "failed", "abandoned"]))
    def end(self, data: st.DataObject, how: str) -> None:
        probe = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        before = self.breaker.state(SETTINGS, self.now_ns)
        counts = before is BreakerState.CLOSED
        if how == "failed":
            self.in_a_row += counts
            if self.breaker.failed(SETTINGS, self.now_ns, probe=probe):
                assert probe or self.in_a_row >= SETTINGS.consecutive
                self.opened_ns, self.in_a_row = self.now_ns, 0
        elif how == "succeeded":
            self.in_a_row = 0 if counts or probe else self.in_a_row
            assert self.breaker.succeeded(probe=probe) == probe
        else:
            self.breaker.abandoned(probe=probe)
        if not probe and before is not BreakerState.CLOSED:
            assert self.breaker.state(SETTINGS, self.now_ns) is before

    @invariant()
    def there_is_at_most_one_probe(self) -> None:
        assert self.running.count(True) <= 1
        assert (True in self.running) == (self.breaker.state(SETTINGS, self.now_ns) is BreakerState.PROBING)


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


# ---- the budget ----


def test_a_share_of_the_requests_of_the_window_may_fall_back() -> None:
    budget = Budget()
    fallen = 0
    for _ in range(1000):
        budget.request(0)
        if budget.allows(BUCKETS // 10, 0, 0):
            budget.charge(0, 0)
            fallen += 1
    assert fallen == 100


def test_one_request_of_the_window_may_always_fall_back_unless_none_may() -> None:
    budget = Budget()
    budget.request(0)
    assert not budget.allows(0, 0, 0)
    assert budget.allows(1, 0, 0)
    budget.charge(0, 0)
    budget.request(0)
    assert not budget.allows(1, 0, 0)
    assert not budget.allows(1, (SLOTS - 1) * SLOT_NS, (SLOTS - 1) * SLOT_NS)
    assert budget.allows(1, SLOTS * SLOT_NS, SLOTS * SLOT_NS)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 4 * SLOT_NS), st.booleans()), max_size=60),
    st.integers(0, BUCKETS),
)
@example([], 0)
@example([(0, True)], BUCKETS)
@example([(0, True)] * 60, 1)
def test_the_budget_knows_exactly_what_is_in_its_window(steps: list[tuple[int, bool]], share: int) -> None:
    """Against a list of all times: the slots of the window count, and nothing before them."""
    budget = Budget()
    requests: list[int] = []
    fallen: list[int] = []
    now_ns = 0
    for passed_ns, wants in steps:
        now_ns += passed_ns
        budget.request(now_ns)
        requests.append(now_ns // SLOT_NS)
        if not wants:
            continue
        oldest = now_ns // SLOT_NS - SLOTS + 1
        before = sum(slot >= oldest for slot in fallen)
        asked = sum(slot >= oldest for slot in requests)
        expected = share > 0 and (before == 0 or (before + 1) * BUCKETS <= asked * share)
        assert budget.allows(share, now_ns, now_ns) == expected
        if expected:
            budget.charge(now_ns, now_ns)
            fallen.append(now_ns // SLOT_NS)


@given(st.integers(1, BUCKETS), st.integers(1, 300))
@settings(max_examples=50, deadline=None)
@example(1, 1)
@example(BUCKETS, 1)
def test_no_more_than_the_share_ever_falls_back(share: int, count: int) -> None:
    budget = Budget()
    fallen = 0
    for request in range(count):
        budget.request(request * MS)
        if budget.allows(share, request * MS, request * MS):
            budget.charge(request * MS, request * MS)
            fallen += 1
    assert fallen <= max(1, count * share // BUCKETS)
