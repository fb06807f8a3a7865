"""The ONNX model that every rival runs: one session of one thread, as the gateway's own runs are.

It needs ONNX Runtime and NumPy and nothing else of this project: it is loaded by the interpreters of the rivals.
"""

from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnxruntime

MODEL: Final = "tiny"
VERSION: Final = "1"
INPUT: Final = "input"
WIDTH: Final = 4


class OnnxScorer:
    """Version 1 of the model below a repository's directory. `output` is the name of its only output."""

    def __init__(self, repository: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        path = repository / MODEL / VERSION / "model.onnx"
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.output = str(self._session.get_outputs()[0].name)

    def score(self, rows: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        """The output of each row, as ONNX Runtime has it."""
        values: npt.NDArray[Any] = self._session.run([self.output], {INPUT: rows})[0]
        return values
