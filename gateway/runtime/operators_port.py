"""The operators' port: pages at fixed paths and the control API, on the HTTP parts that applications are served by.

Connections are kept, bounded in number and in time; a request is refused by its head where that can be (docs/rest.md).
"""

import asyncio
import socket
import zlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import cache, partial
from http import HTTPStatus
from typing import Final, NamedTuple
from urllib.parse import parse_qsl

from gateway.access.principal import ANONYMOUS, Principal
from gateway.errors import PermissionDenied
from gateway.rest.answer_coding import GZIP_BITS, WORTH_BYTES, chosen, compress
from gateway.rest.endpoint import Endpoint
from gateway.rest.http1_limits import Http1Limits
from gateway.rest.http_call import Fields, HttpCall
from gateway.rest.open_api import EVENTS_TYPE
from gateway.rest.path_table import PathTable
from gateway.rest.rest_front import RestFront
from gateway.rpc.authorizer import Authorizer
from gateway.rpc.ngh2_server import Ngh2Server
from gateway.rpc.server import ServerOptions

TOKEN_COOKIE: Final = "gateway_token"  # what the page was logged in with
LONGEST_BODY_BYTES: Final = 2 << 20  # a route document, at most 1 MiB, as JSON in JSON
_PAGE_BODY_BYTES: Final = 64 << 10
_BODIES_BYTES: Final = 32 << 20  # of all callers at a time: who they are is known later
_CONNECTIONS: Final = 512
_ADDRESS_CONNECTIONS: Final = 256  # a proxy's, or a scraper's and some pages' of one host
_ANSWER_LIMIT_S: Final = 180.0  # what the control API itself has given up by then
_LIMITS: Final = Http1Limits(send_timeout_s=10.0, linger_s=0.5)
_END_LIMIT_S: Final = 1.0  # of streams, when the port closes


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A request. Header names are lower case; `path` and `query_text` are as they were sent, percent-encoded."""

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    query_text: str = ""
    body: bytes = b""
    principal: Principal = ANONYMOUS
    names: tuple[str, ...] = ()  # what the path names


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """`then` is what follows the body, piece by piece."""

    body: bytes
    content_type: str = "text/plain; charset=utf-8"
    status: HTTPStatus = HTTPStatus.OK
    headers: Mapping[str, str] = field(default_factory=dict)
    then: AsyncGenerator[bytes, None] | None = None


Page = Callable[[HttpRequest], Awaitable[HttpResponse]]


class Served(NamedTuple):
    """A page, whose permission it has, and what of `Endpoint` it may differ in."""

    page: Page
    permission: str
    max_body_bytes: int = LONGEST_BODY_BYTES
    streams: bool = False
    token_cookie: str = ""


Table = Mapping[tuple[str, str], Served]  # by method and path


def served_pages(pages: Mapping[str, Page], forms: Mapping[str, Page], streams: Collection[str] = ()) -> Table:
    """Returns what serves pages by GET and forms by POST; each has the permission of its path.

    Those of `streams` go on for as long as somebody reads. The token may come in the cookie that the page was logged in
    with.
    """
    read = {
        ("GET", path): Served(page, path, _PAGE_BODY_BYTES, streams=path in streams, token_cookie=TOKEN_COOKIE)
        for path, page in pages.items()
    }
    return read | {("POST", path): Served(page, path, token_cookie=TOKEN_COOKIE) for path, page in forms.items()}


async def _respond(call: HttpCall, response: HttpResponse, body: bytes) -> None:
    own = _own_fields(response)
    coding = chosen(call.header("accept-encoding") or "")
    if len(body) >= WORTH_BYTES and coding and "Content-Encoding" not in response.headers:
        body = await asyncio.to_thread(compress, body, coding)
        own = (*own, (b"content-encoding", coding.encode()), (b"vary", b"accept-encoding"))
    call.respond(response.status.value, _fields(response.content_type), [body], own)


@cache
def _fields(content_type: str) -> Fields:
    # One tuple for each type: its lines are kept for as long as the same tuple comes again.
    return (b"content-type", content_type.encode()), (b"x-content-type-options", b"nosniff")


@cache
def _stream_fields(content_type: str, *, coded: bool) -> Fields:
    coding: Fields = ((b"content-encoding", b"gzip"), (b"vary", b"accept-encoding")) if coded else ()
    return (*_fields(content_type), (b"cache-control", b"no-store"), *coding)


def _own_fields(response: HttpResponse) -> Fields:
    headers = {"Cache-Control": "no-store", **response.headers}
    return tuple((name.lower().encode(), value.encode("latin-1")) for name, value in headers.items())


class OperatorsPort:
    """Serves the table on a port that it shares (SO_REUSEPORT) with the supervisor's reservation, or on the socket
    that it was given.

    Raises: TypeError if the table of permissions misses one of a page.
    """

    def __init__(
        self,
        host: str,
        port: int,
        table: Table,
        authorizer: Authorizer | None = None,
        listening: socket.socket | None = None,
    ) -> None:
        options = ServerOptions(
            host=host,
            port=port,
            max_connections=_CONNECTIONS,
            max_connections_per_address=_ADDRESS_CONNECTIONS,
            makes_room=True,  # for an operator, whoever else holds connections
            default_task_deadline_s=_ANSWER_LIMIT_S,
            max_inflight_bytes=_BODIES_BYTES,
            busy_poll_us=0,
        )
        endpoints = {
            key: Endpoint(
                partial(self._answer, one.page),
                one.permission,
                max_body_bytes=one.max_body_bytes,
                streams=one.streams,
                token_cookie=one.token_cookie,
            )
            for key, one in table.items()
        }
        self._server = Ngh2Server(
            options, authorizer, listening=listening, front=RestFront(PathTable(endpoints), _LIMITS)
        )
        self._streams: set[asyncio.Task[object]] = set()
        self._closing = False

    async def start(self) -> None:
        """Raises: OSError if the port cannot be had."""
        await self._server.start()

    async def close(self) -> None:
        """Ends streams as if nothing more were to come, and everything else as it is."""
        self._closing = True
        for stream in self._streams:
            stream.cancel()
        if self._streams:
            await asyncio.wait(self._streams, timeout=_END_LIMIT_S)
        await self._server.stop(0)

    @property
    def port(self) -> int:
        return self._server.port

    async def _answer(self, page: Page, call: HttpCall) -> None:
        query = dict(parse_qsl(call.query, keep_blank_values=True))
        request = HttpRequest(
            call.method, call.path, call.fields, query, call.query, bytes(call.body), call.principal, call.names
        )
        response = await page(request)
        if response.then is None:
            await _respond(call, response, response.body)
            return
        async with aclosing(response.then):
            if call.method == "HEAD":
                await _respond(call, response, b"")
            else:
                await self._stream(call, response, response.then)

    async def _stream(self, call: HttpCall, response: HttpResponse, pieces: AsyncGenerator[bytes, None]) -> None:
        """Sends the pieces as they come; each can be read when it is there, compressed or not.

        Raises: Unauthenticated, PermissionDenied once the caller may not read on, or reads less or more than before.
        """
        begun = call.principal
        coded = response.content_type == EVENTS_TYPE and chosen(call.header("accept-encoding") or "") == "gzip"
        call.start(response.status.value, _stream_fields(response.content_type, coded=coded))
        compressor = zlib.compressobj(wbits=GZIP_BITS) if coded else None

        async def send(piece: bytes) -> None:
            if compressor is not None:
                piece = compressor.compress(piece) + compressor.flush(zlib.Z_SYNC_FLUSH)
            await call.send(piece)

        task = asyncio.current_task()
        assert task is not None
        self._streams.add(task)
        try:
            await send(response.body)
            async for piece in pieces:
                if not call.prove().holds_what(begun):
                    raise PermissionDenied("what you may read has changed: ask again")
                await send(piece)
        except asyncio.CancelledError:
            if not self._closing:
                raise
        finally:
            self._streams.discard(task)
        if compressor is not None:
            async with asyncio.timeout(_END_LIMIT_S):
                await call.send(compressor.flush())
