"""Messages that are not whole yet: bounded together, refused before they are read, counted on either transport."""

import asyncio

import pytest

from gateway.rpc.server import ServerOptions
from tests.rpc.raw import RawClient, message, request_headers
from tests.rpc.refusals import EXHAUSTED, MIB, budget, ended, told_to_come_later
from tests.rpc.serving import serving


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


@pytest.mark.parametrize("method", ["Echo", "EchoNow"])
async def test_grpcio_tells_of_each_call_and_message_that_it_takes_in(method: str) -> None:
    told: list[None] = []
    options = ServerOptions(reuse_port=False, on_progress=lambda: told.append(None))
    async with serving("grpcio", options) as served:
        for count in (1, 2):
            await served.unary(method)(b"x", timeout=10)
            assert len(told) >= 2 * count
