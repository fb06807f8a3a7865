"""What of a model answers by chance: the same inputs may get another answer the next time.

Such a version merges no requests and caches no answers. The operators of ONNX Runtime keep no other state between runs.

Source: the operators' specifications, https://onnx.ai/onnx/operators/, and those of com.microsoft.
"""

from collections.abc import Sequence
from typing import Final

import onnx
from onnx import numpy_helper

from gateway.serving.model_policy import shown
from gateway.serving.model_walk import nodes

# A `seed` makes the sequence of the answers repeat after a start, not one answer.
RANDOM: Final = frozenset(
    {
        *("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"),
        *("BiasDropout", "BitmaskBiasDropout", "BitmaskDropout", "Sampling"),
    }
)
_DROPOUT: Final = "Dropout"
_TRAINING: Final = 2  # the input that says whether elements are dropped


def chance_in(model: onnx.ModelProto) -> str:
    """Returns the first operator that answers by chance, with its name; "" if there is none."""
    graphs: list[Sequence[onnx.NodeProto]] = [model.graph.node, *(function.node for function in model.functions)]
    fixed = {tensor.name: tensor for tensor in model.graph.initializer}
    every = [node for graph in graphs for node in nodes(graph)]
    for node in every:
        if node.op_type == "Constant":
            fixed.update((node.output[0], entry.t) for entry in node.attribute if entry.name == "value")
    overridable = {value.name for value in model.graph.input}
    for node in every:
        if node.op_type in RANDOM or (node.op_type == _DROPOUT and _may_train(node, fixed, overridable)):
            return f"{node.op_type} ({shown(node.name or (node.output[0] if node.output else ''))[1:-1]})"
    return ""


def _may_train(node: onnx.NodeProto, fixed: dict[str, onnx.TensorProto], overridable: set[str]) -> bool:
    """Returns whether a Dropout drops elements, or may be told to."""
    name = node.input[_TRAINING] if len(node.input) > _TRAINING else ""
    if not name:
        return False
    tensor = fixed.get(name)
    return tensor is None or name in overridable or bool(numpy_helper.to_array(tensor).any())
