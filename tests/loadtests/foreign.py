"""A server of the protocol that is not this gateway: grpcio's own, with TLS, tokens and answers that wait."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio

from gateway.pb import inference_pb2 as pb
from gateway.pb.inference_pb2_grpc import GRPCInferenceServiceServicer, add_GRPCInferenceServiceServicer_to_server
from tests.rpc.serving import CERTIFICATES

Answering = Callable[[pb.ModelInferRequest], pb.ModelInferResponse]


def echoed(request: pb.ModelInferRequest) -> pb.ModelInferResponse:
    """The first input as output."""
    tensor = request.inputs[0]
    response = pb.ModelInferResponse(model_name=request.model_name, model_version="7", id=request.id)
    response.outputs.add(name="y", datatype=tensor.datatype, shape=tensor.shape)
    response.raw_output_contents.append(request.raw_input_contents[0])
    return response


@dataclass
class Foreign(GRPCInferenceServiceServicer):
    """Knows one model `m` of one input; holds its answers until `held` calls have come; asks for `token`."""

    answering: Answering = echoed
    held: int = 0
    token: str = ""
    streams_inferences: bool = False  # answers of streams are ModelInferResponse, as MLServer has it
    calls: int = 0
    headers: list[dict[str, str]] = field(default_factory=list)
    methods: set[str] = field(default_factory=set)  # that were asked for, known or not
    address: str = ""
    _enough: asyncio.Event = field(default_factory=asyncio.Event)

    async def ModelMetadata(self, request: pb.ModelMetadataRequest, context: Any) -> pb.ModelMetadataResponse:
        await self._admit(context)
        if request.name != "m":
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no model {request.name}")
        answer = pb.ModelMetadataResponse(name="m", versions=["7"], platform="other")
        answer.inputs.add(name="x", datatype="FP32", shape=[-1, 4])
        return answer

    async def ModelInfer(self, request: pb.ModelInferRequest, context: Any) -> pb.ModelInferResponse:
        await self._admit(context)
        self.calls += 1
        if self.calls >= self.held:
            self._enough.set()
        await self._enough.wait()
        return self.answering(request)

    async def ModelStreamInfer(
        self, requests: AsyncIterator[pb.ModelInferRequest], context: Any
    ) -> AsyncIterator[pb.ModelStreamInferResponse]:
        await self._admit(context)
        waiting: list[pb.ModelInferRequest] = []
        async for request in requests:
            self.calls += 1
            waiting.append(request)
            if len(waiting) == 2:  # answers come in another order than their requests
                for one in reversed(waiting):
                    yield pb.ModelStreamInferResponse(infer_response=self.answering(one))
                waiting.clear()

    async def _admit(self, context: Any) -> None:
        said = {name: str(value) for name, value in context.invocation_metadata()}
        self.headers.append(said)
        if self.token and said.get("authorization") != f"Bearer {self.token}":
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "who are you?")


class _Watching(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    def __init__(self, service: Foreign) -> None:
        self._service = service

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        self._service.methods.add(details.method)
        return await continuation(details)


async def _inferences(requests: AsyncIterator[pb.ModelInferRequest], context: Any) -> AsyncIterator[bytes]:
    async for request in requests:
        yield echoed(request).SerializeToString()


def _streaming_inferences(service: Foreign) -> "grpc.GenericRpcHandler[Any, Any]":
    """What it takes to be asked by a stream: a service that is added whole would have a stream of its own."""
    handlers = {
        "ModelMetadata": grpc.unary_unary_rpc_method_handler(
            service.ModelMetadata, pb.ModelMetadataRequest.FromString, pb.ModelMetadataResponse.SerializeToString
        ),
        "ModelStreamInfer": grpc.stream_stream_rpc_method_handler(_inferences, pb.ModelInferRequest.FromString, None),
    }
    return grpc.method_handlers_generic_handler("inference.GRPCInferenceService", handlers)


@asynccontextmanager
async def foreign(service: Foreign, *, tls: bool = False) -> AsyncIterator[Foreign]:
    """The service on a port, with mutual TLS if asked for."""
    server = grpc.aio.server(interceptors=[_Watching(service)])
    if service.streams_inferences:
        server.add_generic_rpc_handlers([_streaming_inferences(service)])
    else:
        add_GRPCInferenceServiceServicer_to_server(service, server)  # type: ignore[no-untyped-call]
    if tls:
        key, certificate, ca = ((CERTIFICATES / name).read_bytes() for name in ("server.key", "server.pem", "ca.pem"))
        credentials = grpc.ssl_server_credentials([(key, certificate)], ca, require_client_auth=True)
        port = server.add_secure_port("127.0.0.1:0", credentials)
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    service.address = f"127.0.0.1:{port}"
    try:
        yield service
    finally:
        await server.stop(0)


async def _refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    if head.startswith(b"GET"):
        body = b'{"name": "m", "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]}'
        status = b"200 OK"
    else:
        body, status = b"oops", b"500 Internal Server Error"
    writer.write(b"HTTP/1.1 %b\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body))
    await writer.drain()
    writer.close()


@asynccontextmanager
async def abrupt() -> AsyncIterator[str]:
    """The address of a REST server that fails at each inference, and ends the connection without a word of it."""
    server = await asyncio.start_server(_refuse, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
