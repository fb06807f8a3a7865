"""One step of an ensemble as a call: what it takes over from the whole, what rules read of it, what it refuses."""

import numpy as np
import pytest

from gateway.errors import FailedPrecondition, InvalidArgument, ResourceExhausted, UnknownModel
from gateway.serving.call import UNCACHED, Call
from gateway.serving.config_source import parse_text
from gateway.serving.ensemble_graph import read_graph
from gateway.serving.ensemble_step import CallCount, EnsembleTensors, StepBinding, StepCall, at_step
from gateway.serving.model_config import ModelConfig
from gateway.serving.version import Version, VersionEvent
from gateway.tensor import Array, Datatype, TensorSpec
from tests.serving.ensembles import Step, config, tensor
from tests.serving.stage import Nobody

X = TensorSpec("x", Datatype.FP32, (-1, 4))
KEY = TensorSpec("key", Datatype.BYTES, (-1, 1))
MASK = TensorSpec("mask", Datatype.BOOL, (-1,), optional=True)
Y = TensorSpec("y", Datatype.FP32, (-1, 4))
GRAPH = read_graph(
    parse_text(
        config(
            Step("m", {"x": "x", "user": "key", "mask": "mask"}),
            inputs=[tensor("x"), tensor("key", "TYPE_STRING", (1,)), tensor("mask", "TYPE_BOOL", ())],
        ).encode()
    ).message
)
STEP = GRAPH.steps[0]


class Caller:
    """The attributes of the request that the ensemble answers."""

    tenant = "acme"
    request_id = "r"
    requested_version = ""

    def metadata(self, name: str) -> str | None:
        return f"{name} of the request"

    def parameter(self, name: str) -> int:
        return 7

    def input_value(self, name: str) -> str | None:
        raise AssertionError("the tensors of the request are gone by then")


def whole(*, rows: int = 2, key: object = b"u1", mask: bytes | None = None) -> Call:
    call = Call("ensemble", "", "r", Nobody(), deadline_ns=99)
    keys: Array = np.array([[key]] * rows, object)
    call.inputs = [np.zeros((rows, 4), np.float32).tobytes(), keys, mask]
    call.shapes = [(rows, 4), (rows, 1), None if mask is None else (len(mask),)]
    call.rows, call.level, call.queue_limit_ns, call.cache_key = rows, 2, 5, UNCACHED
    return call


def step_of(call: Call) -> tuple[StepCall, EnsembleTensors]:
    tensors = EnsembleTensors(GRAPH, call, (X, KEY, MASK))
    return StepCall(0, STEP, call, Caller(), "r", Nobody(), tensors, CallCount()), tensors


def bound(*inputs: TensorSpec, rows: int = 0) -> StepBinding:
    """What the step means for a version with these inputs, of at most so many rows."""
    version = Version("m", "1")
    version.move(VersionEvent.LOAD)
    settings = ModelConfig(name="m", max_batch_size=8, inputs=inputs, outputs=(Y,), max_request_rows=rows)
    version.equip(None, settings, digest="d", run_us=1.0)
    return StepBinding(STEP, version)


USER = TensorSpec("user", Datatype.BYTES, (-1, 1))
TAKEN = (X, USER, MASK)


def test_a_step_takes_over_class_deadline_and_attributes() -> None:
    step, _ = step_of(whole())
    assert (step.level, step.deadline_ns, step.queue_limit_ns, step.cache_key) == (2, 99, 5, UNCACHED)
    assert (step.request_id, step.requested_version, step.size_bytes) == ("r", "", 48)
    assert (step.metadata("x-user"), step.parameter("p"), step.tenant) == ("x-user of the request", 7, "acme")
    assert (step.method, step.identity) == (None, None)


def test_rules_read_the_tensors_of_a_step_by_either_name() -> None:
    step, _ = step_of(whole(mask=b"\x01\x00"))
    assert (step.input_value("user"), step.input_value("key"), step.input_value("mask")) == ("u1", "u1", "true")
    assert (step.input_value("x"), step.input_value("absent")) == (None, None)  # four elements a row; no such tensor
    assert step_of(whole(key=b"\xff"))[0].input_value("user") is None
    assert step_of(whole(rows=0))[0].input_value("user") is None


def test_rules_read_nothing_that_is_there_only_at_times() -> None:
    steps = Step("m", {"x": "x"}, {"y": "between"}), Step("m", {"x": "between"}, {"y": "wanted"}), Step("m", {"x": "x"})
    inputs, outputs = [tensor("x"), tensor("key", "TYPE_STRING", (1,))], [tensor("wanted"), tensor("y")]
    more = Step("m", {"x": "key"}, {"y": "also"})
    graph = read_graph(
        parse_text(config(*steps, more, inputs=inputs, outputs=[*outputs, tensor("also")]).encode()).message
    )
    call = whole()
    call.inputs, call.shapes = call.inputs[:2], call.shapes[:2]
    tensors = EnsembleTensors(graph, call, (X, KEY))
    for number in range(2, len(graph.tensors)):
        tensors.buffers[number], tensors.shapes[number] = np.ones((2, 1), np.float32), (2, 1)
        tensors.datatypes[number] = Datatype.FP32
    read = [
        StepCall(place, graph.steps[place], call, Caller(), "r", Nobody(), tensors, CallCount()).input_value("between")
        for place in (1, 2)
    ]
    assert read == ["1.0", None]
    other = StepCall(2, graph.steps[2], call, Caller(), "r", Nobody(), tensors, CallCount())
    assert (other.input_value("key"), other.input_value("wanted")) == ("u1", None)


def test_an_attempt_that_starts_over_counts_once() -> None:
    count = CallCount()
    call = whole()
    tensors = EnsembleTensors(GRAPH, call, (X, KEY, MASK))

    def step(within: Call) -> StepCall:
        made = StepCall(0, STEP, within, Caller(), "r", Nobody(), tensors, count)
        made.check_extent()
        return made

    outer = step(call)
    inner = step(outer)
    for _ in range(5):
        step(inner)
    step(call)  # of the whole, meanwhile
    assert count.made == 8
    assert inner.start_over().made == 3
    step(inner)
    assert outer.start_over().made == 2
    assert (outer.within, count.made) == (0, 2)


def test_a_step_gets_the_tensors_in_the_order_of_the_version_and_what_is_absent_stays_absent() -> None:
    step, tensors = step_of(whole())
    bound(USER, MASK, X).fill(step, tensors)
    assert step.shapes == [(2, 1), None, (2, 4)]
    assert step.inputs[2] is tensors.buffers[0]  # no copy
    assert (step.rows, step.wanted) == (2, None)


@pytest.mark.parametrize(
    ("binding", "mask", "kind", "said"),
    [
        (bound(X, USER, TensorSpec("mask", Datatype.BOOL, (-1,))), None, InvalidArgument, "tensor 'mask' is absent"),
        (bound(*TAKEN), b"\x01", InvalidArgument, "'mask' has 1 rows in tensor 'mask', the inputs before it have 2"),
        (bound(*TAKEN, rows=1), None, InvalidArgument, "takes 1 rows at most, not 2"),
        (bound(X, TensorSpec("user", Datatype.INT64, (-1, 1)), MASK), None, FailedPrecondition, "'key' is BYTES"),
        (bound(X, TensorSpec("user", Datatype.BYTES, (-1, 2)), MASK), None, InvalidArgument, r"'key' has \[2, 1\]"),
        (bound(X, MASK), None, FailedPrecondition, "version '1' has no input 'user'"),
    ],
)
def test_what_a_version_does_not_take_is_refused(
    binding: StepBinding, mask: bytes | None, kind: type[Exception], said: str
) -> None:
    step, tensors = step_of(whole(mask=mask))
    with pytest.raises(kind, match=said):
        binding.fill(step, tensors)


def test_what_all_steps_have_read_is_let_go_and_what_the_request_has_or_wants_is_not() -> None:
    graph = read_graph(
        parse_text(
            config(
                Step("m", {"x": "x"}, {"y": "between"}),
                Step("m", {"x": "between"}, {"y": "wanted"}),
                Step("m", {"x": "between", "user": "between", "mask": "wanted"}, {"y": "y"}),
                outputs=[tensor("wanted"), tensor("y")],
            ).encode()
        ).message
    )
    call = whole()
    call.inputs, call.shapes = call.inputs[:1], call.shapes[:1]
    tensors = EnsembleTensors(graph, call, (X,))
    tensors.buffers[1:] = [b"between", b"wanted", b"y"]
    kept = []
    for step in graph.steps:
        tensors.let_go(step)
        kept.append(tensors.buffers[1])
    assert kept == [b"between", b"between", None]
    assert tensors.buffers == [call.inputs[0], None, b"wanted", b"y"]


def test_an_error_keeps_its_class_and_what_it_says_beside_its_text() -> None:
    named = at_step(ResourceExhausted("full", retry_after_ms=7), STEP)
    assert isinstance(named, ResourceExhausted)
    assert (str(named), named.retry_after_ms) == ("step 1 (model 'm'): full", 7)
    unknown = at_step(UnknownModel("m"), STEP)
    assert isinstance(unknown, UnknownModel)
    assert unknown.model == "m"
    assert str(unknown) == "step 1 (model 'm'): Request for unknown model: 'm' is not found"
