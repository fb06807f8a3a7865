"""Everything that proves who somebody is, at one moment: tokens, signing keys, roles. Immutable, and pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from gateway.access.denials import Denials
from gateway.access.json_web_token import LEEWAY_S, NO_KEYS, ExpectedClaims, SigningKeys, verify
from gateway.access.principal import Grant, Method, Principal, Role
from gateway.access.roles_file import EVERYONE, Roles
from gateway.access.token_file import NO_TOKENS, PREFIX, StaticTokens
from gateway.errors import PermissionDenied, Unauthenticated

_SCHEME: Final = b"bearer "
_GROUPS: Final = 256
_NAME_LIMIT: Final = 256
_SEND: Final = "send metadata `authorization: Bearer TOKEN`"
ALL_ROLES: Final = (Grant(Role.ADMIN),)


@dataclass(frozen=True, slots=True)
class Directory:
    """Who is known; `expected` is None where no JWTs are taken. `denials` counts models that callers were refused."""

    tokens: StaticTokens = NO_TOKENS
    roles: Roles = EVERYONE
    keys: SigningKeys = NO_KEYS
    expected: ExpectedClaims | None = None
    denials: Denials | None = None

    def of_authorization(self, authorization: bytes, now_s: float) -> Principal:
        """Returns who sends that value of the header `authorization`.

        Raises: Unauthenticated, UnknownKey; PermissionDenied (a tenant that is not known).
        """
        if authorization[: len(_SCHEME)].lower() != _SCHEME:
            raise Unauthenticated(f"the authorization is of another scheme than Bearer: {_SEND}")
        token = authorization[len(_SCHEME) :].strip()
        if token.startswith(PREFIX.encode()):
            return self._of_static(token, now_s)
        if self.expected is None:
            raise Unauthenticated(f"no such token is known here: {_SEND}")
        try:
            text = token.decode("ascii")
        except UnicodeDecodeError:
            raise Unauthenticated("the token has characters that no token has") from None
        return self._of_claims(verify(text, self.keys, self.expected, now_s))

    def of_certificate(self, names: Iterable[str]) -> Principal:
        """Returns who shows a certificate of these names, the most telling first: the first that is known.

        Order: the authority of the certificate was checked in the handshake.
        """
        listed = tuple(names)
        if not listed:
            raise Unauthenticated("the certificate holds no name: neither a subject alternative name nor a common name")
        for name in listed:
            if self.roles.identity(name, "certificate") is not None:
                return self._principal(name, "certificate")
        grants = ALL_ROLES if self.roles.everyone else ()
        return Principal(listed[0], "", "certificate", grants, denials=self.denials)

    def _of_static(self, token: bytes, now_s: float) -> Principal:
        known = self.tokens.find(token)
        if known is None:
            raise Unauthenticated(f"no such token is known here: {_SEND}")
        if 0 < known.expires_s <= now_s:
            raise Unauthenticated("the token has expired: ask for a new one")
        return self._principal(known.name, "token", known.grants, tenant=known.tenant, expires_s=known.expires_s)

    def _of_claims(self, claims: Mapping[str, Any]) -> Principal:
        names = self.roles.claims
        name = claims.get(names.name)
        if not isinstance(name, str) or not 1 <= len(name) <= _NAME_LIMIT or not name.isprintable():
            raise Unauthenticated(f"the token's claim {names.name!r} is no name")
        tenant = claims.get(names.tenant, "")
        if not isinstance(tenant, str) or len(tenant) > _NAME_LIMIT or not tenant.isprintable():
            raise Unauthenticated(f"the token's claim {names.tenant!r} is no tenant")
        grants = self.roles.grants_of(_words(claims.get(names.groups, ())))
        expires_s = float(claims["exp"]) + LEEWAY_S
        return self._principal(name, "jwt", grants, tenant=tenant, expires_s=expires_s)

    def _principal(
        self,
        name: str,
        method: Method,
        grants: tuple[Grant, ...] = (),
        *,
        tenant: str = "",
        expires_s: float = 0.0,
    ) -> Principal:
        known = self.roles.identity(name, method)
        if known is not None:
            grants += known.grants
            tenant = known.tenant or tenant
        within = self.roles.within(tenant)
        if not within:
            raise PermissionDenied("the tenant is not known here: have it added to the roles file")
        return Principal(name, tenant, method, grants, expires_s, within, self.denials)


def _words(claim: object) -> tuple[str, ...]:
    """Returns the groups of a claim: a list of text, or text with spaces between them as `scope` has."""
    if isinstance(claim, str):
        claim = claim.split()
    if not isinstance(claim, list | tuple) or len(claim) > _GROUPS:
        return ()
    return tuple(word for word in claim if isinstance(word, str))
