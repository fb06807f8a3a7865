"""The server's side of gRPC's interoperability cases, its messages compiled from interop.proto when tests run."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_tools import protoc  # type: ignore[import-untyped]

from gateway.rpc.server import Server

SERVICE = "gateway.interop.TestService"
INITIAL_KEY, TRAILING_KEY = "x-grpc-test-echo-initial", "x-grpc-test-echo-trailing-bin"
CALLS = {
    "EmptyCall": ("unary_unary", "Empty", "Empty"),
    "UnaryCall": ("unary_unary", "SimpleRequest", "SimpleResponse"),
    "StreamingOutputCall": ("unary_stream", "StreamingOutputCallRequest", "StreamingOutputCallResponse"),
    "StreamingInputCall": ("stream_unary", "StreamingInputCallRequest", "StreamingInputCallResponse"),
    "FullDuplexCall": ("stream_stream", "StreamingOutputCallRequest", "StreamingOutputCallResponse"),
}


@cache
def messages() -> Any:
    """The message classes by name, in a pool of their own."""
    source = Path(__file__).with_name("interop.proto")
    with tempfile.TemporaryDirectory() as folder:
        compiled = Path(folder) / "interop.bin"
        if protoc.main(["protoc", f"-I{source.parent}", f"--descriptor_set_out={compiled}", str(source)]):
            raise RuntimeError(f"{source} does not compile")
        files = descriptor_pb2.FileDescriptorSet.FromString(compiled.read_bytes()).file
    pool = descriptor_pool.DescriptorPool()
    for file in files:
        pool.Add(file)
    classes = message_factory.GetMessageClassesForFiles(["interop.proto"], pool)
    return SimpleNamespace(**{name.rpartition(".")[2]: made for name, made in classes.items()})


class InteropService:
    """What each method has to do is said in gRPC's doc/interop-test-descriptions.md."""

    async def empty_call(self, request: Any, context: Any) -> Any:
        return messages().Empty()

    async def unary_call(self, request: Any, context: Any) -> Any:
        await self._echo_metadata(context)
        await self._echo_status(request, context)
        return messages().SimpleResponse(payload=messages().Payload(body=bytes(request.response_size)))

    async def streaming_output_call(self, request: Any, context: Any) -> AsyncIterator[Any]:
        for wanted in request.response_parameters:
            yield await self._output(wanted)

    async def streaming_input_call(self, requests: AsyncIterator[Any], context: Any) -> Any:
        size = 0
        async for request in requests:
            size += len(request.payload.body)
        return messages().StreamingInputCallResponse(aggregated_payload_size=size)

    async def full_duplex_call(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        await self._echo_metadata(context)
        async for request in requests:
            await self._echo_status(request, context)
            for wanted in request.response_parameters:
                yield await self._output(wanted)

    async def _output(self, wanted: Any) -> Any:
        if wanted.interval_us:
            await asyncio.sleep(wanted.interval_us / 1e6)
        return messages().StreamingOutputCallResponse(payload=messages().Payload(body=bytes(wanted.size)))

    async def _echo_status(self, request: Any, context: Any) -> None:
        if request.HasField("response_status"):
            code = next(code for code in grpc.StatusCode if code.value[0] == request.response_status.code)
            await context.abort(code, request.response_status.message)

    async def _echo_metadata(self, context: Any) -> None:
        for key, value in context.invocation_metadata():
            if key == INITIAL_KEY:
                await context.send_initial_metadata(((key, value),))
            if key == TRAILING_KEY:
                context.set_trailing_metadata(((key, value),))


def register(server: Server) -> None:
    service = InteropService()
    functions = {
        "EmptyCall": service.empty_call,
        "UnaryCall": service.unary_call,
        "StreamingOutputCall": service.streaming_output_call,
        "StreamingInputCall": service.streaming_input_call,
        "FullDuplexCall": service.full_duplex_call,
    }
    made = {}
    for name, (kind, request, response) in CALLS.items():
        make = getattr(grpc, f"{kind}_rpc_method_handler")
        made[name] = make(
            functions[name],
            request_deserializer=getattr(messages(), request).FromString,
            response_serializer=getattr(messages(), response).SerializeToString,
        )
    server.add_registered_method_handlers(SERVICE, made)


class Stub:
    """grpcio's client of the service."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.calls: dict[str, Any] = {}
        for name, (kind, request, response) in CALLS.items():
            self.calls[name] = getattr(channel, kind)(
                f"/{SERVICE}/{name}",
                request_serializer=getattr(messages(), request).SerializeToString,
                response_deserializer=getattr(messages(), response).FromString,
            )

    def __getattr__(self, name: str) -> Any:
        return self.calls[name]
