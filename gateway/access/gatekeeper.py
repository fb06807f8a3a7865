"""Lets calls in by their heads alone: who calls, and whether that caller may call this at all.

A caller that was let in before costs a dictionary look-up.
"""

from collections.abc import Callable, Mapping
from typing import Final

from gateway.access.denials import Denials, Reason
from gateway.access.directory import Directory
from gateway.access.json_web_token import UnknownKey
from gateway.access.permissions import PERMISSIONS, Permission, Scope
from gateway.access.principal import NOBODY, Principal, or_words
from gateway.errors import GatewayError, PermissionDenied, Unauthenticated

_KEPT: Final = 4096
_SCHEME: Final = b"Bearer "
_LOWER_SCHEME: Final = b"bearer "  # as the fields of HTTP/2 are, by some clients


class Pass:
    """What a credential was found to be, and the paths that it has opened. Units: `until_s` on the wall clock."""

    __slots__ = ("paths", "principal", "until_s")

    def __init__(self, principal: Principal) -> None:
        self.principal = principal
        self.until_s = principal.expires_s or float("inf")
        self.paths: set[bytes] = set()


class Gatekeeper:
    """Admits by one directory, until another takes its place.

    Order: with a new directory every caller is proven anew. A caller that sends a token is who the token says, whatever
           certificate it shows.
    """

    def __init__(
        self,
        directory: Directory,
        *,
        wall_s: Callable[[], float],
        unknown_key: Callable[[], None] = lambda: None,
        permissions: Mapping[str, Permission] = PERMISSIONS,
    ) -> None:
        self._directory = directory
        self._wall_s = wall_s
        self._unknown_key = unknown_key
        self._permissions: dict[bytes, Permission] = {
            path.encode(): permission for path, permission in permissions.items()
        }
        self.denials = directory.denials if directory.denials is not None else Denials()
        self._passes: dict[bytes, Pass] = {}
        self._certificates: dict[tuple[str, ...], Pass] = {}

    def replace(self, directory: Directory) -> None:
        """Admits by another directory from now on."""
        self._directory = directory
        self._passes.clear()
        self._certificates.clear()

    def authorize(self, path: bytes, authorization: bytes | None, names: tuple[str, ...]) -> Principal:
        """Returns who calls, if that caller may call this; for which models is checked where the model is known.

        `names` are those of the certificate that the connection has proven.

        Raises: Unauthenticated, PermissionDenied.
        """
        if authorization is not None:
            known = self._passes.get(authorization)
            if known is not None and path in known.paths and self._wall_s() < known.until_s:
                return known.principal
        elif names:
            known = self._certificates.get(names)
            if known is not None and path in known.paths:
                return known.principal
        return self._admit(path, authorization, names)

    def _admit(self, path: bytes, authorization: bytes | None, names: tuple[str, ...]) -> Principal:
        permission = self._permissions.get(path)
        if permission is None:
            self._deny(Reason.ROLE, "somebody", path)
            raise PermissionDenied("nobody may call this")
        if authorization is None and not names:
            return self._unproven(permission, path)
        try:
            known = self._pass(authorization, names)
        except GatewayError as error:
            if permission.is_open:
                return NOBODY  # health is told to everybody, also to whom a token has expired
            if isinstance(error, UnknownKey):
                self._unknown_key()
                self._deny(Reason.SIGNING_KEY, "somebody", path)
            else:
                self._deny(Reason.CREDENTIAL, "somebody", path)
            raise
        try:
            check_role(known.principal, permission)
        except PermissionDenied:
            self._deny(Reason.ROLE, known.principal.name, path)
            raise
        known.paths.add(path)
        return known.principal

    def _unproven(self, permission: Permission, path: bytes) -> Principal:
        if permission.is_open:
            return NOBODY
        self._deny(Reason.NO_CREDENTIAL, "", path)
        raise Unauthenticated(
            "no credential was sent: send metadata `authorization: Bearer TOKEN`, or show a client certificate"
        )

    def _pass(self, authorization: bytes | None, names: tuple[str, ...]) -> Pass:
        """Returns what is known of the credential, proven now if it has to be. Raises: Unauthenticated."""
        if authorization is None:
            known = self._certificates.get(names)
            if known is None:
                known = Pass(self._directory.of_certificate(names))
                if len(self._certificates) >= _KEPT:
                    del self._certificates[next(iter(self._certificates))]
                self._certificates[names] = known
            return known
        now_s = self._wall_s()
        form = _common_form(authorization)
        known = self._passes.pop(form, None)
        if known is None or known.until_s <= now_s:
            known = Pass(self._directory.of_authorization(authorization, now_s))
        if len(self._passes) >= _KEPT:
            del self._passes[next(iter(self._passes))]
        self._passes[form] = known
        return known

    def _deny(self, reason: Reason, who: str, path: bytes) -> None:
        self.denials.note(reason, who, path[:128].decode("latin-1"))


def _common_form(authorization: bytes) -> bytes:
    """Returns one of the two forms that nearly all clients send, and that are looked up as they are.

    A token has any number of others, with blanks around it: they are not proven again, and take nobody's place.
    """
    scheme = authorization[: len(_SCHEME)]
    if scheme.lower() != _LOWER_SCHEME:
        return authorization  # which proves nothing
    return (scheme if scheme == _LOWER_SCHEME else _SCHEME) + authorization[len(_SCHEME) :].strip()


def check_role(principal: Principal, permission: Permission) -> None:
    """Checks that the caller holds one of the roles at all: on all models, or on some, as the permission says.

    Raises: PermissionDenied naming what is missing.
    """
    if permission.is_open:
        return
    everywhere = permission.scope is Scope.EVERYWHERE
    held = principal.roles_everywhere() if everywhere else principal.roles()
    if held.isdisjoint(permission.roles):
        where = " on all models" if everywhere else ""
        holds = or_words(held) or "none"
        raise PermissionDenied(
            f"this needs the role {or_words(permission.roles)}{where}; {principal.name!r} holds {holds}{where}: "
            "ask an admin of this gateway for it"
        )
