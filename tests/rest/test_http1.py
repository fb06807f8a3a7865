"""HTTP/1.1 as clients use it: kept connections, pipelines, slow clients, bodies of every kind, streams."""

import asyncio
import gzip
import json
import socket
import zlib
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from gateway.rest.http1_limits import Http1Limits
from gateway.rpc.server import ServerOptions
from tests.rest.serving import BODY_LIMIT, JSON, Served, get, post, serving
from tests.routing.live import until

CHUNKED = b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served() -> AsyncIterator[Served]:
    async with serving() as running:
        yield running


shared = pytest.mark.asyncio(loop_scope="module")


@shared
async def test_an_endpoint_sees_what_was_sent(served: Served) -> None:
    async with served.client() as client:
        answer = await client.ask(get("/about?a=%20b", "X-A: 1", "x-a:  2 "))
    assert json.loads(answer.body) == {"query": "a=%20b", "names": ["about"], "method": "GET", "x": "1, 2"}
    assert answer.fields["content-type"] == "application/json"
    assert answer.fields["date"].endswith("GMT")


@shared
async def test_head_is_get_without_the_body(served: Served) -> None:
    async with served.client() as client:
        client.send(b"HEAD /about HTTP/1.1\r\nHost: a\r\n\r\n")
        answer = await client.answer(has_body=False)
        assert int(answer.fields["content-length"]) > 0
        assert (await client.ask(post("/echo", b"next"))).body == b"next"


@shared
@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 1 << 20, BODY_LIMIT])
async def test_a_body_comes_whole_however_it_is_sent(served: Served, size: int) -> None:
    body = (bytes(range(251)) * (size // 251 + 1))[:size]
    chunks = b"".join(
        b"%x\r\n%b\r\n" % (len(part), part) for at in range(0, size, 9999) if (part := body[at : at + 9999])
    )
    async with served.client() as client:
        assert (await client.ask(post("/echo", body))).body == body
        assert (await client.ask(CHUNKED + chunks + b"0\r\n\r\n")).body == body
        head, rest = post("/echo", body)[: -size or None], body
        client.send(head)
        await client.writer.drain()
        for at in range(0, size, 1 + size // 5):
            client.send(rest[at : at + 1 + size // 5])
            await asyncio.sleep(0)
        assert (await client.answer()).body == body


@shared
@pytest.mark.parametrize("encoding", ["gzip", "deflate", "x-gzip"])
@pytest.mark.parametrize("size", [10, 1 << 20])
async def test_a_compressed_body_is_inflated(served: Served, encoding: str, size: int) -> None:
    body = bytes(range(256)) * (size // 256 + 1)
    packed = zlib.compress(body) if encoding == "deflate" else gzip.compress(body)
    async with served.client() as client:
        assert (await client.ask(post("/echo", packed, f"Content-Encoding: {encoding}"))).body == body


@shared
async def test_a_gzip_bomb_is_refused_before_it_is_whole(served: Served) -> None:
    bomb = gzip.compress(bytes(BODY_LIMIT * 4))
    async with served.client() as client:
        answer = await client.ask(post("/echo", bomb, "Content-Encoding: gzip"))
        assert answer.status == 413
        assert b"inflates to more than" in answer.body
        assert (await client.ask(post("/echo", b"next"))).body == b"next"
    assert served.server._state is not None
    assert served.server._state.received.free_bytes == served.server._state.received.size_bytes


@shared
async def test_http_1_0_ends_unless_it_asks_to_go_on(served: Served) -> None:
    async with served.client() as client:
        answer = await client.ask(b"GET /about HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert answer.fields["connection"] == "keep-alive"
        answer = await client.ask(b"GET /about HTTP/1.0\r\n\r\n")
        assert answer.fields["connection"] == "close"
        assert await client.ended()


@shared
async def test_what_was_answered_goes_out_to_a_client_that_ends_its_side(served: Served) -> None:
    async with served.client() as client:
        client.send(post("/echo", b"1") + post("/echo", b"2") + b"POST /half")
        client.writer.write_eof()
        assert [(await client.answer()).body for _ in range(2)] == [b"1", b"2"]
        assert await client.ended()


async def test_answers_leave_in_the_order_of_their_requests() -> None:
    async with serving() as served, served.client() as client:
        client.send(post("/later", b"1") + post("/echo", b"2") + post("/later", b"3") + get("/stream"))
        await served.endpoints.begun.wait()
        await until(lambda: len(served.endpoints.calls) == 2)
        first, third = served.endpoints.calls
        third.respond(200, JSON, [b"3"])
        first.respond(200, JSON, [b"1"])
        assert [(await client.answer()).body for _ in range(3)] == [b"1", b"2", b"3"]
        assert (await client.answer()).body == b"data: 0\n\ndata: 1\n\ndata: 2\n\n"


async def test_at_most_so_many_requests_of_a_pipeline_are_open() -> None:
    async with serving() as served, served.client() as client:
        client.send(b"".join(post("/later", b"%d" % number) for number in range(40)))
        await served.endpoints.begun.wait()
        for number in range(40):
            await until(lambda number=number: len(served.endpoints.calls) > number)  # type: ignore[misc]
            assert len(served.endpoints.calls) <= number + 16
            served.endpoints.calls[number].respond(200, JSON, [b"%d" % number])
            assert (await client.answer()).body == b"%d" % number


async def test_nothing_behind_a_last_request_is_served() -> None:
    async with serving() as served, served.client() as client:
        client.send(post("/echo", b"1", "Connection: close") + post("/later", b"2"))
        assert (await client.answer()).fields["connection"] == "close"
        assert await client.ended()
        assert not served.endpoints.calls


@shared
async def test_a_client_that_waits_is_told_to_go_on(served: Served) -> None:
    async with served.client() as client:
        request = post("/echo", b"abcd", "Expect: 100-continue")
        assert (await client.ask(request[:-4])).status == 100
        assert (await client.ask(b"abcd")).body == b"abcd"
        assert (await client.ask(request)).body == b"abcd"  # it did not wait, and is not told


async def test_a_client_that_waits_is_told_in_its_turn() -> None:
    async with serving() as served, served.client() as client:
        client.send(post("/later", b"1") + post("/echo", b"2", "Expect: 100-continue")[:-1])
        await served.endpoints.begun.wait()
        served.endpoints.calls[0].respond(200, JSON, [b"1"])
        assert (await client.answer()).body == b"1"
        assert (await client.answer()).status == 100
        assert (await client.ask(b"2")).body == b"2"


@shared
async def test_a_client_that_waits_in_vain_is_refused_at_once(served: Served) -> None:
    async with served.client() as client:
        answer = await client.ask(post("/small", bytes(17), "Expect: 100-continue")[:-17])
        assert (answer.status, answer.fields["connection"]) == (413, "close")
        assert await client.ended()


@shared
@pytest.mark.parametrize("size", [BODY_LIMIT + 1, 8 << 20])
async def test_a_body_that_was_refused_is_read_over(served: Served, size: int) -> None:
    async with served.client() as client:
        answer = await client.ask(post("/echo", bytes(size)))
        assert answer.status == 413
        assert (await client.ask(post("/echo", b"next"))).body == b"next"


@shared
async def test_a_body_far_beyond_the_limit_ends_the_connection_without_a_reset(served: Served) -> None:
    async with served.client() as client:
        client.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n" + bytes(4 << 20))
        await client.writer.drain()
        answer = await client.answer()
        assert (answer.status, answer.fields["connection"]) == (413, "close")
        assert await client.ended()


@shared
async def test_what_is_foretold_is_refused_before_it_comes(served: Served) -> None:
    async with served.client() as client:
        answer = await client.ask(post("/foretold", bytes(1 << 20))[: -1 << 20])
        assert answer.status == 400
        assert b"1048576 bytes are foretold" in answer.body
        client.send(bytes(1 << 20))
        assert (await client.ask(post("/echo", b"next"))).body == b"next"


@shared
async def test_a_stream_comes_in_pieces(served: Served) -> None:
    async with served.client() as client:
        answer = await client.ask(get("/stream"))
        assert answer.fields["transfer-encoding"] == "chunked"
        assert answer.body == b"data: 0\n\ndata: 1\n\ndata: 2\n\n"
        client.send(b"GET /stream HTTP/1.0\r\n\r\n")
        assert (await client.reader.read()).endswith(b"\r\n\r\ndata: 0\n\ndata: 1\n\ndata: 2\n\n")


@shared
async def test_a_stream_that_fails_is_seen_to_be_cut(served: Served) -> None:
    async with served.client() as client:
        client.send(get("/cut"))
        rest = await client.reader.read()
        assert rest.endswith(b"4\r\nhalf\r\n")


async def test_a_stream_waits_for_its_reader_and_ends_with_it() -> None:
    async with serving() as served:
        endpoints = served.endpoints
        reading = socket.create_connection(("127.0.0.1", served.port))
        reading.sendall(get("/endless"))
        assert served.server._state is not None
        unsent = served.server._state.unsent
        await until(lambda: unsent.free_bytes < unsent.size_bytes)
        assert unsent.size_bytes - unsent.free_bytes < 1 << 20
        reading.close()
        await endpoints.cancelled.wait()
        assert unsent.free_bytes == unsent.size_bytes


@shared
@pytest.mark.parametrize("path", ["/defect", "/silent"])
async def test_a_defect_of_ours_is_not_shown(served: Served, path: str) -> None:
    async with served.client() as client:
        answer = await client.ask(get(path))
        assert (answer.status, json.loads(answer.body)) == (500, {"error": "internal error"})
        assert (await client.ask(post("/echo", b"next"))).body == b"next"


async def test_a_client_that_goes_cancels_its_requests() -> None:
    for path in ("/wait", "/later"):
        async with serving() as served:
            async with served.client() as client:
                client.send(post(path, b"1"))
                await served.endpoints.begun.wait()
            await served.endpoints.cancelled.wait()


async def test_a_deadline_ends_a_request_and_its_handler() -> None:
    async with serving() as served, served.client() as client:
        answer = await client.ask(post("/wait", b"1", "grpc-timeout: 20m"))
        assert answer.status == 504
        await served.endpoints.cancelled.wait()
        assert (await client.ask(post("/echo", b"next"))).body == b"next"
    async with serving(ServerOptions(reuse_port=False, default_deadline_s=0.02)) as served, served.client() as client:
        assert (await client.ask(post("/later"))).status == 504


SOON = Http1Limits(head_timeout_s=0.05, body_timeout_s=0.05, settle_s=0.02, linger_s=0.05)


@pytest.mark.parametrize(
    "sent", [b"GET", b"GET /about HTTP/1.1\r\nHost: a\r\n", post("/echo", bytes(9))[:-1], CHUNKED + b"4\r\nab"]
)
async def test_who_is_slow_is_told_so(sent: bytes) -> None:
    async with serving(ServerOptions(reuse_port=False, idle_timeout_s=0.2), SOON) as served, served.client() as client:
        answer = await client.ask(sent)
        assert (answer.status, answer.fields["connection"]) == (408, "close")
        assert await client.ended()


async def test_a_connection_that_is_not_used_ends() -> None:
    async with serving(ServerOptions(reuse_port=False, idle_timeout_s=0.1), SOON) as served:
        async with served.client() as client:
            assert await client.ended()
        async with served.client() as client:
            assert (await client.ask(get("/about"))).status == 200
            assert await client.ended()


async def test_a_connection_retires_with_an_answer() -> None:
    options = ServerOptions(reuse_port=False, max_connection_age_s=0.05)
    async with serving(options) as served, served.client() as client:
        while "connection" not in (answer := await client.ask(get("/about"))).fields:
            pass
        assert answer.fields["connection"] == "close"
        assert await client.ended()


async def test_more_connections_than_are_allowed_are_turned_away() -> None:
    async with serving(ServerOptions(reuse_port=False, max_connections_per_address=2)) as served:
        async with served.client() as first, served.client() as second:
            assert (await first.ask(get("/about"))).status == 200
            assert (await second.ask(get("/about"))).status == 200
            async with served.client() as third:
                with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
                    await third.ask(get("/about"))
        assert served.server.counts()["refused"] == 1
        async with served.client() as again:
            assert (await again.ask(get("/about"))).status == 200


async def test_more_requests_than_are_allowed_are_refused() -> None:
    options = ServerOptions(reuse_port=False, max_concurrent_calls=1)
    async with serving(options) as served, served.client() as first, served.client() as second:
        first.send(post("/later"))
        await served.endpoints.begun.wait()
        refused = await second.ask(post("/echo", b"x"))
        assert (refused.status, refused.fields["retry-after"]) == (429, "1")
        served.endpoints.calls[0].respond(200, JSON, [])
        assert (await first.answer()).status == 200
        assert (await second.ask(post("/echo", b"x"))).body == b"x"


async def test_bodies_without_room_are_refused_and_leave_no_trace() -> None:
    options = ServerOptions(reuse_port=False, max_inflight_bytes=1 << 20)
    async with serving(options) as served, served.client() as first, served.client() as second:
        first.send(post("/echo", bytes(900_000))[:-1])
        await first.writer.drain()
        assert served.server._state is not None
        received = served.server._state.received
        await until(lambda: received.free_bytes < received.size_bytes)
        assert (await second.ask(post("/echo", bytes(900_000)))).status == 429
        assert len((await first.ask(b"\0")).body) == 900_000
        assert len((await second.ask(post("/echo", bytes(900_000)))).body) == 900_000
        assert received.free_bytes == received.size_bytes


async def test_many_connections_are_served_side_by_side() -> None:
    async with serving(ServerOptions(reuse_port=False, max_connections=2000)) as served:

        async def use(number: int) -> bool:
            async with served.client() as client:
                return all([(await client.ask(post("/echo", b"%d" % number))).body == b"%d" % number for _ in range(3)])

        assert all(await asyncio.gather(*(use(number) for number in range(300))))
        assert served.server.counts()["accepted"] == 300
