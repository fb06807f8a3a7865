"""Starts KServe's Python model server with the benchmark's model, over gRPC.

Its gRPC server is one process whatever `workers` says: those are of its REST server.
"""

import logging
import sys
from typing import Any

from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer

from loadtests.bench.rivals.scorer import MODEL, OnnxScorer
from loadtests.bench.rivals.start_order import StartOrder


class KserveModel(Model):  # type: ignore[misc]
    """Known to the server at once: the session is opened before it starts."""

    def __init__(self, scorer: OnnxScorer) -> None:
        super().__init__(MODEL)
        self._scorer = scorer
        self.ready = True

    async def predict(self, payload: InferRequest, *_: Any, **__: Any) -> InferResponse:
        values = self._scorer.score(payload.inputs[0].as_numpy())
        output = InferOutput(self._scorer.output, list(values.shape), "FP32")
        output.set_data_from_numpy(values, binary_data=True)
        return InferResponse(payload.id, self.name, [output])


def main(order: StartOrder) -> None:
    server = ModelServer(
        http_port=order.spare_ports[0], grpc_port=order.port, enable_grpc=True, workers=1, enable_docs_url=False,
        enable_latency_logging=False,
    )  # fmt: skip
    logging.getLogger("kserve").setLevel(logging.WARNING)  # it has a line for each call
    server.start([KserveModel(OnnxScorer(order.repository))])


if __name__ == "__main__":
    main(StartOrder.of(sys.argv[1:]))
