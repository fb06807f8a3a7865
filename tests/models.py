"""Small real ONNX models with known answers, and the directories that hold them.

Every builder returns the serialized model; `write_version` puts one where a repository expects it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from gateway.tensor import Datatype

OPSET = 17
IR_VERSION = 8

ELEMENT_TYPES: Mapping[Datatype, int] = {kind: TensorProto.DataType.Value(kind.onnx_name) for kind in Datatype}

Dims = Sequence[int | str | None]


def tensor_value(name: str, datatype: Datatype, dims: Dims) -> onnx.ValueInfoProto:
    """A value info; -1 and None become unnamed free dimensions."""
    shape = [None if size == -1 else size for size in dims]
    return helper.make_tensor_value_info(name, ELEMENT_TYPES[datatype], shape)


def weight(name: str, array: npt.NDArray[np.generic]) -> onnx.TensorProto:
    return numpy_helper.from_array(array, name)


def model_of(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    initializers: Sequence[onnx.TensorProto] = (),
    *,
    opset: int = OPSET,
) -> onnx.ModelProto:
    """A model of the default operator set (the ML operators' set 3 is imported as well)."""
    graph = helper.make_graph(list(nodes), "graph", list(inputs), list(outputs), list(initializers))
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 3)]
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=imports, producer_name="tests")
    model.ir_version = IR_VERSION
    return model


def affine(scale: float = 2.0, offset: float = 0.0, *, features: int = 4) -> bytes:
    """`y = x * scale + offset`; x, y: FP32 [-1, features]. Two versions of it are told apart by any answer."""
    nodes = [helper.make_node("Mul", ["x", "scale"], ["scaled"]), helper.make_node("Add", ["scaled", "offset"], ["y"])]
    shape = (-1, features)
    weights = [
        weight("scale", np.full(features, scale, np.float32)),
        weight("offset", np.full(features, offset, np.float32)),
    ]
    model = model_of(
        nodes, [tensor_value("x", Datatype.FP32, shape)], [tensor_value("y", Datatype.FP32, shape)], weights
    )
    return bytes(model.SerializeToString())


def root(*, features: int = 4) -> bytes:
    """`y = sqrt(x)`, NaN below 0; x, y: FP32 [-1, features]."""
    shape = (-1, features)
    model = model_of(
        [helper.make_node("Sqrt", ["x"], ["y"])],
        [tensor_value("x", Datatype.FP32, shape)],
        [tensor_value("y", Datatype.FP32, shape)],
    )
    return bytes(model.SerializeToString())


def identity(datatype: Datatype, dims: Dims = (-1, 4)) -> bytes:
    """`y = x` for one datatype, any dims."""
    model = model_of(
        [helper.make_node("Identity", ["x"], ["y"])],
        [tensor_value("x", datatype, dims)],
        [tensor_value("y", datatype, dims)],
    )
    return bytes(model.SerializeToString())


def without_shapes(content: bytes) -> bytes:
    """The same model, whose graph declares no shape for any input and output."""
    model = onnx.ModelProto.FromString(content)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.ClearField("shape")
    return bytes(model.SerializeToString())


def add_sub(datatype: Datatype = Datatype.INT32, *, features: int = 16) -> bytes:
    """Triton's "simple" model: OUTPUT0 = INPUT0 + INPUT1, OUTPUT1 = INPUT0 - INPUT1; all [-1, features]."""
    names = ["INPUT0", "INPUT1"]
    shape = (-1, features)
    model = model_of(
        [helper.make_node("Add", names, ["OUTPUT0"]), helper.make_node("Sub", names, ["OUTPUT1"])],
        [tensor_value(name, datatype, shape) for name in names],
        [tensor_value(name, datatype, shape) for name in ("OUTPUT0", "OUTPUT1")],
    )
    return bytes(model.SerializeToString())


def classifier(classes: int = 3, *, features: int = 4) -> bytes:
    """Softmax over `x @ W`, W cycling through the features; x: FP32 [-1, features] -> scores: FP32 [-1, classes]."""
    matrix = np.zeros((features, classes), np.float32)
    for feature in range(features):
        matrix[feature, feature % classes] = 1.0
    model = model_of(
        [
            helper.make_node("MatMul", ["x", "w"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["scores"], axis=1),
        ],
        [tensor_value("x", Datatype.FP32, (-1, features))],
        [tensor_value("scores", Datatype.FP32, (-1, classes))],
        [weight("w", matrix)],
    )
    return bytes(model.SerializeToString())


def row_mixing(*, features: int = 4) -> bytes:
    """`y = x - mean of x over the batch`: an answer depends on its batch mates, so rows must not be merged."""
    model = model_of(
        [
            helper.make_node("ReduceMean", ["x"], ["mean"], axes=[0], keepdims=1),
            helper.make_node("Sub", ["x", "mean"], ["y"]),
        ],
        [tensor_value("x", Datatype.FP32, (-1, features))],
        [tensor_value("y", Datatype.FP32, (-1, features))],
    )
    return bytes(model.SerializeToString())


def divide() -> bytes:
    """`y = x / d`, INT64 [-1, 1]: d = 0 fails at run time or answers nonsense, depending on the data only."""
    model = model_of(
        [helper.make_node("Div", ["x", "d"], ["y"])],
        [tensor_value("x", Datatype.INT64, (-1, 1)), tensor_value("d", Datatype.INT64, (-1, 1))],
        [tensor_value("y", Datatype.INT64, (-1, 1))],
    )
    return bytes(model.SerializeToString())


def gather(rows: int = 8) -> bytes:
    """`y = table[i]`, i: INT64 [-1] -> FP32 [-1]; i outside 0 .. rows-1 is an error of the model at run time."""
    model = model_of(
        [helper.make_node("Gather", ["table", "i"], ["y"], axis=0)],
        [tensor_value("i", Datatype.INT64, (-1,))],
        [tensor_value("y", Datatype.FP32, (-1,))],
        [weight("table", np.arange(rows, dtype=np.float32))],
    )
    return bytes(model.SerializeToString())


def fragile(rows: int = 8) -> bytes:
    """`y = float(i)`, i: INT64 [-1] -> FP32 [-1]; i of `rows` or more makes the model fail by its own fault."""
    sides = [weight(name, np.array([text], object)) for name, text in (("one", "1"), ("no", "x"))]
    model = model_of(
        [
            helper.make_node("Less", ["i", "rows"], ["fits"]),
            helper.make_node("Where", ["fits", "one", "no"], ["text"]),
            helper.make_node("Cast", ["text"], ["factor"], to=TensorProto.FLOAT),
            helper.make_node("Cast", ["i"], ["value"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["value", "factor"], ["y"]),
        ],
        [tensor_value("i", Datatype.INT64, (-1,))],
        [tensor_value("y", Datatype.FP32, (-1,))],
        [weight("rows", np.array([rows], np.int64)), *sides],
    )
    return bytes(model.SerializeToString())


def recurrent(operator: str = "LSTM", *, features: int = 4, hidden: int = 3) -> bytes:
    """`y` [-1, hidden], the last state over x: FP32 [-1, 5, features]; without rows the runtime ends the process."""
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[operator]
    rng = np.random.default_rng(0)
    model = model_of(
        [
            helper.make_node("Transpose", ["x"], ["steps"], perm=[1, 0, 2]),
            helper.make_node(operator, ["steps", "w", "r"], ["", "state"], hidden_size=hidden),
            helper.make_node("Squeeze", ["state", "first"], ["y"]),
        ],
        [tensor_value("x", Datatype.FP32, (-1, 5, features))],
        [tensor_value("y", Datatype.FP32, (-1, hidden))],
        [
            weight("w", rng.standard_normal((1, gates * hidden, features)).astype(np.float32)),
            weight("r", rng.standard_normal((1, gates * hidden, hidden)).astype(np.float32)),
            weight("first", np.array([0], np.int64)),
        ],
    )
    return bytes(model.SerializeToString())


def largest_row(*, features: int = 4) -> bytes:
    """`y` [1, features], the largest of each column of x: FP32 [-1, features]; without rows the run fails."""
    model = model_of(
        [helper.make_node("TopK", ["x", "k"], ["y", "place"], axis=0)],
        [tensor_value("x", Datatype.FP32, (-1, features))],
        [tensor_value("y", Datatype.FP32, (-1, features))],
        [weight("k", np.array([1], np.int64))],
    )
    return bytes(model.SerializeToString())


def non_maximum_suppression() -> bytes:
    """Boxes [1, n, 4] and scores [1, 1, n] -> those that overlap no better one [-1, 3]: n² steps of one operator."""
    limits = [weight("most", np.array([1 << 30], np.int64)), weight("overlap", np.array([0.5], np.float32))]
    model = model_of(
        [helper.make_node("NonMaxSuppression", ["boxes", "scores", "most", "overlap"], ["chosen"])],
        [tensor_value("boxes", Datatype.FP32, (1, -1, 4)), tensor_value("scores", Datatype.FP32, (1, 1, -1))],
        [tensor_value("chosen", Datatype.INT64, (-1, 3))],
        limits,
    )
    return bytes(model.SerializeToString())


def two_matrices(operator: str) -> bytes:
    """`y = a <operator> b`, a and b: FP32 [-1, -1]."""
    attributes: dict[str, Any] = {"axis": 1} if operator == "Concat" else {}
    shape = (-1, -1)
    model = model_of(
        [helper.make_node(operator, ["a", "b"], ["y"], **attributes)],
        [tensor_value("a", Datatype.FP32, shape), tensor_value("b", Datatype.FP32, shape)],
        [tensor_value("y", Datatype.FP32, shape)],
    )
    return bytes(model.SerializeToString())


def slow(iterations: int = 1000, *, features: int = 64) -> bytes:
    """`y = x`, but after `iterations` turns of a loop with a matrix product in it (about 2 us each)."""
    return _loop(features, trips=iterations)


def endless(*, features: int = 64) -> bytes:
    """A model that loads and never answers (2**62 turns)."""
    return _loop(features, trips=2**62)


def turns(*, features: int = 64) -> bytes:
    """`y = x` [1, features], but after n turns of a loop, n: INT64 [1] (about 2 us each): how long is in the data."""
    return _loop(features, trips=None)


def _loop(features: int, *, trips: int | None) -> bytes:
    row = (-1, features) if trips is not None else (1, features)
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["condition_in"], ["condition_out"]),
            helper.make_node("MatMul", ["state_in", "eye"], ["state_out"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("condition_in", TensorProto.BOOL, []),
            tensor_value("state_in", Datatype.FP32, row),
        ],
        [
            helper.make_tensor_value_info("condition_out", TensorProto.BOOL, []),
            tensor_value("state_out", Datatype.FP32, row),
        ],
    )
    nodes = [helper.make_node("Loop", ["trips", "go", "x"], ["y"], body=body)]
    inputs = [tensor_value("x", Datatype.FP32, row)]
    weights = [weight("go", np.array(True)), weight("eye", np.eye(features, dtype=np.float32))]
    if trips is None:
        nodes.insert(0, helper.make_node("Squeeze", ["n"], ["trips"]))
        inputs.append(tensor_value("n", Datatype.INT64, (1,)))
    else:
        weights.append(weight("trips", np.array(trips, np.int64)))
    model = model_of(nodes, inputs, [tensor_value("y", Datatype.FP32, row)], weights)
    return bytes(model.SerializeToString())


def filled() -> bytes:
    """`y = sum(ones(x))`; x: INT64 [1] -> FP32 [1]: a run takes four times x bytes of memory."""
    one = numpy_helper.from_array(np.ones(1, np.float32))
    model = model_of(
        [
            helper.make_node("ConstantOfShape", ["x"], ["ones"], value=one),
            helper.make_node("ReduceSum", ["ones"], ["y"], keepdims=1),
        ],
        [tensor_value("x", Datatype.INT64, (1,))],
        [tensor_value("y", Datatype.FP32, (1,))],
    )
    return bytes(model.SerializeToString())


def huge_constant() -> bytes:
    """A model of a few bytes that asks for 64 GiB when it runs, and not before."""
    model = model_of(
        [
            helper.make_node("Cast", ["x"], ["size"], to=TensorProto.INT64),
            helper.make_node("Mul", ["size", "zero"], ["nothing"]),
            helper.make_node("Add", ["nothing", "huge"], ["shape"]),
            helper.make_node("ConstantOfShape", ["shape"], ["filled"]),
            helper.make_node("ReduceSum", ["filled"], ["y"], keepdims=1),
        ],
        [tensor_value("x", Datatype.FP32, (1,))],
        [tensor_value("y", Datatype.FP32, (1,))],
        [weight("zero", np.zeros(1, np.int64)), weight("huge", np.array([2**34], np.int64))],
    )
    return bytes(model.SerializeToString())


def with_external_data(values: npt.NDArray[np.float32], **fields: str) -> bytes:
    """`y = x + w` where w lies outside: `fields` are the external data entries as they stand in the file."""
    features = len(values)
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[features])
    tensor.data_location = TensorProto.EXTERNAL
    for key, text in fields.items():
        tensor.external_data.add(key=key, value=text)
    model = model_of(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        [tensor_value("x", Datatype.FP32, (-1, features))],
        [tensor_value("y", Datatype.FP32, (-1, features))],
        [tensor],
    )
    return bytes(model.SerializeToString())


def write_version(
    repository: Path,
    model: str,
    version: str,
    content: bytes,
    *,
    files: Mapping[str, bytes] | None = None,
    config: str | None = None,
) -> Path:
    """The directory `<repository>/<model>/<version>` with model.onnx and `files` in it; `config`: config.pbtxt."""
    directory = repository / model / version
    directory.mkdir(parents=True, exist_ok=True)
    for name, data in {"model.onnx": content, **(files or {})}.items():
        target = directory / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    if config is not None:
        (repository / model / "config.pbtxt").write_text(config)
    return directory
