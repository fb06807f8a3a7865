"""The operators' port over real connections: kept, bounded, and refused by the head where that can be."""

import asyncio
import json
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest

from gateway.access.permissions import PAGES
from gateway.access.principal import NOBODY, Grant, Principal, Role
from gateway.errors import PermissionDenied, Unauthenticated
from gateway.rest.answer_coding import GZIP_BITS
from gateway.runtime.operators_port import HttpRequest, HttpResponse, OperatorsPort, Page, served_pages
from tests.rest.serving import Client, get, post

READER = Principal("ada", "", "token", (Grant(Role.READER),))
# Paths stand for what they need: nothing, the role reader, the role operator, a stream.
OPEN, READ, FORM, STREAM = "/healthz", "/metrics", "/page/rollback", "/page/stream"


class Guard:
    """Knows one token, of a reader, or of `bearer`; with None it was revoked."""

    def __init__(self, bearer: Principal | None = READER) -> None:
        self.bearer = bearer

    def authorize(self, path: bytes, authorization: bytes | None, names: tuple[str, ...]) -> Principal:
        permission = PAGES[path.decode()]
        if permission.is_open:
            return NOBODY
        if authorization is None:
            raise Unauthenticated("send a token")
        if authorization != b"Bearer good" or Role.READER not in permission.roles:
            raise PermissionDenied("the role is missing")
        if self.bearer is None:
            raise Unauthenticated("no such token")
        return self.bearer


async def page(request: HttpRequest) -> HttpResponse:
    told = {"accept": request.headers.get("accept", ""), "who": request.principal.name, "query": dict(request.query)}
    return HttpResponse(json.dumps(told).encode(), "application/json", headers={"X-Own": "1"})


async def broken(request: HttpRequest) -> HttpResponse:
    raise RuntimeError("/etc/secret")


async def form(request: HttpRequest) -> HttpResponse:
    return HttpResponse(b"took %d" % len(request.body))


class Numbers:
    """A stream of server-sent events; `ended` is set when nobody follows any more."""

    def __init__(self) -> None:
        self.begun, self.ended = 0, asyncio.Event()

    async def page(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse(b"retry: 1000\n\n", "text/event-stream", then=self._follow())

    async def _follow(self) -> AsyncGenerator[bytes, None]:
        self.begun += 1
        try:
            for number in range(3):
                yield b"data: %d\n\n" % number
            await asyncio.Event().wait()
        finally:
            self.ended.set()


@asynccontextmanager
async def served(
    pages: Mapping[str, Page], guard: Guard | None = None, forms: Mapping[str, Page] | None = None
) -> AsyncIterator[OperatorsPort]:
    port = OperatorsPort("127.0.0.1", 0, served_pages(pages, forms or {}, (STREAM,)), guard)
    await port.start()
    try:
        yield port
    finally:
        await port.close()


@asynccontextmanager
async def connected(port: OperatorsPort) -> AsyncIterator[Client]:
    client = Client(*await asyncio.open_connection("127.0.0.1", port.port))
    try:
        yield client
    finally:
        client.writer.close()


async def test_one_connection_serves_many_requests() -> None:
    async with served({READ: page, OPEN: broken}, forms={FORM: form}) as port, connected(port) as client:
        for number in range(3):
            answer = await client.ask(get(f"{READ}?n={number}", "Accept: text"))
            told = {"accept": "text", "who": "", "query": {"n": str(number)}}
            assert (answer.status, json.loads(answer.body)) == (200, told)
            assert "connection" not in answer.fields
        assert answer.fields["x-own"] == "1"
        assert (answer.fields["cache-control"], answer.fields["x-content-type-options"]) == ("no-store", "nosniff")
        assert (await client.ask(post(FORM, b"abc"))).body == b"took 3"
        failed = await client.ask(get(OPEN))
        assert (failed.status, json.loads(failed.body)) == (500, {"error": "internal error"})
        for raw, status, allow in (
            (post(READ), 405, "GET, HEAD"),
            (get(FORM), 405, "POST"),
            (get("/other"), 404, None),
        ):
            answer = await client.ask(raw)
            assert (answer.status, answer.fields.get("allow")) == (status, allow)
        client.send(f"HEAD {READ} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        assert int((await client.answer(has_body=False)).fields["content-length"]) > 0
        assert (await client.ask(get(READ))).status == 200  # nothing was left of the body of HEAD


async def test_a_long_body_and_an_unproven_caller_are_refused_by_the_head() -> None:
    async with served({READ: page}, Guard(), {FORM: form}) as port, connected(port) as client:
        # Nothing of the bodies is sent: the answer comes at once, and the connection ends for want of their end.
        client.send(f"POST {FORM} HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\nExpect: 100-continue\r\n\r\n".encode())
        answer = await client.answer()
        assert (answer.status, answer.fields["connection"]) == (401, "close")
        assert answer.fields["www-authenticate"].startswith("Bearer")
    async with served({}, forms={FORM: form}) as port, connected(port) as client:
        client.send(f"POST {FORM} HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n".encode())
        assert (await client.answer()).status == 413


async def test_who_asks_is_told_by_the_token_or_by_the_cookie() -> None:
    async with served({OPEN: page, READ: page}, Guard(), {FORM: form}) as port, connected(port) as client:
        assert (await client.ask(get(OPEN))).status == 200
        assert (await client.ask(get(READ))).status == 401
        assert (await client.ask(get(READ, "Authorization: Bearer bad"))).status == 403
        for line in ("Authorization: Bearer good", "Cookie: theme=dark; gateway_token=good"):
            answer = await client.ask(get(READ, line))
            assert (answer.status, json.loads(answer.body)["who"]) == (200, "ada")
        both = await client.ask(get(READ, "Authorization: Bearer bad", "Cookie: gateway_token=good"))
        assert both.status == 403
        assert (await client.ask(post(FORM, b"{}", "Authorization: Bearer good"))).status == 403


@pytest.mark.parametrize("coded", [False, True])
async def test_a_stream_ends_with_its_reader(coded: bool) -> None:
    numbers = Numbers()
    async with served({STREAM: numbers.page}) as port:
        async with connected(port) as client:
            client.send(get(STREAM, *(["Accept-Encoding: gzip"] if coded else [])))
            head = await client.reader.readuntil(b"\r\n\r\n")
            assert (b"content-encoding: gzip" in head) is coded
            inflater, text = zlib.decompressobj(wbits=GZIP_BITS), b""
            while not text.endswith(b"data: 2\n\n"):  # each piece can be read when it is there
                piece = await client.reader.readexactly(int(await client.reader.readline(), 16))
                await client.reader.readexactly(2)
                text += inflater.decompress(piece) if coded else piece
            assert text == b"retry: 1000\n\ndata: 0\n\ndata: 1\n\ndata: 2\n\n"
            assert not numbers.ended.is_set()
        await asyncio.wait_for(numbers.ended.wait(), 10)


@pytest.mark.parametrize(
    "bearer", [None, Principal("ada", "", "token", (Grant(Role.READER, ("own*",)),))], ids=["revoked", "narrowed"]
)
async def test_a_stream_ends_with_the_right_to_it(bearer: Principal | None) -> None:
    guard, told = Guard(), asyncio.Queue[bytes]()

    async def follow() -> AsyncGenerator[bytes, None]:
        while True:
            yield await told.get()

    async def stream(request: HttpRequest) -> HttpResponse:
        return HttpResponse(b"retry: 1000\n\n", "text/event-stream", then=follow())

    async with served({STREAM: stream}, guard) as port, connected(port) as client:
        client.send(get(STREAM, "Authorization: Bearer good"))
        told.put_nowait(b"data: of all\n\n")
        await client.reader.readuntil(b"of all\n\n\r\n")
        guard.bearer = Principal("ada", "", "token", READER.grants)  # who may call was read anew, and nothing changed
        told.put_nowait(b"data: still\n\n")
        await client.reader.readuntil(b"still\n\n\r\n")
        guard.bearer = bearer
        told.put_nowait(b"data: of others\n\n")
        assert await asyncio.wait_for(client.reader.read(), 10) == b""  # cut: it is not whole


async def test_head_follows_no_stream() -> None:
    numbers = Numbers()
    async with served({STREAM: numbers.page}) as port, connected(port) as client:
        client.send(f"HEAD {STREAM} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        assert (await client.answer(has_body=False)).fields["content-type"] == "text/event-stream"
        assert (await client.ask(get("/other"))).status == 404
    assert not numbers.begun


async def test_the_port_closes_while_somebody_reads() -> None:
    numbers = Numbers()
    async with served({STREAM: numbers.page}) as port:
        client = Client(*await asyncio.open_connection("127.0.0.1", port.port))
        client.send(get(STREAM))
        await client.reader.readuntil(b"data: 2\n\n")
    assert numbers.ended.is_set()
    assert await asyncio.wait_for(client.reader.read(), 10) == b"\r\n0\r\n\r\n"  # a whole answer, and the end
    client.writer.close()


async def test_long_answers_are_compressed_for_who_accepts_it() -> None:
    async def long(request: HttpRequest) -> HttpResponse:
        return HttpResponse(b"metric 1\n" * 20_000)

    async with served({READ: long}) as port, connected(port) as client:
        assert len((await client.ask(get(READ))).body) == 180_000
        answer = await client.ask(get(READ, "Accept-Encoding: gzip;q=0.5, br"))
        assert answer.fields["content-encoding"] == "gzip"
        assert len(zlib.decompress(answer.body, wbits=GZIP_BITS)) == 180_000 > 100 * len(answer.body)


async def test_bodies_that_never_end_leave_room_for_others() -> None:
    async with served({}, forms={FORM: form}) as port:
        start = f"POST {FORM} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2097152\r\n\r\n".encode()
        waiting = []
        for _ in range(16):
            client = Client(*await asyncio.open_connection("127.0.0.1", port.port))
            waiting.append(client)
            assert (await client.ask(start)).status == 100
        async with connected(port) as late, connected(port) as small:
            assert (await late.ask(start)).status == 429
            assert (await small.ask(post(FORM, b"{}"))).body == b"took 2"
        for client in waiting:
            client.writer.close()


async def test_two_addresses_cannot_keep_a_third_out() -> None:
    """With connections that do nothing, that are slow with their heads, or that follow a stream."""
    numbers = Numbers()
    async with served({READ: page, STREAM: numbers.page}) as port:
        held: list[Client] = []
        for address in ("127.0.0.2", "127.0.0.3"):
            for place in range(256):
                client = Client(*await asyncio.open_connection("127.0.0.1", port.port, local_addr=(address, 0)))
                held.append(client)
                if place % 3 == 1:
                    client.send(b"GET /metrics HTTP/1.1\r\nHost:")
                elif place % 3 == 2:
                    client.send(get(STREAM))
                    await client.reader.readuntil(b"data: 2\n\n")
        first = held[2]
        waiting = []
        for _ in range(20):
            waiting.append(Client(*await asyncio.open_connection("127.0.0.1", port.port)))
            assert (await waiting[-1].ask(get(READ))).status == 200
        # None of the own ones went for another; nor did one that follows something while another did nothing.
        assert [(await client.ask(get(READ))).status for client in waiting] == [200] * 20
        assert not first.reader.at_eof()
        assert numbers.begun == 2 * 85
        assert not numbers.ended.is_set()
        for client in (*held, *waiting):
            client.writer.close()
