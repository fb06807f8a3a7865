"""Models that break each naive rule of which rows may share a run."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from gateway.serving.chance import RANDOM, chance_in
from gateway.serving.model_config import Warmup, WarmupInput
from gateway.serving.session import Session
from gateway.serving.warm_up import Findings, WarmUp
from gateway.tensor import Datatype

FLOAT = TensorProto.FLOAT


def node(kind: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs.split(), outputs.split(), **attributes)


def model(*nodes: onnx.NodeProto, element: int = FLOAT, columns: int = 4, **weights: object) -> onnx.ModelProto:
    """A model from x [b, 4] to y [b, `columns`]."""
    made: onnx.ModelProto = helper.make_model(
        helper.make_graph(
            list(nodes),
            "graph",
            [helper.make_tensor_value_info("x", element, ["b", 4])],
            [helper.make_tensor_value_info("y", element, ["b", columns])],
            [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    return made


def tried(made: onnx.ModelProto, warmups: Sequence[Warmup] = ()) -> Findings:
    session = Session(made.SerializeToString(), intra_threads=1)
    return WarmUp(session, None, warmups, allow_nan=False, seed=0).run()


ZERO = np.array(0, np.int64)
FIRST = np.array([0], np.int64)
ONE = np.ones(4, np.float32)
MEAN = node("ReduceMean", "x", "mean", axes=[0], keepdims=1)

DEPENDENT = {
    "the mean over the batch": model(MEAN, node("Sub", "x mean", "y")),
    "a share that rounding hides": model(
        MEAN, node("Mul", "mean small", "part"), node("Add", "x part", "y"), small=np.float32(1e-5)
    ),
    "normalisation in training mode": model(
        node("BatchNormalization", "x one zero zero one", "y m v", training_mode=1), one=ONE, zero=ONE * 0
    ),
    "sorting": model(
        node("Shape", "x", "n", end=1), node("TopK", "x n", "y place", axis=0)
    ),
    "a running sum": model(node("CumSum", "x axis", "y"), axis=ZERO),
    "another order": model(
        node("Slice", "x start end axis step", "y"),
        start=np.array([-1]), end=np.array([-(2**62)]), axis=FIRST, step=np.array([-1]),
    ),
    "the number of rows": model(
        node("Shape", "x", "n", end=1), node("Cast", "n", "f", to=FLOAT), node("Mul", "x f", "y")
    ),
    "the place of a row": model(
        node("Shape", "x", "n", end=1), node("Squeeze", "n first", "limit"), node("Range", "zero limit one", "places"),
        node("Cast", "places", "f", to=FLOAT), node("Unsqueeze", "f second", "column"), node("Add", "x column", "y"),
        first=FIRST, second=np.array([1]), zero=ZERO, one=np.array(1),
    ),
    "the largest of all": model(node("ReduceMax", "x", "m", keepdims=0), node("Sub", "x m", "y")),
    "a scale for all": model(
        node("DynamicQuantizeLinear", "x", "q s z"), node("DequantizeLinear", "q s z", "y")
    ),
    "only what is positive, so that ones are tried": model(
        node("Log", "x", "log"), node("ReduceMean", "log", "mean", axes=[0], keepdims=1), node("Sub", "log mean", "y")
    ),
    # How many rows equal this one: in random rows none does, alone or together.
    "rows that are equal": model(
        node("Unsqueeze", "x zero", "a"), node("Unsqueeze", "x one", "b"), node("Equal", "a b", "same"),
        node("Cast", "same", "number", to=FLOAT), node("ReduceSum", "number one", "y", keepdims=0),
        zero=FIRST, one=np.array([1]),
    ),
}  # fmt: skip


@pytest.mark.parametrize("made", DEPENDENT.values(), ids=DEPENDENT.keys())
def test_rows_that_depend_on_each_other_are_seen(made: onnx.ModelProto) -> None:
    findings = tried(made)
    assert findings.rows_independent is False
    assert "depends on the other rows of its run" in findings.warnings[-1]


@pytest.mark.parametrize(
    "made",
    [
        model(node("Softmax", "x", "y", axis=1)),
        model(node("MatMul", "x w", "y"), w=np.random.default_rng(1).standard_normal((4, 4)).astype(np.float32)),
        model(node("Log", "x", "y")),
        model(node("TopK", "x four", "y place", axis=1), four=np.array([4])),
        model(node("Add", "x one", "y"), element=TensorProto.INT64, one=np.array([1])),
    ],
)
def test_rows_that_do_not_are_seen_too(made: onnx.ModelProto) -> None:
    assert tried(made).rows_independent is True


def test_one_warm_up_request_of_one_row_shows_it_as_well() -> None:
    request = Warmup("w", 1, {"x": WarmupInput(Datatype.FP32, (4,), "random")})
    assert tried(DEPENDENT["the mean over the batch"], [request]).rows_independent is False
    assert tried(model(node("Softmax", "x", "y", axis=1)), [request]).rows_independent is True


def test_answers_that_are_all_equal_show_nothing() -> None:
    assert tried(model(node("Sub", "x x", "y"))).rows_independent is None


@pytest.mark.parametrize("kind", ["RandomNormalLike", "RandomUniformLike", "Bernoulli"])
def test_what_answers_by_chance_is_seen_in_the_graph_and_in_runs(kind: str) -> None:
    # 256 draws: of four bits, two runs are equal once in sixteen times
    nodes = [node("Tile", "x times", "wide"), node("Sigmoid", "wide", "p"), node(kind, "p", "y")]
    made = model(*nodes, columns=256, times=np.array([1, 64]))
    assert kind in RANDOM
    assert chance_in(made) == f"{kind} (y)"
    findings = tried(made)
    assert findings.repeatable is False
    assert findings.rows_independent is not True


def test_chance_inside_a_branch_and_in_training_is_found() -> None:
    branches = [
        helper.make_graph([node(kind, "x", name)], name, [], [helper.make_tensor_value_info(name, FLOAT, None)])
        for kind, name in (("RandomNormalLike", "drawn"), ("Identity", "kept"))
    ]
    chosen = node("If", "yes", "y", then_branch=branches[0], else_branch=branches[1])
    assert chance_in(model(chosen, yes=np.array(False))) == "RandomNormalLike (drawn)"
    ratio = np.float32(0.5)
    assert chance_in(model(node("Dropout", "x r t", "y"), r=ratio, t=np.array(True))) == "Dropout (y)"
    assert chance_in(model(node("Dropout", "x r t", "y"), r=ratio, t=np.array(False))) == ""
    assert chance_in(model(node("Dropout", "x", "y"))) == ""
