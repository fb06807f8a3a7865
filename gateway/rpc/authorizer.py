"""The decision, by the head of a request, who calls and whether that caller may."""

from typing import Protocol

from gateway.access.principal import Principal


class Authorizer(Protocol):
    """Is asked at the head of each call, before its body is read; it must return at once."""

    def authorize(self, path: bytes, authorization: bytes | None, names: tuple[str, ...]) -> Principal:
        """Returns who calls, if that caller may call the method of this path.

        `authorization` is the value of that header, `names` those of the certificate that the connection has proven.

        Raises: Unauthenticated, PermissionDenied.
        """
