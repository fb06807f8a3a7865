"""The generated servicer of the inference service, one of its methods answered by callback, over both transports."""

from typing import Any

import grpc
import pytest

from gateway.errors import UnknownModel
from gateway.pb import inference_pb2, inference_pb2_grpc
from gateway.rpc.handler import CallbackContext, by_callback
from gateway.rpc.server import ServerOptions
from tests.rpc.serving import TRANSPORTS, make, refused


class Servicer(inference_pb2_grpc.GRPCInferenceServiceServicer):
    async def ServerLive(self, request: Any, context: Any) -> Any:
        return inference_pb2.ServerLiveResponse(live=True)

    @by_callback
    def ModelInfer(self, message: bytes, context: CallbackContext) -> None:
        request = inference_pb2.ModelInferRequest.FromString(message)
        if request.model_name == "none":
            context.fail(UnknownModel("none"))
        else:
            context.answer(inference_pb2.ModelInferResponse(model_name=request.model_name, id=request.id))


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_generated_code_registers_and_calls(transport: str) -> None:
    server = make(transport, ServerOptions(reuse_port=False))
    inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Servicer(), server)  # type: ignore[no-untyped-call]
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            stub = inference_pb2_grpc.GRPCInferenceServiceStub(channel)  # type: ignore[no-untyped-call]
            assert (await stub.ServerLive(inference_pb2.ServerLiveRequest())).live
            answer = await stub.ModelInfer(inference_pb2.ModelInferRequest(model_name="m", id="7"))
            assert (answer.model_name, answer.id) == ("m", "7")
            error = await refused(stub.ModelInfer(inference_pb2.ModelInferRequest(model_name="none")))
            assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, str(UnknownModel("none")))
            error = await refused(stub.ServerMetadata(inference_pb2.ServerMetadataRequest()))
            assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    finally:
        await server.stop(0)
