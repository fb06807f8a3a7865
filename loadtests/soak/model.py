"""The models of a soak: their answers are known, how long one takes is in its data."""

from pathlib import Path
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from gateway.pb import inference_pb2 as pb

FEATURES: Final = 64
FACTORS: Final = {"1": 2.0, "2": 3.0}  # of each version: y = factor * x


def write(repository: Path) -> None:
    """Puts the model "soak" with two versions there, which is flipped, and "spare", which comes and goes."""
    for version, factor in FACTORS.items():
        _write(repository / "soak" / version, _scaled(factor))
    (repository / "soak" / "config.pbtxt").write_text("max_batch_size: 64\nversion_policy { all {} }\n")
    _write(repository / "spare" / "1", _scaled(1.0))


def request(rows: int) -> tuple[bytes, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    """Returns a request of so many rows, as it goes over the wire, and what it holds."""
    values = np.arange(rows * FEATURES, dtype=np.float32).reshape(rows, FEATURES)
    message = pb.ModelInferRequest(model_name="soak", id="soak")
    message.inputs.add(name="x", datatype="FP32", shape=values.shape)
    message.raw_input_contents.append(values.tobytes())
    return message.SerializeToString(), values


def _write(directory: Path, model: onnx.ModelProto) -> None:
    directory.mkdir(parents=True)
    (directory / "model.onnx").write_bytes(model.SerializeToString())


def _scaled(factor: float) -> onnx.ModelProto:
    shape = [None, FEATURES]
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "factor"], ["y"])],
        "soak",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.array(factor, np.float32), "factor")],
    )
    made: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return made
