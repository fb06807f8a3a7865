"""A small HTTP/1.1 server for operators: a few fixed paths, and whatever an `Api` serves; bounded everywhere.

It serves scrapes, probes, a few pages and operators' calls, not applications, so it keeps no connection for a second
request. A page may go on for as long as its reader takes what comes.
"""

import asyncio
import logging
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from types import MappingProxyType
from typing import Final, Protocol
from urllib.parse import parse_qsl

from gateway.access.principal import ANONYMOUS, Principal
from gateway.errors import PermissionDenied, Unauthenticated

_HEAD_LIMIT_BYTES: Final = 16 << 10
_BODY_LIMIT_BYTES: Final = 2 << 20  # a route document, at most 1 MiB, as JSON in JSON
_SMALL_BODY_BYTES: Final = 64 << 10  # is always read; longer ones share `_BODIES_LIMIT_BYTES`
_BODIES_LIMIT_BYTES: Final = 32 << 20  # of all callers at a time: who they are is known later
_DRAINED_BYTES: Final = 8 << 20  # read and dropped of a body that is refused, so that its sender reads why
_REQUEST_LIMIT_S: Final = 10.0
_API_LIMIT_S: Final = 180.0  # what the API itself has given up by then
_ONCE: Final = frozenset({"authorization", "content-length", "host", "transfer-encoding"})
TOKEN_COOKIE: Final = "gateway_token"  # what the page was logged in with
_log = logging.getLogger(__name__)


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


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """`then` is what follows the body, piece by piece; such an answer ends with its connection."""

    body: bytes
    content_type: str = "text/plain; charset=utf-8"
    status: HTTPStatus = HTTPStatus.OK
    headers: Mapping[str, str] = field(default_factory=dict)
    then: AsyncGenerator[bytes, None] | None = None


Page = Callable[[HttpRequest], Awaitable[HttpResponse]]


class PageAuthorizer(Protocol):
    """Whoever decides by a request's head who asks, and whether that caller may read the page."""

    def authorize(self, path: bytes, authorization: bytes | None, names: tuple[str, ...]) -> Principal:
        """Raises: Unauthenticated, PermissionDenied."""


class Api(Protocol):
    """What serves paths that no page has, with any method. It checks its callers itself."""

    async def answer(self, request: HttpRequest) -> HttpResponse | None:
        """Returns the answer, None where it serves nothing at the path."""


class BodyRefused(Exception):
    """A body that is not read. `size` is its length, as far as it is known."""

    def __init__(self, status: HTTPStatus, text: str, size: int = 0) -> None:
        super().__init__(text)
        self.status = status
        self.size = size


class HttpServer:
    """Serves pages by exact path on a port that it shares (SO_REUSEPORT) with the supervisor's reservation.

    `forms` are those that take POST, and nothing else.
    """

    def __init__(
        self,
        host: str,
        port: int,
        pages: Mapping[str, Page],
        authorizer: PageAuthorizer | None = None,
        api: Api | None = None,
        *,
        forms: Mapping[str, Page] = MappingProxyType({}),
    ) -> None:
        self._authorizer = authorizer
        self._api = api
        self._host = host
        self._port = port
        self._pages = dict(pages)
        self._forms = dict(forms)
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()
        self._reading_bytes = 0  # of long bodies that are on their way

    async def start(self) -> None:
        """Raises: OSError if the port cannot be had."""
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listening.bind((self._host, self._port))
        self._server = await asyncio.start_server(self._accept, sock=listening, limit=_HEAD_LIMIT_BYTES)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            for task in self._serving:
                task.cancel()
            if self._serving:
                await asyncio.wait(self._serving)
            await self._server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A Task of our own: asyncio 3.11 logs each of its own that is cancelled as an error.
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            answer, head_only = await self._exchange(reader, writer)
            async with asyncio.timeout(_REQUEST_LIMIT_S):
                writer.write(_encode(answer, head_only=head_only))
                await writer.drain()
            if answer.then is not None and not head_only:
                await _go_on(answer.then, writer)
            async with asyncio.timeout(_REQUEST_LIMIT_S):
                writer.close()
                await writer.wait_closed()
        except (ConnectionError, TimeoutError, asyncio.IncompleteReadError):
            pass  # the client went away or is too slow
        finally:
            writer.transport.abort()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[HttpResponse, bool]:
        async with asyncio.timeout(_REQUEST_LIMIT_S):
            try:
                request = _parse(await reader.readuntil(b"\r\n\r\n"))
                request = replace(request, body=await self._body(request, reader, writer))
            except asyncio.LimitOverrunError:
                return _plain(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE), False
            except BodyRefused as refused:
                await _drop(reader, refused.size)
                return HttpResponse(f"{refused}\n".encode(), status=refused.status), False
            except ValueError:
                return _plain(HTTPStatus.BAD_REQUEST), False
        async with asyncio.timeout(_API_LIMIT_S):
            return await self._answer(request), request.method == "HEAD"

    async def _body(self, request: HttpRequest, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        """Returns the body. Raises: BodyRefused, ValueError (a length that is none)."""
        size = _body_size(request)
        held = size if size > _SMALL_BODY_BYTES else 0
        if held and self._reading_bytes + held > _BODIES_LIMIT_BYTES:
            text = "too many long bodies are on their way: try again"
            raise BodyRefused(HTTPStatus.SERVICE_UNAVAILABLE, text, size)
        self._reading_bytes += held
        try:
            if size and request.headers.get("expect", "").lower() == "100-continue":
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            return await reader.readexactly(size)
        finally:
            self._reading_bytes -= held

    async def _answer(self, request: HttpRequest) -> HttpResponse:
        pages, allowed = (self._forms, ("POST",)) if request.path in self._forms else (self._pages, ("GET", "HEAD"))
        page = pages.get(request.path)
        try:
            if page is None:
                answer = await self._api.answer(request) if self._api is not None else None
                return answer if answer is not None else _plain(HTTPStatus.NOT_FOUND)
            if request.method not in allowed:
                text, headers = f"{' or '.join(allowed)}\n".encode(), {"Allow": ", ".join(allowed)}
                return HttpResponse(text, status=HTTPStatus.METHOD_NOT_ALLOWED, headers=headers)
            caller = self._caller(request)
            return caller if isinstance(caller, HttpResponse) else await page(replace(request, principal=caller))
        except Exception:  # the boundary of a request
            _log.exception("%s failed", request.path)
            return _plain(HTTPStatus.INTERNAL_SERVER_ERROR)

    def _caller(self, request: HttpRequest) -> Principal | HttpResponse:
        """Returns who asks, or the answer to somebody who may not ask for this page."""
        if self._authorizer is None:
            return ANONYMOUS
        given = request.headers.get("authorization") or _from_cookie(request)
        try:
            return self._authorizer.authorize(request.path.encode(), given.encode("latin-1") if given else None, ())
        except Unauthenticated as error:
            headers = {"WWW-Authenticate": 'Bearer realm="gateway"'}
            return HttpResponse(f"{error}\n".encode(), status=HTTPStatus.UNAUTHORIZED, headers=headers)
        except PermissionDenied as error:
            return HttpResponse(f"{error}\n".encode(), status=HTTPStatus.FORBIDDEN)


async def _go_on(pieces: AsyncGenerator[bytes, None], writer: asyncio.StreamWriter) -> None:
    """Writes the pieces as they come. Raises: TimeoutError if the reader does not take one in time."""
    async with aclosing(pieces):
        async for piece in pieces:
            writer.write(piece)
            async with asyncio.timeout(_REQUEST_LIMIT_S):
                await writer.drain()


def _parse(head: bytes) -> HttpRequest:
    """Raises: ValueError if it is not a request's head."""
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, protocol = first.split(" ")
    if not protocol.startswith("HTTP/1.") or not target.startswith("/"):
        raise ValueError("not HTTP/1")
    headers = {}
    for line in lines:
        if line:
            name, colon, value = line.partition(":")
            if not colon:
                raise ValueError("a header without a colon")
            name = name.strip().lower()
            if name in headers and name in _ONCE:
                raise ValueError("it says twice how long the body is, or who asks")
            headers[name] = value.strip()
    path, _, query = target.partition("?")
    return HttpRequest(method, path, headers, dict(parse_qsl(query, keep_blank_values=True)), query)


def _body_size(request: HttpRequest) -> int:
    """Returns how long the body is. Raises: BodyRefused, ValueError (a length that is none)."""
    if "transfer-encoding" in request.headers:
        raise BodyRefused(HTTPStatus.LENGTH_REQUIRED, "send a Content-Length, no Transfer-Encoding")
    given = request.headers.get("content-length", "0")
    if not (given.isascii() and given.isdigit() and len(given) <= 18):
        raise ValueError("Content-Length is no number")
    size = int(given)
    if size > _BODY_LIMIT_BYTES:
        text = f"a body of {size} bytes, at most {_BODY_LIMIT_BYTES} are read"
        raise BodyRefused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, text, size)
    return size


async def _drop(reader: asyncio.StreamReader, size: int) -> None:
    """Reads what is on its way and drops it, up to a bound: a connection closed over it would be reset."""
    left = min(size, _DRAINED_BYTES)
    while left > 0 and (piece := await reader.read(1 << 16)):
        left -= len(piece)


def _from_cookie(request: HttpRequest) -> str:
    """Returns the credential that a browser keeps for the page, "" without one."""
    for item in request.headers.get("cookie", "").split(";"):
        name, _, value = item.strip().partition("=")
        if name == TOKEN_COOKIE and value:
            return f"Bearer {value}"
    return ""


def _plain(status: HTTPStatus) -> HttpResponse:
    return HttpResponse(f"{status.phrase}\n".encode(), status=status)


def _encode(answer: HttpResponse, *, head_only: bool) -> bytes:
    length = {} if answer.then is not None else {"Content-Length": str(len(answer.body))}
    headers = {
        "Content-Type": answer.content_type,
        **length,
        "Connection": "close",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-store",
        **answer.headers,
    }
    lines = [f"HTTP/1.1 {answer.status.value} {answer.status.phrase}", *(f"{k}: {v}" for k, v in headers.items())]
    head = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
    return head if head_only else head + answer.body
