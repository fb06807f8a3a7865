"""gRPC's public interoperability cases, with grpcio's client, over both transports.

Source: grpc/doc/interop-test-descriptions.md.
"""

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest

from gateway.rpc.server import ServerOptions
from tests.conformance.interop import INITIAL_KEY, SERVICE, TRAILING_KEY, Stub, messages, register
from tests.rpc.serving import TRANSPORTS, make, refused

REQUEST_SIZES = (27_182, 8, 1_828, 45_904)
RESPONSE_SIZES = (31_415, 9, 2_653, 58_979)
SPECIAL = "\t\ntest with whitespace\r\nand Unicode BMP \u263a and non-BMP \U0001f608\t\n"


@pytest.fixture(params=TRANSPORTS)
async def channel(request: pytest.FixtureRequest) -> AsyncIterator[grpc.aio.Channel]:
    server = make(request.param, ServerOptions(reuse_port=False))
    register(server)
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as opened:
        yield opened
    await server.stop(0)


@pytest.fixture
def stub(channel: grpc.aio.Channel) -> Stub:
    return Stub(channel)


def payload(size: int) -> object:
    return messages().Payload(body=bytes(size))


def output_request(size: int, body: int, *, interval_us: int = 0) -> object:
    made = messages()
    return made.StreamingOutputCallRequest(
        response_parameters=[made.ResponseParameters(size=size, interval_us=interval_us)], payload=payload(body)
    )


async def test_empty_unary(stub: Stub) -> None:
    assert await stub.EmptyCall(messages().Empty()) == messages().Empty()


async def test_large_unary(stub: Stub) -> None:
    request = messages().SimpleRequest(response_size=314_159, payload=payload(271_828))
    assert (await stub.UnaryCall(request)).payload.body == bytes(314_159)


async def test_client_streaming(stub: Stub) -> None:
    requests = (messages().StreamingInputCallRequest(payload=payload(size)) for size in REQUEST_SIZES)
    assert (await stub.StreamingInputCall(requests)).aggregated_payload_size == 74_922


async def test_server_streaming(stub: Stub) -> None:
    made = messages()
    request = made.StreamingOutputCallRequest(
        response_parameters=[made.ResponseParameters(size=size) for size in RESPONSE_SIZES]
    )
    assert [len(answer.payload.body) async for answer in stub.StreamingOutputCall(request)] == list(RESPONSE_SIZES)


async def test_ping_pong(stub: Stub) -> None:
    call = stub.FullDuplexCall()
    for request_size, response_size in zip(REQUEST_SIZES, RESPONSE_SIZES, strict=True):
        await call.write(output_request(response_size, request_size))
        assert len((await call.read()).payload.body) == response_size
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF  # type: ignore[attr-defined]
    assert await call.code() is grpc.StatusCode.OK


async def test_empty_stream(stub: Stub) -> None:
    call = stub.FullDuplexCall()
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF  # type: ignore[attr-defined]
    assert await call.code() is grpc.StatusCode.OK


async def test_cancel_after_begin(stub: Stub) -> None:
    call = stub.StreamingInputCall()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await call.code() is grpc.StatusCode.CANCELLED


async def test_cancel_after_first_response(stub: Stub) -> None:
    call = stub.FullDuplexCall()
    await call.write(output_request(31_415, 27_182))
    assert len((await call.read()).payload.body) == 31_415
    call.cancel()
    assert await call.code() is grpc.StatusCode.CANCELLED


async def test_timeout_on_sleeping_server(stub: Stub) -> None:
    call = stub.FullDuplexCall(timeout=0.05)
    await call.write(output_request(1, 27_182, interval_us=5_000_000))
    with pytest.raises(grpc.aio.AioRpcError):
        await call.read()
    assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_custom_metadata(stub: Stub) -> None:
    sent = ((INITIAL_KEY, "test_initial_metadata_value"), (TRAILING_KEY, b"\xab\xab\xab"))
    unary = stub.UnaryCall(messages().SimpleRequest(response_size=314_159, payload=payload(271_828)), metadata=sent)
    await unary
    stream = stub.FullDuplexCall(metadata=sent)
    await stream.write(output_request(314_159, 271_828))
    await stream.read()
    await stream.done_writing()
    assert await stream.read() is grpc.aio.EOF  # type: ignore[attr-defined]
    for call in (unary, stream):
        assert sent[0] in tuple(await call.initial_metadata())
        assert sent[1] in tuple(await call.trailing_metadata())


@pytest.mark.parametrize(
    "text", ["test status message", SPECIAL], ids=["status_code_and_message", "special_status_message"]
)
async def test_status_and_message(stub: Stub, text: str) -> None:
    status = messages().EchoStatus(code=2, message=text)
    error = await refused(stub.UnaryCall(messages().SimpleRequest(response_status=status)))
    assert (error.code(), error.details()) == (grpc.StatusCode.UNKNOWN, text)
    stream = stub.FullDuplexCall()
    await stream.write(messages().StreamingOutputCallRequest(response_status=status))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stream.read()
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.UNKNOWN, text)


@pytest.mark.parametrize(
    "path", [f"/{SERVICE}/UnimplementedCall", "/gateway.interop.UnimplementedService/UnimplementedCall"]
)
async def test_unimplemented_method_and_service(channel: grpc.aio.Channel, path: str) -> None:
    error = await refused(channel.unary_unary(path, None, None)(b""))
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED
