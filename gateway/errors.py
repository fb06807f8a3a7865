"""The errors of the gateway, as one tree that is independent of any transport.

GatewayError
├── InvalidArgument        the request or document does not fit; names field, value and limit
├── NotFound
│   ├── UnknownModel
│   ├── UnknownVersion
│   └── UnknownRoute
├── FailedPrecondition     valid, but not in the present state
│   └── VersionNotReady    the version failed to load
├── StaleRevision          the route was changed since it was read
├── ResourceExhausted      admission, queue or size limit; retryable
│   └── Overloaded         refused for the load of the moment, as many others are
├── Unavailable            loading, draining, or the store is away; retryable
│   └── StoreUnavailable
│       ├── StoreForbidden the store gives its user no right to this
│       └── StoreDamaged   the store holds what the gateway never wrote
├── DeadlineExceeded
├── Cancelled
├── Unimplemented
├── Unauthenticated
├── PermissionDenied
└── Internal               the cause is in the log, never in the text

`code` and `retryable` belong to the class, the data to the instance. Each edge maps `code` by one table.
"""

from enum import Enum
from typing import ClassVar, Final


class Code(Enum):
    """The canonical codes; the values are gRPC's numbers, which log records keep as well."""

    OK = 0
    CANCELLED = 1
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


# What the client caused, or took back, says nothing about a version.
CLIENT_CODES: Final = frozenset(
    {
        Code.CANCELLED,
        Code.INVALID_ARGUMENT,
        Code.NOT_FOUND,
        Code.PERMISSION_DENIED,
        Code.UNAUTHENTICATED,
        Code.UNIMPLEMENTED,
    }
)


class GatewayError(Exception):
    """An error that is reported to the caller; `str()` is the text to show."""

    code: ClassVar[Code] = Code.INTERNAL
    retryable: ClassVar[bool] = False


class InvalidArgument(GatewayError):
    code = Code.INVALID_ARGUMENT


class NotFound(GatewayError):
    code = Code.NOT_FOUND


class UnknownModel(NotFound):
    def __init__(self, model: str) -> None:
        super().__init__(f"Request for unknown model: {model!r} is not found")
        self.model = model


class UnknownVersion(NotFound):
    def __init__(self, model: str, version: str, why: str = "") -> None:
        text = f"Request for unknown model: {model!r} version {version!r} is not found"
        super().__init__(f"{text}: {why}" if why else text)
        self.model = model
        self.version = version


class UnknownRoute(NotFound):
    def __init__(self, model: str) -> None:
        super().__init__(f"model {model!r} has no route")
        self.model = model


class FailedPrecondition(GatewayError):
    code = Code.FAILED_PRECONDITION


class VersionNotReady(FailedPrecondition):
    def __init__(self, model: str, version: str, reason: str) -> None:
        super().__init__(f"model {model!r} version {version!r} is not ready: {reason}")
        self.model = model
        self.version = version


class StaleRevision(GatewayError):
    code = Code.ABORTED

    def __init__(self, model: str, expected: int, current: int) -> None:
        super().__init__(
            f"the route of model {model!r} is at revision {current}, not {expected}: read it again and reapply"
        )
        self.model = model
        self.expected = expected
        self.current = current


class ResourceExhausted(GatewayError):
    """`retry_after_ms` says when the caller may try again; if negative, never: the call would be refused again."""

    code = Code.RESOURCE_EXHAUSTED
    retryable = True

    def __init__(self, text: str, *, retry_after_ms: int | None = None) -> None:
        super().__init__(text)
        self.retry_after_ms = retry_after_ms


class Overloaded(ResourceExhausted):
    """The refusal of a call that is one of many: they share their texts, so that an edge encodes each text once.

    When to come again, which differs from refusal to refusal, is in `retry_after_ms` alone.
    """


class Unavailable(GatewayError):
    """`retry_after_ms` says when the caller may try again, where that is known."""

    code = Code.UNAVAILABLE
    retryable = True

    def __init__(self, text: str, *, retry_after_ms: int | None = None) -> None:
        super().__init__(text)
        self.retry_after_ms = retry_after_ms


class StoreUnavailable(Unavailable):
    """The routing store did not answer; the change was not made, or the text says that it may have been made."""


class StoreForbidden(StoreUnavailable):
    """The routing store answers, but gives its user no right to this; another host's user may have it."""


class StoreDamaged(StoreUnavailable):
    """The routing store answers, but holds what the gateway never wrote; `gateway heal` is the way out."""


class DeadlineExceeded(GatewayError):
    code = Code.DEADLINE_EXCEEDED


class Cancelled(GatewayError):
    code = Code.CANCELLED


class Unimplemented(GatewayError):
    code = Code.UNIMPLEMENTED


class Unauthenticated(GatewayError):
    code = Code.UNAUTHENTICATED


class PermissionDenied(GatewayError):
    code = Code.PERMISSION_DENIED


class Internal(GatewayError):
    """Holds a generic text and the request id; the stack is in the log."""

    def __init__(self, request_id: str = "") -> None:
        super().__init__("internal error" + (f" (request {request_id})" if request_id else ""))
