"""Refusals in HTTP: the one table from the gateway's codes to statuses, and the body that tells of an error."""

import json
import logging
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from gateway.errors import Code, GatewayError, Internal, ResourceExhausted, Unauthenticated, Unavailable
from gateway.rest.http_call import Fields

_log = logging.getLogger(__name__)

# Source: google/rpc/code.proto names these statuses. 499 is nginx's, for a client that has gone.
HTTP_STATUS: Final[Mapping[Code, int]] = MappingProxyType(
    {
        Code.OK: 200,
        Code.CANCELLED: 499,
        Code.INVALID_ARGUMENT: 400,
        Code.DEADLINE_EXCEEDED: 504,
        Code.NOT_FOUND: 404,
        Code.PERMISSION_DENIED: 403,
        Code.RESOURCE_EXHAUSTED: 429,
        Code.FAILED_PRECONDITION: 400,
        Code.ABORTED: 409,
        Code.UNIMPLEMENTED: 501,
        Code.INTERNAL: 500,
        Code.UNAVAILABLE: 503,
        Code.UNAUTHENTICATED: 401,
    }
)
JSON: Final[Fields] = ((b"content-type", b"application/json"),)
CODE_FIELD: Final = b"x-gateway-code"
_CHALLENGE: Final[Fields] = ((b"www-authenticate", b'Bearer realm="gateway"'),)


class HttpRefusal(NamedTuple):
    """An answer that says no: its status, its text, and fields beside `content-type`."""

    status: int
    text: str
    fields: Fields = ()

    @property
    def body(self) -> bytes:
        """The body: `{"error": text}`, as Triton and KServe write it."""
        return json.dumps({"error": self.text}, ensure_ascii=False).encode("utf-8", "replace")


def refusal_of(error: BaseException, what: str) -> HttpRefusal:
    """Returns the answer to an exception that left a handler.

    A GatewayError is told as it is. Anything else is a defect of ours: the caller reads a generic text, the stack goes
    to the log with the name of what failed.
    """
    if not isinstance(error, GatewayError):
        _log.error("handler of %s failed", what, exc_info=error)
        error = Internal()
    fields: Fields = ()
    status = HTTP_STATUS[error.code]
    if isinstance(error, Unauthenticated):
        fields = _CHALLENGE
    elif isinstance(error, ResourceExhausted | Unavailable) and error.retry_after_ms is not None:
        if error.retry_after_ms < 0:
            status = 413 if status == 429 else status  # beyond a limit of its own: it would be refused again
        else:
            fields = ((b"retry-after", b"%d" % -(-error.retry_after_ms // 1000)),)
    # Two codes may have one status; who retries has to tell them apart.
    return HttpRefusal(status, str(error), (*fields, (CODE_FIELD, error.code.name.encode())))
