"""A configuration completed by its model: shapes, batches and merging, and what does not fit is refused by name."""

import pytest

from gateway.errors import FailedPrecondition
from gateway.pb import inference_pb2 as pb
from gateway.serving.config_source import EMPTY, parse_text
from gateway.serving.configured_warmups import in_model_shapes, warmups
from gateway.serving.contract import complete, version_policy
from gateway.serving.model_config import VersionPolicy
from gateway.serving.request_merging import merging
from gateway.tensor import Datatype, TensorSpec
from tests.serving.model_configs import X, Y, completed, read_file, spec


def test_without_a_configuration_the_model_speaks_for_itself() -> None:
    config = completed(EMPTY)
    assert config.max_batch_size == 256
    assert config.merges
    assert (config.inputs, config.outputs) == ((X,), (Y,))
    message = pb.ModelConfig.FromString(config.message)
    assert message.HasField("dynamic_batching")
    assert message.version_policy.WhichOneof("policy_choice") == "all"
    assert list(message.input[0].dims) == [4]
    assert pb.DataType.Name(message.output[0].data_type) == "TYPE_FP32"
    assert version_policy(EMPTY) == VersionPolicy()


@pytest.mark.parametrize(
    ("text", "inputs", "outputs", "may_batch", "rows"),
    [
        ("", [X], [Y], True, 256),
        ("", [X], [Y], False, 0),
        ("max_batch_size: 0", [X], [Y], True, 0),
        ("max_batch_size: 1", [X], [Y], True, 1),
        ("max_batch_size: 4", [X], [Y], False, 4),
        ("", [spec("x", 1, 4)], [Y], True, 0),
        ("", [X], [spec("y", 2)], True, 0),
        ("", [X], [spec("y")], True, 0),
        ("", [X, spec("t", 3)], [Y], True, 0),
        ("input { name: 'x' dims: [4] }", [X], [Y], True, 256),
        ("input { name: 'x' dims: [-1, 4] }", [X], [Y], True, 0),
    ],
)
def test_batching_follows_configuration_then_shapes(
    text: str, inputs: list[TensorSpec], outputs: list[TensorSpec], may_batch: bool, rows: int
) -> None:
    config = completed(text, inputs=inputs, outputs=outputs, may_batch=may_batch)
    assert config.max_batch_size == rows
    assert config.merges == (rows > 0 and not text)
    message = pb.ModelConfig.FromString(config.message)
    full = [len(tensor.dims) for tensor in message.input]
    assert full == [len(tensor.shape) - (rows > 0) for tensor in config.inputs]


DYNAMIC = "max_batch_size: 8 dynamic_batching { }"


ASKED = "max_batch_size: 8 parameters { key: 'merge_requests' value { string_value: 'TRUE' } }"


@pytest.mark.parametrize(
    ("text", "row_dependence", "rows_independent", "merges", "why"),
    [
        ("", "", True, True, "yes: the graph shows that rows are independent"),
        ("", "", None, True, "yes: the graph shows"),
        ("", "NonZero (n): x", True, False, "no: the graph does not show that rows are independent: NonZero (n): x"),
        ("", "", False, False, "no: rows of one run depend on each other"),
        ("max_batch_size: 8", "", True, False, "no: the configuration has no dynamic_batching"),
        ("output { name: 'y' }", "", True, False, "no: the configuration has no dynamic_batching"),
        (DYNAMIC, "NonZero (n): x", True, True, "yes: dynamic_batching is configured"),
        (DYNAMIC, "", False, False, "no: rows of one run depend on each other"),
        (ASKED, "NonZero (n): x", False, True, "yes: merge_requests is true"),
        ("max_batch_size: 0 dynamic_batching { }", "", True, False, "no: the version does not batch"),
    ],
)
def test_who_decides_whether_requests_are_merged(
    text: str, row_dependence: str, rows_independent: bool | None, merges: bool, why: str
) -> None:
    config = completed(text or EMPTY, row_dependence=row_dependence, rows_independent=rows_independent)
    assert config.merges == merges
    assert config.merging.startswith(why)
    message = pb.ModelConfig.FromString(config.message)
    assert message.HasField("dynamic_batching") == (merges or "dynamic_batching" in text)


def test_what_bounds_merging_does_not_bound_a_request() -> None:
    assert (completed(EMPTY).max_batch_size, completed(EMPTY).max_request_rows) == (256, 0)
    assert completed("max_batch_size: 8").max_request_rows == 8
    value = "{ data_type: TYPE_FP32 dims: 4 zero_data: true }"
    text = f"model_warmup {{ name: 'w' batch_size: 300 inputs {{ key: 'x' value {value} }} }}"
    assert completed(text).warmups[0].batch_size == 300


def test_merging_is_true_or_false() -> None:
    with pytest.raises(FailedPrecondition, match="merge_requests: 'maybe' must be true or false"):
        completed("parameters { key: 'merge_requests' value { string_value: 'maybe' } }")


def test_merging_can_be_turned_off() -> None:
    config = completed('parameters { key: "merge_requests" value { string_value: "false" } }')
    assert config.max_batch_size == 256
    assert not config.merges
    assert not config.warnings


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("input { name: 'z' }", "input 'z' is not in the model, which has ['x']"),
        ("output { name: 'z' }", "output 'z' is not in the model, which has ['y']"),
        ("input { name: 'x' } input { name: 'x' }", "input 'x' is configured twice"),
        ("input { name: 'x' data_type: TYPE_INT32 }", "configured as INT32, the model has FP32"),
        ("max_batch_size: 2 input { name: 'x' dims: [5] }", "dims [5], the model has [4] after the batch dimension"),
        ("max_batch_size: 2 input { name: 'x' dims: [-1] }", "dims [-1], the model has [4]"),
        ("max_batch_size: 0 input { name: 'x' dims: [4] }", "dims [4], the model has [-1, 4]"),
        ("max_batch_size: 2 input { name: 'x' dims: [0] }", "dims [0]"),
        ("max_batch_size: -1", "max_batch_size: -1"),
        ("name: 'n'", "name: 'n' is not 'm'"),
        ("backend: 'python'", "backend: 'python'"),
        ("platform: 'tensorrt_plan'", "platform: 'tensorrt_plan'"),
        ("input { name: 'x' optional: true }", "configured as optional"),
        ("output { name: 'y' label_filename: 'none.txt' }", "'none.txt' is not there"),
        ("output { name: 'y' label_filename: 'latin.txt' }", "is not UTF-8"),
        ("max_batch_size: 2 input { name: 'x' dims: [3] reshape { shape: [4] } }", "number of elements"),
        ("max_batch_size: 2 input { name: 'x' dims: [2,2] reshape { shape: [3] } }", "the model has [4]"),
        ("model_warmup { name: 'w' }", "inputs missing ['x']"),
        (
            "model_warmup { name: 'w' inputs { key: 'x' value { data_type: TYPE_FP32 dims: 5 } } }",
            "FP32 [5], the model has FP32 [-1, 4]",
        ),
        (
            "model_warmup { name: 'w' inputs { key: 'x' value { data_type: TYPE_FP32 dims: -1 } } }",
            "must not be variable",
        ),
        (
            "max_batch_size: 2 model_warmup { name: 'w' batch_size: 3 }",
            "batch_size 3 exceeds max_batch_size 2",
        ),
        (
            "max_batch_size: 2 model_warmup { name: 'w' inputs { key: 'x' value "
            "{ data_type: TYPE_FP32 dims: 4 input_data_file: 'short' } } }",
            "has 1 bytes, 16 are needed",
        ),
    ],
)
def test_what_does_not_fit_the_model_is_refused_by_name(text: str, names: str) -> None:
    with pytest.raises(FailedPrecondition) as caught:
        completed(text)
    assert names in str(caught.value)


ANY = TensorSpec("x", Datatype.FP32, (), any_shape=True)


@pytest.mark.parametrize(
    ("text", "shape", "any_shape"),
    [
        ("", (), True),
        ("input { name: 'x' }", (), True),
        ("input { name: 'x' dims: [-1, 4] }", (-1, 4), False),
        ("max_batch_size: 8 input { name: 'x' dims: [4] }", (-1, 4), False),
        ("input { name: 'x' dims: [1] reshape { shape: [] } }", (1,), False),
    ],
)
def test_dims_of_the_configuration_say_what_the_model_leaves_open(
    text: str, shape: tuple[int, ...], any_shape: bool
) -> None:
    config = completed(text, inputs=[ANY])
    assert (config.inputs[0].shape, config.inputs[0].any_shape) == (shape, any_shape)
    assert not config.merges


def test_a_batch_of_no_shape_is_refused() -> None:
    with pytest.raises(FailedPrecondition, match="input 'x' has no shape in the model; max_batch_size > 0 needs"):
        completed("max_batch_size: 8", inputs=[ANY])


def test_a_fixed_first_dimension_cannot_batch() -> None:
    with pytest.raises(FailedPrecondition, match=r"input 'x' has shape \[1, 4\].*variable first dimension"):
        completed("max_batch_size: 2", inputs=[spec("x", 1, 4)])


def test_inputs_that_are_not_listed_are_missed_and_outputs_are_hidden() -> None:
    pair = [X, spec("t", -1, 1)]
    with pytest.raises(FailedPrecondition, match=r"needs the inputs \['t'\]"):
        completed("input { name: 'x' }", inputs=pair)
    config = completed("output { name: 'z' }", outputs=[Y, spec("z", -1, 1)])
    assert [tensor.name for tensor in config.outputs] == ["z"]


def test_an_input_with_a_default_in_the_model_may_be_offered() -> None:
    default = spec("t", -1, 1, optional=True)
    assert len(completed(overridable=[default]).inputs) == 2
    config = completed("input { name: 'x' } input { name: 't' optional: true }", overridable=[default])
    assert [tensor.optional for tensor in config.inputs] == [False, True]


def test_a_configuration_may_narrow_what_the_model_leaves_open() -> None:
    config = completed("max_batch_size: 4 input { name: 'x' dims: [3, 224, 224] }", inputs=[spec("x", -1, 3, -1, -1)])
    assert config.inputs[0].shape == (-1, 3, 224, 224)


def test_reshape_offers_another_shape_than_the_models() -> None:
    text = (
        "max_batch_size: 4 "
        "input { name: 'x' dims: [2, 2] reshape { shape: [4] } } output { name: 'y' dims: [1] reshape { shape: [] } } "
        "model_warmup { name: 'w' inputs { key: 'x' value { data_type: TYPE_FP32 dims: [2, 2] } } }"
    )
    config = completed(text, outputs=[spec("y", -1)])
    assert config.inputs[0].shape == (-1, 2, 2)
    assert config.outputs[0].shape == (-1, 1)
    assert config.input_reshapes == {"x": (4,)}
    assert config.output_reshapes == {"y": (1,)}
    source = parse_text(text.encode())
    (request,) = in_model_shapes(warmups(source, read_file), source)
    assert request.inputs["x"].dims == (4,)
    assert request.batch_size == 1


def test_inputs_with_a_default_are_offered_without_a_configuration() -> None:
    default = spec("t", 1, optional=True)
    config = completed(EMPTY, overridable=[default])
    assert config.inputs == (X, default)
    assert config.max_batch_size == 0  # the default has no rows
    assert [tensor.optional for tensor in pb.ModelConfig.FromString(config.message).input] == [False, True]
    assert complete(
        EMPTY, "m", inputs=[X], outputs=[Y], overridable=[default], offers_overridable=False, read_file=read_file
    ).inputs == (X,)


def test_features_have_the_names_of_the_configuration_or_a_warning_says_why_not() -> None:
    named = 'max_batch_size: 8 parameters { key: "feature_names" value { string_value: "%s" } }'
    config = completed(named % "age, fare ,sex,deck")
    assert config.inputs[0].features == ("age", "fare", "sex", "deck")
    assert config.warnings == ()
    few = completed(named % "age,fare")
    assert few.inputs[0].features == ()
    assert few.warnings == ("parameters.feature_names: 2 names for 4 features; features are called by their tensors",)
    unbatched = completed(named.replace("8", "0") % "age,fare", inputs=[spec("x", 2)], outputs=[spec("y", 2)])
    assert (unbatched.inputs[0].features, unbatched.warnings) == ((), ())


def test_a_version_that_answers_by_chance_merges_nothing() -> None:
    source = parse_text(ASKED.encode())
    assert merging(source, 8, "", True).allowed
    decision = merging(source, 8, "", True, "Bernoulli (y)")
    assert str(decision) == "no: the version answers by chance: Bernoulli (y)"


@pytest.mark.parametrize(
    ("text", "rows_independent", "chance", "why"),
    [
        ("max_batch_size: 0", False, "Bernoulli (y)", "the version does not batch (max_batch_size is 0)"),
        ("", None, "Bernoulli (y)", "the version answers by chance: Bernoulli (y)"),
        ("", False, "", "rows of one run depend on each other, as runs with random rows showed"),
        ("", None, "", "the version does not batch (not all of its tensors have a free first axis)"),
    ],
)
def test_max_batch_size_is_named_only_where_somebody_has_set_it(
    text: str, rows_independent: bool | None, chance: str, why: str
) -> None:
    source = parse_text(text.encode()) if text else EMPTY
    assert merging(source, 0, "", rows_independent, chance).reason == why
