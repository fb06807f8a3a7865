"""A client that speaks HTTP/2 by hand: ngh2 for what is allowed, bytes for what is not."""

import asyncio
import ssl
from types import TracebackType
from typing import Any, Self

import ngh2

from tests.machine_load import as_loaded
from tests.rpc.serving import path

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 2, 3, 4, 6, 7, 8, 9


def raw_frame(kind: int, stream_id: int = 0, payload: bytes = b"", *, flags: int = 0) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream_id.to_bytes(4, "big") + payload


def request_headers(method: str, *more: tuple[bytes, bytes], **changed: bytes) -> list[tuple[bytes, bytes]]:
    """The fields of a gRPC request; `changed` replaces by name (content_type, te, method)."""
    return [
        (b":method", changed.get("method", b"POST")),
        (b":scheme", b"http"),
        (b":path", path(method).encode() if "/" not in method else method.encode()),
        (b":authority", b"test"),
        (b"te", b"trailers"),
        (b"content-type", changed.get("content_type", b"application/grpc")),
        *more,
    ]


def message(body: bytes, flag: int = 0) -> bytes:
    return bytes((flag,)) + len(body).to_bytes(4, "big") + body


class RawClient:
    """One connection; `events` collects what came, `until` reads until a condition holds."""

    def __init__(
        self,
        port: int,
        settings: dict[int, int] | None = None,
        *,
        local_address: str | None = None,
        tls: ssl.SSLContext | None = None,
        **configuration: Any,
    ) -> None:
        self._port = port
        self._local = None if local_address is None else (local_address, 0)
        self._tls = tls
        self.h2 = ngh2.Connection(ngh2.Role.CLIENT, ngh2.Configuration(**configuration))
        self.h2.initiate_connection(settings)
        self.events: list[Any] = []
        self.closed = False
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter

    async def __aenter__(self) -> Self:
        self.reader, self.writer = await asyncio.open_connection(
            "127.0.0.1", self._port, local_addr=self._local, ssl=self._tls
        )
        await self.send()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except ConnectionError:
            pass

    async def send(self) -> None:
        """Everything that ngh2 has."""
        await self.send_raw(self.h2.data_to_send())

    async def send_raw(self, data: bytes) -> None:
        self.writer.write(data)
        try:
            await self.writer.drain()
        except ConnectionError:
            self.closed = True

    async def step(self) -> None:
        """Reads once, answers what HTTP/2 wants answered."""
        try:
            data = await self.reader.read(65536)
        except ConnectionError:
            data = b""
        if not data:
            self.closed = True
            return
        try:
            self.h2.receive_data(data)
        except ngh2.ConnectionStateError:  # ngh2 is done with the connection; the server is not quite
            return
        self.events += self.h2.events()
        if self.h2.want_write:
            await self.send()

    async def until(self, condition: Any, *, limit_s: float = 10.0) -> None:
        async with asyncio.timeout(as_loaded(limit_s)):
            while not condition(self):
                assert not self.closed, f"the connection ended after {self.events}"
                await self.step()

    async def until_closed(self, *, limit_s: float = 10.0) -> None:
        async with asyncio.timeout(as_loaded(limit_s)):
            while not self.closed:
                await self.step()

    async def request(self, headers: list[tuple[bytes, bytes]], *parts: bytes, end: bool = True) -> int:
        """Sends a request, its body in DATA frames as given; returns the stream's id."""
        stream_id = self.h2.send_request(headers, end_stream=end and not parts)
        for number, part in enumerate(parts):
            self.h2.send_data(stream_id, part, end_stream=end and number == len(parts) - 1)
            await self.send()
        await self.send()
        return stream_id

    async def answer(self, stream_id: int) -> tuple[dict[bytes, bytes], bytes]:
        """All header fields and the body of a stream that has ended."""
        await self.until(lambda self: self.ended(stream_id))
        return self.seen(stream_id)

    def ended(self, stream_id: int) -> bool:
        return any(isinstance(event, ngh2.StreamClosed) and event.stream_id == stream_id for event in self.events)

    def seen(self, stream_id: int) -> tuple[dict[bytes, bytes], bytes]:
        fields: dict[bytes, bytes] = {}
        body = b""
        for event in self.events:
            if getattr(event, "stream_id", None) != stream_id:
                continue
            if isinstance(event, ngh2.ResponseReceived | ngh2.TrailersReceived):
                fields.update(event.headers)
            elif isinstance(event, ngh2.DataReceived):
                body += event.data
        return fields, body

    def went_away(self) -> int | None:
        """The error code of the GOAWAY that was received."""
        codes = [e.error_code for e in self.events if isinstance(e, ngh2.GoAwayReceived | ngh2.ConnectionClosed)]
        return codes[-1] if codes else None
