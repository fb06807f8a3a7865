"""Values that are no plain tensors, carried as tensors and back."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from gateway.errors import FailedPrecondition, InvalidArgument
from gateway.serving.carried_value import RULES_OF_FORMS, Form, carried, check_names
from gateway.serving.element_type import ELEMENTS
from gateway.serving.session import Session
from gateway.tensor import Array, Datatype

FLOAT = TensorProto.FLOAT
SHAPES = st.lists(st.lists(st.integers(0, 3), max_size=3), max_size=4)


@given(SHAPES)
@example([])
@example([[]])
@example([[0], [2, 3]])
def test_a_sequence_comes_back_as_it_was(shapes: list[list[int]]) -> None:
    value = carried("s", "seq(tensor(float))", "input")
    tensors = [np.arange(np.prod(shape, dtype=int), dtype=np.float32).reshape(shape) + 1 for shape in shapes]
    parts = dict(zip((spec.name for spec in value.specs), value.taken_apart(tensors), strict=True))
    back = value.assembled(parts)
    assert [each.tolist() for each in back] == [each.tolist() for each in tensors]
    assert [each.shape for each in back] == [each.shape for each in tensors]


@pytest.mark.parametrize(
    ("elements", "shapes", "why"),
    [
        (4, [[2], [1]], "have 3 elements, input 's' has 4"),
        (2, [[2], [1]], "have 3 elements, input 's' has 2"),
        (2, [[-2]], "the negative size -2"),
        (2, [[2**62, 2**62]], "elements, input 's' has 2"),
        (2, [2], r"must have the shape \[tensors, dimensions\]"),
    ],
)
def test_shapes_that_do_not_fit_are_the_clients_fault(elements: int, shapes: list[object], why: str) -> None:
    value = carried("s", "seq(tensor(float))", "input")
    feeds: dict[str, Array] = {"s": np.zeros(elements, np.float32), "s.shapes": np.array(shapes, np.int64)}
    with pytest.raises(InvalidArgument, match=why):
        value.assembled(feeds)


def test_one_half_of_a_value_is_refused() -> None:
    value = carried("s", "optional(seq(tensor(float)))", "input")
    assert [spec.optional for spec in value.specs] == [True, True]
    assert value.assembled({}) is None
    with pytest.raises(InvalidArgument, match=r"inputs 's' and 's\.shapes' carry one sequence of tensors together"):
        value.assembled({"s": np.zeros(1, np.float32)})


def test_a_map_needs_a_value_for_each_key() -> None:
    value = carried("m", "map(string,tensor(float))", "input")
    assert [(spec.name, spec.datatype) for spec in value.specs] == [
        ("m.keys", Datatype.BYTES),
        ("m.values", Datatype.FP32),
    ]
    keys = np.array(["a", "b"], object)
    assert value.assembled({"m.keys": keys, "m.values": np.array([1, 2], np.float32)}) == {"a": 1, "b": 2}
    with pytest.raises(InvalidArgument, match="carry one map: they have 2 and 1 elements"):
        value.assembled({"m.keys": keys, "m.values": np.zeros(1, np.float32)})


@pytest.mark.parametrize(
    ("onnx_type", "side", "why"),
    [
        ("tensor(complex64)", "input", "cannot carry elements of type complex64; cast them"),
        ("sparse_tensor", "input", "no tensor of the protocol can carry; export the model with plain tensors"),
        ("seq(tensor(bfloat16))", "output", "bfloat16 is carried in plain tensors only"),
        ("seq(map(int64,tensor(float)))", "output", "only maps that a ZipMap of the graph gives .* zipmap=False"),
        ("map(int64,tensor(float))", "output", "a map is carried as an input only"),
        ("map(float,tensor(float))", "input", "keys must be integers of 64 bits or strings"),
        ("map(int64,seq(tensor(float)))", "input", "no tensor of the protocol can carry"),
    ],
)
def test_what_no_rule_carries_is_refused_by_its_type(onnx_type: str, side: str, why: str) -> None:
    with pytest.raises(FailedPrecondition, match=why) as caught:
        carried("x", onnx_type, side)
    assert f"{side} 'x' has ONNX type {onnx_type}" in str(caught.value)


def test_names_that_carry_two_values_are_refused() -> None:
    values = [carried("s", "seq(tensor(float))", "input"), carried("s.shapes", "tensor(int64)", "input")]
    with pytest.raises(FailedPrecondition, match=r"are carried as 's\.shapes': rename one"):
        check_names(values, "input")


@pytest.mark.parametrize("element", ELEMENTS, ids=lambda element: element.onnx_name)
def test_elements_that_numpy_has_not_come_back_as_they_were(element: object) -> None:
    kind = next(each for each in ELEMENTS if each is element)
    assert getattr(TensorProto, kind.onnx_name) == kind.number
    low, high = kind.range
    for count in (0, 1, 3, 8):
        array = np.resize(np.linspace(low, high, 7).astype(kind.datatype.dtype), count)
        memory = kind.packed("x", array)
        assert len(memory) == -(-count * kind.bits // 8)
        assert kind.unpacked(memory, (count,)).tolist() == array.tolist()


def test_elements_out_of_range_are_named() -> None:
    by_name = {element.onnx_name: element for element in ELEMENTS}
    with pytest.raises(InvalidArgument, match=r"input 'x' has the element -9, which does not fit INT4 \(-8 to 7\)"):
        by_name["INT4"].packed("x", np.array([7, -9], np.int8))


def casts(source: int, target: int) -> Session:
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("Cast", ["x"], ["y"], to=target)],
            "graph",
            [helper.make_tensor_value_info("x", source, ["b", 3])],
            [helper.make_tensor_value_info("y", target, ["b", 3])],
        ),
        opset_imports=[helper.make_opsetid("", 21)],
        ir_version=10,
    )
    return Session(model.SerializeToString(), intra_threads=1)


@pytest.mark.parametrize(
    ("element", "pattern"),
    [(TensorProto.FLOAT8E4M3FN, [0x38, 0xC0, 0x00]), (TensorProto.INT4, [1, -2, 0]), (TensorProto.UINT4, [1, 2, 0])],
)
def test_narrow_elements_are_read_and_written(element: int, pattern: list[int]) -> None:
    numbers = np.array([[1, 2 if element == TensorProto.UINT4 else -2, 0]], np.float32)
    (answer,) = casts(FLOAT, element).run(None, {"x": numbers})
    assert answer.tolist() == [pattern]
    (back,) = casts(element, FLOAT).run(None, {"x": answer})
    assert back.tolist() == numbers.tolist()


def test_a_zip_map_is_served_as_the_table_that_it_is_made_from() -> None:
    nodes = [helper.make_node("ZipMap", ["x"], ["y"], domain="ai.onnx.ml", classlabels_int64s=[7, -1, 3])]
    maps = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(FLOAT, None))
    output = helper.make_value_info("y", helper.make_sequence_type_proto(maps))
    graph = helper.make_graph(nodes, "graph", [helper.make_tensor_value_info("x", FLOAT, ["b", 3])], [output])
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=imports, ir_version=8)
    session = Session(model.SerializeToString(), intra_threads=1, map_keys={"y": (7, -1, 3)})
    (spec,) = session.outputs
    assert (spec.datatype, spec.shape, spec.labels) == (Datatype.FP32, (-1, 3), ("7", "-1", "3"))
    assert session.may_batch
    for rows in (0, 1, 5):
        x = np.arange(rows * 3, dtype=np.float32).reshape(rows, 3)
        (answer,) = session.run(None, {"x": x})
        assert answer.dtype == np.float32
        assert answer.tolist() == x.tolist()


def test_an_optional_input_may_be_left_out() -> None:
    kind = helper.make_optional_type_proto(helper.make_sequence_type_proto(helper.make_tensor_type_proto(FLOAT, None)))
    graph = helper.make_graph(
        [helper.make_node("OptionalHasElement", ["o"], ["y"])],
        "graph",
        [helper.make_value_info("o", kind)],
        [helper.make_tensor_value_info("y", TensorProto.BOOL, [])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)
    session = Session(model.SerializeToString(), intra_threads=1)
    assert not session.may_batch
    given: dict[str, Array] = {"o": np.ones(2, np.float32), "o.shapes": np.array([[2]], np.int64)}
    assert session.run(None, {})[0].tolist() is False
    assert session.run(None, given)[0].tolist() is True


def test_the_chapter_says_the_rules_of_the_code() -> None:
    chapter = Path("docs/models.md").read_text()
    for form, side, rule in RULES_OF_FORMS:
        assert f"| {form.value} | {side} | {rule} |" in chapter
    for element in ELEMENTS:
        assert f"| {element.onnx_name} | {element.datatype.wire_name} | {element.rule} |" in chapter
    assert {form for form, _, _ in RULES_OF_FORMS} == set(Form)
