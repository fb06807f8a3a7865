"""Connections and open calls are bounded, for all clients together and for each address."""

import asyncio

import grpc
import ngh2
import pytest

from gateway.rpc.open_calls import Peer
from gateway.rpc.server import ServerOptions
from tests.rpc.raw import RawClient, message, request_headers
from tests.rpc.refusals import told_to_come_later
from tests.rpc.serving import TRANSPORTS, Served, serving


async def test_calls_of_one_address_come_from_so_many_connections() -> None:
    """grpcio shows no connections: their calls are refused, before their messages are read."""
    options = ServerOptions(reuse_port=False, host="0.0.0.0", max_connections_per_address=2)
    async with serving("grpcio", options) as served:
        port = served.server.port
        async with RawClient(port) as first, RawClient(port) as second, RawClient(port) as third:
            held = await first.request(request_headers("Hold"), message(b"x"))
            await second.request(request_headers("Hold"), message(b"x"))
            await served.behaviour.until("hold", 2)
            prefix = b"\0" + (1_000_000).to_bytes(4, "big")
            fields, _ = await third.answer(await third.request(request_headers("EchoNow"), prefix, end=False))
            assert told_to_come_later(fields)
            assert b"calls of 2 connections of this address are open" in fields[b"grpc-message"]
            # Those that are in have further calls, and another address has room.
            fields, _ = await second.answer(await second.request(request_headers("EchoNow"), message(b"x")))
            assert fields[b"grpc-status"] == b"0"
            async with RawClient(port, local_address="127.0.0.2") as other:
                fields, _ = await other.answer(await other.request(request_headers("EchoNow"), message(b"x")))
                assert fields[b"grpc-status"] == b"0"
            first.h2.reset_stream(held, 8)
            await first.send()
            await served.behaviour.until("hold cancelled")
            async with asyncio.timeout(5):
                fields = {}
                while fields.get(b"grpc-status") != b"0":
                    fields, _ = await third.answer(await third.request(request_headers("EchoNow"), message(b"x")))


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("ipv4:1.2.3.4:5", "1.2.3.4"),
        ("ipv6:%5B::1%5D:5", "::/64"),
        ("ipv6:%5B2001:db8::7%5D:5", "2001:db8::/64"),
        ("ipv6:%5Bfe80::1%25eth0%5D:5", "fe80::/64"),
        ("ipv6:%5B::ffff:1.2.3.4%5D:5", "1.2.3.4"),
        ("unix:", ""),
        ("unix:/run/socket", ""),
        ("", ""),
    ],
)
def test_addresses_of_grpcios_peers(name: str, address: str) -> None:
    assert Peer(name).address == address


async def test_one_address_cannot_take_every_connection() -> None:
    options = ServerOptions(reuse_port=False, host="0.0.0.0", max_connections=10, max_connections_per_address=2)
    async with serving("ngh2", options) as served:
        async with RawClient(served.server.port) as first, RawClient(served.server.port) as second:
            await first.until(lambda self: self.events)
            await second.until(lambda self: self.events)
            async with RawClient(served.server.port) as third:
                await third.until_closed()
            reader, writer = await asyncio.open_connection("127.0.0.1", served.server.port, local_addr=("127.0.0.2", 0))
            assert await asyncio.wait_for(reader.read(9), 5)  # its SETTINGS: another address has room
            writer.close()
            assert served.server.counts()["refused"] == 1
        assert await served.unary("EchoNow")(b"room", timeout=10, wait_for_ready=True) == b"room"


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_open_calls_are_bounded_over_all_connections(transport: str) -> None:
    async with serving(transport, ServerOptions(reuse_port=False, max_concurrent_calls=6)) as served:
        async with RawClient(served.server.port) as first, RawClient(served.server.port) as second:
            for client in (first, second):
                for _ in range(3):
                    await client.request(request_headers("Chat"), message(b"x"), end=False)
                await client.until(lambda self: sum(isinstance(e, ngh2.DataReceived) for e in self.events) == 3)
            for method in ("EchoNow", "Chat"):
                fields, _ = await second.answer(await second.request(request_headers(method), message(b"x")))
                assert told_to_come_later(fields)
        await served.behaviour.until("chat over", 6)
        async with asyncio.timeout(5):
            while await outcome(served) is not grpc.StatusCode.OK:
                pass


async def outcome(served: Served) -> grpc.StatusCode:
    try:
        await served.unary("EchoNow")(b"room", timeout=5)
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK
