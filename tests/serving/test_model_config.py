"""Configurations: what is read, what is named in warnings, what is completed from the model, what does not fit it."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.errors import FailedPrecondition, InvalidArgument
from gateway.pb import inference_pb2 as pb
from gateway.serving.config_source import ACTED_ON, EMPTY, ConfigSource, parse_json, parse_text, without_effect
from gateway.serving.configured_warmups import in_model_shapes, warmups
from gateway.serving.contract import complete, session_options, thread_count, version_policy
from gateway.serving.execution_provider import Provider, providers_of
from gateway.serving.model_config import ModelConfig, VersionPolicy, WarmupInput
from gateway.serving.request_merging import merging
from gateway.tensor import Datatype, TensorSpec

FILES = {
    "labels.txt": b"cat\ndog\n",
    "latin.txt": b"\xe9",
    "warmup/x.raw": bytes(range(16)),
    "warmup/short": b"1",
}


def read_file(name: str) -> bytes:
    if name not in FILES:
        raise FailedPrecondition(f"{name!r} is not there")
    return FILES[name]


def spec(name: str, *shape: int, datatype: Datatype = Datatype.FP32, optional: bool = False) -> TensorSpec:
    return TensorSpec(name, datatype, shape, optional=optional)


X, Y = spec("x", -1, 4), spec("y", -1, 2)


def completed(
    text: str | ConfigSource = "",
    *,
    inputs: Sequence[TensorSpec] = (X,),
    outputs: Sequence[TensorSpec] = (Y,),
    overridable: Sequence[TensorSpec] = (),
    may_batch: bool = True,
    row_dependence: str = "",
    rows_independent: bool | None = None,
) -> ModelConfig:
    source = parse_text(text.encode()) if isinstance(text, str) else text
    return complete(
        source,
        "m",
        inputs=inputs,
        outputs=outputs,
        overridable=overridable,
        read_file=read_file,
        may_batch=may_batch,
        row_dependence=row_dependence,
        rows_independent=rows_independent,
    )


# ---- reading ----

TRITON = """
name: "m" # the directory's name
platform: "onnxruntime_onnx"
max_batch_size: 8
input [ { name: "x" data_type: TYPE_FP32 format: FORMAT_NONE dims: [ 4 ] allow_ragged_batch: true } ]
output [ { name: "y", data_type: TYPE_FP32, dims: [ 2 ], label_filename: "labels.txt" } ]
version_policy: { specific { versions: [ 1, 3 ] } }
instance_group [ { count: 2 kind: KIND_GPU gpus: [ 0 ] } ]
dynamic_batching {
  preferred_batch_size: [ 4, 8 ]
  max_queue_delay_microseconds: 100
  default_queue_policy {
    timeout_action: DELAY default_timeout_microseconds: 5000 allow_timeout_override: true max_queue_size: 17
  }
}
sequence_batching { max_sequence_idle_microseconds: 5 control_input [ { name: "START" control [ { kind: X } ] } ] }
optimization { graph { level: 1 } cuda { graphs: true } }
parameters { key: "intra_op_thread_count" value: { string_value: "3" } }
parameters { key: "magic" value: { string_value: "on" } }
model_warmup [ {
  name: "first" batch_size: 2 count: 3
  inputs { key: "x" value: { data_type: TYPE_FP32 dims: 4 random_data: true } }
} ]
"""


def paths_of(message: Any, prefix: str = "") -> Iterator[str]:
    """The path of every field below a protobuf descriptor."""
    for entry in message.fields:
        path = f"{prefix}.{entry.name}" if prefix else entry.name
        yield path
        if entry.message_type is not None:
            yield from paths_of(entry.message_type, path)


def test_every_field_of_the_protocol_is_acted_on_or_named_as_idle() -> None:
    paths = set(paths_of(pb.ModelConfig.DESCRIPTOR))
    assert paths >= ACTED_ON
    idle = without_effect(paths)
    for path in paths:
        above = {path.rsplit(".", cut)[0] for cut in range(path.count(".") + 1)}
        leads = any(entry.startswith(f"{path}.") for entry in ACTED_ON)
        assert leads or len(above & (ACTED_ON | set(idle))) == 1, path
    assert "metric_tags" in idle
    assert "dynamic_batching.priority_queue_policy" in idle
    assert not [path for path in idle if path.startswith("dynamic_batching.priority_queue_policy.")]


@pytest.mark.parametrize(
    "source",
    [
        parse_text(b'metric_tags { key: "a" value: "b" } model_transaction_policy { } parameters { key: "x" }'),
        parse_json('{"metric_tags": {"a": "b"}, "model_transaction_policy": {}, "parameters": {"x": {}}}'),
    ],
)
def test_a_field_without_effect_is_named_once_with_its_message(source: ConfigSource) -> None:
    (warning,) = source.warnings
    assert warning.endswith(": fields without effect here: metric_tags, model_transaction_policy")


def test_a_configuration_made_for_triton_is_read_whole() -> None:
    source = parse_text(TRITON.encode())
    config = completed(source)
    assert config.name == "m"
    assert config.max_batch_size == 8
    assert config.inputs == (spec("x", -1, 4),)
    assert config.outputs[0].labels == ("cat", "dog")
    assert config.version_policy == VersionPolicy(specific=frozenset({"1", "3"}))
    assert config.max_queue_delay_us == 100
    assert config.max_queue_size == 17
    assert config.default_timeout_us == 5000
    assert config.allow_timeout_override
    assert config.delays_expired
    assert config.instance_count == 2
    assert config.warmups[0].inputs == {"x": WarmupInput(Datatype.FP32, (4,), "random")}
    assert (config.warmups[0].batch_size, config.warmups[0].count) == (2, 3)
    assert session_options(source)["graph_level"] == "extended"
    assert providers_of(source) == (Provider("CUDAExecutionProvider", {"device_id": "0"}, demanded=False),)
    assert thread_count(source, "intra_op_thread_count", 1) == 3
    warnings = " | ".join(config.warnings)
    for named in ("sequence_batching", "optimization.cuda", "allow_ragged_batch", "preferred_batch_size"):
        assert named in warnings
    for named in ("instance_group.count", "magic"):
        assert named in warnings
    assert "max_queue_delay" not in warnings
    message = pb.ModelConfig.FromString(config.message)
    assert (message.name, message.backend, message.default_model_filename) == ("m", "onnxruntime", "model.onnx")


def test_json_says_the_same_as_text() -> None:
    document = {
        "name": "m",
        "maxBatchSize": 8,
        "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": ["4"], "oddity": 1}],
        "dynamic_batching": {"max_queue_delay_microseconds": 100, "bogus": {"a": 1}},
        "parameters": {"enable_mem_arena": {"string_value": "0"}},
        "sequence_batching": {"step": []},
    }
    source = parse_json(json.dumps(document))
    config = completed(source)
    assert (config.max_batch_size, config.max_queue_delay_us) == (8, 100)
    assert source.sets("max_batch_size")
    assert session_options(source) == {"enable_mem_arena": "0"}
    assert "dynamic_batching.bogus, input.oddity, sequence_batching" in config.warnings[0]


@pytest.mark.parametrize(
    "text",
    [
        b"name: ",
        b"foo {",
        b"}",
        b"]",
        b"input [",
        b"input [ { name: 'x' }",
        b"max_batch_size: 99999999999",
        b"max_batch_size: many",
        b"input { data_type: TYPE_FP31 }",
        b"\xff\xfe",
        b'name: "open',
        b"a {" * 100_000,
        b"a: [" * 100_000,
        b"x" * (1 << 20) + b"y",
        b"name: 'a' name: 'b'",
    ],
)
def test_bad_text_is_refused_shortly(text: bytes) -> None:
    with pytest.raises(FailedPrecondition, match=r"^config\.pbtxt: ") as caught:
        parse_text(text)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "{",
        '{"max_batch_size": NaN}',
        '{"max_batch_size": 1e999}',
        '{"max_batch_size": 1, "max_batch_size": 2}',
        '{"input": {"name": "x"}}',
        '{"input": [3]}',
        '{"input": [{"data_type": "TYPE_FP31"}]}',
        '{"parameters": 3}',
        '{"name": 3}',
        '{"max_batch_size": ' + "9" * 5000 + "}",
        "[" * 100_000,
        '{"a":' * 100_000,
        " " * (1 << 20) + "{}",
        '{"name": "\\ud800"}',
    ],
)
def test_bad_json_is_refused_shortly(text: str) -> None:
    with pytest.raises(InvalidArgument, match=r"^config: ") as caught:
        parse_json(text)
    assert len(str(caught.value)) < 600


@given(st.text(alphabet="{}<>[]:,;'\"#\\\n -1aname input", max_size=40))
@example("")
@example("{" * 40)
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parse_text(text.encode())
    except FailedPrecondition:
        pass


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.sampled_from(("name", "input", "parameters", "dims", "x")), inner)
        ),
        max_leaves=8,
    )
)
def test_any_json_is_read_or_refused(document: object) -> None:
    try:
        parse_json(json.dumps(document))
    except InvalidArgument:
        pass


# ---- completing ----


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


def test_warm_up_data_come_from_files_below_the_model() -> None:
    config = completed(
        "max_batch_size: 2 model_warmup { name: 'w' inputs { key: 'x' value "
        "{ data_type: TYPE_FP32 dims: 4 input_data_file: 'x.raw' } } }"
    )
    assert config.warmups[0].inputs["x"].data == bytes(range(16))


@pytest.mark.parametrize("text", ["x", "-1", "2000", "1.5", "\u0661"])
def test_thread_counts_are_numbers(text: str) -> None:
    source = parse_text(f'parameters {{ key: "t" value {{ string_value: "{text}" }} }}'.encode())
    with pytest.raises(FailedPrecondition, match=r"parameters\.t"):
        thread_count(source, "t", 1)
    assert thread_count(EMPTY, "t", 5) == 5


@pytest.mark.parametrize(
    ("content", "labels"),
    [
        (b"cat\ndog\n", ("cat", "dog")),
        (b"\xef\xbb\xbfcat\r\ndog", ("cat", "dog")),
        ("a\u2028b\x0bc\x85\x0c\rd\ne".encode(), ("a\u2028b\x0bc\x85\x0c\rd", "e")),
        (b"\n\nthird\n", ("", "", "third")),
        (b"", ()),
    ],
)
def test_a_labels_file_has_one_label_a_line(content: bytes, labels: tuple[str, ...]) -> None:
    source = parse_text(b"\xef\xbb\xbfoutput { name: 'y' label_filename: 'l' }")
    config = complete(source, "m", inputs=[X], outputs=[Y], read_file=lambda name: content)
    assert config.outputs[0].labels == labels


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
