"""Operators' methods over HTTP, at the operators' port: asked of a worker, in the name of the caller.

A write is refused that a page of another site could have made a browser send: it has to be JSON, to have a header of
its own, and to come from no other site.
"""

import asyncio
from collections.abc import AsyncGenerator
from functools import partial
from http import HTTPStatus
from typing import Any, Final

import orjson

import gateway
from gateway.access.audience import Audience
from gateway.access.principal import Principal
from gateway.errors import Cancelled, GatewayError, InvalidArgument, Unavailable
from gateway.rest.control_paths import CONTROL_PATHS, ControlPath
from gateway.rest.http_refusal import HttpRefusal
from gateway.rest.message_json import plain
from gateway.rest.open_api import EVENTS_TYPE, WRITES, open_api
from gateway.rest.other_sites import is_of_another_site, is_own_name
from gateway.runtime.config import Config
from gateway.runtime.control_bridge import ControlBridge
from gateway.runtime.operators_port import HttpRequest, HttpResponse, Page, Served, Table

JSON: Final = "application/json"
_PATIENCE_S: Final = 10.0  # of a change without `wait`; a worker answers soon after it
_LONGEST_S: Final = 150.0
MOST_FOLLOWERS: Final = 16
QUIET_S: Final = 15.0
_POSITION: Final = "after_revision"  # the field that says what was seen already
NOT_THIS_HOST: Final = "this host is not asked by that name: use its address or localhost"
_NOT_JSON: Final = HttpRefusal(415, f"send the body as {JSON} (Content-Type)")
_NO_HEADER: Final = HttpRefusal(
    403, f"a write has to have the header {WRITES}, with any name of its caller: no other site can send it"
)


class ControlApi:
    """Serves all rows of `CONTROL_PATHS`; who calls is known by then.

    At most `MOST_FOLLOWERS` follow what goes on, and are told something every `quiet_s`. With `closed` nobody may do
    anything, and reads why. With `own_names` a caller has to ask for this host by one of its own names, for what is
    read as well.
    """

    def __init__(
        self, bridge: ControlBridge, *, closed: str = "", own_names: bool = True, quiet_s: float = QUIET_S
    ) -> None:
        self._quiet_s = quiet_s
        self._followers = Audience(MOST_FOLLOWERS, "follow already")
        self._own_names = own_names
        self._bridge = bridge
        self._closed = closed
        self._document = orjson.dumps(open_api(CONTROL_PATHS, version=gateway.__version__), option=orjson.OPT_INDENT_2)

    async def document(self, _: HttpRequest) -> HttpResponse:
        """The page of the OpenAPI document."""
        return HttpResponse(self._document, JSON)

    def table(self) -> Table:
        """Returns what serves each row, with the permission of its method."""
        return {
            (row.method, row.path): Served(partial(self._answer, row), row.permission, streams=row.follows)
            for row in CONTROL_PATHS
        }

    async def _answer(self, row: ControlPath, request: HttpRequest) -> HttpResponse:
        """Raises: GatewayError."""
        if self._closed:
            return _refused(HttpRefusal(403, self._closed))
        if self._own_names and not is_own_name(request.headers.get("host", "")):
            return _refused(HttpRefusal(HTTPStatus.MISDIRECTED_REQUEST, NOT_THIS_HOST))
        refusal = unsafe_write(request, self._own_names) if row.method != "GET" else None
        if refusal is not None:
            return _refused(refusal)
        try:
            message = row.request(request.names, request.query_text, request.body)
            if row.follows:
                return await self._begun(row, message, request)
            answer = await self._call(row, message, request.principal)
        except Cancelled as error:
            raise Unavailable(str(error)) from None  # the worker is about to stop; nobody has gone here
        return HttpResponse(orjson.dumps(answer), JSON)

    async def _begun(self, row: ControlPath, message: Any, request: HttpRequest) -> HttpResponse:
        """Returns the answer that goes on, once its first event is there: a refusal comes before it.

        Raises: GatewayError.
        """
        if request.method == "HEAD":
            return HttpResponse(b"", EVENTS_TYPE)
        seen = request.headers.get("last-event-id", "")
        if seen and not getattr(message, _POSITION):
            if not (seen.isascii() and seen.isdigit() and len(seen) < 19):
                raise InvalidArgument(f"Last-Event-ID is {seen[:40]!r}, allowed: the id of an event, a whole number")
            setattr(message, _POSITION, int(seen))
        events = self._follow(row, message, request.principal)
        first = await anext(events)
        return HttpResponse(first, EVENTS_TYPE, then=events)

    async def _follow(self, row: ControlPath, message: Any, principal: Principal) -> AsyncGenerator[bytes, None]:
        """Yields the messages as events as they come, and comments while there are none. Raises: GatewayError at first.

        An error that comes later is the last event: by its id a client goes on elsewhere.
        """
        self._followers.join(principal)
        messages, told = self._bridge.follow(row.rpc, message, principal), False
        coming = asyncio.ensure_future(anext(messages))
        try:
            while True:
                done, _ = await asyncio.wait((coming,), timeout=self._quiet_s)
                if not done:
                    told = True
                    yield b": nothing new\n\n"
                    continue
                event = _as_event(coming.result())
                coming, told = asyncio.ensure_future(anext(messages)), True
                yield event
        except StopAsyncIteration:
            pass
        except GatewayError as error:
            if not told:
                raise
            yield b"event: ended\ndata: %s\n\n" % orjson.dumps({"error": str(error)})
        finally:
            self._followers.leave(principal)
            coming.cancel()
            await asyncio.gather(coming, return_exceptions=True)
            await messages.aclose()

    async def _call(self, row: ControlPath, message: Any, principal: Principal) -> dict[str, Any]:
        if row.collects:
            return {row.collects: [plain(one) for one in await self._bridge.messages(row.rpc, message, principal)]}
        wait = message.wait.timeout_ms / 1000 if "wait" in message.DESCRIPTOR.fields_by_name else 0.0
        timeout_s = min(max(wait, _PATIENCE_S) + 5.0, _LONGEST_S)
        return plain(await self._bridge.call(row.rpc, message, principal, timeout_s=timeout_s))


def by_own_name(page: Page) -> Page:
    """Returns the page as it answers those alone who ask for this host by one of its own names."""

    async def shown(request: HttpRequest) -> HttpResponse:
        if not is_own_name(request.headers.get("host", "")):
            return _refused(HttpRefusal(HTTPStatus.MISDIRECTED_REQUEST, NOT_THIS_HOST))
        return await page(request)

    return shown


def unsafe_write(request: HttpRequest, own_names: bool) -> HttpRefusal | None:
    """Returns why a write is not done that another site may have sent; None for one that is safe.

    With `own_names` a browser has to have asked for this host by one of its own names.
    """
    headers = request.headers
    if headers.get("content-type", "").partition(";")[0].strip().lower() != JSON:
        return _NOT_JSON
    if not headers.get(WRITES):
        return _NO_HEADER
    foreign = own_names and "origin" in headers and not is_own_name(headers.get("host", ""))
    if foreign or is_of_another_site(headers.get):
        return HttpRefusal(403, "a write from a page of another site is not done")
    return None


def _as_event(message: Any) -> bytes:
    """Returns a message of Watch as a server-sent event; a change's id is its revision, from which a client goes on."""
    kind = str(message.WhichOneof("event"))
    place = b"id: %d\n" % message.committed.revision if kind == "committed" and message.committed.revision else b""
    return b"%sevent: %s\ndata: %s\n\n" % (place, kind.encode(), orjson.dumps(plain(message)))


def _refused(refusal: HttpRefusal) -> HttpResponse:
    return HttpResponse(refusal.body, JSON, HTTPStatus(refusal.status))


def closed_by(config: Config) -> str:
    """Returns why the methods are not served at the operators' port, "" if they are.

    Whoever must prove who it is over gRPC, or is kept out by the address, is not let in here without a token.
    """
    if config.access.configured:
        return ""
    if config.listen.control_apart:
        return (
            "the control service has an address of its own (--control-port, --control-socket): ask it there over gRPC, "
            "or let callers prove who they are by tokens (docs/security.md)"
        )
    if config.tls.mutual:
        return "callers prove who they are by certificates: ask over gRPC, or let them use tokens (docs/security.md)"
    return ""
