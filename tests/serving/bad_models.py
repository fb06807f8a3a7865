"""Model files that must not be served, each with the words that its refusal must hold (reliability table D)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from gateway.tensor import Datatype
from tests import models

FLOATS = np.arange(4, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Bad:
    """`content` of model.onnx, other `files` beside it, and a pattern for the reason."""

    content: bytes
    reason: str
    files: Mapping[str, bytes] | None = None


def external(reason: str, *, data: bytes = FLOATS.tobytes(), **fields: str) -> Bad:
    content = models.with_external_data(FLOATS, **fields)
    return Bad(content, reason, {"w.bin": data})


def edited(edit: Callable[[onnx.ModelProto], object], reason: str) -> Bad:
    """`affine` after somebody had their hands on it."""
    model = onnx.ModelProto.FromString(models.affine())
    edit(model)
    return Bad(model.SerializeToString(), reason)


def with_constant(reason: str, **attribute: Any) -> Bad:
    """A Constant node beside the model, where a tensor can hide."""
    node = helper.make_node("Constant", [], ["hidden"], **attribute)
    return edited(lambda model: model.graph.node.append(node), reason)


def tensor(name: str, **fields: Any) -> TensorProto:
    return TensorProto(name=name, **{"data_type": TensorProto.FLOAT, "dims": [4], **fields})


def outside(name: str = "t") -> TensorProto:
    """A tensor that asks for a file above the version directory."""
    stray = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    stray.external_data.add(key="location", value="../../secret")
    return stray


def _sparse_outside() -> onnx.SparseTensorProto:
    indices = helper.make_tensor("i", TensorProto.INT64, [4], [0, 1, 2, 3])
    return onnx.SparseTensorProto(values=outside(), indices=indices, dims=[8])


def _in_subgraph(model: onnx.ModelProto) -> None:
    output = models.tensor_value("then_y", Datatype.FP32, (4,))
    branch = helper.make_graph([helper.make_node("Identity", ["t"], ["then_y"])], "branch", [], [output], [outside()])
    condition = helper.make_tensor("condition", TensorProto.BOOL, [], [True])
    model.graph.initializer.append(condition)
    model.graph.node.append(
        helper.make_node("If", ["condition"], ["z"], then_branch=branch, else_branch=branch, name="if")
    )


def _in_function(model: onnx.ModelProto) -> None:
    constant = helper.make_node("Constant", [], ["c"], value=outside())
    opsets = [helper.make_opsetid("", models.OPSET)]
    function = helper.make_function("own", "F", ["a"], ["c"], [constant], opsets)
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("own", 1))
    model.graph.node.append(helper.make_node("F", ["x"], ["z"], domain="own"))


def _nan(model: onnx.ModelProto, data_type: int, value: float) -> None:
    weight = helper.make_tensor("w", data_type, [3], [1.0, value, 2.0])
    model.graph.initializer.append(weight)


def _linear(coefficient: float) -> bytes:
    node = helper.make_node(
        "LinearRegressor", ["x"], ["y"], domain="ai.onnx.ml", coefficients=[1.0, coefficient], intercepts=[0.0]
    )
    model = models.model_of(
        [node],
        [models.tensor_value("x", Datatype.FP32, (-1, 2))],
        [models.tensor_value("y", Datatype.FP32, (-1, 1))],
    )
    return bytes(model.SerializeToString())


def _operator(op_type: str, domain: str) -> Callable[[onnx.ModelProto], None]:
    def edit(model: onnx.ModelProto) -> None:
        model.graph.node[0].op_type = op_type
        model.graph.node[0].domain = domain
        if domain:
            model.opset_import.append(helper.make_opsetid(domain, 1))

    return edit


def _opset(version: int) -> Callable[[onnx.ModelProto], None]:
    def edit(model: onnx.ModelProto) -> None:
        model.opset_import[0].version = version

    return edit


def _dims(*dims: int) -> Callable[[onnx.ModelProto], None]:
    return lambda model: model.graph.initializer.append(tensor("w", dims=dims, raw_data=b"\0" * 16))


def _input_dim(size: int) -> Callable[[onnx.ModelProto], None]:
    def edit(model: onnx.ModelProto) -> None:
        model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = size

    return edit


def _set(path: str, value: object) -> Callable[[onnx.ModelProto], None]:
    """Sets a field of the model or, after a dot, of its graph or first node."""

    def edit(model: onnx.ModelProto) -> None:
        owner, _, name = path.rpartition(".")
        message = {"": model, "graph": model.graph, "node": model.graph.node[0]}[owner]
        setattr(message, name, value)

    return edit


def _map_output(model: onnx.ModelProto) -> None:
    maps = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    model.graph.output.append(helper.make_value_info("s", helper.make_sequence_type_proto(maps)))


GOOD = models.affine()
NAN = float("nan")

BAD: Mapping[str, Bad] = {
    # 70
    "empty": Bad(b"", r"model\.onnx is empty"),
    "truncated": Bad(GOOD[:-30], "no ONNX model, or not all of one"),
    "random": Bad(np.random.default_rng(0).bytes(4096), "no ONNX model"),
    "web page": Bad(b"<!DOCTYPE html><html>404</html>", "web page"),
    "pointer file": Bad(b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS"),
    "pickle": Bad(b"\x80\x04\x95\x10\x00\x00\x00", "no ONNX model"),
    "no graph": Bad(onnx.ModelProto(ir_version=8).SerializeToString(), "no graph"),
    "no output": edited(lambda model: model.graph.ClearField("output"), "no output"),
    # 71: each place where a tensor can lie
    "external above": external("plain relative path", location="../w.bin"),
    "external above inside": external("plain relative path", location="a/../w.bin"),
    "external absolute": external("plain relative path", location="/etc/passwd"),
    "external backslash": external("plain relative path", location="..\\w.bin"),
    "external dot": external("plain relative path", location="./w.bin"),
    "external memory": external("not in the version", location="*/_ORT_MEM_ADDR_/*", offset="4096", length="16"),
    "external missing": external("not in the version", location="other.bin"),
    "external in initializer": edited(lambda m: m.graph.initializer.append(outside()), "plain relative path"),
    "external in sparse": edited(lambda m: m.graph.sparse_initializer.append(_sparse_outside()), "plain relative path"),
    "external in constant": with_constant("plain relative path", value=outside()),
    "external in sparse constant": with_constant("plain relative path", sparse_value=_sparse_outside()),
    "external in subgraph": edited(_in_subgraph, "plain relative path"),
    "external in function": edited(_in_function, "plain relative path"),
    "external in training": edited(
        lambda m: m.training_info.add().initialization.initializer.append(outside()), "plain relative path"
    ),
    # 73
    "external cut": external("end at byte 16, but 'w.bin' has 12", data=b"\0" * 12, location="w.bin"),
    "external offset beyond": external("end at byte 24", location="w.bin", offset="8"),
    "external offset negative": external("have offset '-8'", location="w.bin", offset="-8"),
    "external length huge": external("needs 16 bytes .* length 1125899906842624", location="w.bin", length=str(2**50)),
    "external length other": external("needs 16 bytes .* length 8", location="w.bin", length="8"),
    "external length no number": external("have length '0x10'", location="w.bin", length="0x10"),
    "external length wide digits": external("a number of bytes", location="w.bin", length="１６"),
    # 74
    "external unknown key": external("unknown key '__class__'", location="w.bin", __class__="x"),
    "external base path": external("unknown key 'basepath'", location="w.bin", basepath="/"),
    "external no location": external("no location", offset="0"),
    "external and internal": edited(
        lambda m: m.graph.initializer.append(
            tensor("w", raw_data=FLOATS.tobytes(), external_data=[{"key": "location", "value": "w.bin"}])
        ),
        "not marked as external",
    ),
    # 75
    "negative dimension": edited(_dims(-4), "negative dimension -4"),
    "product overflow": edited(_dims(2**32, 2**32), "larger than the limit"),
    "256 GiB declared": edited(_dims(2**36), "larger than the limit"),
    "fewer bytes than declared": edited(_dims(5), "needs 20 bytes .* it has 16"),
    "fewer values than declared": edited(
        lambda m: m.graph.initializer.append(tensor("w", float_data=[1.0])), "needs 4 values .* it has 1"
    ),
    "values of another type": edited(
        lambda m: m.graph.initializer.append(tensor("w", int64_data=[1, 2, 3, 4])), "in int64_data, not in float_data"
    ),
    "unknown element type": edited(
        lambda m: m.graph.initializer.append(tensor("w", data_type=99, raw_data=b"")), "unknown element type 99"
    ),
    "negative input dimension": edited(_input_dim(-2), "negative dimension -2"),
    "input overflow": edited(_input_dim(2**62), "larger than the limit"),
    "huge sparse": edited(
        lambda m: m.graph.sparse_initializer.append(
            onnx.SparseTensorProto(
                values=helper.make_tensor("v", TensorProto.FLOAT, [1], [1.0]),
                indices=helper.make_tensor("i", TensorProto.INT64, [1], [0]),
                dims=[2**40],
            )
        ),
        "larger than the limit",
    ),
    # 76
    "NaN": Bad(models.affine(NAN), "tensor 'scale' holds 4 NaN"),
    "NaN double": edited(lambda m: _nan(m, TensorProto.DOUBLE, NAN), "holds 1 NaN"),
    "NaN half": edited(lambda m: _nan(m, TensorProto.FLOAT16, NAN), "holds 1 NaN"),
    "NaN bfloat": edited(lambda m: _nan(m, TensorProto.BFLOAT16, NAN), "holds 1 NaN"),
    "NaN external": external(
        "holds 1 NaN", data=np.array([0, NAN, 1, 2], np.float32).tobytes(), location="w.bin", offset="0", length="16"
    ),
    "NaN coefficient": Bad(_linear(NAN), "attribute 'coefficients' holds NaN"),
    # 77
    "unknown operator": edited(_operator("Frobnicate", ""), "operator 'Frobnicate' does not exist in version 17"),
    "custom operator": edited(_operator("Mul", "com.example"), "custom operator libraries are not loaded"),
    "Python operator": edited(_operator("PyOp", "ai.onnx.contrib"), "custom operator libraries are not loaded"),
    "future operator set": edited(_opset(1000), "needs version 1000 of operator set 'ai.onnx'"),
    "future IR": edited(_set("ir_version", 1000), "IR version 1000"),
    # 81
    "bell in graph name": edited(_set("graph.name", "a\x07b"), r"control character U\+0007"),
    "escape in node name": edited(_set("node.name", "\x1b[2J"), r"control character U\+001B"),
    "newline in producer": edited(_set("producer_name", "a\nb"), r"control character U\+000A"),
    "escape in text": edited(_set("doc_string", "fine\n\x1b]0;title"), r"control character U\+001B"),
    "right to left": edited(_set("graph.name", "a\u202eb"), r"control character U\+202E"),
    "10 MB name": edited(_set("graph.name", "a" * 10_000_000), "has 10000000 characters"),
    "10 MB text": edited(_set("doc_string", "a" * 10_000_000), "has 10000000 characters"),
    "no UTF-8": Bad(GOOD.replace(b"graph", b"\xff\xfe\xfd\xfc\xfb"), "is not UTF-8"),
    # types that no rule carries
    "map output": edited(_map_output, r"output 's' has ONNX type seq\(map\(int64,tensor\(float\)\)\): only maps that"),
}
