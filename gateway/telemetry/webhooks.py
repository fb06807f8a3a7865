"""Events told to somebody else's HTTP server: signed, in order, tried again, and never waited for by anything.

Each event is one POST of its CloudEvents JSON. The signature is that of Standard Webhooks, for which receivers have
libraries: `webhook-signature: v1,<base64 of HMAC-SHA256(secret, "<webhook-id>.<webhook-timestamp>.<body>")>`. A
receiver refuses what is older than five minutes and what it had before under the same id.

Source: github.com/standard-webhooks/standard-webhooks, spec/standard-webhooks.md.
"""

import asyncio
import base64
import hashlib
import hmac
import logging
import ssl
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, urlsplit

from gateway.backoff import Backoff
from gateway.telemetry.events import CONTENT_TYPE, Event

SECRET_PREFIX: Final = "whsec_"
OUTCOMES: Final = ("delivered", "retried", "refused", "failed", "dropped")
_HEAD_LIMIT_BYTES: Final = 16 << 10
_BACKOFF: Final = Backoff(first_s=1.0, longest_s=60.0)
_AGAIN: Final = frozenset({408, 425, 429})
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DeliveryPolicy:
    """Holds how long and how often a receiver is tried. Units: seconds."""

    answer_s: float = 10.0
    backoff: Backoff = _BACKOFF
    tries: int = 8
    waiting: int = 1000  # events; what comes while so many wait is dropped


def secret_bytes(secret: str) -> bytes:
    """Returns the key that a secret stands for: what follows `whsec_` as base64, or the text itself.

    Raises: ValueError for less than 16 bytes, or what is no base64.
    """
    secret = secret.strip()
    coded = secret.startswith(SECRET_PREFIX)
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True) if coded else secret.encode()
    if len(key) < 16:
        raise ValueError(f"a secret of {len(key)} bytes, allowed: 16 or more")
    return key


def signature(key: bytes, event_id: str, timestamp_s: int, body: bytes) -> str:
    """Returns the value of `webhook-signature`."""
    mac = hmac.new(key, f"{event_id}.{timestamp_s}.".encode() + body, hashlib.sha256)
    return "v1," + base64.b64encode(mac.digest()).decode()


class Webhook:
    """One receiver: `take` queues an event, `run` delivers; `counts` says what became of them, by `OUTCOMES`.

    An answer 2xx is a delivery. Of what may pass (no answer, 5xx, 408, 425, 429) another try is made; every other
    answer is a refusal and final. A later event waits for an earlier one: the receiver sees them in order.
    """

    def __init__(
        self,
        url: str,
        key: bytes,
        *,
        wall_s: Callable[[], float],
        draw: Callable[[], float],
        policy: DeliveryPolicy | None = None,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._policy = policy or DeliveryPolicy()
        self._url = urlsplit(url)
        self._key = key
        self._wall_s = wall_s
        self._draw = draw
        self._queue: asyncio.Queue[Event] = asyncio.Queue(self._policy.waiting)
        self._context = ssl.create_default_context() if self._url.scheme == "https" else None

    @property
    def waiting(self) -> int:
        return self._queue.qsize()

    def take(self, event: Event) -> None:
        """Queues the event without waiting; with a full queue it is dropped and counted."""
        try:
            self._queue.put_nowait(event)
        except asyncio.QueueFull:
            self._count("dropped")

    async def run(self) -> None:
        """Delivers for ever, one at a time."""
        while True:
            await self._deliver(await self._queue.get())

    async def _deliver(self, event: Event) -> None:
        failures = 0
        while True:
            status, why = await self._attempt(event)
            if 200 <= status < 300:
                self._count("delivered")
                return
            failures += 1
            passing = status == 0 or status >= 500 or status in _AGAIN
            if not passing or failures >= self._policy.tries:
                self._count("failed" if passing else "refused")
                _log.warning("webhook: event %s (%s) was not taken: %s", event.id, event.type, why)
                return
            self._count("retried")
            await asyncio.sleep(self._policy.backoff.delay_s(failures, self._draw()))

    async def _attempt(self, event: Event) -> tuple[int, str]:
        """Returns the answer's status, 0 for none, and what to say of it. Each try is signed anew."""
        body, now_s = event.to_json().encode(), int(self._wall_s())
        headers = {
            "Content-Type": CONTENT_TYPE,
            "webhook-id": event.id,
            "webhook-timestamp": str(now_s),
            "webhook-signature": signature(self._key, event.id, now_s, body),
        }
        try:
            async with asyncio.timeout(self._policy.answer_s):
                status, _ = await post(self._url, headers, body, self._context)
        except TimeoutError:
            return 0, f"no answer within {self._policy.answer_s:g} s"
        except (OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            return 0, f"no answer ({type(error).__name__})"
        return status, f"answered {status}"

    def _count(self, outcome: str) -> None:
        self.counts[outcome] += 1


async def post(
    url: SplitResult, headers: Mapping[str, str], body: bytes, context: ssl.SSLContext | None, *, answer_bytes: int = 0
) -> tuple[int, bytes]:
    """Returns the status that the server answers, and its body up to `answer_bytes`.

    Redirects are not followed: what is signed would go elsewhere.
    Raises: OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError if there is no answer in HTTP/1,
            or a longer one.
    """
    host = url.hostname or ""
    port = url.port or (443 if context else 80)
    reader, writer = await asyncio.open_connection(host, port, ssl=context, limit=_HEAD_LIMIT_BYTES)
    try:
        target = (url.path or "/") + (f"?{url.query}" if url.query else "")
        shown = f"[{host}]" if ":" in host else host
        lines = [f"POST {target} HTTP/1.1", f"Host: {shown}" + (f":{url.port}" if url.port else "")]
        lines += [f"{key}: {value}" for key, value in headers.items()]
        lines += [f"Content-Length: {len(body)}", "Connection: close", "", ""]
        writer.write("\r\n".join(lines).encode("latin-1") + body)
        await writer.drain()
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            protocol, status, *_ = head.split(b"\r\n", 1)[0].split(b" ", 2)
            if not protocol.startswith(b"HTTP/1."):
                raise ValueError("not HTTP/1")
            if int(status) >= 200:  # before it there may be 100 Continue
                return int(status), await _body(reader, head, answer_bytes) if answer_bytes else b""
    finally:
        writer.transport.abort()


async def _body(reader: asyncio.StreamReader, head: bytes, limit: int) -> bytes:
    fields = {
        name.strip().lower(): value.strip()
        for name, _, value in (line.partition(b":") for line in head.split(b"\r\n")[1:] if line)
    }
    body = b""
    if fields.get(b"transfer-encoding", b"").lower() == b"chunked":
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            if len(body) + size > limit:
                raise ValueError("a long answer")
            body += (await reader.readexactly(size + 2))[:-2]
        return body
    if b"content-length" in fields:
        size = int(fields[b"content-length"])
        if not 0 <= size <= limit:
            raise ValueError("a long answer")
        return await reader.readexactly(size)
    while part := await reader.read(limit + 1 - len(body)):
        body += part
        if len(body) > limit:
            raise ValueError("a long answer")
    return body
