"""The graph of an ensemble, as configurations draw it: what is read, and what is refused with which words."""

import re
from dataclasses import replace

import pytest

from gateway.errors import FailedPrecondition
from gateway.serving.config_source import parse_text
from gateway.serving.ensemble_contract import StepContract, check_contracts
from gateway.serving.ensemble_graph import MOST_STEPS, EnsembleGraph, read_graph
from gateway.tensor import Datatype, TensorSpec
from tests.serving.ensembles import Step, chain, config, tensor

FOUR = TensorSpec("x", Datatype.FP32, (-1, 4))
Y = TensorSpec("y", Datatype.FP32, (-1, 4))
AFFINE = StepContract("1", (FOUR,), (Y,))


def graph(text: str) -> EnsembleGraph:
    return read_graph(parse_text(text.encode()).message)


def test_a_diamond_is_read_with_its_readers_writers_and_order() -> None:
    drawn = graph(
        config(
            Step("join", {"a": "left", "b": "right"}, {"sum": "y"}, version=3),
            Step("left", {"x": "x"}, {"y": "left"}),
            Step("right", {"x": "x"}, {"y": "right", "more": "unused"}, version=0),
        )
    )
    assert drawn.given == 1
    number = {name: place for place, name in enumerate(drawn.tensors)}
    assert drawn.answers == (number["y"],)
    assert drawn.readers[number["x"]] == (1, 2)
    assert drawn.readers[number["unused"]] == ()
    assert (drawn.writer[number["x"]], drawn.writer[number["y"]], drawn.writer[number["left"]]) == (-1, 0, 1)
    assert drawn.order == (1, 2, 0)
    assert [step.version for step in drawn.steps] == ["3", "", ""]
    assert drawn.reads == (0, 1, 1, 0, 0)


def test_one_tensor_may_be_two_inputs_of_a_step_and_an_input_an_output() -> None:
    drawn = graph(config(Step("join", {"a": "x", "b": "x"}, {"sum": "y"}), outputs=[tensor("y"), tensor("x")]))
    assert drawn.readers[0] == (0,)
    assert drawn.answers == (1, 0)


REFUSED = {
    "no steps": (config(), "at least one step"),
    "too many": (config(*chain(*["m"] * (MOST_STEPS + 1))), "more than the limit of 64"),
    "no model": (config(Step("")), "step 1: model_name is missing"),
    "a name that is none": (config(Step("../up")), "step 1: model name '../up' must begin"),
    "a version below -1": (config(Step("m", version=-2)), r"step 1 \(model 'm'\): model_version -2 must be"),
    "nothing is written": (config(Step("m", outputs={})), r"step 1 \(model 'm'\): output_map is empty"),
    "an empty name": (config(Step("m", {"x": ""})), "input_map has an entry without key or value"),
    "one tensor twice": (config(Step("m", outputs={"y": "y", "z": "y"})), "output_map writes one tensor twice"),
    "two writers": (
        config(Step("a"), Step("b", version=7)),
        r"step 2 \(model 'b' version '7'\): tensor 'y' is written by step 1 \(model 'a'\) already",
    ),
    "an input is written": (config(Step("a", outputs={"y": "y", "z": "x"})), "tensor 'x' is written by the request"),
    "an unknown tensor": (config(Step("a", {"x": "q"})), r"step 1 \(model 'a'\): input 'x' reads tensor 'q', which no"),
    "an output that nobody writes": (config(Step("a"), outputs=[tensor("z")]), "output 'z' is written by no step: the"),
    "a cycle": (
        config(
            Step("a", {"x": "x", "b": "second"}, {"y": "first"}), Step("b", {"x": "first"}, {"y": "second", "z": "y"})
        ),
        r"in a circle: step 1 \(model 'a'\) needs step 2 \(model 'b'\) needs step 1 \(model 'a'\)",
    ),
    "a step that needs itself": (config(Step("a", {"x": "x", "z": "y"})), r"step 1 \(model 'a'\) needs step 1"),
    "a dead step": (
        config(Step("a"), Step("b", outputs={"y": "lost"})),
        r"step 2 \(model 'b'\): it runs for nothing: no output of the ensemble needs 'lost'",
    ),
    "an input that nobody reads": (
        config(Step("a"), inputs=[tensor("x"), tensor("w")]),
        "input 'w' is read by no step",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_graph_that_cannot_run_is_refused_by_the_step(case: str) -> None:
    text, said = REFUSED[case]
    with pytest.raises(FailedPrecondition, match=said):
        graph(text)


def test_steps_that_fit_together_pass() -> None:
    check_contracts(graph(config(*chain("a", "b"))), (FOUR,), (Y,), 64, (AFFINE, AFFINE))


OPEN = TensorSpec("x", Datatype.FP32, (-1, -1))
ANY = TensorSpec("x", Datatype.FP32, (), any_shape=True)


@pytest.mark.parametrize("spec", [OPEN, ANY])
def test_a_size_that_one_side_leaves_open_fits(spec: TensorSpec) -> None:
    check_contracts(graph(config(*chain("a", "b"))), (FOUR,), (Y,), 64, (AFFINE, StepContract("1", (spec,), (Y,))))


UNFIT = {
    "an unknown input": (StepContract("2", (TensorSpec("q", Datatype.FP32, (-1, 4)),), (Y,)), "has no input 'x'; its"),
    "an unknown output": (StepContract("2", (FOUR,), ()), r"version '2' has no output 'y'; its outputs are \[\]"),
    "a missing input": (
        StepContract("2", (FOUR, TensorSpec("mask", Datatype.BOOL, (-1, 1))), (Y,)),
        r"needs the inputs \['mask'\], which input_map does not have",
    ),
    "a datatype": (
        StepContract("2", (TensorSpec("x", Datatype.INT64, (-1, 4)),), (Y,)),
        r"input 'x' is INT64, output 'y' of step 1 \(model 'a'\) is FP32",
    ),
    "a size": (
        StepContract("2", (TensorSpec("x", Datatype.FP32, (-1, 5)),), (Y,)),
        r"input 'x' has shape \[-1, 5\], output 'y' of step 1 \(model 'a'\) has \[-1, 4\]",
    ),
    "a rank": (StepContract("2", (TensorSpec("x", Datatype.FP32, (-1, 4, 1)),), (Y,)), r"has shape \[-1, 4, 1\]"),
    "its answer": (
        StepContract("2", (FOUR,), (TensorSpec("y", Datatype.FP64, (-1, 4)),)),
        r"output 'y' of the ensemble is FP32, output 'y' of step 2 \(model 'b'\) is FP64",
    ),
    "its rows": (StepContract("2", (FOUR,), (Y,), max_rows=8), "takes 8 rows at most, the ensemble 64: lower its"),
}


@pytest.mark.parametrize("case", UNFIT)
def test_a_step_that_does_not_fit_is_named_with_both_sides(case: str) -> None:
    contract, said = UNFIT[case]
    with pytest.raises(FailedPrecondition, match=said) as caught:
        check_contracts(graph(config(*chain("a", "b"))), (FOUR,), (Y,), 64, (AFFINE, contract))
    assert re.search(r"step 2 \(model 'b'\)", str(caught.value))


def test_an_input_that_may_be_absent_goes_to_one_that_may_be_absent() -> None:
    text = config(Step("a", {"x": "x", "mask": "mask"}), inputs=[tensor("x"), tensor("mask", more="optional: true")])
    inputs = (FOUR, TensorSpec("mask", Datatype.FP32, (-1, 4), optional=True))
    check_contracts(graph(text), inputs, (Y,), 64, (StepContract("1", (FOUR, inputs[1]), (Y,)),))
    needed = TensorSpec("mask", Datatype.FP32, (-1, 4))
    with pytest.raises(
        FailedPrecondition, match="input 'mask' is needed, but input 'mask' of the ensemble is optional"
    ):
        check_contracts(graph(text), inputs, (Y,), 64, (StepContract("1", (FOUR, needed), (Y,)),))


def test_an_input_that_may_be_absent_is_no_output() -> None:
    outputs = [tensor("y"), tensor("mask")]
    text = config(Step("a"), inputs=[tensor("x"), tensor("mask", more="optional: true")], outputs=outputs)
    mask = TensorSpec("mask", Datatype.FP32, (-1, 4))
    check_contracts(graph(text), (FOUR, mask), (Y, mask), 64, (AFFINE,))
    with pytest.raises(
        FailedPrecondition, match="output 'mask' of the ensemble is input 'mask' of the ensemble, which"
    ):
        check_contracts(graph(text), (FOUR, replace(mask, optional=True)), (Y, mask), 64, (AFFINE,))
