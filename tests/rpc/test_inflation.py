"""Compressed messages: their content, their limits, and where they are inflated."""

import asyncio
import gzip
import os
import random
import threading
import zlib
from collections.abc import Callable

import grpc
import pytest
from google.protobuf import struct_pb2
from google.protobuf.message import DecodeError
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.errors import ResourceExhausted
from gateway.rpc.inflation import ENCODINGS, FREE_BYTES, MAX_RATIO, SMALL_BYTES, Inflater, Inflation, encoding_of
from gateway.rpc.message import BadMessage, ByteBudget, Compressed
from gateway.rpc.server import ServerOptions
from tests.rpc.raw import RawClient, message, request_headers
from tests.rpc.serving import TRANSPORTS, Served, refused, serving

COMPRESS: dict[bytes, Callable[[bytes], bytes]] = {b"gzip": gzip.compress, b"deflate": zlib.compress}
MIB = 1 << 20


def test_every_encoding_is_tried_here() -> None:
    assert set(COMPRESS) == set(ENCODINGS)


async def inflate(body: bytes, *, encoding: bytes = b"gzip", limit: int = 64 * MIB, budget: int = 256 * MIB) -> bytes:
    """The content of a message, by the same way as a server's; nothing of the budget is left taken."""
    counted = ByteBudget(budget)
    inflater = Inflater(limit, counted)
    inflation = inflater.open(Compressed(body, encoding))
    try:
        content = inflation.begin()
        whole = bytes(await inflater.finish(inflation)) if content is None else content
        assert inflation.held_bytes == len(whole)
        return whole
    finally:
        inflation.release()
        inflater.stop()
        assert counted.free_bytes == budget


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("size", [0, 1, SMALL_BYTES - 1, SMALL_BYTES, SMALL_BYTES + 1, 5 * MIB + 7])
@pytest.mark.parametrize("kind", ["zeros", "noise"])
async def test_content_comes_out_as_it_was(encoding: bytes, size: int, kind: str) -> None:
    body = bytes(size) if kind == "zeros" else random.Random(size).randbytes(size)
    if kind == "noise" or size <= FREE_BYTES:
        assert await inflate(COMPRESS[encoding](body), encoding=encoding) == body
    else:
        with pytest.raises(ResourceExhausted, match=f"{MAX_RATIO} times its size"):
            await inflate(COMPRESS[encoding](body), encoding=encoding)


@given(body=st.binary(max_size=2000), limit=st.integers(0, 2000))
@example(body=b"", limit=0)
@example(body=b"a", limit=0)
@example(body=b"a" * 2000, limit=2000)
def test_the_limit_is_exact(body: bytes, limit: int) -> None:
    inflation = Inflation(Compressed(gzip.compress(body), b"gzip"), limit, ByteBudget(MIB))
    if len(body) <= limit:
        assert inflation.begin() == body
    else:
        with pytest.raises(ResourceExhausted, match=f"more than {limit}"):
            inflation.begin()


@pytest.mark.parametrize("size", [10, 10_000, 3 * MIB])
async def test_what_is_not_one_whole_stream_is_refused(size: int) -> None:
    whole = gzip.compress(os.urandom(size))
    for bad in (b"", b"no", whole[:-3], whole[: len(whole) // 2], whole + b"more", zlib.compress(b"x")):
        with pytest.raises(BadMessage):
            await inflate(bad)


async def test_room_is_taken_before_each_step() -> None:
    """Of 20 MiB that do not fit, no more than the budget is ever inflated."""
    body = gzip.compress(os.urandom(MIB) * 20, 1)
    with pytest.raises(ResourceExhausted, match="are in use"):
        await inflate(body, budget=8 * MIB)


def textual(size: int) -> bytes:
    """Content that shrinks to a tenth, as numbers in text do."""
    line = random.Random(7)
    block = b"".join(b"%d," % line.randrange(100) + bytes(16) for _ in range(10_000))  # zlib looks 32 KiB back
    return (block * (size // len(block) + 1))[:size]


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("method", ["Echo", "EchoNow"])
@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
async def test_compressed_requests_are_served(transport: str, method: str, compression: grpc.Compression) -> None:
    async with serving(transport) as served:
        for size in (1000, 100_000, 10_000_000):
            body = textual(size)
            assert await served.unary(method)(body, compression=compression, timeout=10) == body


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_compressed_streams_are_served(transport: str) -> None:
    async with serving(transport) as served:
        bodies = [textual(size) for size in (10, 1_000_000, 100, 2_000_000, 100_000)]
        call = served.both_streams("Chat")(iter(bodies), compression=grpc.Compression.Gzip, timeout=10)
        assert [body async for body in call] == bodies


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_many_bombs_hold_no_more_than_the_budget(transport: str) -> None:
    """1.3 MiB on the wire that would be 20 messages of 64 MiB: bounded, refused, and others are served meanwhile."""
    options = ServerOptions(reuse_port=False, max_inflight_bytes=64 * MIB)
    bomb = gzip.compress(bytes(64 * MIB), 9)
    async with serving(transport, options) as served, RawClient(served.server.port) as client:
        headers = request_headers("EchoNow", (b"grpc-encoding", b"gzip"))
        streams = [await client.request(headers, message(bomb, flag=1)) for _ in range(20)]
        for stream_id in streams:
            fields, _ = await client.answer(stream_id)
            assert fields[b"grpc-status"] == b"8"
        assert await served.unary("EchoNow")(b"alive", timeout=5) == b"alive"


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_one_stream_of_bombs_is_refused(transport: str) -> None:
    async with serving(transport) as served, RawClient(served.server.port) as client:
        headers = request_headers("Total", (b"grpc-encoding", b"gzip"))
        bomb = message(gzip.compress(bytes(64 * MIB), 9), flag=1)
        fields, _ = await client.answer(await client.request(headers, bomb * 60))
        assert fields[b"grpc-status"] == b"8"
        assert b"inflates to more than" in fields[b"grpc-message"]
        assert served.behaviour.events["added"] == 0


async def test_large_inflation_leaves_the_loop_and_starts_no_thread() -> None:
    body, turns = textual(10 * MIB), 0
    inflater = Inflater(64 * MIB, ByteBudget(64 * MIB))
    threads = set(threading.enumerate())
    inflation = inflater.open(Compressed(gzip.compress(body, 1), b"gzip"))
    assert inflation.begin() is None
    finishing = asyncio.ensure_future(inflater.finish(inflation))
    while not finishing.done():
        await asyncio.sleep(0)
        turns += 1
    assert await finishing == body
    assert turns > 3  # at least once in each step
    assert set(threading.enumerate()) <= threads
    inflater.stop()


async def test_a_call_that_ends_while_it_is_inflated_holds_nothing(fast: Served) -> None:
    body = gzip.compress(textual(30 * MIB), 1)
    state = fast.server._state  # type: ignore[attr-defined]
    async with RawClient(fast.server.port) as client:
        for method in ("EchoNow", "Echo", "First"):
            headers = request_headers(method, (b"grpc-encoding", b"gzip"))
            stream_id = await client.request(headers, message(body, flag=1))
            client.h2.reset_stream(stream_id, 8)
            await client.send()
        fields, _ = await client.answer(await client.request(request_headers("EchoNow"), message(b"next")))
        assert fields[b"grpc-status"] == b"0"
    if state.tasks:
        await asyncio.wait(state.tasks, timeout=5)
    await asyncio.wait_for(state.empty.wait(), 5)
    assert state.received.free_bytes == state.received.size_bytes


PLAIN_THAT_LOOK_PACKED = [
    b"\x78\x9c" + b"plain " * 20,
    zlib.compress(b"packed")[:-1],
    zlib.compress(b"packed") + b"more",
    bytes((0x08, 0x1D)) + bytes(100),
]


@pytest.mark.parametrize("body", PLAIN_THAT_LOOK_PACKED)
async def test_plain_messages_that_begin_like_zlib_stay_plain(body: bytes) -> None:
    """grpcio does not tell which messages are compressed."""
    assert encoding_of(body) == b"deflate"
    async with serving("grpcio") as served:
        for method in ("Echo", "EchoNow"):
            assert await served.unary(method)(body, timeout=5) == body


@given(st.binary(max_size=40))
@example(b"")
def test_no_message_of_protobuf_looks_like_gzip(body: bytes) -> None:
    try:
        struct_pb2.Value.FromString(b"\x1f\x8b\x08" + body)
    except DecodeError:
        return
    raise AssertionError("a message of protobuf begins like gzip")


def test_encodings_are_told_from_the_first_bytes() -> None:
    for encoding, compress in COMPRESS.items():
        for size in (0, 1, 1000):
            assert encoding_of(compress(bytes(size))) == encoding
    for plain in (b"", b"\x1f", b"\x78\x9c", struct_pb2.Value(string_value="x").SerializeToString()):
        assert encoding_of(plain) == b""


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_bomb_is_refused_at_the_limit(transport: str) -> None:
    async with serving(transport, ServerOptions(reuse_port=False, max_receive_bytes=100_000)) as served:
        for method in ("Echo", "EchoNow"):
            for compression in (grpc.Compression.Gzip, grpc.Compression.Deflate):
                error = await refused(served.unary(method)(bytes(10_000_000), compression=compression))
                assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
