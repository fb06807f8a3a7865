"""What a call raises that was refused, or that nobody answered."""

from collections.abc import Iterable, Mapping
from typing import Final, cast

import grpc

_PUSHBACK: Final = "grpc-retry-pushback-ms"
_REQUEST_ID: Final = "x-gateway-request-id"
_RETRYABLE: Final = ("UNAVAILABLE", "RESOURCE_EXHAUSTED")


class CallError(Exception):
    """A call without an answer; `str()` is the server's text behind the code.

    `code` is gRPC's canonical name, over REST too. `request_id` is what the server's log calls the request, "" where it
    never came there. `retryable` says whether the same call may succeed later; the client's retries are over by then.

    Units:  `retry_after_s` is how long the server asks to wait; None: it does not say.
    """

    def __init__(
        self, code: str, text: str, *, request_id: str = "", retry_after_s: float | None = None, final: bool = False
    ) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code
        self.text = text
        self.request_id = request_id
        self.retry_after_s = retry_after_s
        self.retryable = code in _RETRYABLE and not final


def error_of_rpc(error: grpc.RpcError) -> CallError:
    """Returns the error that a gRPC call ended with. The server asks not to repeat it by a negative pushback."""
    code = error.code() if hasattr(error, "code") else grpc.StatusCode.UNKNOWN
    text = (error.details() if hasattr(error, "details") else None) or str(error)
    trailers: Mapping[str, str | bytes] = {}
    if hasattr(error, "trailing_metadata"):
        trailers = dict(cast(Iterable[tuple[str, str | bytes]], error.trailing_metadata() or ()))
    pushback_ms = _whole(trailers.get(_PUSHBACK))
    return CallError(
        code.name,
        text,
        request_id=str(trailers.get(_REQUEST_ID, "")),
        retry_after_s=pushback_ms / 1000 if pushback_ms is not None and pushback_ms >= 0 else None,
        final=pushback_ms is not None and pushback_ms < 0,
    )


def _whole(value: str | bytes | None) -> int | None:
    try:
        return int(value) if value is not None else None
    except ValueError:
        return None
