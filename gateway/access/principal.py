"""Who calls: a proven name, and the roles that it holds on models."""

import re
from collections.abc import Hashable, Iterable, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final, Literal, NamedTuple

from gateway.access.denials import Denials, Reason
from gateway.errors import InvalidArgument, PermissionDenied, UnknownModel

Method = Literal["anonymous", "certificate", "jwt", "token"]
_REMEMBERED: Final = 1024  # models whose roles a principal keeps; callers choose the names
_PATTERN: Final = re.compile(r"[A-Za-z0-9._*-]{1,128}", re.ASCII)


class Role(StrEnum):
    """What a caller may do; docs/security.md has the table."""

    INFER = "infer"
    READER = "reader"
    OPERATOR = "operator"
    APPROVER = "approver"
    ADMIN = "admin"


EVERY_ROLE: Final = frozenset(Role)
INCLUDED: Final[Mapping[Role, frozenset[Role]]] = MappingProxyType(
    {
        Role.INFER: frozenset({Role.INFER}),
        Role.READER: frozenset({Role.READER}),
        # Who changes routes, or approves changes, has to see them.
        Role.OPERATOR: frozenset({Role.OPERATOR, Role.READER}),
        Role.APPROVER: frozenset({Role.APPROVER, Role.READER}),
        Role.ADMIN: EVERY_ROLE,
    }
)
_NONE: Final[frozenset[Role]] = frozenset()


class Grant(NamedTuple):
    """One role on the models whose names match one of the patterns; `*` in a pattern stands for any characters."""

    role: Role
    models: tuple[str, ...] = ("*",)


def check_pattern(pattern: str) -> str:
    """Returns the pattern. Raises: InvalidArgument if no model's name could match it."""
    if _PATTERN.fullmatch(pattern) is None:
        raise InvalidArgument(
            f"model pattern {pattern[:128]!r}, allowed: 1 to 128 of A-Z a-z 0-9 . _ -, and * for any characters"
        )
    return pattern


class Principal:
    """One caller, as it is proven; never changed once it is made.

    `within` are the models of its tenant: a grant reaches no further. Units: `expires_s` on the wall clock, 0: never.
    """

    __slots__ = ("_denials", "_roles", "_scopes", "expires_s", "grants", "method", "name", "tenant", "within")

    def __init__(
        self,
        name: str,
        tenant: str,
        method: Method,
        grants: tuple[Grant, ...] = (),
        expires_s: float = 0.0,
        within: tuple[str, ...] = ("*",),
        denials: Denials | None = None,
    ) -> None:
        self.name = name
        self.tenant = tenant
        self.method = method
        self.grants = grants
        self.expires_s = expires_s
        self.within = within
        self._denials = denials
        self._scopes = [(INCLUDED[grant.role], _matcher(grant.models)) for grant in grants]
        self._roles: dict[str, frozenset[Role]] = {}

    def roles_on(self, model: str) -> frozenset[Role]:
        """Returns the roles that the caller holds on a model, whether there is such a model or not."""
        roles = self._roles.get(model)
        if roles is None:
            if len(self._roles) >= _REMEMBERED:
                self._roles.clear()
            roles = self._roles[model] = self._match(model)
        return roles

    def holds_what(self, other: "Principal") -> bool:
        """Returns whether it is the same caller as the other one, with the same rights."""
        return self is other or self.rights == other.rights

    @property
    def rights(self) -> tuple[Hashable, ...]:
        """The caller and all that it may do, as one value."""
        return self.method, self.tenant, self.name, self.grants, self.within

    def check(self, roles: frozenset[Role], model: str) -> None:
        """Checks that the caller holds one of the roles on the model.

        Raises: UnknownModel where the caller holds none at all, whether there is such a model or not: whose model it is
                is nobody's business; PermissionDenied where it holds others.
        """
        held = self.roles_on(model)
        if not held.isdisjoint(roles):
            return
        if self._denials is not None:
            self._denials.note(Reason.MODEL, self.name, f"model {model[:64]!a}")
        if not held:
            raise UnknownModel(model)
        raise PermissionDenied(
            f"model {model!r}: this needs the role {or_words(roles)}; {self.name!r} holds {or_words(held)} on it"
        )

    def roles(self) -> frozenset[Role]:
        """Returns the roles that the caller holds on some model."""
        return frozenset(role for included, _ in self._scopes for role in included)

    def roles_everywhere(self) -> frozenset[Role]:
        """Returns the roles that the caller holds on all models, those of other tenants among them."""
        if "*" not in self.within:
            return _NONE
        return frozenset(role for grant in self.grants if "*" in grant.models for role in INCLUDED[grant.role])

    def _match(self, model: str) -> frozenset[Role]:
        if _matcher(self.within).fullmatch(model) is None:
            return _NONE
        return frozenset(
            role for included, pattern in self._scopes if pattern.fullmatch(model) is not None for role in included
        )

    def __repr__(self) -> str:
        return f"Principal({self.name!r}, {self.tenant!r}, {self.method!r}, {self.grants!r})"


def or_words(roles: Iterable[Role]) -> str:
    """Returns the roles in a phrase, in the order of their table."""
    held = set(roles)
    return " or ".join(role for role in Role if role in held)


def _matcher(patterns: Iterable[str]) -> "re.Pattern[str]":
    return re.compile("|".join(map(_expression, patterns)), re.DOTALL)


def _expression(pattern: str) -> str:
    """Returns the pattern as a regular expression that takes no longer for names that nearly match.

    What stands between two stars is taken where it comes first, and never looked for again (an atomic group).
    """
    first, *rest = map(re.escape, pattern.split("*"))
    if not rest:
        return first
    between = "".join(f"(?>.*?{text})" for text in rest[:-1] if text)
    return f"{first}{between}.*{rest[-1]}"


# Everybody, where nobody has to prove anything: as long as no identities are configured.
ANONYMOUS: Final = Principal("", "", "anonymous", (Grant(Role.ADMIN),))
# Whoever proves nothing, where identities are configured: may do what the table opens to all.
NOBODY: Final = Principal("", "", "anonymous")
