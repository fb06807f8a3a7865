"""Which roles a principal holds on which models."""

import re
from time import process_time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.access.principal import (
    ANONYMOUS,
    EVERY_ROLE,
    INCLUDED,
    NOBODY,
    Grant,
    Principal,
    Role,
    check_pattern,
)
from gateway.api.answer_metadata import seen_steps
from gateway.errors import InvalidArgument

NAMES = st.text("ab.*", min_size=1, max_size=6)


def by_hand(pattern: str, name: str) -> bool:
    """Whether a name matches a pattern, by trying every way to spend the stars."""
    if not pattern:
        return not name
    if pattern[0] == "*":
        return by_hand(pattern[1:], name) or (bool(name) and by_hand(pattern, name[1:]))
    return bool(name) and name[0] == pattern[0] and by_hand(pattern[1:], name[1:])


@given(pattern=NAMES, name=st.text("ab.\n", max_size=6))
@example(pattern="*", name="")
@example(pattern="a.b", name="aab")
@example(pattern="a*", name="a\n")
def test_a_star_stands_for_any_characters_and_nothing_else_for_more_than_itself(pattern: str, name: str) -> None:
    principal = Principal("p", "", "token", (Grant(Role.INFER, (pattern,)),))
    assert (principal.roles_on(name) == {Role.INFER}) is by_hand(pattern, name)


def test_a_name_that_nearly_matches_a_pattern_of_many_stars_costs_no_more() -> None:
    principal = Principal("p", "", "token", (Grant(Role.INFER, ("a*" * 6 + "x",)),))  # backtracking took half a minute
    began_s = process_time()
    assert not principal.roles_on("a" * 128)
    assert process_time() - began_s < 1.0


def test_every_role_includes_itself_and_admin_all() -> None:
    assert set(INCLUDED) == EVERY_ROLE
    assert all(role in included for role, included in INCLUDED.items())
    assert INCLUDED[Role.ADMIN] == EVERY_ROLE
    assert Role.INFER not in INCLUDED[Role.OPERATOR]


def test_a_grant_reaches_no_further_than_the_models_of_its_tenant() -> None:
    principal = Principal("p", "acme", "jwt", (Grant(Role.ADMIN),), within=("acme-*",))
    assert principal.roles_on("acme-fraud") == EVERY_ROLE
    assert principal.roles_on("fraud") == frozenset()
    assert principal.roles_everywhere() == frozenset()
    assert principal.roles() == EVERY_ROLE


def test_anonymous_may_do_everything_and_nobody_nothing() -> None:
    assert ANONYMOUS.roles_everywhere() == ANONYMOUS.roles_on("any") == EVERY_ROLE
    assert NOBODY.roles() == NOBODY.roles_on("any") == frozenset()


def test_of_steps_of_others_neither_version_nor_arm_is_told() -> None:
    """Who asks an ensemble of its own would follow the rollouts of a model that it may not know."""
    ran = "own-scaler:1:,foreign:4:canary,own-inner:2:,own-inner/foreign:3:,own-inner/own-last:7:blue,..."
    own = Principal("p", "", "token", (Grant(Role.INFER, ("own-*",)),))
    assert seen_steps(ran, own) == (
        "own-scaler:1:,foreign::,own-inner:2:,own-inner/foreign::,own-inner/own-last:7:blue,..."
    )
    assert seen_steps(ran, ANONYMOUS) == ran


def test_models_that_are_remembered_are_bounded() -> None:
    principal = Principal("p", "", "token", (Grant(Role.INFER, ("a*",)),))
    for number in range(3000):
        assert principal.roles_on(f"a{number}") == {Role.INFER}
    assert len(principal._roles) <= 1024


@pytest.mark.parametrize("pattern", ["", "a b", "a/b", "fraud?", "ü", "x" * 129, "a\n"])
def test_a_pattern_that_no_name_could_match_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidArgument, match=re.escape("model pattern")):
        check_pattern(pattern)
