"""Ray Serve's deployment of the benchmark's model; its proxy and its replicas load this module by its name."""

import sys
from pathlib import Path
from typing import Final

import numpy as np

from gateway.pb import inference_pb2, inference_pb2_grpc
from loadtests.bench.rivals.scorer import MODEL, VERSION, OnnxScorer

ADD_SERVICER: Final = f"{__name__}.add_servicer"

# The proxy pickles each request for a replica; the generated classes say that they are of a module of this name.
sys.modules.setdefault("inference_pb2", inference_pb2)


def add_servicer(servicer: object, server: object) -> None:
    """Told to the proxy by its name: the service whose RPCs it hands on."""
    inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]


class RayOnnx:
    """The proxy calls the method that has the RPC's name."""

    def __init__(self, repository: str) -> None:
        self._scorer = OnnxScorer(Path(repository))

    async def ModelInfer(self, request: inference_pb2.ModelInferRequest) -> inference_pb2.ModelInferResponse:
        rows = np.frombuffer(request.raw_input_contents[0], np.float32).reshape(tuple(request.inputs[0].shape))
        values = self._scorer.score(rows)
        response = inference_pb2.ModelInferResponse(model_name=MODEL, model_version=VERSION)
        response.outputs.add(name=self._scorer.output, datatype="FP32", shape=values.shape)
        response.raw_output_contents.append(values.tobytes())
        return response
