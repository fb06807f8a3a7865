"""A REST server for tests: endpoints that show what a request was, and a client that sends bytes as they are."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from gateway.errors import InvalidArgument
from gateway.rest.endpoint import Endpoint, EndpointMatch
from gateway.rest.http1_limits import Http1Limits
from gateway.rest.http_call import HttpCall
from gateway.rest.http_refusal import HttpRefusal
from gateway.rest.rest_front import RestFront
from gateway.rpc.ngh2_server import Ngh2Server
from gateway.rpc.server import ServerOptions

INFER = "/inference.GRPCInferenceService/ModelInfer"
LIVE = "/inference.GRPCInferenceService/ServerLive"
JSON = ((b"content-type", b"application/json"),)
BODY_LIMIT = 4 << 20


@dataclass
class Endpoints:
    """`/echo` answers with what it was sent; `/wait` when `released` is set; `/stream` with pieces; and so on."""

    released: asyncio.Event = field(default_factory=asyncio.Event)
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    calls: list[HttpCall] = field(default_factory=list)

    def find(self, method: str, path: str) -> EndpointMatch | HttpRefusal:
        kinds = {
            "/echo": ("POST", Endpoint(self._echo, INFER, by_callback=True, max_body_bytes=BODY_LIMIT)),
            "/small": ("POST", Endpoint(self._echo, INFER, by_callback=True, max_body_bytes=16)),
            "/about": ("GET", Endpoint(self._about, LIVE, by_callback=True)),
            "/wait": ("POST", Endpoint(self._wait, INFER)),
            "/later": ("POST", Endpoint(self._later, INFER, by_callback=True)),
            "/stream": ("GET", Endpoint(self._stream, INFER, streams=True)),
            "/endless": ("GET", Endpoint(self._endless, INFER, streams=True)),
            "/cut": ("GET", Endpoint(self._cut, INFER, streams=True)),
            "/defect": ("GET", Endpoint(self._defect, INFER, by_callback=True)),
            "/silent": ("GET", Endpoint(self._silent, INFER)),
            "/foretold": (
                "POST",
                Endpoint(self._echo, INFER, by_callback=True, max_body_bytes=BODY_LIMIT, announced=self._announced),
            ),
        }
        if path not in kinds:
            return HttpRefusal(404, "nothing is served here")
        allowed, endpoint = kinds[path]
        if method != allowed:
            return HttpRefusal(405, f"only {allowed}", ((b"allow", allowed.encode()),))
        return EndpointMatch(endpoint, (path[1:],))

    def permissions(self) -> Iterable[str]:
        return (INFER, LIVE)

    def _echo(self, call: HttpCall) -> None:
        assert call.message_size == len(call.body)
        call.respond(200, JSON, [bytes(call.body)], ((b"x-own", b"1"),))

    def _about(self, call: HttpCall) -> None:
        text = json.dumps({"query": call.query, "names": call.names, "method": call.method, "x": call.header("x-a")})
        call.respond(200, JSON, [text.encode()])

    async def _wait(self, call: HttpCall) -> None:
        self.calls.append(call)
        call.on_cancel(self.cancelled.set)
        self.begun.set()
        await self.released.wait()
        call.respond(200, JSON, [bytes(call.body)])

    def _later(self, call: HttpCall) -> None:
        self.calls.append(call)
        call.on_cancel(self.cancelled.set)
        self.begun.set()

    async def _stream(self, call: HttpCall) -> None:
        call.start(200, ((b"content-type", b"text/event-stream"),))
        for number in range(3):
            await call.send(b"data: %d\n\n" % number)
        call.end()

    async def _endless(self, call: HttpCall) -> None:
        call.on_cancel(self.cancelled.set)
        call.start(200, ((b"content-type", b"text/plain"),))
        self.calls.append(call)
        while True:
            self.begun.set()
            await call.send(bytes(64 * 1024))

    async def _cut(self, call: HttpCall) -> None:
        call.start(200, JSON)
        await call.send(b"half")
        raise InvalidArgument("no more")

    def _defect(self, call: HttpCall) -> None:
        raise KeyError("secret")

    async def _silent(self, call: HttpCall) -> None:
        pass

    def _announced(self, call: HttpCall, size_bytes: int) -> None:
        raise InvalidArgument(f"{size_bytes} bytes are foretold")


@dataclass
class Served:
    """A running server, its endpoints and its port."""

    server: Ngh2Server
    endpoints: Endpoints

    @property
    def port(self) -> int:
        return self.server.port

    @asynccontextmanager
    async def client(self) -> AsyncIterator["Client"]:
        """A connection, which is closed at the end."""
        client = Client(*await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 24))
        client.writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            yield client
        finally:
            client.writer.close()
            try:
                await client.writer.wait_closed()
            except ConnectionError:
                pass  # the test has seen it, if it cares


@dataclass
class Answer:
    """One answer; `fields` by lower-case name."""

    status: int
    fields: dict[str, str]
    body: bytes


@dataclass
class Client:
    """A connection of HTTP/1.1 that sends what it is told and reads whole answers."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def ask(self, raw: bytes) -> Answer:
        self.send(raw)
        return await self.answer()

    def send(self, raw: bytes) -> None:
        self.writer.write(raw)

    async def answer(self, *, has_body: bool = True) -> Answer:
        """Reads one answer, those with 100 apart. Raises: IncompleteReadError where there is none."""
        block = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = block[:-4].split("\r\n")
        pairs = [line.partition(": ") for line in lines]
        fields = {name: value for name, _, value in pairs}
        assert len(fields) == len(pairs)
        status = int(first.split(" ")[1])
        if status == 100 or not has_body:
            return Answer(status, fields, b"")
        if fields.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(await self.reader.readline(), 16):
                body += await self.reader.readexactly(size)
                await self.reader.readexactly(2)
            await self.reader.readexactly(2)
            return Answer(status, fields, body)
        return Answer(status, fields, await self.reader.readexactly(int(fields["content-length"])))

    async def ended(self) -> bool:
        """Returns True when the server has ended the connection cleanly. Raises: ConnectionResetError."""
        return not await self.reader.read(1)


@asynccontextmanager
async def serving(options: ServerOptions | None = None, limits: Http1Limits | None = None) -> AsyncIterator[Served]:
    """A REST server with the endpoints of the tests; nothing is left of it."""
    endpoints = Endpoints()
    server = Ngh2Server(options or ServerOptions(reuse_port=False), front=RestFront(endpoints, limits))
    await server.start()
    try:
        yield Served(server, endpoints)
    finally:
        await server.stop(0)


def post(path: str, body: bytes = b"", *lines: str) -> bytes:
    """A POST with the length of its body, and further lines."""
    more = "".join(f"{line}\r\n" for line in lines)
    return f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n{more}\r\n".encode() + body


def get(path: str, *lines: str) -> bytes:
    more = "".join(f"{line}\r\n" for line in lines)
    return f"GET {path} HTTP/1.1\r\nHost: a\r\n{more}\r\n".encode()
