"""A bare grpc.aio server of the protocol: protobuf, ONNX Runtime, nothing else.

    python -m loadtests.bench.bare REPOSITORY HOST:PORT

serves version 1 of every model. It is what the gateway is compared with; nobody should serve with it.
"""

import asyncio
import signal
import sys
from pathlib import Path

import grpc
import numpy as np
import onnxruntime

from gateway.pb import inference_pb2, inference_pb2_grpc
from loadtests.bench.models import INPUT
from loadtests.bench.session import open_session

VERSION = "1"


class Bare(inference_pb2_grpc.GRPCInferenceServiceServicer):
    """Runs each request where it is decoded, on the loop: no thread hop, no batch, no queue."""

    def __init__(self, repository: Path) -> None:
        self._sessions: dict[str, tuple[onnxruntime.InferenceSession, str]] = {}
        for path in sorted(repository.glob(f"*/{VERSION}/model.onnx")):
            session = open_session(path, intra_threads=1)
            self._sessions[path.parts[-3]] = session, session.get_outputs()[0].name

    async def ModelInfer(
        self, request: inference_pb2.ModelInferRequest, context: object
    ) -> inference_pb2.ModelInferResponse:
        session, output = self._sessions[request.model_name]
        tensor = np.frombuffer(request.raw_input_contents[0], np.float32).reshape(tuple(request.inputs[0].shape))
        values = session.run([output], {INPUT: tensor})[0]
        response = inference_pb2.ModelInferResponse(model_name=request.model_name, model_version=VERSION)
        response.outputs.add(name=output, datatype="FP32", shape=values.shape)
        response.raw_output_contents.append(values.tobytes())
        return response


async def serve(repository: Path, address: str) -> None:
    """Serves until SIGTERM."""
    server = grpc.aio.server()
    inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Bare(repository), server)  # type: ignore[no-untyped-call]
    server.add_insecure_port(address)
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    await server.start()
    await stopping.wait()
    await server.stop(None)


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), sys.argv[2]))
