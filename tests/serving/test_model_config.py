"""Configurations: what is read, what is named in warnings, what is completed from the model, what does not fit it."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.errors import FailedPrecondition, InvalidArgument
from gateway.pb import inference_pb2 as pb
from gateway.serving.config_source import ACTED_ON, EMPTY, ConfigSource, parse_json, parse_text, without_effect
from gateway.serving.contract import complete, session_options, thread_count
from gateway.serving.execution_provider import Provider, providers_of
from gateway.serving.model_config import VersionPolicy, WarmupInput
from gateway.tensor import Datatype
from tests.serving.model_configs import X, Y, completed, spec

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
