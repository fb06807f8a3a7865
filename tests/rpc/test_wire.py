"""What a client may put on the wire, and what it gets: requests written by hand.

Where grpcio's own answer to nonsense is another one (it lets a unary call without a message wait for its deadline),
only the ngh2 transport is asked.
"""

import asyncio
import gzip
import zlib

import ngh2
import pytest

from gateway.rpc.server import MIB, ServerOptions
from tests.rpc.raw import RawClient, message, request_headers
from tests.rpc.serving import TRANSPORTS, Served, serving

INTERNAL, UNIMPLEMENTED, EXHAUSTED, EXPIRED = b"13", b"12", b"8", b"4"


def cuts(body: bytes) -> list[tuple[bytes, ...]]:
    return [
        (body,),
        tuple(bytes((byte,)) for byte in body),
        (body[:3], body[3:]),
        (body[:5], b"", body[5:]),
        (body, b""),
    ]


async def test_a_message_may_be_cut_anywhere(served: Served) -> None:
    async with RawClient(served.server.port) as client:
        for method in ("Echo", "EchoNow"):
            for parts in cuts(message(b"hello")):
                fields, body = await client.answer(await client.request(request_headers(method), *parts))
                assert (fields[b"grpc-status"], body) == (b"0", message(b"hello"))


async def test_a_stream_may_pack_messages_as_it_likes(served: Served) -> None:
    async with RawClient(served.server.port) as client:
        packed = message(b"a") + message(b"") + message(b"bcd")
        for parts in ((packed,), (packed[:4], packed[4:9], packed[9:]), tuple(bytes((byte,)) for byte in packed)):
            fields, body = await client.answer(await client.request(request_headers("Chat"), *parts))
            assert (fields[b"grpc-status"], body) == (b"0", packed)


@pytest.mark.parametrize("method", ["Echo", "EchoNow"])
@pytest.mark.parametrize("body", [b"", message(b"a") + message(b"b"), message(b"abc")[:-1], b"\0\0"])
async def test_a_unary_call_has_exactly_one_message(fast: Served, method: str, body: bytes) -> None:
    async with RawClient(fast.server.port) as client:
        fields, answer = await client.answer(await client.request(request_headers(method), *([body] if body else [])))
        assert (fields[b"grpc-status"], answer) == (INTERNAL, b"")
        fields, answer = await client.answer(await client.request(request_headers(method), message(b"next")))
        assert (fields[b"grpc-status"], answer) == (b"0", message(b"next"))


async def test_content_types(fast: Served) -> None:
    async with RawClient(fast.server.port) as client:
        for content_type in (b"application/grpc", b"application/grpc+proto", b"application/grpc;charset=utf-8"):
            fields, _ = await client.answer(
                await client.request(request_headers("EchoNow", content_type=content_type), message(b"x"))
            )
            assert fields[b"grpc-status"] == b"0"
        for content_type in (b"application/json", b"application/grpc-web", b"text/html"):
            headers = request_headers("EchoNow", content_type=content_type)
            fields, body = await client.answer(await client.request(headers, message(b"x")))
            assert fields[b":status"] == b"415"
            assert body == b""


async def test_other_http_methods_are_refused(fast: Served) -> None:
    async with RawClient(fast.server.port) as client:
        headers = [(b":method", b"GET"), *request_headers("EchoNow")[1:]]
        fields, _ = await client.answer(await client.request(headers))
        assert fields[b":status"] == b"405"


async def test_flags_and_encodings(fast: Served) -> None:
    packed = gzip.compress(b"packed " * 100)
    cases = [
        ((), message(b"x", flag=1), INTERNAL),
        ((), message(b"x", flag=2), INTERNAL),
        (((b"grpc-encoding", b"gzip"),), message(b"not gzip", flag=1), INTERNAL),
        (((b"grpc-encoding", b"identity"),), message(b"x"), b"0"),
        (((b"grpc-encoding", b"gzip"),), message(b"x"), b"0"),
        (((b"grpc-encoding", b"gzip"),), message(packed, flag=1), b"0"),
        (((b"grpc-encoding", b"snappy"),), message(b"x", flag=1), UNIMPLEMENTED),
        (((b"grpc-encoding", b"deflate"),), message(b"not deflate", flag=1), INTERNAL),
        (((b"grpc-encoding", b"deflate"),), message(zlib.compress(b"packed"), flag=1), b"0"),
    ]
    async with RawClient(fast.server.port) as client:
        for more, body, status in cases:
            fields, _ = await client.answer(await client.request(request_headers("EchoNow", *more), body))
            assert fields[b"grpc-status"] == status, (more, body)
            if status == UNIMPLEMENTED:
                assert fields[b"grpc-accept-encoding"] == b"identity,deflate,gzip"


async def test_timeouts(served: Served) -> None:
    async with RawClient(served.server.port) as client:
        for value in (b"1S", b"99999999n", b"20000m", b"1H", b"99999999H"):
            headers = request_headers("EchoNow", (b"grpc-timeout", value))
            assert (await client.answer(await client.request(headers, message(b"x"))))[0][b"grpc-status"] == b"0"
        for method in ("Echo", "EchoNow", "Hold", "Sleep"):
            headers = request_headers(method, (b"grpc-timeout", b"0n"))
            fields, _ = await client.answer(await client.request(headers, message(b"x")))
            assert fields.get(b"grpc-status", EXPIRED) == EXPIRED
        fields, _ = await client.answer(
            await client.request(request_headers("Hold", (b"grpc-timeout", b"60m")), message(b"x"))
        )
        assert fields.get(b"grpc-status", EXPIRED) == EXPIRED


async def test_an_expired_call_never_runs(served: Served) -> None:
    async with RawClient(served.server.port) as client:
        for method in ("Hold", "Sleep"):
            headers = request_headers(method, (b"grpc-timeout", b"0n"))
            await client.answer(await client.request(headers, message(b"x")))
    assert not served.behaviour.events


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_declared_size_is_refused_before_the_body(transport: str) -> None:
    options = ServerOptions(reuse_port=False, max_receive_bytes=1000)
    async with serving(transport, options) as served, RawClient(served.server.port) as client:
        for method in ("EchoNow", "Echo", "Chat"):
            prefix = b"\0" + (1 << 30).to_bytes(4, "big")
            stream_id = await client.request(request_headers(method), prefix, end=False)
            fields, _ = await client.answer(stream_id)
            assert fields[b"grpc-status"] == EXHAUSTED


async def test_an_early_answer_stops_the_client(served: Served) -> None:
    async with RawClient(served.server.port) as client:
        stream_id = await client.request(request_headers("First"), message(b"one"), end=False)
        fields, body = await client.answer(stream_id)
        assert (fields[b"grpc-status"], body) == (b"0", message(b"one"))
        resets = [e.error_code for e in client.events if isinstance(e, ngh2.StreamReset) and e.stream_id == stream_id]
        assert resets == [0]


async def test_half_close_before_and_after_the_answer(served: Served) -> None:
    async with RawClient(served.server.port) as client:
        chat = await client.request(request_headers("Chat"), message(b"1"), end=False)
        await client.until(lambda self: self.seen(chat)[1] == message(b"1"))
        client.h2.send_data(chat, message(b"2"))
        await client.send()
        await client.until(lambda self: self.seen(chat)[1] == message(b"1") + message(b"2"))
        client.h2.end_stream(chat)
        await client.send()
        assert (await client.answer(chat))[0][b"grpc-status"] == b"0"


async def test_resets_at_each_stage(fast: Served) -> None:
    stages = [(), (b"\0\0",), (message(b"x")[:-1],), (message(b"x"),)]
    async with RawClient(fast.server.port) as client:
        for method in ("Hold", "Sleep", "Total", "Chat", "EchoNow", "Count", "Missing"):
            for parts in stages:
                stream_id = client.h2.send_request(request_headers(method))
                for part in parts:
                    client.h2.send_data(stream_id, part)
                together = client.h2.data_to_send()
                client.h2.reset_stream(stream_id, 8)
                await client.send_raw(together + client.h2.data_to_send())
                stream_id = client.h2.send_request(request_headers(method))
                for part in parts:
                    client.h2.send_data(stream_id, part)
                await client.send()
                client.h2.reset_stream(stream_id, 8)
                await client.send()
        fields, body = await client.answer(await client.request(request_headers("EchoNow"), message(b"alive")))
        assert (fields[b"grpc-status"], body) == (b"0", message(b"alive"))


async def test_unread_answers_do_not_grow_the_server(fast: Served) -> None:
    """A client whose windows stay shut: the handler stops, and the calls end at their deadline."""
    async with RawClient(fast.server.port, settings={4: 0}) as client:
        headers = request_headers("Count", (b"grpc-timeout", b"500m"))
        stream_id = await client.request(headers, message(b"5000 65536"))
        await client.answer(stream_id)
        assert fast.behaviour.events["counted"] < 200
        await fast.behaviour.until("count over")
        answer = await client.request(request_headers("EchoNow", (b"grpc-timeout", b"300m")), message(b"x" * 10_000))
        assert (await client.answer(answer))[1] == b""


async def test_large_messages_side_by_side_do_not_starve_each_other(fast: Served) -> None:
    """More bytes are begun at once than the connection's window holds."""
    async with RawClient(fast.server.port) as client:
        await client.until(lambda self: self.events)
        streams = []
        for method in ("EchoNow", "Echo", "Total") * 33:
            stream_id = client.h2.send_request(request_headers(method))
            client.h2.send_data(stream_id, message(bytes(400_000)), end_stream=True)
            streams.append(stream_id)
        sending = asyncio.ensure_future(client.send())
        for stream_id in streams:
            fields, _ = await client.answer(stream_id)
            assert fields[b"grpc-status"] == b"0"
        await sending


async def test_a_long_message_is_announced_and_can_be_refused_before_it_is_read() -> None:
    async with serving("ngh2") as served, RawClient(served.server.port) as client:
        head = (100_000).to_bytes(5, "big") + b"stop here"
        stream_id = await client.request(request_headers("EchoAnnounced"), head, end=False)
        fields, body = await client.answer(stream_id)
        assert (fields[b"grpc-status"], body) == (b"8", b"")
        assert fields[b"grpc-retry-pushback-ms"] == b"70"
        assert served.behaviour.events["100000 b'stop'"] == 1
        whole = message(b"go" * 20_000)
        stream_id = await client.request(request_headers("EchoAnnounced"), whole[:9000], whole[9000:])
        assert (await client.answer(stream_id))[1] == whole
        assert served.behaviour.events["40000 b'gogo'"] == 1


async def test_a_long_message_has_a_wide_window_once_it_is_let_in() -> None:
    """What a refused client had sent by then has to be read all the same."""
    head = (2 * MIB).to_bytes(5, "big")
    async with serving("ngh2") as served, RawClient(served.server.port) as client:
        await client.until(lambda self: self.h2.remote_settings[ngh2.Setting.INITIAL_WINDOW_SIZE] > 65535)
        refused = await client.request(request_headers("EchoAnnounced"), head + b"stop here", end=False)
        assert client.h2.stream_remote_window_size(refused) <= MIB // 4
        assert (await client.answer(refused))[0][b"grpc-status"] == b"8"
        taken = await client.request(request_headers("EchoAnnounced"), head + b"go on", end=False)
        await client.until(lambda self: self.h2.stream_remote_window_size(taken) > 3 * MIB)


async def test_what_waits_for_others_has_no_wide_window_and_comes_all_the_same() -> None:
    """Whatever is on its way to a server that is busy delays the heads of the calls behind it."""
    whole = message(b"wait" * (MIB // 4))
    async with serving("ngh2") as served, RawClient(served.server.port) as client:
        await client.until(lambda self: self.h2.remote_settings[ngh2.Setting.INITIAL_WINDOW_SIZE] > 65535)
        stream_id = await client.request(request_headers("EchoAnnounced"), whole[:9000], end=False)
        await client.answer(await client.request(request_headers("EchoNow"), message(b"")))  # what came before is here
        assert served.behaviour.events[f"{MIB} b'wait'"] == 1
        assert client.h2.stream_remote_window_size(stream_id) <= MIB // 4
        client.h2.send_data(stream_id, whole[9000:], end_stream=True)
        await client.send()
        assert (await client.answer(stream_id))[1] == whole


async def test_while_calls_are_refused_new_ones_send_little_before_they_are_let_in() -> None:
    refused = (2 * MIB).to_bytes(5, "big") + b"stop here"
    async with serving("ngh2") as served, RawClient(served.server.port) as client:
        await client.until(lambda self: self.h2.remote_settings[ngh2.Setting.INITIAL_WINDOW_SIZE] == MIB // 4)
        for _ in range(2):
            stream_id = await client.request(request_headers("EchoAnnounced"), refused, end=False)
            assert (await client.answer(stream_id))[0][b"grpc-status"] == b"8"
            await client.until(lambda self: self.h2.remote_settings[ngh2.Setting.INITIAL_WINDOW_SIZE] == MIB // 16)
        for lead in (b"go", b"wait"):
            whole = message(lead * (MIB // len(lead)))
            stream_id = await client.request(request_headers("EchoAnnounced"), whole)
            assert (await client.answer(stream_id))[1] == whole
