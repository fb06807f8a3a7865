"""Webhooks, told to real HTTP servers on this host: ones that take them, fail first, refuse, hang or lie."""

import asyncio
import base64
import hashlib
import hmac
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gateway.backoff import Backoff
from gateway.telemetry.events import Event
from gateway.telemetry.webhooks import DeliveryPolicy, Webhook, secret_bytes, signature
from tests.routing.live import until

KEY = b"a secret of 24 bytes ok?"
NOW_S = 1_800_000_000.7
HASTY = DeliveryPolicy(answer_s=0.3, backoff=Backoff(0.001, 0.004), tries=4, waiting=5)
CERTIFICATES = Path(__file__).parents[1] / "rpc" / "certificates"


@dataclass
class Receiver:
    """Answers each POST with the next of `answers`, 204 after the last; None hangs, bytes are sent as they are."""

    answers: list[int | bytes | None] = field(default_factory=list)
    taken: list[tuple[Mapping[str, str], bytes]] = field(default_factory=list)
    port: int = 0

    @property
    def ids(self) -> list[str]:
        return [headers["webhook-id"] for headers, _ in self.taken]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
            headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
            body = await reader.readexactly(int(headers["content-length"]))
            self.taken.append(({**headers, "first": first}, body))
            answer = self.answers.pop(0) if self.answers else 204
            if answer is None:
                await reader.read()
            else:
                writer.write(answer if isinstance(answer, bytes) else f"HTTP/1.1 {answer} X\r\n\r\n".encode())
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()


@asynccontextmanager
async def receiving(*answers: int | bytes | None, context: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    receiver = Receiver(list(answers))
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0, ssl=context)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()


@asynccontextmanager
async def telling(url: str, policy: DeliveryPolicy = HASTY) -> AsyncIterator[Webhook]:
    webhook = Webhook(url, KEY, wall_s=lambda: NOW_S, draw=lambda: 0.5, policy=policy)
    running = asyncio.create_task(webhook.run())
    try:
        yield webhook
    finally:
        running.cancel()
        await asyncio.wait([running])
        assert running.cancelled()


def event(number: int = 1) -> Event:
    return Event("route.applied", "/gateway/default", f"e{number}", 1_000_000, "m", {"revision": number})


async def test_an_event_arrives_signed_so_that_a_receiver_can_check_it() -> None:
    async with receiving() as receiver, telling(f"http://127.0.0.1:{receiver.port}/hook?x=1") as webhook:
        webhook.take(event())
        await until(lambda: webhook.counts["delivered"] == 1)
    [(headers, body)] = receiver.taken
    assert headers["first"] == "POST /hook?x=1 HTTP/1.1"
    assert headers["host"] == f"127.0.0.1:{receiver.port}"
    assert headers["content-type"] == "application/cloudevents+json"
    assert json.loads(body)["data"] == {"revision": 1}
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    mac = hmac.new(KEY, signed, hashlib.sha256).digest()
    assert headers["webhook-signature"] == "v1," + base64.b64encode(mac).decode()
    assert headers["webhook-timestamp"] == "1800000000"


def test_the_signature_is_that_of_standard_webhooks() -> None:
    # The example of its specification's libraries.
    key = secret_bytes("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signed = signature(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("secret", ["", "short", "whsec_c2hvcnQ=", "whsec_%%%%"])
def test_a_secret_that_is_too_short_or_no_base64_is_refused(secret: str) -> None:
    with pytest.raises(ValueError, match=r"bytes|base64"):
        secret_bytes(secret)


async def test_a_receiver_that_fails_first_gets_everything_in_order() -> None:
    garbage = b"SSH-2.0-x\r\n\r\n"
    answers = (503, None, garbage, 200, 429, 200)
    async with receiving(*answers) as receiver, telling(f"http://127.0.0.1:{receiver.port}") as webhook:
        for number in range(3):
            webhook.take(event(number))
        await until(lambda: webhook.counts["delivered"] == 3)
    assert receiver.ids == ["e0", "e0", "e0", "e0", "e1", "e1", "e2"]
    assert webhook.counts == {"delivered": 3, "retried": 4}
    assert len({body for headers, body in receiver.taken if headers["webhook-id"] == "e0"}) == 1


async def test_a_refusal_is_final_and_a_failure_ends() -> None:
    answers = [400, 500, 500, 500, 500, 301]
    async with receiving(*answers) as receiver, telling(f"http://127.0.0.1:{receiver.port}") as webhook:
        for number in range(4):
            webhook.take(event(number))
        await until(lambda: webhook.counts["delivered"] == 1)
    assert receiver.ids == ["e0", "e1", "e1", "e1", "e1", "e2", "e3"]
    assert webhook.counts == {"refused": 2, "failed": 1, "retried": 3, "delivered": 1}


async def test_what_finds_no_room_is_dropped_and_counted_and_nothing_waits() -> None:
    policy = DeliveryPolicy(waiting=5)
    async with receiving(None) as receiver, telling(f"http://127.0.0.1:{receiver.port}", policy) as webhook:
        webhook.take(event(0))
        await until(lambda: len(receiver.taken) == 1)  # it hangs there, and the queue behind it fills
        for number in range(1, 9):
            webhook.take(event(number))
        assert (webhook.waiting, webhook.counts["dropped"]) == (5, 3)


async def test_nobody_there_is_a_failure_that_passes() -> None:
    async with receiving() as receiver:
        port = receiver.port
    async with telling(f"http://127.0.0.1:{port}") as webhook:
        webhook.take(event())
        await until(lambda: webhook.counts["failed"] == 1)
        assert webhook.counts["retried"] == 3


async def test_a_server_that_cannot_prove_its_name_is_told_nothing() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATES / "server.pem", CERTIFICATES / "server.key")
    async with receiving(context=context) as receiver:
        async with telling(f"https://localhost:{receiver.port}/") as webhook:
            webhook.take(event())
            await until(lambda: webhook.counts["failed"] == 1)
        assert receiver.taken == []
