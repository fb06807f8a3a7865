"""Unary calls over both transports, with grpcio's client."""

import asyncio
import logging

import grpc
import pytest

from gateway.rpc.method import MOST_DECODED_BYTES
from gateway.rpc.ngh2_server import Ngh2Server
from gateway.rpc.server import ServerOptions
from tests.rpc.serving import TRANSPORTS, Served, path, refused, serving

CODES = [
    ("Explode", b"gateway", grpc.StatusCode.INVALID_ARGUMENT, "field 'x' is 3, at most 2"),
    ("Fail", b"gateway", grpc.StatusCode.INVALID_ARGUMENT, "field 'x' is 3, at most 2"),
    ("Fail", b"abort", grpc.StatusCode.OUT_OF_RANGE, "aborted"),
    ("Fail", b"code", grpc.StatusCode.ALREADY_EXISTS, "set"),
    ("Unwritten", b"", grpc.StatusCode.UNIMPLEMENTED, "Method not implemented!"),
    ("Missing", b"", grpc.StatusCode.UNIMPLEMENTED, "Method not found!"),
]


@pytest.mark.parametrize("method", ["Echo", "EchoNow", "EchoLater"])
@pytest.mark.parametrize("size", [0, 1, 16_379, 16_380, 70_000, 5_000_000])
async def test_messages_of_any_size_come_back(served: Served, method: str, size: int) -> None:
    message = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    assert await served.unary(method)(message) == message


async def test_a_callback_answers_with_its_trailing_metadata(served: Served) -> None:
    for message in (b"a", b"bb"):
        call = served.unary("EchoNow")(message)
        assert await call == message
        trailers = tuple((key, value) for key, value in await call.trailing_metadata())
        assert trailers == (
            ("x-version", "2"),
            ("x-arm", "canary"),
            ("x-blob-bin", b"\x00\xff\x10"),
            ("x-size", str(len(message))),
        )


async def test_a_callback_context_knows_deadline_metadata_and_peer(served: Served) -> None:
    answer = await served.unary("See")(b"x-key", metadata=(("x-key", "first"), ("x-key", "second")), timeout=5)
    value, deadline, remaining, peer = answer.decode().split("|")
    assert (value, deadline, remaining) == ("first", "True", "True")
    assert peer.startswith("ipv4:127.0.0.1:")
    assert (await served.unary("See")(b"x-none")).startswith(b"None|True|True|")


@pytest.mark.parametrize(("method", "message", "code", "details"), CODES)
async def test_errors_have_their_code_and_text(
    served: Served, method: str, message: bytes, code: grpc.StatusCode, details: str
) -> None:
    error = await refused(served.unary(method)(message))
    assert (error.code(), error.details()) == (code, details)
    assert await served.unary("Echo")(b"next") == b"next"


@pytest.mark.parametrize(
    ("method", "message"), [("Explode", b""), ("Fail", b""), ("Fail", b"timeout"), ("Fail", b"none")]
)
async def test_a_defect_is_internal_and_its_text_stays_inside(
    served: Served, method: str, message: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        error = await refused(served.unary(method)(message))
    assert (error.code(), error.details()) == (grpc.StatusCode.INTERNAL, "internal error")
    assert any(record.exc_info and path(method) in record.getMessage() for record in caplog.records)


async def test_status_text_is_carried_whatever_it_holds(served: Served) -> None:
    error = await refused(served.unary("Refuse")(b""))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert error.details() == "snowman \u2603, percent %, line\nbreak"
    trailing: object = tuple(error.trailing_metadata())
    assert trailing == (("x-why", "because"),)


async def test_rich_status_details_are_carried(served: Served) -> None:
    error = await refused(served.unary("Fail")(b"rich"))
    assert (error.code(), error.details()) == (grpc.StatusCode.ABORTED, "rich")
    trailing: object = tuple(error.trailing_metadata())
    assert trailing == (("grpc-status-details-bin", b"\x08\x0a"),)


async def test_bytes_that_are_no_message_are_an_invalid_argument(served: Served) -> None:
    error = await refused(served.unary("Parse")(b"\xff\xfe"))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert served.behaviour.events["parse"] == 0
    assert await served.unary("Parse")(b"abc") == b"ABC"


async def test_metadata_travel_both_ways(served: Served) -> None:
    sent = (("x-text", "a, b"), ("x-text", "again"), ("x-raw-bin", bytes(range(256))), ("x-raw-bin", b""))
    call = served.unary("Metadata")(b"", metadata=sent)
    assert await call == repr(list(sent)).encode()
    initial = tuple(await call.initial_metadata())
    assert ("x-initial", "1") in initial
    assert ("x-initial-bin", b"\x00\x01\xfe") in initial
    trailing = tuple(await call.trailing_metadata())
    assert trailing[: len(sent)] == sent
    assert trailing[-1][0] == "x-peer"


async def test_a_deadline_ends_a_call_and_its_handler(served: Served) -> None:
    for method, event in (("Hold", "hold cancelled"), ("Sleep", "sleep cancelled")):
        error = await refused(served.unary(method)(b"", timeout=0.1))
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await served.behaviour.until(event)
    served.behaviour.held[0].answer(b"too late")
    assert await served.unary("Echo")(b"next") == b"next"


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_call_without_deadline_gets_the_servers(transport: str) -> None:
    async with serving(
        transport, ServerOptions(reuse_port=False, default_deadline_s=0.2, default_task_deadline_s=0.3)
    ) as served:
        for method, event in (("Hold", "hold cancelled"), ("Sleep", "sleep cancelled")):
            error = await refused(served.unary(method)(b""))
            assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            await served.behaviour.until(event)


@pytest.mark.parametrize(
    ("method", "begun", "ended"), [("Hold", "hold", "hold cancelled"), ("Sleep", "sleep", "sleep cancelled")]
)
async def test_a_cancelled_call_tells_its_handler(served: Served, method: str, begun: str, ended: str) -> None:
    call = served.unary(method)(b"")
    waiting = asyncio.ensure_future(refused(call))
    await served.behaviour.until(begun)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await served.behaviour.until(ended)
    assert await served.unary("Echo")(b"next") == b"next"


async def test_a_lost_connection_tells_the_handlers(served: Served) -> None:
    channel = grpc.aio.insecure_channel(served.address, options=(("grpc.use_local_subchannel_pool", 1),))
    calls = [
        asyncio.ensure_future(refused(channel.unary_unary(path(name), None, None)(b""))) for name in ("Hold", "Sleep")
    ]
    await served.behaviour.until("hold")
    await served.behaviour.until("sleep")
    await channel.close(None)
    await served.behaviour.until("hold cancelled")
    await served.behaviour.until("sleep cancelled")
    await asyncio.gather(*calls, return_exceptions=True)


async def test_ten_thousand_calls_over_one_connection(served: Served) -> None:
    total = 10_000 if isinstance(served.server, Ngh2Server) else 2_000  # the other one is 25 times slower

    async def client(numbers: range) -> None:
        for number in numbers:
            message = b"%d" % number
            assert await served.unary("EchoNow" if number % 2 else "Echo")(message) == message

    await asyncio.gather(*(client(range(start, total, 100)) for start in range(100)))


async def test_a_64_mib_message_goes_both_ways(served: Served) -> None:
    message = b"m" * (64 * 1024 * 1024)
    assert await served.unary("EchoNow")(message, timeout=40) == message


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_messages_beyond_the_limits_are_refused(transport: str) -> None:
    options = ServerOptions(reuse_port=False, max_receive_bytes=100_000, max_send_bytes=50_000)
    async with serving(transport, options) as served:
        for method in ("Echo", "EchoNow"):
            error = await refused(served.unary(method)(b"x" * 100_001))
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            error = await refused(served.unary(method)(b"x" * 50_001))
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert await served.unary(method)(b"x" * 50_000) == b"x" * 50_000


async def test_what_is_decoded_whole_is_short(served: Served) -> None:
    long = b"x" * (MOST_DECODED_BYTES + 1)
    for method, call in (
        ("Parse", served.unary("Parse")(long)),
        ("Shout", served.both_streams("Shout")(iter([long])).read()),
    ):
        error = await refused(call)
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        told = f"message of {MOST_DECODED_BYTES + 1} bytes, at most {MOST_DECODED_BYTES} are accepted by"
        assert str(error.details()).startswith(told)
        assert f"/{method}" in str(error.details())
    assert await served.unary("Echo")(long) == long


async def test_large_metadata_are_refused_and_others_served(served: Served) -> None:
    assert await served.unary("Echo")(b"", metadata=(("x-large", "v" * 5_000),)) == b""
    held = served.unary("Hold")(b"")
    await served.behaviour.until("hold")
    error = await refused(served.unary("Echo")(b"", metadata=(("x-large", "v" * 40_000),)))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert not held.done()  # other calls of the connection go on
    held.cancel()
    assert await served.unary("Echo")(b"next", wait_for_ready=True) == b"next"


async def test_grpcios_synchronous_client_is_served(served: Served) -> None:
    def use() -> tuple[bytes, list[bytes], bytes, list[bytes]]:
        with grpc.insecure_channel(served.address) as channel:
            return (
                channel.unary_unary(path("EchoNow"), None, None)(b"one", timeout=10),
                list(channel.unary_stream(path("CountByWrite"), None, None)(b"3", timeout=10)),
                channel.stream_unary(path("Total"), None, None)(iter([b"a", b"bc"]), timeout=10),
                list(channel.stream_stream(path("Chat"), None, None)(iter([b"a", b"bc"]), timeout=10)),
            )

    assert await asyncio.to_thread(use) == (b"one", [b"0", b"1", b"2"], b"3", [b"a", b"bc"])
