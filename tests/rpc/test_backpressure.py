"""What clients send without end and leave unread is bounded, and told to them; the others are served."""

import asyncio
from contextlib import suppress
from typing import Any

import grpc
import ngh2
import pytest

from gateway.errors import ResourceExhausted
from gateway.rpc.grpcio import GrpcioServer
from gateway.rpc.open_calls import Peer
from gateway.rpc.server import ServerOptions
from gateway.serving.admission import Admission
from tests.rpc.raw import PING, RawClient, message, raw_frame, request_headers
from tests.rpc.serving import TRANSPORTS, Served, refused, serving

MIB = 1 << 20
INITIAL_WINDOW_SIZE = 4
EXHAUSTED = b"8"
PUSHBACK = b"grpc-retry-pushback-ms"


def told_to_come_later(fields: dict[bytes, bytes]) -> bool:
    """Whether the answer is a refusal that says when to come again."""
    return fields[b"grpc-status"] == EXHAUSTED and 50 <= int(fields[PUSHBACK]) < 250


def told_never_to_come(fields: dict[bytes, bytes]) -> bool:
    """Whether the answer is a refusal of a call that is itself beyond a limit."""
    return fields[b"grpc-status"] == EXHAUSTED and fields[PUSHBACK] == b"-1"


def budget(served: Served, name: str) -> Any:
    """The server's budget of that name, whatever its transport."""
    owner: Any = served.server
    return getattr(owner._calls if isinstance(owner, GrpcioServer) else owner._state, name)


def ended(client: RawClient) -> set[int]:
    return {event.stream_id for event in client.events if isinstance(event, ngh2.StreamClosed)}


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_answers_that_are_not_read_are_bounded(transport: str) -> None:
    options = ServerOptions(reuse_port=False, max_inflight_bytes=8 * MIB, max_receive_bytes=MIB, max_send_bytes=MIB)
    async with serving(transport, options) as served:
        async with RawClient(served.server.port, settings={INITIAL_WINDOW_SIZE: 0}) as client:
            await client.until(lambda self: self.events)
            body = message(b"x" * 900_000)
            streams = [await client.request(request_headers("EchoLater"), body) for _ in range(30)]
            await client.until(lambda self: len(ended(self)) >= 10)  # refused: the others wait for their window
            unsent = budget(served, "unsent")
            assert unsent.free_bytes >= 0
            for stream_id in ended(client):
                assert told_to_come_later(client.seen(stream_id)[0])
            assert len(ended(client)) < len(streams)
            # Others are served, and do not wait.
            assert await served.unary("EchoNow")(b"small", timeout=5) == b"small"
        async with asyncio.timeout(10):
            while unsent.free_bytes < unsent.size_bytes:
                await served.unary("EchoNow")(b"turn")
        assert await served.unary("EchoNow")(b"x" * 900_000, timeout=5) == b"x" * 900_000


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_answers_that_are_not_read_leave_less_room_for_requests(transport: str) -> None:
    admission = Admission(max_requests=100, max_bytes=MIB)
    options = ServerOptions(reuse_port=False, on_unread=admission.count_unread)
    async with serving(transport, options) as served:
        async with RawClient(served.server.port, settings={INITIAL_WINDOW_SIZE: 0}) as client:
            await client.until(lambda self: self.events)
            await client.request(request_headers("EchoNow"), message(b"x" * 900_000))
            while admission.bytes < 900_000:  # not answered yet
                with suppress(TimeoutError):
                    async with asyncio.timeout(0.02):
                        await client.step()
            with pytest.raises(ResourceExhausted, match=r"9\d+ of them in answers that clients have not read"):
                admission.take(200_000)
            admission.take(100_000)  # there is room for smaller ones
            admission.give(100_000)
        async with asyncio.timeout(10):
            while admission.bytes:
                await served.unary("EchoNow")(b"turn")
        admission.take(MIB)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_connection_with_unread_answers_gets_no_more_requests_served(transport: str) -> None:
    options = ServerOptions(reuse_port=False, max_inflight_bytes=8 * MIB, max_receive_bytes=MIB, max_send_bytes=MIB)
    async with serving(transport, options) as served:
        client = RawClient(served.server.port, settings={INITIAL_WINDOW_SIZE: 0})
        async with client:
            await client.until(lambda self: self.events)
            unsent = budget(served, "unsent")
            for number in range(1, 7):
                await client.request(request_headers("EchoNow"), message(b"x" * 1_000_000))
                while unsent.size_bytes - unsent.free_bytes < number * 1_000_000:  # not answered yet
                    with suppress(TimeoutError):
                        async with asyncio.timeout(0.02):
                            await client.step()
            fields, _ = await client.answer(await client.request(request_headers("Hold"), message(b"")))
            assert told_to_come_later(fields)
            assert fields[b"grpc-message"] == b"earlier answers on this connection are not read"
            assert served.behaviour.events["hold"] == 0
            # When it reads, it is served again.
            client.h2.update_settings({INITIAL_WINDOW_SIZE: 2 * MIB})
            await client.send()
            await client.until(lambda self: len(ended(self)) == 7)
            fields, _ = await client.answer(await client.request(request_headers("EchoNow"), message(b"x")))
            assert fields[b"grpc-status"] == b"0"


async def test_small_answers_that_are_not_read_count() -> None:
    options = ServerOptions(reuse_port=False, max_inflight_bytes=8 * MIB, max_concurrent_streams=1000)
    async with serving("ngh2", options) as served:
        client = RawClient(served.server.port, settings={INITIAL_WINDOW_SIZE: 0})
        async with client:
            await client.until(lambda self: self.events)
            for _ in range(510):
                await client.request(request_headers("EchoNow"), message(b"x" * 16_000))
            await client.until(lambda self: not self.h2.queued_body_size())
            fields, _ = await client.answer(await client.request(request_headers("EchoNow"), message(b"x")))
            assert fields[b"grpc-status"] == EXHAUSTED
            unsent = budget(served, "unsent")
            assert 7 * MIB < unsent.size_bytes - unsent.free_bytes <= 8 * MIB
            assert await served.unary("EchoNow")(b"small", timeout=5) == b"small"


async def test_unfinished_small_messages_are_bounded() -> None:
    options = ServerOptions(reuse_port=False, max_inflight_bytes=MIB)
    async with serving("ngh2", options) as served, RawClient(served.server.port) as client:
        part = message(b"x" * 60_000)[:50_000]
        streams = [await client.request(request_headers("EchoNow"), part, end=False) for _ in range(30)]
        await client.until(lambda self: len(ended(self)) >= 13)  # 17 messages of 60 000 bytes have room
        for stream_id in ended(client):
            assert told_to_come_later(client.seen(stream_id)[0])
        assert len(ended(client)) == 13 < len(streams)
        assert await served.unary("EchoNow")(b"small", timeout=5) == b"small"


async def test_pings_beside_a_large_download_are_welcome(fast: Served) -> None:
    """gRPC's clients measure the bandwidth with a ping for each stretch of data that they receive."""
    async with RawClient(fast.server.port, settings={INITIAL_WINDOW_SIZE: 65_535}) as client:
        await client.until(lambda self: self.events)
        body = message(b"x" * 3_000_000)
        streams = [await client.request(request_headers("EchoNow"), body) for _ in range(3)]
        pings = 0
        while len(ended(client)) < len(streams):
            before = len(client.events)
            await client.step()
            assert not client.closed
            assert client.went_away() is None
            if any(isinstance(event, ngh2.DataReceived) for event in client.events[before:]):
                client.h2.ping(b"bdp ping")
                await client.send()
                pings += 1
        for stream_id in streams:
            assert client.seen(stream_id)[1] == body
        assert pings > 20


async def test_pings_without_data_are_not_forgiven_by_an_unread_answer(fast: Served) -> None:
    async with RawClient(fast.server.port, settings={INITIAL_WINDOW_SIZE: 0}) as client:
        await client.until(lambda self: self.events)
        await client.request(request_headers("EchoNow"), message(b"x" * 100_000))
        for _ in range(6):
            await client.send_raw(raw_frame(PING, 0, b"12345678"))
            await client.step()
        await client.until(lambda self: self.went_away() is not None)
        assert client.went_away() == ngh2.ErrorCode.ENHANCE_YOUR_CALM


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("fields", [1000, 10_000])
async def test_thousands_of_metadata_fields_are_refused_alone(transport: str, fields: int) -> None:
    """A proxy has the calls of many clients on one connection: those of the others go on."""
    async with serving(transport) as served:
        client = RawClient(served.server.port, max_send_header_block_length=1 << 24)
        async with client:
            held = await client.request(request_headers("Hold"), message(b""))
            await served.behaviour.until("hold")
            for distinct in (True, False):
                more = [(b"x-%d" % number if distinct else b"x-same", b"v") for number in range(fields)]
                bad = await client.request(request_headers("EchoNow", *more), message(b"x"))
                seen, _ = await client.answer(bad)
                assert seen[b"grpc-status"] == EXHAUSTED, distinct
            served.behaviour.held[0].answer(b"done")
            seen, body = await client.answer(held)
            assert (seen[b"grpc-status"], body) == (b"0", message(b"done"))
            assert client.went_away() is None


async def test_many_empty_fields_are_refused(fast: Served) -> None:
    async with RawClient(fast.server.port) as client:
        more = [(b"x%d" % number, b"") for number in range(257)]
        for method in ("EchoNow", "Chat", "Missing"):
            fields, _ = await client.answer(await client.request(request_headers(method, *more), message(b"x")))
            assert told_never_to_come(fields)


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


async def test_refused_answers_are_told_to_grpcios_client() -> None:
    options = ServerOptions(reuse_port=False, max_inflight_bytes=MIB, max_send_bytes=2 * MIB)
    async with serving("grpcio", options) as served:
        error = await refused(served.unary("Echo")(b"x" * (MIB + 1), timeout=5))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "never fits" in (error.details() or "")
        assert "-1" in str(error.trailing_metadata())


async def test_who_leaves_answers_unread_loses_its_connection_when_room_runs_out() -> None:
    options = ServerOptions(reuse_port=False, max_inflight_bytes=4 * MIB, max_send_bytes=MIB, stall_timeout_s=0.1)
    async with serving("ngh2", options) as served:
        hoarders = [RawClient(served.server.port, settings={INITIAL_WINDOW_SIZE: 0}) for _ in range(4)]
        async with hoarders[0], hoarders[1], hoarders[2], hoarders[3]:
            for hoarder in hoarders:
                await hoarder.request(request_headers("EchoNow"), message(b"x" * 1_000_000))
                await hoarder.until(lambda self: not self.h2.queued_body_size())
            waiting = [asyncio.ensure_future(hoarder.until_closed()) for hoarder in hoarders]
            _, open_still = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for one in open_still:
                one.cancel()
            await asyncio.gather(*open_still, return_exceptions=True)
            assert served.server.counts()["broken"] == 1
            assert await served.unary("EchoNow")(b"x" * 1_000_000, timeout=5) == b"x" * 1_000_000


async def test_an_unread_answer_may_wait_while_there_is_room() -> None:
    options = ServerOptions(reuse_port=False, stall_timeout_s=0.05)
    async with serving("ngh2", options) as served:
        client = RawClient(served.server.port, settings={INITIAL_WINDOW_SIZE: 0})
        async with client:
            stream_id = await client.request(request_headers("EchoNow"), message(b"x" * 1_000_000))
            other = served.unary("Sleep")(b"", timeout=0.5)
            await refused(other)  # ten checks later
            client.h2.update_settings({INITIAL_WINDOW_SIZE: 2 * MIB})
            await client.send()
            assert (await client.answer(stream_id))[1] == message(b"x" * 1_000_000)


async def test_slow_messages_of_grpcio_count_as_the_largest() -> None:
    options = ServerOptions(reuse_port=False, max_inflight_bytes=3 * MIB, max_receive_bytes=MIB, stall_timeout_s=0.1)
    async with serving("grpcio", options) as served, RawClient(served.server.port) as client:
        prefix = message(bytes(500_000))[:5]
        streams = [await client.request(request_headers("EchoNow"), prefix, end=False) for _ in range(5)]
        await client.until(lambda self: len(ended(self)) == 2)  # three have room
        for stream_id in ended(client):
            fields = client.seen(stream_id)[0]
            assert told_to_come_later(fields)
            assert b"too slowly" in fields[b"grpc-message"]
        received = budget(served, "received")
        assert received.free_bytes == 0
        # One of them comes at last, and is answered.
        late = next(stream_id for stream_id in streams if stream_id not in ended(client))
        client.h2.send_data(late, b"x" * 500_000, end_stream=True)
        await client.send()
        fields, body = await client.answer(late)
        assert (fields[b"grpc-status"], body) == (b"0", message(b"x" * 500_000))
        for stream_id in streams:
            client.h2.reset_stream(stream_id, 8)
        await client.send()
        async with asyncio.timeout(5):
            while received.free_bytes < received.size_bytes - 1:  # of this call
                await served.unary("Echo")(b"t")


async def test_a_refused_message_is_never_read() -> None:
    """What a client sends of it stays in its window."""
    options = ServerOptions(reuse_port=False, max_concurrent_calls=1)
    async with serving("grpcio", options) as served, RawClient(served.server.port) as client:
        await client.request(request_headers("Hold"), message(b"x"))
        await served.behaviour.until("hold")
        streams = [
            await client.request(request_headers("EchoNow"), message(bytes(40 * MIB)), end=False) for _ in range(6)
        ]
        for stream_id in streams:
            assert told_to_come_later((await client.answer(stream_id))[0])
        assert budget(served, "received").free_bytes == options.max_inflight_bytes - 1


async def test_whose_last_message_would_be_refused_now_is_refused_before_the_next_is_read() -> None:
    """grpcio shows nothing of a message until it is read whole, so calls are taken to be like those before them."""
    unread = (1_000_000).to_bytes(5, "big")
    async with serving("grpcio", ServerOptions(reuse_port=False, host="0.0.0.0")) as served:
        async with RawClient(served.server.port) as client:
            method = request_headers("EchoAnnounced")
            # Nothing is known of the first.
            fields, _ = await client.answer(await client.request(method, message(b"stop it")))
            assert fields[b"grpc-status"] == b"0"
            fields, _ = await client.answer(await client.request(method, unread, end=False))
            assert (fields[b"grpc-status"], fields[b"grpc-retry-pushback-ms"]) == (EXHAUSTED, b"70")
            assert served.behaviour.events["0 b'stop'"] == 1
            # Another method and another caller are not known by it.
            fields, _ = await client.answer(await client.request(request_headers("EchoNow"), message(b"stop")))
            assert fields[b"grpc-status"] == b"0"
        async with RawClient(served.server.port, local_address="127.0.0.2") as other:
            for word in (b"go on", b"stop it"):
                fields, body = await other.answer(await other.request(method, message(word)))
                assert (fields[b"grpc-status"], body) == (b"0", message(word))
            # Whoever asks for this and for that is asked what it wants.
            stream_id = await other.request(method, message(b"go on")[:5], end=False)
            other.h2.send_data(stream_id, b"go on", end_stream=True)
            await other.send()
            assert (await other.answer(stream_id))[1] == message(b"go on")


async def test_who_is_denied_a_model_learns_nothing_of_its_load() -> None:
    """Whether the call before was denied by then, or is still to be."""
    async with serving("grpcio", ServerOptions(reuse_port=False)) as served:
        for word, code in ((b"stop, denied", b"5"), (b"hers", b"0")):
            async with RawClient(served.server.port) as client:
                for _ in range(3):
                    sent = await client.request(request_headers("EchoAnnounced"), message(word))
                    fields, _ = await client.answer(sent)
                    assert fields[b"grpc-status"] == code
        assert served.behaviour.events["0 b'stop'"] == 0
        assert served.behaviour.events["0 b'hers'"] == 2


async def test_messages_on_their_way_to_grpcio_count_as_those_before_them() -> None:
    options = ServerOptions(reuse_port=False, max_inflight_bytes=MIB, max_receive_bytes=MIB)
    async with serving("grpcio", options) as served, RawClient(served.server.port) as client:
        method, body = request_headers("EchoAnnounced"), message(b"go" * 200_000)
        for _ in range(2):
            fields, _ = await client.answer(await client.request(method, body))
            assert fields[b"grpc-status"] == b"0"
        answered = ended(client)
        held = {await client.request(method, body[:5], end=False) for _ in range(4)}
        await client.until(lambda self: ended(self) > answered)
        for stream_id in ended(client) - answered:
            fields = client.seen(stream_id)[0]
            assert told_to_come_later(fields)
            text = fields[b"grpc-message"]
            assert text.startswith(b"a message like the last ones of its caller, of 400000 bytes: 800000")
        for stream_id in held - ended(client):
            client.h2.reset_stream(stream_id, 8)
        await client.send()
        received = budget(served, "received")
        async with asyncio.timeout(5):
            while received.free_bytes < received.size_bytes - 1:  # of this call
                await served.unary("Echo")(b"t")


async def test_one_large_message_among_small_ones_says_nothing_of_the_next() -> None:
    options = ServerOptions(reuse_port=False, max_inflight_bytes=MIB, max_receive_bytes=MIB)
    async with serving("grpcio", options) as served, RawClient(served.server.port) as client:
        method, body, small = request_headers("EchoAnnounced"), message(b"go" * 200_000), message(b"go")
        held = []
        for sent in (body, small, body, small):
            for _ in range(2):
                held.append(await client.request(method, sent[:5], end=False))
            fields, _ = await client.answer(await client.request(method, sent))
            assert fields[b"grpc-status"] == b"0"
        assert not ended(client).intersection(held)
        assert budget(served, "received").free_bytes > MIB - 100


async def test_messages_that_do_not_come_lose_their_room_when_it_runs_out() -> None:
    options = ServerOptions(reuse_port=False, max_inflight_bytes=4 * MIB, max_receive_bytes=MIB, stall_timeout_s=0.1)
    async with serving("ngh2", options) as served, RawClient(served.server.port) as client:
        prefix = b"\0" + (1_000_000).to_bytes(4, "big")
        for method in ("EchoNow", "Echo", "Total", "Chat"):
            await client.request(request_headers(method), prefix, end=False)
        await client.until(lambda self: len(ended(self)) == 4)
        for stream_id in ended(client):
            assert told_to_come_later(client.seen(stream_id)[0])
        assert await served.unary("EchoNow")(b"x" * 1_000_000, timeout=5) == b"x" * 1_000_000


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


async def test_small_messages_of_streams_that_are_not_read_are_bounded() -> None:
    options = ServerOptions(reuse_port=False, max_inflight_bytes=4 * MIB)
    async with serving("ngh2", options) as served:
        client = RawClient(served.server.port, settings={INITIAL_WINDOW_SIZE: 0})
        async with client:
            await client.until(lambda self: self.events)
            for _ in range(60):
                await client.request(request_headers("Count"), message(b"-1000 10000"))
                await client.until(lambda self: not self.h2.queued_body_size())
            # A message that has no room ends its stream.
            await served.behaviour.until("count over", 40)
            unsent = budget(served, "unsent")
            assert 0 <= unsent.free_bytes < MIB
        assert await served.unary("EchoNow")(b"small", timeout=5) == b"small"


@pytest.mark.parametrize("method", ["Echo", "EchoNow"])
async def test_grpcio_tells_of_each_call_and_message_that_it_takes_in(method: str) -> None:
    told: list[None] = []
    options = ServerOptions(reuse_port=False, on_progress=lambda: told.append(None))
    async with serving("grpcio", options) as served:
        for count in (1, 2):
            await served.unary(method)(b"x", timeout=10)
            assert len(told) >= 2 * count
