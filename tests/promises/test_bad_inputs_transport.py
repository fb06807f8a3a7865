"""Bad inputs on the wire: each has its code or ends its connection, whatever the transport, and others are served.

The numbers are those of the table of bad inputs: A are tensors, B names and versions, E the transport. A row is an
example of its kind; further ones stand beside it. After each the next good call is answered right, on the same
connection where that goes on.
"""

import asyncio
import gzip
import random
import zlib
from collections.abc import AsyncIterator
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
from tests.promises.good_calls import answered
from tests.promises.internals import INTERNALS
from tests.rpc.raw import RawClient, message, request_headers
from tests.rpc.serving import TRANSPORTS, serving

MIB = 1 << 20
IA, NF, RE, UI, DE, INTERNAL = b"3", b"5", b"8", b"12", b"4", b"13"
UNSUPPORTED = b"HTTP 415"  # what gRPC's protocol asks of a server for another content type
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
