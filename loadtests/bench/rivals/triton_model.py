"""The benchmark's model for Triton's Python backend, which imports it by the name `TritonPythonModel`."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from loadtests.bench.rivals.scorer import INPUT, OnnxScorer

REPOSITORY_VARIABLE: Final = "RIVAL_REPOSITORY"


class TritonPythonModel:
    """Runs the requests that the server hands over together as one batch."""

    def initialize(self, _about: dict[str, str]) -> None:
        import triton_python_backend_utils  # is there only within the backend's own process

        self._triton: Any = triton_python_backend_utils
        self._scorer = OnnxScorer(Path(os.environ[REPOSITORY_VARIABLE]))

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """A response for each request. Order: theirs."""
        rows = [self._triton.get_input_tensor_by_name(request, INPUT).as_numpy() for request in requests]
        values = self._scorer.score(np.concatenate(rows) if len(rows) > 1 else rows[0])
        ends = np.cumsum([len(row) for row in rows])[:-1]
        return [self._response(part) for part in np.split(values, ends)]

    def _response(self, values: Any) -> Any:
        tensor = self._triton.Tensor(self._scorer.output, np.ascontiguousarray(values))
        return self._triton.InferenceResponse(output_tensors=[tensor])
