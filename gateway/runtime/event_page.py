"""The page of events: those that are kept, then each as it happens, for as long as somebody reads."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable
from http import HTTPStatus
from typing import Final

from gateway.access.audience import Audience
from gateway.access.principal import Principal
from gateway.rest.open_api import EVENTS_TYPE
from gateway.runtime.operators_port import HttpRequest, HttpResponse
from gateway.telemetry.events import LINES_TYPE, Event, EventLog

MAX_READERS: Final = 16
QUIET_S: Final = 15.0
_FOLLOW: Final = {"": True, "true": True, "1": True, "false": False, "0": False}


class EventPage:
    """`GET /events`: JSON lines, or server-sent events for a client that accepts those.

    Order: what followed the event that `Last-Event-ID` names, or all that is kept; then, unless `follow=false`, what
           happens. Something is sent at least every `quiet_s`, so that both sides notice when the other has gone.
    """

    def __init__(self, events: EventLog, *, quiet_s: float = QUIET_S) -> None:
        self._events = events
        self._quiet_s = quiet_s
        self._readers = Audience(MAX_READERS, "follow the events")
        self._news = asyncio.Event()
        events.listen(self._told)

    async def answer(self, request: HttpRequest) -> HttpResponse:
        """Raises: Unavailable, where too many follow already."""
        follow = _FOLLOW.get(request.query.get("follow", "").lower())
        if follow is None:
            return HttpResponse(b"follow: true or false\n", status=HTTPStatus.BAD_REQUEST)
        sent = EVENTS_TYPE in request.headers.get("accept", "")
        encode, quiet = (_as_sent, b": nothing new\n\n") if sent else (_as_lines, b"\n")
        content_type = EVENTS_TYPE if sent else LINES_TYPE
        known, position = self._events.after(request.headers.get("last-event-id", ""))
        if not follow:
            return HttpResponse(encode(known), content_type)
        events = self._follow(request.principal, position, encode, quiet)
        await anext(events)
        return HttpResponse(encode(known), content_type, then=events)

    def _told(self, _: Event) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def _follow(
        self, reader: Principal, position: int, encode: Callable[[Iterable[Event]], bytes], quiet: bytes
    ) -> AsyncGenerator[bytes, None]:
        """Yields nothing once it has a place, then what happens. Raises: Unavailable at first."""
        self._readers.join(reader)
        try:
            yield b""
            while True:
                news = self._news
                events, position = self._events.since(position)
                if events:
                    yield encode(events)
                    continue
                try:
                    async with asyncio.timeout(self._quiet_s):
                        await news.wait()
                except TimeoutError:
                    yield quiet
        finally:
            self._readers.leave(reader)


def _as_lines(events: Iterable[Event]) -> bytes:
    return "".join(f"{event.to_json()}\n" for event in events).encode()


def _as_sent(events: Iterable[Event]) -> bytes:
    """Source: WHATWG HTML, "Server-sent events"; an event's JSON is one line, so it is one `data` field."""
    return "".join(f"id: {event.id}\nevent: {event.type}\ndata: {event.to_json()}\n\n" for event in events).encode()
