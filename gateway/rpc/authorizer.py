"""The decision, by the head of a request, who calls and whether that caller may."""

from typing import Protocol

from gateway.access.principal import Principal


class CallCredential:
    """Holds what the head of one call showed, so that its caller can be proven again."""

    __slots__ = ("_authorization", "_authorizer", "_names", "_path")

    def __init__(
        self, authorizer: "Authorizer", path: bytes, authorization: bytes | None, names: tuple[str, ...]
    ) -> None:
        self._authorizer = authorizer
        self._path = path
        self._authorization = authorization
        self._names = names

    def prove(self) -> Principal:
        """Returns who calls, if that caller may do so now. Raises: Unauthenticated, PermissionDenied."""
        return self._authorizer.authorize(self._path, self._authorization, self._names)


class Authorizer(Protocol):
    """Is asked at the head of each call, before its body is read, and at each message of a stream.

    It must return at once.
    """

    def authorize(self, path: bytes, authorization: bytes | None, names: tuple[str, ...]) -> Principal:
        """Returns who calls, if that caller may call the method of this path.

        `authorization` is the value of that header, `names` those of the certificate that the connection has proven.

        Raises: Unauthenticated, PermissionDenied.
        """
