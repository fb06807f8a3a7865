"""Streaming calls over both transports, with grpcio's client."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest

from gateway.rpc.grpcio import GrpcioServer
from tests.rpc.raw import RawClient, message, request_headers
from tests.rpc.serving import Served


async def sent(*messages: bytes) -> AsyncIterator[bytes]:
    for body in messages:
        yield body


async def test_a_servers_stream_comes_in_order(served: Served) -> None:
    assert [message async for message in served.server_stream("CountByWrite")(b"500")] == [
        b"%d" % n for n in range(500)
    ]
    assert [len(message) async for message in served.server_stream("Count")(b"20 300000")] == [300_000] * 20
    assert [message async for message in served.server_stream("Count")(b"0 0")] == []


async def test_a_clients_stream_is_read_to_its_end(served: Served) -> None:
    assert await served.client_stream("Total")(sent(*[b"x" * 100_000] * 50)) == b"5000000"
    assert await served.client_stream("Total")(sent()) == b"0"


async def test_an_answer_may_come_before_the_client_has_ended(served: Served) -> None:
    call = served.client_stream("First")(None)
    await call.write(b"one")
    assert await call == b"one"
    assert await served.unary("Echo")(b"next") == b"next"


@pytest.mark.parametrize("method", ["Chat", "ChatByRead"])
async def test_both_directions_take_turns(served: Served, method: str) -> None:
    call = served.both_streams(method)(None)
    for size in (1, 0, 100_000, 27_182):
        await call.write(b"t" * size)
        assert await call.read() == b"t" * size
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF  # type: ignore[attr-defined]
    assert await call.code() is grpc.StatusCode.OK


async def test_a_stream_echoes_more_than_all_windows_hold(served: Served) -> None:
    messages = [bytes([number]) * 1_000_000 for number in range(40)]
    assert [message async for message in served.both_streams("Chat")(sent(*messages))] == messages


async def test_an_error_after_messages_is_the_status(served: Served) -> None:
    for request, code, text in (
        (b"gateway", grpc.StatusCode.INVALID_ARGUMENT, "the second is missing"),
        (b"", grpc.StatusCode.INTERNAL, "internal error"),
    ):
        call = served.server_stream("BrokenStream")(request)
        assert await call.read() == b"one"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        assert (caught.value.code(), caught.value.details()) == (code, text)


async def test_a_message_that_does_not_parse_ends_a_stream(served: Served) -> None:
    call = served.both_streams("Shout")(sent(b"a", b"\xff"))
    assert await call.read() == b"A"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_answers_may_be_compressed(served: Served) -> None:
    answers = [message async for message in served.server_stream("Packed")(b"")]
    assert answers == [b"packed " * 1000, b"plain " * 1000]
    await served.behaviour.until("packed done")


async def test_answers_are_compressed_only_for_who_reads_gzip(fast: Served) -> None:
    async with RawClient(fast.server.port) as client:
        plain, packed = message(b"packed " * 1000), message(b"plain " * 1000)
        fields, body = await client.answer(await client.request(request_headers("Packed"), message(b"")))
        assert body == plain + packed
        headers = request_headers("Packed", (b"grpc-accept-encoding", b"identity,gzip"))
        fields, body = await client.answer(await client.request(headers, message(b"")))
        assert fields[b"grpc-encoding"] == b"gzip"
        assert body[0] == 1
        assert body.endswith(packed)
        assert len(body) < len(packed) + 500


async def test_cancel_after_begin(served: Served) -> None:
    call = served.client_stream("Total")(None)
    await call.write(b"x")
    await served.behaviour.until("added")
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await served.behaviour.until("total over")
    # grpcio lets a handler that is reading see the end of the stream instead.
    assert served.behaviour.events["total cancelled"] or isinstance(served.server, GrpcioServer)


async def test_cancel_after_the_first_answer(served: Served) -> None:
    call = served.both_streams("Chat")(None)
    await call.write(b"x")
    assert await call.read() == b"x"
    call.cancel()
    await served.behaviour.until("chat over")


async def test_cancel_between_two_answers(served: Served) -> None:
    call = served.server_stream("Count")(b"-1 10")
    assert await call.read() == b"c" * 10
    call.cancel()
    await served.behaviour.until("count over")


async def test_a_deadline_ends_a_stream(served: Served) -> None:
    call = served.server_stream("Count")(b"-1 10", timeout=0.2)
    assert await call.read() == b"c" * 10
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await served.behaviour.until("count over")


async def test_a_handler_waits_for_a_slow_reader(served: Served) -> None:
    call = served.server_stream("Count")(b"2000 65536")
    assert len(await call.read()) == 65_536  # type: ignore[arg-type]
    assert len(await served.unary("Echo")(b"x" * 1000)) == 1000
    made = served.behaviour.events["counted"]
    assert made < 1000
    number = 1
    while await call.read() is not grpc.aio.EOF:  # type: ignore[attr-defined]
        number += 1
    assert number == 2000


async def test_a_client_waits_for_a_handler_that_does_not_read(served: Served) -> None:
    call = served.both_streams("Drop")(None)
    written = 0

    async def write() -> None:
        nonlocal written
        while True:
            await call.write(b"x" * 100_000)
            written += 1

    writing = asyncio.ensure_future(write())
    await served.behaviour.until("drop")
    for number in range(50):  # other streams of the connection go on meanwhile
        assert await served.unary("EchoNow")(b"%d" % number) == b"%d" % number
    assert not writing.done()
    assert written < 500
    writing.cancel()
    call.cancel()


async def test_many_streams_at_once(served: Served) -> None:
    async def talk(number: int) -> None:
        call = served.both_streams("Chat")(None)
        for turn in range(5):
            await call.write(b"%d %d" % (number, turn))
            assert await call.read() == b"%d %d" % (number, turn)
        await call.done_writing()
        assert await call.code() is grpc.StatusCode.OK

    await asyncio.gather(*(talk(number) for number in range(200)))
