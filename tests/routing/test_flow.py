"""Who moves between two routes, counted over every bucket."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.routing.decision.flow import flows, moved, reversioned
from gateway.routing.decision.interval_table import moved as moved_buckets
from gateway.routing.decision.simulate import simulate_buckets, simulate_keys
from gateway.routing.decision.snapshot import propose
from gateway.routing.document.bucket import BUCKETS
from gateway.routing.document.difference import differences
from tests.api.routes import ab, blue_green, canary, pinned

SHARES = st.integers(0, 100)


@given(st.lists(SHARES, min_size=2, max_size=6))
@settings(max_examples=50, deadline=None)
def test_every_bucket_is_in_one_flow_and_the_least_moves(shares: list[int]) -> None:
    active = propose(ab(100 - shares[0], shares[0]), None)
    for share in shares[1:]:
        following = propose(ab(100 - share, share), active)
        result = flows(active, following)
        assert sum(flow.size for flow in result) == BUCKETS
        assert moved(result) == reversioned(result) == moved_buckets(active.table, following.table)
        active = following


@pytest.mark.parametrize(("newest", "moving"), [("1", 250_000), ("2", 750_000), ("9", BUCKETS), ("", BUCKETS)])
def test_without_a_route_those_move_who_had_another_version(newest: str, moving: int) -> None:
    routed = propose(ab(75, 25), None)
    result = flows(None, routed, newest)
    assert [(flow.from_arm, flow.to_arm, flow.size) for flow in result] == [("", "a", 750_000), ("", "b", 250_000)]
    assert {flow.from_version for flow in result} == {newest}
    assert (moved(result), reversioned(result)) == (moving, moving)
    back = flows(routed, None, newest)
    assert {(flow.from_arm, flow.to_version) for flow in back} == {("a", newest), ("b", newest)}
    assert (moved(back), reversioned(back)) == (moving, moving)
    simulation = simulate_keys(None, routed.document, map(str, range(1000)), newest=newest)
    assert simulation.moved == sum(flow.size for flow in simulation.flows if flow.to_version != newest)


@given(SHARES, SHARES)
@settings(max_examples=25, deadline=None)
def test_a_simulation_of_every_bucket_is_the_plan(before: int, after: int) -> None:
    active, draft = propose(ab(100 - before, before), None), ab(100 - after, after)
    sampled = range(0, BUCKETS, 1000)
    result = simulate_buckets(active, draft, sampled, 0)
    assert result.counted == 1000
    assert result.moved * 1000 == moved(flows(active, propose(draft, active)))


def test_another_salt_deals_the_keys_anew() -> None:
    keys = [f"user-{number}" for number in range(2000)]
    same = {"from": ["id"], "salt": "one"}
    active = propose(ab(50, 50, key=same), None)
    assert simulate_keys(active, ab(50, 50, key=same), keys).moved == 0
    anew = simulate_keys(active, ab(50, 50, key=same | {"salt": "two"}), keys).moved
    assert 0.45 < anew / 2000 < 0.55


def test_equal_documents_do_not_differ_and_others_do() -> None:
    documents = [ab(), ab(60, 40), canary(), canary(step=1), blue_green(), pinned()]
    for first in documents:
        for second in documents:
            assert bool(differences(first, second)) is (first != second)
    assert differences(None, None) == ()
    assert {one.after for one in differences(ab(), None)} == {""}
