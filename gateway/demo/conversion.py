"""Converts a scikit-learn estimator to an ONNX model with the outputs `label` and `probabilities`."""

import onnx
from onnx import TensorProto, helper

from gateway.demo.recipe import Recipe, Trained
from gateway.tensor import Datatype

OPSET = 17


def convert(recipe: Recipe, trained: Trained) -> bytes:
    """Returns the model's bytes; the same estimator gives the same bytes.

    Shapes: label INT64 [-1, 1], probabilities FP32 [-1, classes].
    """
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType, Int64TensorType, StringTensorType

    kinds = {Datatype.FP32: FloatTensorType, Datatype.INT64: Int64TensorType, Datatype.BYTES: StringTensorType}
    inputs = [(spec.name, kinds[spec.datatype]([None, *spec.shape[1:]])) for spec in recipe.inputs]
    model = convert_sklearn(
        trained.estimator,
        recipe.model,
        inputs,
        options={"zipmap": False},
        target_opset={"": OPSET, "ai.onnx.ml": 3},
    )
    _name_outputs(model, len(recipe.labels))
    model.doc_string = f"{recipe.title}: {trained.method}"
    return bytes(model.SerializeToString(deterministic=True))


def _name_outputs(model: onnx.ModelProto, classes: int) -> None:
    """Names the outputs, and gives the label a second dimension: each output then has one row for each input row."""
    # The converter may have used these names inside.
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = [f"raw_{name}" if name in ("label", "probabilities") else name for name in names]
    label, probabilities = (
        f"raw_{output.name}" if output.name in ("label", "probabilities") else output.name
        for output in model.graph.output
    )
    column = helper.make_tensor("label_shape", TensorProto.INT64, [2], [-1, 1])
    model.graph.initializer.append(column)
    model.graph.node.append(helper.make_node("Reshape", [label, "label_shape"], ["label"], name="as_column"))
    model.graph.node.append(helper.make_node("Identity", [probabilities], ["probabilities"], name="as_declared"))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("label", TensorProto.INT64, [None, 1]))
    model.graph.output.append(helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, classes]))
