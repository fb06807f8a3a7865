"""Clients behind a link that is slow, or that loses them: as a link of half a Mbit, twenty times as fast."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import grpc.aio
import ngh2
import pytest

from gateway.rpc.server import MIB, ServerOptions
from tests.accepted_connections import accepting
from tests.rpc.raw import RawClient, message, request_headers
from tests.rpc.serving import TRANSPORTS, Served, path, serving

SECOND_S = 0.05  # of that link
CHUNK_BYTES = 16 * 1024
CHUNK_S = CHUNK_BYTES / 62_500 * SECOND_S
BUFFER_BYTES = 64 * 1024
LARGE_BYTES = 4 * MIB
# As much faster as the link is: a ping each 10 s, for which 5 s are waited.
OPTIONS = ServerOptions(reuse_port=False, keepalive_time_s=10 * SECOND_S, keepalive_timeout_s=5 * SECOND_S)


class Link:
    """Passes bytes on, each way at the link's rate; `lose` drops what comes from then on, and tells nobody."""

    def __init__(self, upstream: int) -> None:
        self._upstream = upstream
        self._lost = False
        self.port = 0

    def lose(self) -> None:
        self._lost = True

    @asynccontextmanager
    async def open(self) -> AsyncIterator["Link"]:
        async with accepting(self._serve, limit_bytes=CHUNK_BYTES) as self.port:
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind = socket.socket()
        behind.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)  # what waits does so at the server
        behind.setblocking(False)
        await asyncio.get_running_loop().sock_connect(behind, ("127.0.0.1", self._upstream))
        inward, outward = await asyncio.open_connection(sock=behind, limit=CHUNK_BYTES)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._carry(reader, outward))
                group.create_task(self._carry(inward, writer))
        finally:
            outward.transport.abort()
            writer.transport.abort()

    async def _carry(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(CHUNK_BYTES):
                if not self._lost:
                    await asyncio.sleep(CHUNK_S * len(data) / CHUNK_BYTES)
                    target.write(data)
                    await target.drain()
        except OSError:
            pass
        if not self._lost:
            target.transport.abort()


@asynccontextmanager
async def served_over_link(
    transport: str, options: ServerOptions = OPTIONS
) -> AsyncIterator[tuple[Served, Link, grpc.aio.Channel]]:
    """A server, a link to it, and a client at the other end."""
    async with (
        serving(transport, options) as served,
        Link(served.server.port).open() as link,
        grpc.aio.insecure_channel(f"127.0.0.1:{link.port}") as channel,
    ):
        yield served, link, channel


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_an_answer_that_takes_a_minute_arrives(transport: str) -> None:
    """A client with a window for all of it says nothing meanwhile; a ping waits behind what it has not taken."""
    settings: dict[int, int] = {ngh2.Setting.INITIAL_WINDOW_SIZE: 16 * MIB}
    async with served_over_link(transport) as (_, link, _), RawClient(link.port, settings) as client:
        client.h2.set_local_window_size(16 * MIB)
        stream_id = await client.request(request_headers("Count"), message(b"1 %d" % LARGE_BYTES))
        fields, body = await client.answer(stream_id)
        assert (fields[b"grpc-status"], len(body)) == (b"0", LARGE_BYTES + 5)


async def test_an_answer_on_its_way_outlives_the_end_of_its_connection() -> None:
    """The connection ends with the last call, whose answer then takes longer than a ping may."""
    options = replace(OPTIONS, max_connection_age_s=SECOND_S, age_grace_s=60.0)
    settings: dict[int, int] = {ngh2.Setting.INITIAL_WINDOW_SIZE: 16 * MIB}
    async with served_over_link("ngh2", options) as (served, link, _), RawClient(link.port, settings) as client:
        client.h2.set_local_window_size(16 * MIB)
        stream_id = await client.request(request_headers("Hold"), message(b""))
        await served.behaviour.until("hold")
        await client.until(lambda self: sum(isinstance(event, ngh2.GoAwayReceived) for event in self.events) == 2)
        served.behaviour.held[0].answer(bytes(LARGE_BYTES))
        fields, body = await client.answer(stream_id)
        assert (fields[b"grpc-status"], len(body)) == (b"0", LARGE_BYTES + 5)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_message_that_takes_a_quarter_of_a_minute_is_answered(transport: str) -> None:
    async with served_over_link(transport) as (_, _, channel):
        call = channel.stream_unary(path("Total"), None, None)(iter((bytes(MIB),)), timeout=30)
        assert await call == b"%d" % MIB


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_client_that_a_link_lost_is_given_up(transport: str) -> None:
    """Both ends are still connected. What its call held is free once the next ping is not answered."""
    async with served_over_link(transport) as (served, link, channel):
        call = channel.stream_unary(path("Total"), None, None)(None, timeout=30)
        await call.write(b"part")
        await served.behaviour.until("added")
        async with RawClient(link.port) as other:  # pings are answered until then
            await other.until(lambda self: sum(isinstance(one, ngh2.PingReceived) for one in self.events) >= 3)
            link.lose()
            await served.behaviour.until("total over", limit_s=10)
        call.cancel()
