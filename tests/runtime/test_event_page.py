"""The page of events as a client reads it, over a real socket."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from gateway.access.principal import Principal
from gateway.errors import Unavailable
from gateway.runtime.event_page import MAX_READERS, EventPage
from gateway.runtime.operators_port import HttpRequest, HttpResponse, OperatorsPort, served_pages
from gateway.telemetry.events import Event, EventLog
from tests.routing.live import until

PATIENCE_S = 10.0


@dataclass
class Served:
    events: EventLog
    page: EventPage
    port: int

    def tell(self, *numbers: int) -> None:
        for number in numbers:
            self.events.add(Event("route.applied", "/gateway/default", f"id-{number}", number, "m", {"n": number}))

    @asynccontextmanager
    async def asked(self, target: str = "/events", **headers: str) -> AsyncIterator[asyncio.StreamReader]:
        """The body of the answer, its head read."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        writer.write(f"GET {target} HTTP/1.0\r\n{lines}\r\n".encode())
        try:
            async with asyncio.timeout(PATIENCE_S):
                assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
                yield reader
        finally:
            writer.close()
            await writer.wait_closed()


@asynccontextmanager
async def served(quiet_s: float = 60.0) -> AsyncIterator[Served]:
    events = EventLog()
    page = EventPage(events, quiet_s=quiet_s)
    server = OperatorsPort("127.0.0.1", 0, served_pages({"/events": page.answer}, {}, ("/events",)))
    await server.start()
    try:
        yield Served(events, page, server.port)
    finally:
        await server.close()


async def numbers(reader: asyncio.StreamReader, count: int) -> list[int]:
    return [json.loads(await reader.readline())["data"]["n"] for _ in range(count)]


async def test_what_happened_comes_first_and_then_what_happens() -> None:
    async with served() as made:
        made.tell(1, 2)
        async with made.asked() as all_of_it, made.asked(Last_Event_ID="id-1") as rest:
            assert await numbers(all_of_it, 2) == [1, 2]
            made.tell(3)
            made.tell(4, 5)
            assert await numbers(all_of_it, 3) == [3, 4, 5]
            assert await numbers(rest, 4) == [2, 3, 4, 5]


async def test_the_page_ends_for_who_does_not_follow() -> None:
    async with served() as made:
        made.tell(1, 2)
        async with made.asked("/events?follow=false") as page:
            assert [json.loads(line)["id"] for line in (await page.read()).splitlines()] == ["id-1", "id-2"]


async def test_a_browser_gets_server_sent_events() -> None:
    async with served(quiet_s=0.01) as made:
        made.tell(1)
        async with made.asked(Accept="text/event-stream") as stream:
            name, kind, data = [await stream.readline() for _ in range(3)]
            assert (name, kind) == (b"id: id-1\n", b"event: route.applied\n")
            assert json.loads(data.removeprefix(b"data: "))["data"] == {"n": 1}
            assert await stream.readline() == b"\n"
            assert await stream.readline() == b": nothing new\n"


async def test_readers_are_bounded_and_a_reader_that_went_away_makes_room() -> None:
    async with served(quiet_s=0.01) as made:
        for _ in range(2):
            streams = [made.asked() for _ in range(MAX_READERS)]
            for stream in streams:
                assert await (await stream.__aenter__()).readline() == b"\n"
            with pytest.raises(AssertionError):
                async with made.asked():
                    pass
            for stream in streams:
                await stream.__aexit__(None, None, None)
            await until(lambda: not made.page._readers)


async def test_readers_of_one_name_take_no_place_of_another() -> None:
    page = EventPage(EventLog())

    async def follows(name: str) -> HttpResponse:
        return await page.answer(HttpRequest("GET", "/events", principal=Principal(name, "", "token", ())))

    half = [await follows("alice") for _ in range(MAX_READERS // 2)]
    with pytest.raises(Unavailable, match="callers of 'alice' follow the events"):
        await follows("alice")
    other = await follows("bob")
    for response in (*half, other):
        assert response.then is not None
        await response.then.aclose()
    assert not page._readers


async def test_the_server_ends_while_somebody_reads_and_bad_words_are_refused() -> None:
    async with served() as made:
        with pytest.raises(AssertionError):
            async with made.asked("/events?follow=maybe"):
                pass
        made.tell(1)
        async with made.asked() as stream:
            assert await numbers(stream, 1) == [1]
