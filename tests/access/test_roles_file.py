"""The roles file: what it means, and that a mistake in it is named."""

import pytest

from gateway.access.principal import Grant, Role
from gateway.access.roles_file import ALL, EVERYONE, ClaimNames, parse_roles
from gateway.errors import InvalidArgument

WHOLE = """
identities:
  spiffe://prod/checkout:
    tenant: acme
    by: [certificate]
    grants: [{role: infer, models: ["fraud*"]}]
  alice@example.org: {grants: [{role: approver}]}
groups:
  ml: {grants: [{role: operator, models: [risk]}]}
tenants:
  acme: {models: ["fraud*", "acme-*"]}
jwt: {name: email, groups: roles}
"""


def test_the_whole_of_it() -> None:
    roles = parse_roles(WHOLE)
    known = roles.identity("spiffe://prod/checkout", "certificate")
    assert known is not None
    assert (known.tenant, known.grants) == ("acme", (Grant(Role.INFER, ("fraud*",)),))
    assert roles.identity("spiffe://prod/checkout", "jwt") is None
    assert roles.identity("alice@example.org", "jwt") == roles.identity("alice@example.org", "token") is not None
    assert roles.grants_of(["none", "ml"]) == (Grant(Role.OPERATOR, ("risk",)),)
    assert roles.claims == ClaimNames("email", "tenant", "roles")


def test_a_tenant_that_is_not_listed_reaches_nothing() -> None:
    roles = parse_roles(WHOLE)
    assert roles.within("acme") == ("fraud*", "acme-*")
    assert roles.within("other") == ()
    assert roles.within("") == ALL
    assert parse_roles("").within("other") == EVERYONE.within("other") == ALL


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("users: {}", "users: unknown field"),
        ("identities: [a]", "identities: a list is not a mapping"),
        ("identities: {a: {grants: [{role: root}]}}", "identities.a.grants[0].role: 'root' is not one of infer"),
        ("identities: {a: {grants: [{models: [x]}]}}", "identities.a.grants[0].role: required"),
        ("identities: {a: {grants: [{role: infer, models: []}]}}", "identities.a.grants[0].models: no pattern"),
        ("identities: {a: {grants: [{role: infer, models: ['a/b']}]}}", "models[0]: model pattern 'a/b'"),
        ("identities: {a: {by: [password]}}", "identities.a.by[0]: 'password' is not one of"),
        ("identities: {a: {tenant: x}}\ntenants: {y: {models: ['*']}}", "identities.a.tenant: 'x' is not a tenant"),
        ("groups: {g: {}}", "groups.g.grants: required"),
        ("tenants: {t: {}}", "tenants.t.models: required"),
        ("tenants: {'a b': {models: ['*']}}", "a tenant's name has the form"),
        ("jwt: {name: ''}", "jwt.name: empty text"),
        ("identities: {a: {grants: []}}\nidentities: {}", "given twice"),
        ("a: &x 1", "anchors and aliases are not allowed"),
        ("--- {}\n--- {groups: {}}", "2 documents"),
        ("identities: {a", "document: line"),
    ],
)
def test_a_mistake_is_named(text: str, said: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse_roles(text)
    assert said in str(caught.value)
