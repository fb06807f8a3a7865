import asyncio

import pytest

from gateway.access.principal import NOBODY, Grant, Principal, Role
from gateway.errors import PermissionDenied, Unauthenticated
from gateway.runtime.httpd import HttpRequest, HttpResponse, HttpServer
from gateway.runtime.instance import Ports

READER = Principal("ada", "", "token", (Grant(Role.READER),))


async def page(request: HttpRequest) -> HttpResponse:
    return HttpResponse(f"accept={request.headers.get('accept', '')}".encode())


async def broken(request: HttpRequest) -> HttpResponse:
    raise RuntimeError("/etc/secret")


async def exchange(port: int, sent: bytes) -> tuple[str, bytes]:
    """The status line and the body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    answer = await reader.read()
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return head.split(b"\r\n")[0].decode(), body


@pytest.mark.parametrize(
    ("sent", "status", "body"),
    [
        (b"GET /page?x=1 HTTP/1.1\r\nAccept: text\r\n\r\n", "200 OK", b"accept=text"),
        (b"HEAD /page HTTP/1.1\r\n\r\n", "200 OK", b""),
        (b"POST /page HTTP/1.1\r\n\r\n", "405 Method Not Allowed", b"GET or HEAD\n"),
        (b"GET /other HTTP/1.1\r\n\r\n", "404 Not Found", b"Not Found\n"),
        (b"GET /broken HTTP/1.1\r\n\r\n", "500 Internal Server Error", b"Internal Server Error\n"),
        (b"nonsense\r\n\r\n", "400 Bad Request", b"Bad Request\n"),
        (b"GET page HTTP/1.1\r\n\r\n", "400 Bad Request", b"Bad Request\n"),
        (b"GET /page HTTP/1.1\r\nnocolon\r\n\r\n", "400 Bad Request", b"Bad Request\n"),
        (
            b"GET /page HTTP/1.1\r\nx: " + b"y" * 20_000 + b"\r\n\r\n",
            "431 Request Header Fields Too Large",
            b"Request Header Fields Too Large\n",
        ),
    ],
)
async def test_answers(sent: bytes, status: str, body: bytes) -> None:
    with Ports("127.0.0.1", {"metrics-port": 0}) as ports:
        port = ports.numbers["metrics-port"]
        server = HttpServer("127.0.0.1", port, {"/page": page, "/broken": broken})
        await server.start()
        try:
            assert await exchange(port, sent) == (f"HTTP/1.1 {status}", body)
            assert (await exchange(port, b"GET /page HTTP/1.1\r\n\r\n"))[1] == b"accept="
        finally:
            await server.close()


LENGTH = b"send a Content-Length, no Transfer-Encoding\n"


async def form(request: HttpRequest) -> HttpResponse:
    return HttpResponse(b"took " + request.body)


@pytest.mark.parametrize(
    ("sent", "status", "body"),
    [
        (b"POST /form HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", "200 OK", b"took abc"),
        (b"POST /form HTTP/1.1\r\n\r\n", "200 OK", b"took "),
        (b"GET /form HTTP/1.1\r\n\r\n", "405 Method Not Allowed", b"POST\n"),
        (b"POST /form HTTP/1.1\r\nContent-Length: -3\r\n\r\nabc", "400 Bad Request", b"Bad Request\n"),
        (b"POST /form HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "411 Length Required", LENGTH),
    ],
)
async def test_a_form_takes_a_bounded_body(sent: bytes, status: str, body: bytes) -> None:
    with Ports("127.0.0.1", {"metrics-port": 0}) as ports:
        port = ports.numbers["metrics-port"]
        server = HttpServer("127.0.0.1", port, {"/page": page}, forms={"/form": form})
        await server.start()
        try:
            assert await exchange(port, sent) == (f"HTTP/1.1 {status}", body)
        finally:
            await server.close()


async def test_a_page_that_its_reader_may_not_see_says_what_is_missing() -> None:
    class Guard:
        def authorize(self, path: bytes, authorization: bytes | None, names: tuple[str, ...]) -> Principal:
            if path == b"/open":
                return NOBODY
            if authorization is None:
                raise Unauthenticated("send a token")
            if authorization != b"Bearer good":
                raise PermissionDenied("the role reader is missing")
            return READER

    read = []

    async def page(request: HttpRequest) -> HttpResponse:
        read.append(request.path)
        return HttpResponse(b"secret\n")

    server = HttpServer("127.0.0.1", 0, {"/open": page, "/closed": page}, Guard())
    assert (await server._answer(HttpRequest("GET", "/open"))).status == 200
    nobody = await server._answer(HttpRequest("GET", "/closed"))
    assert (nobody.status, nobody.body) == (401, b"send a token\n")
    assert nobody.headers["WWW-Authenticate"].startswith("Bearer")
    kept = await server._answer(HttpRequest("GET", "/closed", {"cookie": "theme=dark; gateway_token=good"}))
    assert kept.status == 200
    other = await server._answer(HttpRequest("GET", "/closed", {"authorization": "Bearer bad"}))
    assert (other.status, other.body) == (403, b"the role reader is missing\n")
    assert (await server._answer(HttpRequest("GET", "/closed", {"authorization": "Bearer good"}))).status == 200
    assert read == ["/open", "/closed", "/closed"]


async def test_bodies_that_never_end_leave_room_for_others() -> None:
    with Ports("127.0.0.1", {"metrics-port": 0}) as ports:
        port = ports.numbers["metrics-port"]
        server = HttpServer("127.0.0.1", port, {}, forms={"/form": page})
        await server.start()
        long, waiting = b"POST /form HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 2097152\r\n\r\n", []
        try:
            for _ in range(16):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(long)
                assert (await reader.readline()).split()[1] == b"100"
                waiting.append(writer)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(long)
            writer.write_eof()
            assert (await reader.readline()).split()[1] == b"503"
            writer.close()
            small = b"POST /form HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}"
            assert (await exchange(port, small))[0] == "HTTP/1.1 200 OK"
        finally:
            for writer in waiting:
                writer.close()
            await server.close()
