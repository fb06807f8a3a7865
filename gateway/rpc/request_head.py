"""Decides what becomes of a request whose head is not of the most common form, before its body is read."""

from typing import NamedTuple

from gateway.errors import GatewayError, InvalidArgument, Unimplemented
from gateway.rpc.inflation import ENCODINGS
from gateway.rpc.metadata import Fields, decode, status_trailers
from gateway.rpc.method import Method
from gateway.rpc.output import CONGESTED
from gateway.rpc.pushback import later, never
from gateway.rpc.server import MAX_FIELDS
from gateway.rpc.server_call import RESPONSE
from gateway.rpc.server_state import ServerState
from gateway.rpc.status_codes import status_of

_ACCEPTED: Fields = ((b"grpc-accept-encoding", b"identity,deflate,gzip"),)


class Rejection(NamedTuple):
    """The header fields of the whole response."""

    fields: Fields


class RequestHead(NamedTuple):
    """The method of a request, and how its compressed messages are encoded; b"" where none may come."""

    method: Method
    encoding: bytes


def check_head(
    server: ServerState, fields: dict[bytes, bytes], headers: Fields, *, congested: bool
) -> RequestHead | Rejection:
    """Returns the method that serves a request, or the answer that refuses it.

    Order: HTTP's own errors first, as statuses of HTTP; then gRPC's as trailers.
    """
    if fields.get(b":method") != b"POST":
        return Rejection(((b":status", b"405"), (b"allow", b"POST")))
    content_type = fields.get(b"content-type", b"")
    if content_type[:16] != b"application/grpc" or content_type[16:17] not in (b"", b"+", b";"):
        return Rejection(((b":status", b"415"),))
    if len(headers) > MAX_FIELDS:
        return refusal(never(f"metadata of {len(headers)} fields, at most {MAX_FIELDS} are accepted"))
    size_bytes = sum(len(name) + len(value) for name, value in headers)
    if size_bytes > server.options.max_metadata_bytes:
        most_bytes = server.options.max_metadata_bytes
        return refusal(never(f"metadata of {size_bytes} bytes, at most {most_bytes} are accepted"))
    try:
        method = _find(server, fields, headers)
    except InvalidArgument as error:
        return refusal(error)
    if method is None:
        return refusal(Unimplemented("Method not found!"))
    encoding = fields.get(b"grpc-encoding", b"identity")
    if encoding != b"identity" and encoding not in ENCODINGS:
        text = f"Compression algorithm '{encoding.decode('latin-1')}' is not supported: use identity, deflate or gzip"
        return refusal(Unimplemented(text), extra=_ACCEPTED)
    if server.open_calls >= server.max_calls:
        return refusal(later(too_many_calls(server.open_calls, server.max_calls)))
    if congested:
        return refusal(later(CONGESTED))
    return RequestHead(method, b"" if encoding == b"identity" else encoding)


def _find(server: ServerState, fields: dict[bytes, bytes], headers: Fields) -> Method | None:
    path = fields.get(b":path", b"")
    return server.paths.get(path) or server.methods.find(path.decode("latin-1"), decode(headers))


def too_many_calls(open_calls: int, most: int) -> str:
    """Returns the text of the refusal, which is the same on every transport."""
    return f"{open_calls} calls are open, at most {most} are served at a time"


def refusal(error: GatewayError, method: str = "", extra: Fields = ()) -> Rejection:
    """Returns the answer that refuses a call with this error."""
    status = status_of(error, method)
    return Rejection(RESPONSE + status_trailers(status) + extra)
