"""The interface of one HTTP request, as its handler sees it, on HTTP/1.1 and on HTTP/2 alike."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from gateway.access.principal import Principal
from gateway.access.quota_pass import QuotaPass
from gateway.errors import GatewayError

Field = tuple[bytes, bytes]  # the name is lower case; both are printable ASCII
Fields = tuple[Field, ...]
Piece = bytes | memoryview


class HttpCall(Protocol):
    """One request, whole, and the way to answer it, at once or later, always on the event loop.

    Exactly one of `respond`, `fail` and `start` counts: what comes after the first, or after the client has gone or the
    deadline has passed, is ignored. Who holds something for the call releases it in `on_cancel`'s callback or when it
    answers, whichever comes first. The transport sends `content-length`, `date`, `connection` and `transfer-encoding`.

    Units: `deadline_ns` is on the monotonic clock, 0: none; `message_size` counts the bytes of the body, inflated.
    """

    @property
    def method(self) -> str:
        """The method, upper case, such as `POST`; HEAD is served by the endpoint of GET, without a body."""

    @property
    def path(self) -> str:
        """The path as it was sent, percent-encoded, without the query."""

    @property
    def names(self) -> tuple[str, ...]:
        """What the endpoint table took out of the path."""

    @property
    def query(self) -> str:
        """What stands behind the `?`, as it was sent; empty without one."""

    @property
    def body(self) -> bytes | memoryview:
        """The body, whole and inflated; empty if there is none. It stays as it is for as long as somebody holds it."""

    @property
    def message_size(self) -> int: ...

    @property
    def deadline_ns(self) -> int: ...

    @property
    def principal(self) -> Principal: ...

    def prove(self) -> Principal:
        """Returns who calls, found out anew: an answer in pieces outlives what proved its caller.

        Raises: Unauthenticated, PermissionDenied.
        """

    @property
    def quota_pass(self) -> QuotaPass | None:
        """The permit by which quotas let the request in at its head; None without any. The transport releases it."""

    @property
    def fields(self) -> Mapping[str, str]:
        """The header fields by their lower-case names, each as `header` returns it."""

    def header(self, name: str) -> str | None:
        """Returns the value of a lower-case name; several are joined by `, `; None without one."""

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Runs `callback` once if the call ends before it was answered.

        Order: at once, if that has already happened.
        """

    def respond(self, status: int, fields: Fields, pieces: Sequence[Piece], own: Fields = ()) -> None:
        """Answers with a whole body.

        The encoded form of `fields` is kept for as long as the same tuple comes again, so pass one that was made
        beforehand; put what differs with each call into `own`.
        """

    def fail(self, error: GatewayError, own: Fields = ()) -> None:
        """Answers with the status of the error and `{"error": text}`."""

    def start(self, status: int, fields: Fields) -> None:
        """Begins an answer whose body comes in pieces."""

    async def send(self, piece: Piece) -> None:
        """Sends a piece of the answer that was started; returns once the client has taken most of what came before.

        Raises: Cancelled if nobody reads it any more.
        """

    def end(self) -> None:
        """Ends the answer that was started."""

    def abort(self) -> None:
        """Ends the answer that was started so that the client sees that it is not whole."""
