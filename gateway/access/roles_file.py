"""The roles file: who holds which roles on which models, what tenants own, and what claims of a JWT mean.

A YAML document of four mappings, each of which may be left out:
  identities: NAME: {tenant: T, by: [certificate, jwt, token], grants: [{role: infer, models: ["fraud*"]}]}
  groups:     NAME: {grants: [...]}; held by whoever's JWT names the group
  tenants:    NAME: {models: ["acme-*"]}; no grant of a member reaches further
  jwt:        {name: sub, tenant: tenant, groups: groups}; the claims that hold these
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from gateway.access.principal import Grant, Method, Role, check_pattern
from gateway.errors import InvalidArgument
from gateway.routing.document.field import Field
from gateway.routing.document.notation import read_yaml

LIMIT_BYTES: Final = 4 << 20
_MANY: Final = 10_000
_GRANTS: Final = 100
_PATTERNS: Final = 1000
_NAME_LIMIT: Final = 256
_TENANT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_METHODS: Final[tuple[Method, ...]] = ("certificate", "jwt", "token")
ALL: Final = ("*",)


@dataclass(frozen=True, slots=True)
class KnownIdentity:
    """What the file says of one name; `by` are the ways in which it may be proven."""

    grants: tuple[Grant, ...]
    tenant: str = ""
    by: tuple[Method, ...] = _METHODS


@dataclass(frozen=True, slots=True)
class ClaimNames:
    """The claims of a JWT that hold name, tenant and groups."""

    name: str = "sub"
    tenant: str = "tenant"
    groups: str = "groups"


@dataclass(frozen=True, slots=True)
class Roles:
    """The content of the file. Without one (`everyone`) whoever shows a certificate that is trusted may do all."""

    identities: Mapping[str, KnownIdentity] = field(default_factory=dict)
    groups: Mapping[str, tuple[Grant, ...]] = field(default_factory=dict)
    tenants: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    claims: ClaimNames = ClaimNames()
    everyone: bool = False

    def identity(self, name: str, method: Method) -> KnownIdentity | None:
        """Returns what is known of a name that is proven so, None if nothing is."""
        known = self.identities.get(name)
        return known if known is not None and method in known.by else None

    def within(self, tenant: str) -> tuple[str, ...]:
        """Returns the models that a caller of this tenant may reach at all; none for a tenant that is not listed.

        Where no tenants are listed, they own nothing and limit nobody.
        """
        return self.tenants.get(tenant, ()) if tenant and self.tenants else ALL

    def grants_of(self, groups: Iterable[str]) -> tuple[Grant, ...]:
        return tuple(grant for group in groups for grant in self.groups.get(group, ()))


EVERYONE: Final = Roles(everyone=True)


def parse_roles(text: str) -> Roles:
    """Returns the content of a roles file. Raises: InvalidArgument naming the field, the value and what is allowed."""
    documents = read_yaml(text)
    if len(documents) > 1:
        raise InvalidArgument(f"{len(documents)} documents, a roles file is one")
    whole = Field(documents[0] if documents else {}, "").section("identities", "groups", "tenants", "jwt")
    identities, groups = whole.field("identities"), whole.field("groups")
    tenants, claims = whole.field("tenants"), whole.field("jwt")
    owned = {name: _tenant(name, entry) for name, entry in tenants.entries(_MANY, what="tenants")} if tenants else {}
    return Roles(
        {_name(name, entry): _identity(entry, owned) for name, entry in identities.entries(_MANY, what="identities")}
        if identities
        else {},
        {_name(name, entry): _group(entry) for name, entry in groups.entries(_MANY, what="groups")} if groups else {},
        owned,
        _claims(claims) if claims else ClaimNames(),
    )


def _name(name: str, entry: Field) -> str:
    if not name or len(name) > _NAME_LIMIT or not name.isprintable():
        raise entry.fail(f"a name has 1 to {_NAME_LIMIT} printable characters")
    return name


def _identity(entry: Field, tenants: Mapping[str, object]) -> KnownIdentity:
    section = entry.section("grants", "tenant", "by")
    tenant, by, grants = section.field("tenant"), section.field("by"), section.field("grants")
    named = tenant.name(_TENANT) if tenant else ""
    if tenant and tenants and named not in tenants:
        raise tenant.refuse(f"a tenant of this file ({', '.join(sorted(tenants))})")
    methods = tuple(item.choice(*_METHODS) for item in by.items(len(_METHODS), what="proofs")) if by else _METHODS
    return KnownIdentity(_grants(grants) if grants else (), named, methods)


def _group(entry: Field) -> tuple[Grant, ...]:
    return _grants(entry.section("grants").required("grants"))


def _grants(listed: Field) -> tuple[Grant, ...]:
    grants = []
    for item in listed.items(_GRANTS, what="grants"):
        section = item.section("role", "models")
        models = section.field("models")
        role = section.required("role").choice(*Role)
        grants.append(Grant(role, _patterns(models) if models else ALL))
    return tuple(grants)


def _tenant(name: str, entry: Field) -> tuple[str, ...]:
    if _TENANT.fullmatch(name) is None:
        raise entry.fail(f"a tenant's name has the form {_TENANT.pattern}")
    return _patterns(entry.section("models").required("models"))


def _patterns(listed: Field) -> tuple[str, ...]:
    patterns = []
    for item in listed.items(_PATTERNS, what="patterns"):
        try:
            patterns.append(check_pattern(item.text(limit=128)))
        except InvalidArgument as error:
            raise InvalidArgument(str(error) if str(error).startswith(item.path) else f"{item.path}: {error}") from None
    if not patterns:
        raise listed.fail("no pattern: leave it out for all models")
    return tuple(patterns)


def _claims(entry: Field) -> ClaimNames:
    section = entry.section("name", "tenant", "groups")
    given = {name: value.text(limit=128) for name in ("name", "tenant", "groups") if (value := section.field(name))}
    return ClaimNames(**given)
