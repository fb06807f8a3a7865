"""BentoML's service that answers the protocol's JSON at the protocol's path, so that its callers send equal bytes.

Its workers load this module by its name; what they are to serve is in their environment.
"""

import os
from pathlib import Path
from typing import Any

import bentoml
import numpy as np

from loadtests.bench.rivals.bentoml_start import REPOSITORY_VARIABLE, WORKERS_VARIABLE
from loadtests.bench.rivals.scorer import MODEL, VERSION, OnnxScorer


@bentoml.service(workers=int(os.environ.get(WORKERS_VARIABLE, "1")), logging={"access": {"enabled": False}})
class BentoOnnx:
    """Runs a request on the loop where it is read: a method that is not async would be given a thread."""

    def __init__(self) -> None:
        self._scorer = OnnxScorer(Path(os.environ[REPOSITORY_VARIABLE]))

    @bentoml.api(route=f"/v2/models/{MODEL}/infer")  # type: ignore[untyped-decorator]
    async def infer(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        tensor = inputs[0]
        values = self._scorer.score(np.array(tensor["data"], np.float32).reshape(tensor["shape"]))
        output = {
            "name": self._scorer.output,
            "datatype": "FP32",
            "shape": values.shape,
            "data": values.ravel().tolist(),
        }
        return {"model_name": MODEL, "model_version": VERSION, "outputs": [output]}
