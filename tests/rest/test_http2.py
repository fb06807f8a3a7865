"""REST on HTTP/2, beside HTTP/1.1 and gRPC at one address, in the clear and over TLS."""

import asyncio
import gzip
import json
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPSConnection

import grpc
import ngh2
import pytest
import pytest_asyncio
import uvloop

from gateway.rest.rest_front import RestFront
from gateway.rpc.ngh2_server import Ngh2Server
from gateway.rpc.server import ServerOptions
from gateway.rpc.server_certificate import TlsFiles
from tests.rest.serving import BODY_LIMIT, Endpoints, Served, get, post, serving
from tests.routing.live import until
from tests.rpc.raw import RawClient
from tests.rpc.service import Behaviour, register
from tests.rpc.serving import CERTIFICATES, MUTUAL_TLS, TLS, path
from tests.rpc.test_lifetime import credentials

shared = pytest.mark.asyncio(loop_scope="module")


def fields(method: str, target: str, *more: tuple[str, str]) -> list[tuple[bytes, bytes]]:
    pairs = [(":method", method), (":scheme", "http"), (":path", target), (":authority", "a"), *more]
    return [(name.encode(), value.encode()) for name, value in pairs]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served() -> AsyncIterator[Served]:
    async with serving() as running:
        yield running


@shared
async def test_an_endpoint_sees_what_was_sent(served: Served) -> None:
    async with RawClient(served.port) as client:
        seen, body = await client.answer(await client.request(fields("GET", "/about?a=1", ("x-a", "1"))))
    assert seen[b":status"] == b"200"
    assert seen[b"content-length"] == str(len(body)).encode()
    assert json.loads(body) == {"query": "a=1", "names": ["about"], "method": "GET", "x": "1"}


@shared
@pytest.mark.parametrize("size", [0, 1, 20_000, 100_000, BODY_LIMIT])
@pytest.mark.parametrize("with_length", [True, False])
async def test_a_body_comes_whole_however_it_is_sent(served: Served, size: int, with_length: bool) -> None:
    sent = (bytes(range(251)) * (size // 251 + 1))[:size]
    length = [("content-length", str(size))] if with_length else []
    async with RawClient(served.port, {4: 1 << 24}) as client:
        client.h2.set_local_window_size(1 << 24)
        seen, body = await client.answer(await client.request(fields("POST", "/echo", *length), sent))
    assert (seen[b":status"], seen[b"x-own"], body) == (b"200", b"1", sent)


@shared
@pytest.mark.parametrize(
    ("request_fields", "body", "status"),
    [
        (fields("GET", "/nowhere"), b"", b"404"),
        (fields("GET", "/echo"), b"", b"405"),
        (fields("POST", "/small"), bytes(17), b"413"),
        (fields("POST", "/foretold", ("content-length", "100000")), bytes(100_000), b"400"),
        (fields("POST", "/echo", ("content-encoding", "br")), b"x", b"415"),
        (fields("POST", "/echo", ("content-encoding", "gzip")), b"x", b"400"),
        (fields("POST", "/echo", ("content-encoding", "gzip")), gzip.compress(bytes(4 * BODY_LIMIT)), b"413"),
        (fields("GET", "/about#x"), b"", b"400"),
        (fields("GET", "/about", *((f"x-{number}", "1") for number in range(61))), b"", b"431"),
        (fields("GET", "/defect"), b"", b"500"),
        (fields("GET", "/silent"), b"", b"500"),
        (fields("POST", "/wait", ("grpc-timeout", "20m")), b"x", b"504"),
    ],
)
async def test_a_request_has_its_answer(
    served: Served, request_fields: list[tuple[bytes, bytes]], body: bytes, status: bytes
) -> None:
    async with RawClient(served.port) as client:
        seen, _ = await client.answer(await client.request(request_fields, *([body] if body else [])))
        assert seen[b":status"] == status
        seen, answered = await client.answer(await client.request(fields("POST", "/echo"), b"next"))
        assert (seen[b":status"], answered) == (b"200", b"next")


@shared
async def test_a_compressed_body_is_inflated(served: Served) -> None:
    async with RawClient(served.port) as client:
        packed = gzip.compress(bytes(100_000))
        _, body = await client.answer(
            await client.request(fields("POST", "/echo", ("content-encoding", "gzip")), packed)
        )
    assert body == bytes(100_000)


@shared
async def test_a_stream_comes_in_pieces_and_a_cut_one_is_seen_to_be(served: Served) -> None:
    async with RawClient(served.port) as client:
        _, body = await client.answer(await client.request(fields("GET", "/stream")))
        assert body == b"data: 0\n\ndata: 1\n\ndata: 2\n\n"
        stream_id = await client.request(fields("GET", "/cut"))
        await client.until(
            lambda self: any(isinstance(e, ngh2.StreamReset) and e.stream_id == stream_id for e in self.events)
        )
        head, _ = await client.answer(await client.request(fields("HEAD", "/about")))
        assert int(head[b"content-length"]) > 0


async def test_a_client_that_resets_its_stream_cancels_the_request() -> None:
    for target, method in (("/wait", "POST"), ("/endless", "GET")):
        async with serving() as served, RawClient(served.port) as client:
            stream_id = await client.request(fields(method, target))
            await served.endpoints.begun.wait()
            client.h2.reset_stream(stream_id)
            await client.send()
            await served.endpoints.cancelled.wait()
            state = served.server._state
            assert state is not None
            await until(lambda state=state: state.unsent.free_bytes == state.unsent.size_bytes)  # type: ignore[misc]


async def test_a_stream_waits_for_its_reader() -> None:
    async with serving() as served, RawClient(served.port) as client:
        await client.request(fields("GET", "/endless"))
        await served.endpoints.begun.wait()
        state = served.server._state
        assert state is not None
        for _ in range(20):
            await asyncio.sleep(0.005)
        assert 0 < state.unsent.size_bytes - state.unsent.free_bytes < 1 << 20


async def test_a_drain_lets_requests_end() -> None:
    async with serving() as served, RawClient(served.port) as client:
        stream_id = await client.request(fields("POST", "/wait"), b"1")
        await served.endpoints.begun.wait()
        stopping = asyncio.ensure_future(served.server.stop(5))
        await asyncio.sleep(0)
        served.endpoints.released.set()
        seen, body = await client.answer(stream_id)
        assert (seen[b":status"], body) == (b"200", b"1")
        await stopping


async def test_a_stop_without_grace_says_why() -> None:
    async with serving() as served, RawClient(served.port) as client:
        stream_id = await client.request(fields("POST", "/wait"), b"1")
        await served.endpoints.begun.wait()
        stopping = asyncio.ensure_future(served.server.stop(0))
        seen, _ = await client.answer(stream_id)
        assert seen[b":status"] == b"503"
        await stopping


# One address for gRPC, REST on HTTP/2 and REST on HTTP/1.1, on uvloop as workers run it.


@contextmanager
def one_address(tls: TlsFiles | None) -> Iterator[int]:
    """The port of a server of all three, on a uvloop of its own thread."""
    started = threading.Event()
    stopping: list[tuple[int, asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def serve() -> None:
        server = Ngh2Server(ServerOptions(reuse_port=False, tls=tls), front=RestFront(Endpoints()))
        register(Behaviour(), server)
        await server.start()
        stop = asyncio.Event()
        stopping.append((server.port, asyncio.get_running_loop(), stop))
        started.set()
        await stop.wait()
        await server.stop(1)

    thread = threading.Thread(target=uvloop.run, args=(serve(),))
    thread.start()
    assert started.wait(10)
    port, loop, stop = stopping[0]
    yield port
    loop.call_soon_threadsafe(stop.set)
    thread.join(10)
    assert not thread.is_alive()


@pytest.mark.parametrize("tls", [None, TLS, MUTUAL_TLS], ids=["plain", "tls", "mutual tls"])
def test_one_address_serves_all(tls: TlsFiles | None) -> None:
    with one_address(tls) as port:
        target = f"localhost:{port}"
        if tls is None:
            channel, connection = grpc.insecure_channel(target), HTTPConnection("localhost", port)
        else:
            context = ssl.create_default_context(cafile=str(CERTIFICATES / "ca.pem"))
            if tls.client_ca is not None:
                context.load_cert_chain(CERTIFICATES / "client.pem", CERTIFICATES / "client.key")
            channel = grpc.secure_channel(target, credentials("client" if tls.client_ca else None))
            connection = HTTPSConnection("localhost", port, context=context)
        with channel:
            assert channel.unary_unary(path("EchoNow"), None, None)(b"over gRPC") == b"over gRPC"
        for size in (0, 10, 100_000, BODY_LIMIT):
            connection.request("POST", "/echo", bytes(size))
            response = connection.getresponse()
            assert (response.status, response.read()) == (200, bytes(size))
        connection.request("POST", "/echo", bytes(BODY_LIMIT + 1))
        response = connection.getresponse()
        assert (response.status, b"at most" in response.read()) == (413, True)
        connection.request("GET", "/stream")
        assert connection.getresponse().read().startswith(b"data: 0")
        connection.close()


async def test_http_2_by_its_preface_cut_anywhere() -> None:
    async with serving() as served:
        client = RawClient(served.port)
        sent = client.h2.data_to_send()
        client.h2.send_request(fields("GET", "/about"), end_stream=True)
        sent += client.h2.data_to_send()
        async with served.client() as raw:
            for position in range(len(sent)):
                raw.send(sent[position : position + 1])
                await asyncio.sleep(0)
            assert (await raw.reader.readexactly(9))[3] == 4  # SETTINGS
        assert served.server.counts()["accepted"] == 1


async def test_a_client_that_speaks_http_1_1_where_grpc_alone_is_served_is_turned_away() -> None:
    server = Ngh2Server(ServerOptions(reuse_port=False))
    await server.start()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(get("/about") + post("/echo"))
        assert not (await reader.read()).startswith(b"HTTP/1.1 200")
        writer.close()
        await writer.wait_closed()
    finally:
        await server.stop(0)
