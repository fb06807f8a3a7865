"""How places are shared out among those who follow."""

import pytest

from gateway.access.audience import Audience
from gateway.access.principal import ANONYMOUS, Grant, Principal, Role
from gateway.errors import Unavailable

READER = (Grant(Role.READER, ("a*",)),)


def caller(name: str, tenant: str = "") -> Principal:
    return Principal(name, tenant, "token", READER)


def test_one_tenant_takes_half_of_the_places_by_whatever_names() -> None:
    audience = Audience(4, "watch")
    for name in ("a", "b"):
        audience.join(caller(name, "acme"))
    with pytest.raises(Unavailable, match=r"^2 callers of 'acme' watch, 2 of one may$"):
        audience.join(caller("c", "acme"))
    for name in ("ops", "acme-ops"):
        audience.join(caller(name))
    with pytest.raises(Unavailable, match=r"^4 callers watch, the limit is 4$"):
        audience.join(caller("late"))
    audience.leave(caller("b", "acme"))
    audience.join(caller("late"))
    assert len(audience) == 4


def test_a_tenant_and_a_caller_of_the_same_name_are_two() -> None:
    audience = Audience(4, "watch")
    for who in (caller("x", "alice"), caller("y", "alice"), caller("alice"), caller("alice")):
        audience.join(who)
    audience.leave(caller("x", "alice"))
    with pytest.raises(Unavailable, match=r"^2 callers of 'alice' watch, 2 of one may$"):
        audience.join(caller("alice"))
    audience.join(caller("z", "alice"))


def test_where_nobody_proves_who_it_is_all_places_are_everybodys() -> None:
    audience = Audience(3, "watch")
    for _ in range(3):
        audience.join(ANONYMOUS)
    with pytest.raises(Unavailable):
        audience.join(ANONYMOUS)
    for _ in range(3):
        audience.leave(ANONYMOUS)
    assert not len(audience)
