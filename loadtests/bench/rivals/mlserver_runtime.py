"""MLServer's runtime for the benchmark's model: MLServer itself has none that runs ONNX."""

from pathlib import Path

import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

from loadtests.bench.rivals.scorer import OnnxScorer


class MlserverOnnx(MLModel):  # type: ignore[misc]
    """`uri` of the model's settings is the repository's directory."""

    async def load(self) -> bool:
        self._scorer = OnnxScorer(Path(self.settings.parameters.uri))
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        rows = NumpyCodec.decode_input(payload.inputs[0]).astype(np.float32, copy=False)
        output = NumpyCodec.encode_output(self._scorer.output, self._scorer.score(rows))
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=[output])
