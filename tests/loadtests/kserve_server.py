"""KServe's own model server with one model, `m`: y = 2 x, FP32 [-1, 4]. Prints nothing; ends with SIGTERM.

It runs by itself, with packages that `make test` installs apart: python -m tests.loadtests.kserve_server GRPC REST
"""

import sys
from typing import Any

from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer


class Doubling(Model):  # type: ignore[misc]
    """Known to the server at once: there is nothing to load."""

    def __init__(self) -> None:
        super().__init__("m")
        self.ready = True

    async def get_input_types(self) -> list[dict[str, Any]]:
        return [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]

    async def get_output_types(self) -> list[dict[str, Any]]:
        return [{"name": "y", "datatype": "FP32", "shape": [-1, 4]}]

    async def predict(self, payload: InferRequest, *_: Any, **__: Any) -> InferResponse:
        values = payload.inputs[0].as_numpy() * 2
        output = InferOutput("y", list(values.shape), "FP32")
        output.set_data_from_numpy(values, binary_data=bool(payload.request_outputs))
        return InferResponse(payload.id, self.name, [output])


if __name__ == "__main__":
    server = ModelServer(
        http_port=int(sys.argv[2]), grpc_port=int(sys.argv[1]), enable_grpc=True, workers=1, enable_docs_url=False
    )
    server.start([Doubling()])
