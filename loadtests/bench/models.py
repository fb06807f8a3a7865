"""The models of the benchmark, from fixed seeds, two versions of each, in Triton's directory layout."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

VERSIONS: Final = ("1", "2")
INPUT: Final = "input"
_OPSET: Final = 17
_IR_VERSION: Final = 8  # what runtimes of several years read
_INPUT_SEED: Final = 1009

Floats = npt.NDArray[np.float32]


class Graph:
    """Nodes and weights of a model while it is put together; every weight comes from one generator."""

    def __init__(self, seed: int) -> None:
        self._generator = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def node(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """The name of the new node's only output."""
        output = output or f"{kind.lower()}_{len(self.nodes)}"
        made: onnx.NodeProto = helper.make_node(kind, list(inputs), [output], **attributes)
        self.nodes.append(made)
        return output

    def weight(self, *shape: int) -> str:
        """Normal values, scaled so that a layer neither blows up nor dies out."""
        spread = 1 / np.sqrt(max(1, prod(shape[1:])))
        name = f"weight_{len(self.weights)}"
        values = self._generator.normal(0, spread, shape).astype(np.float32)
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def dense(self, source: str, width_in: int, width_out: int, *, relu: bool = False) -> str:
        made = self.node("Gemm", source, self.weight(width_out, width_in), self.weight(width_out), transB=1)
        return self.node("Relu", made) if relu else made

    def convolution(self, source: str, channels_in: int, channels_out: int, *, stride: int = 1) -> str:
        """3 x 3, as large as its input (or a `stride`-th of it), with ReLU."""
        kernel, bias = self.weight(channels_out, channels_in, 3, 3), self.weight(channels_out)
        made = self.node("Conv", source, kernel, bias, kernel_shape=[3, 3], pads=[1] * 4, strides=[stride] * 2)
        return self.node("Relu", made)


def _tiny(graph: Graph, output: str) -> None:
    graph.node("Softmax", graph.dense(INPUT, 4, 3), output=output, axis=1)


def _mlp(graph: Graph, output: str) -> None:
    hidden = graph.dense(graph.dense(INPUT, 128, 512, relu=True), 512, 512, relu=True)
    graph.node("Softmax", graph.dense(hidden, 512, 10), output=output, axis=1)


def _conv(graph: Graph, output: str) -> None:
    source = graph.convolution(INPUT, 3, 64, stride=2)
    for _ in range(3):
        source = graph.node("Add", source, graph.convolution(source, 64, 64))
    source = graph.convolution(source, 64, 128, stride=2)
    for _ in range(3):
        source = graph.node("Add", source, graph.convolution(source, 128, 128))
    pooled = graph.node("Flatten", graph.node("GlobalAveragePool", source), axis=1)
    graph.node("Softmax", graph.dense(pooled, 128, 10), output=output, axis=1)


def _bulk(graph: Graph, output: str) -> None:
    mean = graph.node("ReduceMean", INPUT, axes=[1], keepdims=1)
    graph.node("Mul", mean, graph.weight(1), output=output)


@dataclass(frozen=True)
class BenchModel:
    """One model of the benchmark. Shapes are without the batch dimension; all tensors are FP32."""

    name: str
    about: str
    build: Callable[[Graph, str], None]
    input_shape: tuple[int, ...]
    output: str
    output_shape: tuple[int, ...]
    max_batch: int
    seed: int

    def serialized(self, version: str) -> bytes:
        """The model of that version; versions differ in their weights only."""
        graph = Graph(self.seed * 100 + int(version))
        self.build(graph, self.output)
        made = helper.make_graph(
            graph.nodes,
            self.name,
            [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["batch", *self.input_shape])],
            [helper.make_tensor_value_info(self.output, TensorProto.FLOAT, ["batch", *self.output_shape])],
            graph.weights,
        )
        model = helper.make_model(made, opset_imports=[helper.make_opsetid("", _OPSET)], producer_name="bench")
        model.ir_version = _IR_VERSION
        onnx.checker.check_model(model)
        return bytes(model.SerializeToString())

    @cached_property
    def row(self) -> Floats:
        """The input of every request: one row. Shapes: [1, *input_shape]."""
        return np.random.default_rng(_INPUT_SEED + self.seed).normal(0, 1, (1, *self.input_shape)).astype(np.float32)

    def config(self) -> str:
        """config.pbtxt, which Triton reads as well."""
        return (
            f'name: "{self.name}"\n'
            'platform: "onnxruntime_onnx"\n'
            f"max_batch_size: {self.max_batch}\n"
            f'input [ {{ name: "{INPUT}" data_type: TYPE_FP32 dims: {list(self.input_shape)} }} ]\n'
            f'output [ {{ name: "{self.output}" data_type: TYPE_FP32 dims: {list(self.output_shape)} }} ]\n'
            "version_policy { all { } }\n"
            "dynamic_batching { }\n"
            "instance_group [ { count: 1 kind: KIND_CPU } ]\n"
        )


MODELS: Final[Mapping[str, BenchModel]] = {
    model.name: model
    for model in (
        BenchModel("tiny", "4 -> 3, softmax: all that is left is the server", _tiny, (4,), "scores", (3,), 64, 1),
        BenchModel("mlp", "128 -> 512 -> 512 -> 10", _mlp, (128,), "scores", (10,), 64, 2),
        BenchModel("conv", "3 x 64 x 64, eight convolutions: about 5 ms", _conv, (3, 64, 64), "scores", (10,), 16, 3),
        BenchModel("bulk", "1 MiB in, one number out: moving bytes", _bulk, (1 << 18,), "mean", (1,), 16, 4),
    )
}


def write(model: BenchModel, repository: Path) -> None:
    """The model lies in `repository` with all its versions."""
    for version in VERSIONS:
        directory = repository / model.name / version
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "model.onnx").write_bytes(model.serialized(version))
    (repository / model.name / "config.pbtxt").write_text(model.config())
