"""The one table from the gateway's codes to gRPC's, and the rule for every other exception."""

import logging
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

import grpc

from gateway.errors import Code, GatewayError, Internal, ResourceExhausted, Unavailable

PUSHBACK: Final = "grpc-retry-pushback-ms"
_log = logging.getLogger(__name__)

STATUS: Final[Mapping[Code, grpc.StatusCode]] = MappingProxyType(
    {
        Code.OK: grpc.StatusCode.OK,
        Code.CANCELLED: grpc.StatusCode.CANCELLED,
        Code.INVALID_ARGUMENT: grpc.StatusCode.INVALID_ARGUMENT,
        Code.DEADLINE_EXCEEDED: grpc.StatusCode.DEADLINE_EXCEEDED,
        Code.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
        Code.PERMISSION_DENIED: grpc.StatusCode.PERMISSION_DENIED,
        Code.RESOURCE_EXHAUSTED: grpc.StatusCode.RESOURCE_EXHAUSTED,
        Code.FAILED_PRECONDITION: grpc.StatusCode.FAILED_PRECONDITION,
        Code.ABORTED: grpc.StatusCode.ABORTED,
        Code.UNIMPLEMENTED: grpc.StatusCode.UNIMPLEMENTED,
        Code.INTERNAL: grpc.StatusCode.INTERNAL,
        Code.UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
        Code.UNAUTHENTICATED: grpc.StatusCode.UNAUTHENTICATED,
    }
)


class Status(NamedTuple):
    """Holds what a caller is told: a code, a text, and what else trailing metadata say of it."""

    code: grpc.StatusCode
    details: str
    metadata: tuple[tuple[str, str], ...] = ()


def status_of(error: BaseException, method: str) -> Status:
    """Returns the status of an exception that left a handler.

    A GatewayError is told as it is. Anything else is a defect of ours: the caller reads a generic text, the stack goes
    to the log with the method's name, and UNKNOWN never leaves the process.
    """
    if isinstance(error, GatewayError):
        return Status(STATUS[error.code], str(error), _pushback(error))
    _log.error("handler of %s failed", method, exc_info=error)
    return Status(grpc.StatusCode.INTERNAL, str(Internal()))


def _pushback(error: GatewayError) -> tuple[tuple[str, str], ...]:
    """Returns the metadata that say when to come again. Source: gRFC A6, "Pushback"."""
    if isinstance(error, ResourceExhausted | Unavailable) and error.retry_after_ms is not None:
        return ((PUSHBACK, str(error.retry_after_ms)),)
    return ()


def number_of(code: grpc.StatusCode) -> int:
    """Returns the number that `grpc-status` carries."""
    number: int = code.value[0]
    return number
