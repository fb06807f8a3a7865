"""What the walk over a graph proves, held against what ONNX Runtime answers, and what it must not prove."""

import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.backend.test.case.node import collect_testcases

from gateway.serving.row_independence import row_dependence
from gateway.serving.row_rules import FIXED_ONLY, RULES
from tests import models

Feed = Mapping[str, np.ndarray]
FLOAT = TensorProto.FLOAT


def graph(
    *nodes: onnx.NodeProto, opset: int = 17, shape: tuple[int | str, ...] = ("b", 4), **weights: object
) -> onnx.ModelProto:
    """A model from x to y; the weights are initializers."""
    return helper.make_model(
        helper.make_graph(
            list(nodes),
            "graph",
            [helper.make_tensor_value_info("x", FLOAT, shape)],
            [helper.make_tensor_value_info("y", FLOAT, None)],
            [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
        ),
        opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 3)],
    )


def node(kind: str, inputs: str, outputs: str = "y", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs.split(), outputs.split(), **attributes)


ONE = np.ones(1, np.float32)
FOUR = np.arange(4, dtype=np.float32)
SQUARE = np.ones((4, 4), np.float32)


@pytest.mark.parametrize(
    "model",
    [
        graph(node("MatMul", "x w", "h"), node("Add", "h v"), w=SQUARE, v=FOUR),
        graph(node("Gemm", "x w v"), w=SQUARE, v=FOUR),
        graph(node("Transpose", "x", "t", perm=[1, 0]), node("Softmax", "t", "s", axis=0), node("Transpose", "s")),
        graph(
            node("Shape", "x", "s"),
            node("Gather", "s i", "n"),
            node("Unsqueeze", "n i0", "n1"),
            node("Concat", "n1 rest", "t", axis=0),
            node("Reshape", "x t"),
            i=np.array(0),
            i0=np.array([0]),
            rest=np.array([2, -1]),
        ),
        graph(node("Reshape", "x t"), t=np.array([0, 2, -1])),
        graph(node("Reshape", "x t"), t=np.array([-1, 2, 2])),
        graph(
            node("Shape", "x", "s", end=1),
            node("Concat", "s d", "t", axis=0),
            node("Expand", "w t", "e"),
            node("Concat", "e x", axis=1),
            w=ONE.reshape(1, 1),
            d=np.array([3]),
        ),
        graph(node("Slice", "x s e a"), s=np.array([0]), e=np.array([2**63 - 1]), a=np.array([0])),
        graph(node("Unsqueeze", "x a0", "u"), node("Squeeze", "u a0"), a0=np.array([1])),
        graph(
            node("Transpose", "x", "t", perm=[1, 0, 2]),
            node("LSTM", "t w r", "y1 h", hidden_size=2),
            node("Squeeze", "h a", "h1"),
            node("Flatten", "h1"),
            shape=("b", 5, 3),
            w=np.ones((1, 8, 3), np.float32),
            r=np.ones((1, 8, 2), np.float32),
            a=np.array([0]),
        ),
        graph(node("Einsum", "x w", equation="bi,ij->bj"), w=SQUARE),
        graph(node("ReduceSum", "x a", keepdims=0), a=np.array([-1])),
        graph(node("Dropout", "x")),
        graph(node("BatchNormalization", "x v v v v"), v=FOUR),
    ],
)
def test_proven(model: onnx.ModelProto) -> None:
    assert row_dependence(model) == ""
    check_rows(model, {"x": np.random.default_rng(0).normal(size=free(model)).astype(np.float32)})


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (graph(node("ReduceMean", "x", axes=[0])), "ReduceMean (y): it reduces over the rows"),
        (graph(node("ReduceSum", "x")), "it reduces all axes"),
        (graph(node("Softmax", "x", axis=0)), "it works along the rows"),
        (graph(node("Softmax", "x", axis=0), opset=11), "it works along the rows"),
        (graph(node("Transpose", "x", "t"), node("MatMul", "x t")), "its inputs have their rows on different axes"),
        (graph(node("MatMul", "w x"), w=SQUARE), "it adds up over the rows"),
        (graph(node("Add", "x w"), w=SQUARE), "a weight has a size of its own along the rows"),
        (graph(node("Transpose", "x", "t"), node("Add", "x t")), "rows on different axes"),
        (graph(node("ReduceSum", "x a", "s", keepdims=0), node("Add", "x s"), a=np.array([1])), "on different axes"),
        (graph(node("CumSum", "x a"), a=np.array(0)), "it works along the rows"),
        (graph(node("Concat", "x x", axis=0)), "it puts rows behind each other"),
        (graph(node("Slice", "x s e"), s=np.array([1]), e=np.array([9])), "it cuts rows off"),
        (graph(node("Gather", "x i"), i=np.array([0])), "it picks rows"),
        (graph(node("Squeeze", "x")), "it drops every axis of size 1"),
        (graph(node("Flatten", "x", axis=0)), "it joins the rows"),
        (graph(node("Reshape", "x t"), t=np.array([4, -1])), "it reshapes the rows together with another axis"),
        (graph(node("Reshape", "x t"), t=np.array([-1])), "it reshapes the rows together with another axis"),
        (graph(node("Transpose", "x")), "'y' does not have its rows on the first axis"),
        (
            graph(
                node("Shape", "x", "s"),
                node("Cast", "s", "f", to=FLOAT),
                node("ReduceMax", "f", "m", keepdims=1),
                node("Div", "x m"),
            ),
            "it computes with the number of rows",
        ),
        (graph(node("DynamicQuantizeLinear", "x", "q s z"), node("DequantizeLinear", "q s z")), "not known to work"),
        (graph(node("NonZero", "x", "n"), node("Cast", "n", to=FLOAT)), "NonZero (n): this operator is not known"),
        (graph(node("RandomNormalLike", "x", "r"), node("Add", "x r")), "RandomNormalLike (r): this operator"),
        (graph(node("BatchNormalization", "x v v v v", "y m n", training_mode=1), v=FOUR), "in training mode"),
        (graph(node("Dropout", "x r t"), r=np.float32(0.5), t=np.array(True)), "in training mode"),
        (graph(node("MaxPool", "x", "y i", kernel_shape=[1]), shape=("b", 1, 4)), "its indices count through all"),
        (
            graph(
                node("LSTM", "x w r", "y", hidden_size=2),
                shape=("b", 5, 3),
                w=np.ones((1, 8, 3), np.float32),
                r=np.ones((1, 8, 2), np.float32),
            ),
            "its batch axis is not the one of the rows",
        ),
        (graph(node("Resize", "x  s", mode="linear"), s=np.array([2, 1], np.float32)), "it resizes along the rows"),
        (graph(node("Einsum", "x", equation="bi->i")), "it adds up over the rows"),
        (graph(node("Constant", "", "y", value=helper.make_tensor("v", FLOAT, [1], [1.0]))), "rows on the first axis"),
        (graph(node("Identity", "x"), shape=(4, 4)), "'x' has no free first axis"),
        (onnx.ModelProto.FromString(models.endless()), "Loop"),
    ],
)
def test_not_proven(model: onnx.ModelProto, why: str) -> None:
    assert why in row_dependence(model)


def free(model: onnx.ModelProto) -> list[int]:
    return [3, *(size.dim_value for size in model.graph.input[0].type.tensor_type.shape.dim[1:])]


def check_rows(model: onnx.ModelProto, feed: Feed) -> bool:
    """Whether the runtime could run the rows together; each of them then has the answer that it has alone."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        together = session.run(None, dict(feed))
        rows = len(next(iter(feed.values())))
        alone = [session.run(None, {name: array[i : i + 1] for name, array in feed.items()}) for i in range(rows)]
    except Exception:  # the runtime's own exceptions share no other base: it does not run this at all
        return False
    for row, parts in enumerate(alone):
        for whole, part in zip(together, parts, strict=True):
            own = whole[row : row + 1]
            assert own.shape == part.shape
            if part.dtype == object:
                assert own.tolist() == part.tolist()
            else:
                np.testing.assert_allclose(own.astype(float), part.astype(float), rtol=1e-2, atol=1e-3)
    return True


def with_rows(
    model: onnx.ModelProto, arrays: list[np.ndarray], first_only: bool
) -> tuple[onnx.ModelProto, Feed] | None:
    """The example with a free first axis of its inputs (of the first one, the others being weights) and four rows."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    feed = {}
    del made.graph.input[:]
    for index, (value, array) in enumerate(zip(model.graph.input, arrays, strict=False)):
        if index and first_only:
            if array.dtype == object:
                return None
            made.graph.initializer.append(numpy_helper.from_array(array, value.name))
            continue
        if value.type.WhichOneof("value") != "tensor_type" or not value.type.tensor_type.shape.dim or not array.size:
            return None
        own = made.graph.input.add()
        own.CopyFrom(value)
        own.type.tensor_type.shape.dim[0].dim_param = "b"
        more = np.concatenate([array, np.roll(array.reshape(-1), 7).reshape(array.shape)])
        feed[value.name] = np.resize(more, (4, *array.shape[1:]))
    for output in made.graph.output:
        output.type.tensor_type.ClearField("shape")
    return made, feed


def examples() -> Iterator[tuple[onnx.ModelProto, Feed]]:
    for case in collect_testcases(None):
        if (
            case.model is None
            or not case.data_sets
            or not all(isinstance(each, np.ndarray) for each in case.data_sets[0][0])
        ):
            continue
        arrays = list(case.data_sets[0][0])
        if len(arrays) == len(case.model.graph.input):
            for first_only in {False, len(arrays) > 1}:
                made = with_rows(case.model, arrays, first_only)
                if made is not None:
                    yield made


@pytest.mark.timeout(120)
def test_what_is_proven_of_the_operators_own_examples_is_what_the_runtime_answers() -> None:
    proven = set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the examples divide by zero on purpose
        for model, feed in examples():
            if row_dependence(model) == "" and check_rows(model, feed):
                proven.add(model.graph.node[-1].op_type)
    assert len(proven) > 110, sorted({name for _, name in RULES} - proven)


def test_the_tables_name_operators_that_exist_and_name_each_once() -> None:
    known = {(schema.domain, schema.name) for schema in onnx.defs.get_all_schemas_with_history()}
    assert known >= RULES.keys() | FIXED_ONLY
    assert not RULES.keys() & FIXED_ONLY
