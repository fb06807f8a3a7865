"""Bad inputs on the wire: each has its code or ends its connection, whatever the transport, and others are served.

The numbers are those of the table of bad inputs: A are tensors, B names and versions, E the transport. A row is an
example of its kind; further ones stand beside it. After each the next good call is answered right, on the same
connection where that goes on.
"""

import asyncio
import gzip
import random
import re
import sys
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest
import pytest_asyncio
from google.protobuf.internal import api_implementation

from gateway.errors import Code
from gateway.pb import inference_pb2 as pb
from gateway.rpc.server import ServerOptions
from tests import models
from tests.api.calls import fails, good, is_well, plain
from tests.api.stand import Stand, standing
from tests.api.test_refusals import REFUSED, changed
from tests.rpc.raw import (
    CONTINUATION,
    DATA,
    HEADERS,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    RawClient,
    message,
    raw_frame,
    request_headers,
)
from tests.rpc.serving import TLS, TRANSPORTS, make, serving
from tests.rpc.test_lifetime import credentials

MIB = 1 << 20
IA, NF, RE, UI, DE, INTERNAL = b"3", b"5", b"8", b"12", b"4", b"13"
UNSUPPORTED = b"HTTP 415"  # what gRPC's protocol asks of a server for another content type
# P22: paths, classes, stacks, addresses in memory and of hosts.
INTERNALS = re.compile(
    r"Traceback|\.(py|pyx|so|cc|h)\b|(^|[\s'\"(])~?/(?!testing\.|inference\.)[\w.-]+|0x[0-9a-fA-F]{5,}"
    r"|\b[A-Za-z]+(Error|Exception)\b|<[^>]* object|\b(gateway|grpc|google|numpy|onnxruntime|asyncio)\.[a-z_]+\b"
    r"|\d+\.\d+\.\d+\.\d+|secret"
)
GZIP, DEFLATE = (b"grpc-encoding", b"gzip"), (b"grpc-encoding", b"deflate")
BOMB = bytes(8 * MIB)


def headers(method: str, *more: tuple[bytes, bytes], **changed: bytes) -> list[tuple[bytes, bytes]]:
    return request_headers(method, *more, **changed)


class Row(NamedTuple):
    """One stream: its head, its DATA, whether the client ends it, and the status that it gets."""

    head: list[tuple[bytes, bytes]]
    parts: tuple[bytes, ...]
    status: bytes
    end: bool = True
    only: str = ""  # the transport that answers so; the other's library does not


ROWS: dict[str, Row] = {
    "38 an answer over the limit": Row(headers("Count"), (message(b"1 2000000"),), RE),
    "38 an answer over the limit, later": Row(headers("Count"), (message(b"-1 2000000"),), RE),
    "82 invalid text": Row(headers("Parse"), (message(b"\xff\xfe"),), IA),
    "82 invalid text in a stream": Row(headers("Shout"), (message(b"good") + message(b"\xc3("),), IA),
    "82 half a character": Row(headers("Parse"), (message(b"\xe2\x98"),), IA),
    "84 one byte too large": Row(headers("EchoNow"), (message(bytes(MIB + 1)),), RE),
    "84 too large for a task": Row(headers("Echo"), (message(bytes(MIB + 1)),), RE),
    "84 too large in a stream": Row(headers("Chat"), (message(b"x") + message(bytes(MIB + 1)),), RE),
    "85 declared and dripped": Row(headers("EchoNow"), (b"\0\x40\0\0\0", b"x", b"x"), RE, end=False),
    "85 declared, 4 GiB": Row(headers("Total"), (b"\0\xff\xff\xff\xff",), RE, end=False),
    "85 declared, compressed": Row(headers("Echo", GZIP), (b"\1\xff\xff\xff\xff",), RE, end=False),
    "86 gzip bomb": Row(headers("EchoNow", GZIP), (message(gzip.compress(BOMB), 1),), RE),
    "86 gzip bomb for a task": Row(headers("Echo", GZIP), (message(gzip.compress(BOMB), 1),), RE),
    "86 gzip bomb in a stream": Row(headers("Total", GZIP), (message(gzip.compress(BOMB), 1),), RE),
    "86 deflate bomb": Row(headers("EchoNow", DEFLATE), (message(zlib.compress(BOMB), 1),), RE),
    "86 bomb in a bomb": Row(headers("EchoNow", GZIP), (message(gzip.compress(gzip.compress(BOMB)), 1),), b"0"),
    "86 gzip of many members": Row(headers("EchoNow", GZIP), (message(gzip.compress(b"x") * 1000, 1),), INTERNAL),
    "86 cut off": Row(headers("EchoNow", GZIP), (message(gzip.compress(b"x" * 99)[:-4], 1),), INTERNAL),
    "86 wrong checksum": Row(headers("Echo", GZIP), (message(gzip.compress(b"x" * 99)[:-8] + bytes(8), 1),), INTERNAL),
    "86 another encoding": Row(headers("EchoNow", (b"grpc-encoding", b"zstd")), (message(b"x", 1),), UI, only="ngh2"),
    "87 unknown method": Row(headers("Missing"), (message(b"x"),), UI),
    "87 unknown service": Row(headers("/no.Such/Method"), (message(b"x"),), UI),
    "87 path of nothing": Row(headers("/"), (message(b"x"),), UI),
    "87 path upwards": Row(headers("/../../etc/passwd"), (message(b"x"),), UI),
    "87 long path": Row(headers("/" + "x" * 5000), (message(b"x"),), UI),
    "87 content type": Row(headers("EchoNow", content_type=b"text/html"), (message(b"x"),), UNSUPPORTED, only="ngh2"),
    "87 no content type": Row(headers("EchoNow", content_type=b""), (message(b"x"),), UNSUPPORTED, only="ngh2"),
    "89 deadline 0": Row(headers("Hold", (b"grpc-timeout", b"0n")), (message(b"x"),), DE),
    "89 deadline of a nanosecond": Row(headers("Sleep", (b"grpc-timeout", b"1n")), (message(b"x"),), DE),
    "90 no deadline": Row(headers("Hold"), (message(b"x"),), DE),
    "90 no deadline, half a message": Row(headers("EchoNow"), (message(b"xyz")[:-1],), DE, end=False),
    "90 no deadline, no message": Row(headers("Echo"), (), DE, end=False),
    "92 bug in a callback": Row(headers("Explode"), (message(b"x"),), INTERNAL),
    "92 bug in a task": Row(headers("Fail"), (message(b"x"),), INTERNAL),
    "92 time-out of its own": Row(headers("Fail"), (message(b"timeout"),), INTERNAL),
    "92 answer of no kind": Row(headers("Fail"), (message(b"none"),), INTERNAL),
    "92 bug in a stream": Row(headers("BrokenStream"), (message(b"x"),), INTERNAL),
    "a unary call without a message": Row(headers("EchoNow"), (), INTERNAL),
    "a unary call within its message": Row(headers("Echo"), (message(b"xyz")[:-1],), INTERNAL),
    "metadata of 300 fields": Row(headers("EchoNow", *((b"x%d" % n, b"") for n in range(300))), (message(b"x"),), RE),
}  # fmt: skip
OPTIONS = ServerOptions(
    reuse_port=False, max_receive_bytes=MIB, default_deadline_s=0.3, default_task_deadline_s=0.3, max_send_bytes=MIB
)


async def answered(client: RawClient, method: str = "EchoNow") -> bool:
    fields, body = await client.answer(await client.request(request_headers(method), message(b"good")))
    return fields[b"grpc-status"] == b"0" and body == message(b"good")


@pytest.mark.parametrize(
    ("transport", "name"),
    [(one, name) for one in TRANSPORTS for name, row in ROWS.items() if row.only in ("", one)],
)
async def test_a_bad_call_has_its_status(transport: str, name: str) -> None:
    row = ROWS[name]
    async with serving(transport, OPTIONS) as served, RawClient(served.server.port) as client:
        await client.until(lambda self: self.events)
        fields, _ = await client.answer(await client.request(row.head, *row.parts, end=row.end))
        status = fields.get(b"grpc-status", b"HTTP " + fields.get(b":status", b"reset"))
        # A client that set a deadline counts for itself, and is reset at most.
        assert status == row.status or (row.status == DE and status == b"HTTP reset"), fields
        text = fields.get(b"grpc-message", b"").decode()
        assert INTERNALS.search(text) is None, text
        assert len(text) < 700
        assert client.went_away() is None
        for method in ("EchoNow", "Echo"):
            assert await answered(client, method)
    if name == "89 deadline 0":
        assert not served.behaviour.events["hold"] + served.behaviour.events["sleep"]


@pytest.mark.parametrize("method", ["Hold", "Sleep", "Total", "Chat"])
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_91_a_cancelled_call_frees_its_slot(transport: str, method: str) -> None:
    options = ServerOptions(reuse_port=False, max_concurrent_calls=1)
    async with serving(transport, options) as served, RawClient(served.server.port) as client:
        stages: list[tuple[bytes, ...]] = [(), (b"\0\0",), (message(b"x"),)]
        for parts in stages:
            stream_id = await client.request(request_headers(method), *parts, end=False)
            client.h2.reset_stream(stream_id, 8)
            await client.send()
            async with asyncio.timeout(5):
                while not await answered_or_full(client):
                    pass


async def answered_or_full(client: RawClient) -> bool:
    fields, _ = await client.answer(await client.request(request_headers("EchoNow"), message(b"good")))
    assert fields[b"grpc-status"] in (b"0", RE)
    return fields[b"grpc-status"] == b"0"


# ---- what ends its connection ----


def block(method: str) -> bytes:
    return b"".join(
        b"\x00" + bytes((len(name),)) + name + bytes((len(value),)) + value for name, value in request_headers(method)
    )


COUNT = 20_000
HELLO = PREFACE + raw_frame(SETTINGS)
CLIENT_HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(300)


def resets() -> bytes:
    return b"".join(
        raw_frame(HEADERS, number, block("Hold"), flags=4) + raw_frame(RST_STREAM, number, (8).to_bytes(4, "big"))
        for number in range(1, 2 * COUNT, 2)
    )


CLOSED: dict[str, Callable[[], bytes]] = {
    "93 HTTP/1.1": lambda: b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "93 HTTP/1.1 upgrade": lambda: b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
    "93 TLS hello to a plain port": lambda: CLIENT_HELLO,
    "93 SSH": lambda: b"SSH-2.0-OpenSSH_9.6\r\n",
    "93 zeros": lambda: bytes(4096),
    "93 oversized frame": lambda: HELLO + raw_frame(DATA, 1, b"x" * 100_000),
    "93 frame of 16 MiB": lambda: HELLO + b"\xff\xff\xff\x00\x00\x00\x00\x00\x01" + bytes(100_000),
    "98 ping flood": lambda: HELLO + raw_frame(PING, 0, b"12345678") * COUNT,
}
BOUNDED: dict[str, Callable[[], bytes]] = {
    "99 CONTINUATION flood": lambda: (
        HELLO + raw_frame(HEADERS, 1, block("Hold")) + raw_frame(CONTINUATION, 1, b"\x00\x01x\x01y") * COUNT
    ),
    "99 SETTINGS flood": lambda: HELLO + raw_frame(SETTINGS) * COUNT,
    "99 empty DATA flood": lambda: HELLO + raw_frame(HEADERS, 1, block("Hold"), flags=4) + raw_frame(DATA, 1) * COUNT,
    "99 WINDOW_UPDATE flood": lambda: HELLO + raw_frame(WINDOW_UPDATE, 0, (1).to_bytes(4, "big")) * COUNT,
    "99 frames of no known kind": lambda: HELLO + raw_frame(0xEE, 0, b"x") * COUNT,
    "100 rapid reset": lambda: HELLO + resets(),
}


async def throw(port: int, data: bytes, *, wait: bool) -> None:
    """Sends bytes on a connection of their own; with `wait` the server closes it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(10):
            with suppress(ConnectionError):
                writer.write(data)
                reading = asyncio.ensure_future(reader.read())
                with suppress(ConnectionError):
                    await writer.drain()
                if wait:
                    await reading
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


@pytest.mark.parametrize("name", [*CLOSED, *BOUNDED])
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_who_breaks_the_protocol_is_alone(transport: str, name: str) -> None:
    async with serving(transport) as served, RawClient(served.server.port) as bystander:
        assert await answered(bystander)
        await throw(served.server.port, (CLOSED | BOUNDED)[name](), wait=name in CLOSED)
        assert await answered(bystander)
        async with RawClient(served.server.port) as client:
            assert await answered(client)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_93_plain_text_to_a_tls_port_is_closed(transport: str) -> None:
    server = make(transport, ServerOptions(reuse_port=False, tls=TLS, handshake_timeout_s=1.0))
    await server.start()
    try:
        for data in (HELLO, b"GET / HTTP/1.1\r\n\r\n", bytes(4096)):
            await throw(server.port, data, wait=True)
    finally:
        await server.stop(0)


QUICK: dict[str, tuple[ServerOptions, bytes, bool]] = {
    "95 nothing is sent": (ServerOptions(reuse_port=False, handshake_timeout_s=0.3), b"", False),
    "95 half a preface": (ServerOptions(reuse_port=False, handshake_timeout_s=0.3), PREFACE[:10], False),
    "96 the peer has vanished": (
        ServerOptions(reuse_port=False, keepalive_time_s=0.2, keepalive_timeout_s=0.2),
        HELLO,
        False,
    ),
    "97 it answers pings and nothing else": (
        ServerOptions(reuse_port=False, max_connection_age_s=0.3, age_grace_s=0.2, keepalive_time_s=0.1),
        b"",
        True,
    ),
}


@pytest.mark.parametrize("name", QUICK)
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_who_says_nothing_is_closed_in_time(transport: str, name: str) -> None:
    options, hello, answers = QUICK[name]
    async with serving(transport, options) as served:
        if answers:
            async with RawClient(served.server.port) as client:
                await client.request(request_headers("Total"), message(b"x")[:-1], end=False)
                await client.until_closed(limit_s=5)
        else:
            await throw(served.server.port, hello, wait=True)
        async with RawClient(served.server.port) as client:
            assert await answered(client)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_102_connections_are_capped_and_room_returns(transport: str) -> None:
    async with serving(transport, ServerOptions(reuse_port=False, max_connections=5)) as served:
        kept = [await asyncio.open_connection("127.0.0.1", served.server.port) for _ in range(5)]
        for _, writer in kept:
            writer.write(HELLO)
        for reader, _ in kept:
            assert await asyncio.wait_for(reader.read(9), 5)
        for _ in range(20):
            await throw(served.server.port, HELLO, wait=True)
        for _, writer in kept:
            writer.close()
        assert await served.unary("EchoNow")(b"room", timeout=10, wait_for_ready=True) == b"room"


POOR_SERVER = """
import asyncio, resource, sys
import uvloop
from gateway.rpc.server import ServerOptions
from tests.rpc.service import Behaviour, register
from tests.rpc.serving import TLS, make

async def main():
    server = make(sys.argv[1], ServerOptions(reuse_port=False, tls=TLS if sys.argv[2] else None, handshake_timeout_s=2))
    register(Behaviour(), server)
    await server.start()
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    print(server.port, flush=True)
    await asyncio.Event().wait()

uvloop.run(main())
"""


@pytest.mark.parametrize(("transport", "tls"), [("ngh2", ""), ("ngh2", "tls"), ("grpcio", "")])
async def test_102_a_server_without_descriptors_serves_who_is_there(transport: str, tls: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", POOR_SERVER, transport, tls, stdout=-1, stderr=-3, cwd=Path(__file__).parents[2]
    )
    assert process.stdout is not None
    writers: list[asyncio.StreamWriter] = []
    try:
        port = int(await process.stdout.readline())
        made = credentials(None) if tls else None
        target = f"localhost:{port}"
        async with grpc.aio.secure_channel(target, made) if made else grpc.aio.insecure_channel(target) as channel:
            call = channel.unary_unary("/testing.Behaviour/EchoNow", None, None)
            assert await call(b"before", timeout=10, wait_for_ready=True) == b"before"
            for _ in range(100):  # the kernel takes those that the server cannot
                writers.append((await asyncio.open_connection("127.0.0.1", port))[1])
            for _ in range(50):
                assert await call(b"meanwhile", timeout=10) == b"meanwhile"
        for writer in writers:
            writer.close()
        async with grpc.aio.secure_channel(target, made) if made else grpc.aio.insecure_channel(target) as channel:
            call = channel.unary_unary("/testing.Behaviour/EchoNow", None, None)
            assert await call(b"after", timeout=15, wait_for_ready=True) == b"after"
        assert process.returncode is None
    finally:
        for writer in writers:
            writer.close()
        process.kill()
        await process.wait()


# ---- tensors, names and versions ----

_Tensor = pb.ModelInferRequest.InferInputTensor
_Parameter = pb.InferParameter
# More of each kind; the rows of the table itself are REFUSED's.
MORE: dict[str, tuple[Code, pb.ModelInferRequest]] = {
    **{
        f"A5 datatype {text!r}": (Code.INVALID_ARGUMENT, changed(tensor=_Tensor(datatype=text)))
        for text in ("fp32", "FP33", "BF16", " FP32", "FP32 ", "FP32\n", "ＦＰ３２", "FP", "FLOAT", "x" * 10_000)
    },
    **{
        f"A7 shape {shape}": (Code.INVALID_ARGUMENT, changed(shape=shape))
        for shape in ([1, -4], [-1], [1, 4, -1], [2**63 - 1, 4], [2**31, 2**33], [2**62, 4], [1] * 17, [4, 1])
    },
    **{
        f"A16 {size} bytes": (Code.INVALID_ARGUMENT, changed(raw=[bytes(size)]))
        for size in (1, 3, 12, 15, 17, 20, 1_000_000)
    },
    "A14 two buffers": (Code.INVALID_ARGUMENT, changed(raw=[bytes(16), bytes(16)])),
    "A14 many buffers": (Code.INVALID_ARGUMENT, changed(raw=[b""] * 10_000)),
    "A32 many inputs": (Code.INVALID_ARGUMENT, pb.ModelInferRequest(model_name="affine", inputs=[_Tensor()] * 10_000)),
    "A35 long name": (Code.INVALID_ARGUMENT, changed(parameter=("k" * 10_000, _Parameter(bool_param=True)))),
    **{
        f"A36 id {text!r}": (Code.INVALID_ARGUMENT, changed(id=text))
        for text in ("\0", "a\r\nb", "\u202eabc", "\x7f", "i" * 257, "\u2028", "\ud7ff\u200b")
    },
    **{
        f"B47 name {text!r}": (Code.INVALID_ARGUMENT, changed(model_name=text))
        for text in (
            "a/../b", "model/..", "..", "/etc/passwd", "m/", ".. ", ".", "./affine", "affine/", "affine\\", "affine\n",
            "a:b", "a?", "[a]", "{a}", "a b", "\taffine", "a\u0301", "á", "ａffine", "😀", "a%00", "-a", "_a",
            "a" * 129,
        )
    },
    "B46 a label that nobody gave": (Code.NOT_FOUND, changed(model_version="1.0")),
    **{
        f"B45 version {text!r}": (Code.INVALID_ARGUMENT, changed(model_version=text))
        for text in ("1/..", "1/../1", "-0", " 1", "1 ", "1\n", "0x1", "1e3", "²", "١", "1\0", "*", "9" * 1000)
    },
}  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="session", params=TRANSPORTS)
async def stand(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stand]:
    data: Path = tmp_path_factory.mktemp("bad_inputs")
    repository = data / "models"
    models.write_version(repository, "affine", "1", models.affine(2.0), config="max_batch_size: 8")
    models.write_version(repository, "broken", "1", b"not a model")
    async with standing(repository, data, probes=data / "probes", transport=request.param) as made:
        yield made


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.parametrize("table", [REFUSED, MORE], ids=["rows", "more of their kinds"])
async def test_bad_requests_have_their_code(stand: Stand, table: dict[str, tuple[Code, pb.ModelInferRequest]]) -> None:
    wrong: list[Any] = []
    for name, (code, bad) in table.items():
        got, text = await fails(stand, bad)
        told = text.replace(repr(bad.model_name), "").replace(repr(bad.model_version), "")  # the caller's own words
        if got is not code or INTERNALS.search(told):
            wrong.append((name, got, text))
        await is_well(stand)
    assert wrong == []


@pytest.mark.asyncio(loop_scope="session")
async def test_82_and_83_bytes_that_are_no_message(stand: Stand) -> None:
    assert api_implementation.Type() == "upb"
    draw = random.Random(82)
    groups = [b"\x0b" * depth + b"\x0c" * depth for depth in (50, 101, 5000, 100_000)]
    nested = [b"\x0b" * 100_000, b"\x0a\xff\xff\xff\xff\x7f", b"\x0a\x80" * 1000, b"\x0a\x02\xff\xfe"]
    noise = [draw.randbytes(size) for size in (1, 7, 64, 1000, 100_000) for _ in range(20)]
    truncated = [good(2).SerializeToString()[:cut] for cut in range(1, 40, 3)]
    codes: set[grpc.StatusCode] = set()
    for raw in (*groups, *nested, *noise, *truncated):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await plain(stand)(raw)
        codes.add(caught.value.code())
        text = caught.value.details() or ""
        assert INTERNALS.search(text) is None, text
    assert codes <= {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}
    await is_well(stand)


def test_what_must_not_be_told_is_recognised() -> None:
    for text in (
        "failed at /srv/models/m/1/model.onnx", "KeyError: 'x'", "<Session object at 0x7f00aa11>", "gateway.rpc.output",
        "peer 10.0.0.1:55", "Traceback (most recent call last)", "line 3 of a.py", "open('/etc/passwd')",
    ):  # fmt: skip
        assert INTERNALS.search(text), text
    for text in ("request of /testing.Behaviour/Parse: 2 bytes are not a message of it", "shape [1, 5] of 'x'"):
        assert INTERNALS.search(text) is None, text
