"""Connections over which calls go by REST: HTTP/1.1, one call at a time on each, as clients of HTTP do it.

Where every connection is busy a call waits for the first that is free. Its time runs, and it is counted: many of them
mean that `connections` is what limits.
"""

import asyncio
import json
import socket
import ssl
from collections import deque
from time import monotonic
from typing import Final, cast

import httptools

from loadtests.job.call_book import NO_ANSWER, Call, CallBook
from loadtests.job.request_body import rest_path
from loadtests.job.scenario_plan import TrafficPlan

_CONNECT_S: Final = 10.0


class _HttpLine(asyncio.Protocol):
    """One connection, from its opening to its end."""

    def __init__(self, pool: "RestPool") -> None:
        self._pool = pool
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._fields: dict[bytes, bytes] = {}
        self._body: list[bytes] = []
        self.call: Call | None = None
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, call: Call) -> None:
        assert self._transport is not None
        self.call = call
        call.sent_s = monotonic()
        self._transport.write(self._pool.request(call))

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._end(f"WRONG: no HTTP: {error}")
            self.close()

    # ---- what httptools calls ----

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields[name.lower()] = value

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        call, now_s = self.call, monotonic()
        body, fields, status = b"".join(self._body), self._fields, self._parser.get_status_code()
        keep = self._parser.should_keep_alive()
        self._body, self._fields = [], {}
        self._parser = httptools.HttpResponseParser(self)
        self.call = None
        if call is not None:
            self._pool.answered(call, status, fields, body, now_s)
        if keep and not self.lost:
            self._pool.free(self)
        else:
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self._end("UNAVAILABLE: the connection was lost")
        self._pool.gone(self)

    def _end(self, text: str) -> None:
        call, self.call = self.call, None
        if call is not None:
            self._pool.book.fail(call, text, monotonic())

    def close(self) -> None:
        self.lost = True
        if self._transport is not None:
            self._transport.close()


class RestPool:
    """The connections of one traffic: opened as they are needed, up to their number."""

    def __init__(
        self,
        plan: TrafficPlan,
        book: CallBook,
        address: tuple[str, int],
        tls: ssl.SSLContext | None,
        name: str,
        token: str,
    ) -> None:
        self.book = book
        self._plan = plan
        self._address = address
        self._tls = tls
        self._name = name or address[0]
        self._idle: deque[_HttpLine] = deque()
        self._lines: set[_HttpLine] = set()
        self._waiting: deque[Call] = deque()
        self._opening: set[asyncio.Task[None]] = set()
        self._closed = False
        fields = {
            "host": f"{address[0]}:{address[1]}", "user-agent": "loadtests",
            "content-type": "application/octet-stream" if plan.protocol == "rest-binary" else "application/json",
            **({"authorization": token} if token else {}), **{key.lower(): text for key, text in plan.headers.items()},
        }  # fmt: skip
        lines = "".join(f"{name}: {text}\r\n" for name, text in fields.items())
        self._head = f"POST {rest_path(plan)} HTTP/1.1\r\n{lines}".encode()

    async def open(self) -> None:
        """A first connection is there. Raises: OSError (nobody listens, or TLS failed)."""
        self.free(await self._connected())

    def request(self, call: Call) -> bytes:
        """Returns the bytes of the call."""
        assert call.message.rest is not None
        body, json_bytes = call.message.rest.with_id(call.request_id)
        extra = b"".join(b"%b: %b\r\n" % pair for pair in call.metadata)
        if call.message.rest.binary:
            extra += b"inference-header-content-length: %d\r\n" % json_bytes
        return b"%b%bcontent-length: %d\r\n\r\n%b" % (self._head, extra, len(body), body)

    def send(self, call: Call) -> None:
        while self._idle:
            line = self._idle.pop()
            if not line.lost:
                line.send(call)
                return
        self._waiting.append(call)
        if not self._open_more():
            self.book.tally.waited += 1

    def free(self, line: _HttpLine) -> None:
        """The connection has nothing to do: the call that has waited longest is sent, or it is kept."""
        if self._waiting:
            line.send(self._waiting.popleft())
        else:
            self._idle.append(line)

    def gone(self, line: _HttpLine) -> None:
        self._lines.discard(line)
        if len(self._waiting) > len(self._opening):
            self._open_more()

    def answered(self, call: Call, status: int, fields: dict[bytes, bytes], body: bytes, now_s: float) -> None:
        """The call has an answer; it is right if it is one, and the one to this call."""
        if status != 200:
            code = fields.get(b"x-gateway-code", b"").decode("latin-1")
            self.book.fail(call, f"HTTP {status} {code} {_error_text(body)}".replace("  ", " "), now_s)
            return
        json_bytes = fields.get(b"inference-header-content-length", b"")
        head = body[: int(json_bytes)] if json_bytes.isdigit() else body
        try:
            said = json.loads(head)
            request_id, version = said.get("id", ""), str(said.get("model_version", "") or "")
            outputs = said["outputs"]
        except (ValueError, KeyError, TypeError, AttributeError):
            self.book.fail(call, "WRONG: the answer is no inference response", now_s)
            return
        if request_id != call.request_id.decode():
            self.book.fail(call, "WRONG: the answer has the id of another request", now_s)
        elif call.plan.version and version and version != call.plan.version:
            self.book.fail(call, f"WRONG: version {version!r} answered, {call.plan.version!r} was asked for", now_s)
        elif not outputs:
            self.book.fail(call, "WRONG: the answer has no outputs", now_s)
        else:
            self.book.right(call, version, len(body), now_s)

    def flush(self) -> None:
        """Nothing waits for it: each call is written at once."""

    def expire(self, now_s: float) -> None:
        for line in list(self._lines):
            if line.call is not None and line.call.is_late(now_s):
                self.book.fail(line.call, NO_ANSWER, now_s)
                line.call = None
                line.close()  # what comes on it later would be taken for the answer to another call
        while self._waiting and self._waiting[0].is_late(now_s):
            self.book.fail(self._waiting.popleft(), "DEADLINE_EXCEEDED: no connection was free", now_s)

    async def close(self) -> None:
        self._closed = True
        for task in self._opening:
            task.cancel()
        await asyncio.gather(*self._opening, return_exceptions=True)
        for line in list(self._lines):
            line.close()

    def _open_more(self) -> bool:
        """Returns whether there may be another connection, which is then being opened."""
        if self._closed or len(self._lines) + len(self._opening) >= self._plan.connections:
            return False
        task = asyncio.create_task(self._open_one())
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)
        return True

    async def _open_one(self) -> None:
        try:
            line = await self._connected()
        except OSError as error:
            now_s = monotonic()
            while self._waiting:
                self.book.fail(
                    self._waiting.popleft(), f"UNAVAILABLE: cannot connect: {error.strerror or error}", now_s
                )
            return
        self.free(line)

    async def _connected(self) -> _HttpLine:
        host, port = self._address
        async with asyncio.timeout(_CONNECT_S):
            _, line = await asyncio.get_running_loop().create_connection(
                lambda: _HttpLine(self),
                host,
                port,
                ssl=self._tls,
                server_hostname=self._name if self._tls is not None else None,
            )
        self._lines.add(line)
        return line


def _error_text(body: bytes) -> str:
    try:
        said = json.loads(body)
        return str(said["error"])
    except (ValueError, KeyError, TypeError):
        return body[:200].decode(errors="replace")
