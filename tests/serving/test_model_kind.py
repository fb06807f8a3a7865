"""Models without a file: known by their configuration, served by what their kind is given."""

from pathlib import Path

import numpy as np
import pytest

from gateway.errors import FailedPrecondition, VersionNotReady
from gateway.runtime.build import is_compiled
from gateway.serving.call import Call
from gateway.serving.config_source import ConfigSource, parse_text
from gateway.serving.model_config import ModelConfig
from gateway.serving.model_kind import ModelKind, kind_of
from gateway.serving.version import VersionState
from gateway.serving.version_queue import VersionQueue
from gateway.tensor import Datatype, TensorSpec
from tests.serving.catalogs import opened
from tests.serving.stage import given, staged

CONFIG = """
backend: "features"
max_batch_size: 8
input { name: "key" data_type: TYPE_STRING dims: 1 }
output { name: "row" data_type: TYPE_FP32 dims: 3 label_filename: "labels.txt" }
"""


@pytest.mark.parametrize("kind", ModelKind)
def test_a_kind_is_known_by_platform_or_backend(kind: ModelKind) -> None:
    for platform, backend in {(kind.platform, kind.backend), (kind.platform, ""), ("", kind.backend)} - {("", "")}:
        assert kind_of(parse_text(f'platform: "{platform}" backend: "{backend}"'.encode())) is kind
    assert kind.shown


def test_a_configuration_that_says_nothing_is_of_a_model_of_onnx() -> None:
    assert kind_of(parse_text(b"")) is ModelKind.ONNX


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('platform: "tensorrt_plan"', "platform: 'tensorrt_plan' is not served here, only 'onnxruntime_onnx', 'ens"),
        ('backend: "python"', "backend: 'python' is not served here, only 'onnxruntime', 'features'"),
        ('platform: "ensemble" backend: "onnxruntime"', "do not go together"),
    ],
)
def test_what_no_kind_has_is_refused(text: str, said: str) -> None:
    with pytest.raises(FailedPrecondition, match=said):
        kind_of(parse_text(text.encode()))


def written(root: Path, text: str = CONFIG, *, version: str = "1") -> None:
    directory = root / "features_of_user"
    (directory / version).mkdir(parents=True, exist_ok=True)
    (directory / "config.pbtxt").write_text(text)
    (directory / "labels.txt").write_text("a\nb\nc\n")


async def as_declared(model: str, source: ConfigSource, config: ModelConfig) -> ModelConfig:
    return config


async def test_an_empty_directory_is_a_version_of_a_model_without_a_file(tmp_path: Path) -> None:
    async with opened(tmp_path) as live:
        live.catalog.describe_by(ModelKind.FEATURES, as_declared)
        written(live.root)
        (live.root / "features_of_user" / "notes").mkdir()
        await live.catalog.poll()
        version = live.catalog.version("features_of_user", "1")
        assert version.session is None
        assert version.inputs == (TensorSpec("key", Datatype.BYTES, (-1, 1)),)
        assert version.outputs == (TensorSpec("row", Datatype.FP32, (-1, 3), labels=("a", "b", "c")),)
        assert (version.max_batch_size, version.merges, version.config.kind) == (8, False, ModelKind.FEATURES)
        assert live.catalog.passed_over() == {
            "features_of_user/notes": "no version: versions without a model file are numbers"
        }

        # A route may name it, and its configuration may change all the same: that is all of its content.
        await live.catalog.require("features_of_user", ["1"])
        before = version.digest
        written(live.root, CONFIG.replace("max_batch_size: 8", "max_batch_size: 4"))
        await live.catalog.poll()
        changed = live.catalog.version("features_of_user", "1")
        assert (changed.max_batch_size, version.state) == (4, VersionState.END)
        assert changed.digest != before


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('backend: "features" output { name: "y" data_type: TYPE_FP32 dims: 1 }', "input: a version of 'features' has"),
        (CONFIG.replace("data_type: TYPE_STRING", ""), "input 'key': data_type is missing"),
        (CONFIG.replace("dims: 3", "dims: 3 reshape { shape: [ 3, 1 ] }"), "output 'row': reshape has no effect"),
        (CONFIG.replace("dims: 3", "dims: -2"), "output 'row': dims .* must be -1 or positive"),
        (CONFIG.replace("max_batch_size: 8", "max_batch_size: -1"), "max_batch_size: -1 must not be negative"),
        (CONFIG.replace("labels.txt", "absent.txt"), "absent.txt"),
    ],
)
async def test_a_declaration_with_a_fault_fails_with_the_reason(tmp_path: Path, text: str, said: str) -> None:
    async with opened(tmp_path) as live:
        live.catalog.describe_by(ModelKind.FEATURES, as_declared)
        written(live.root, text)
        await live.catalog.poll()
        assert live.states() == {"features_of_user/1": VersionState.FAILED}
        with pytest.raises(VersionNotReady, match=said):
            live.catalog.version("features_of_user", "1")


async def test_a_kind_that_nobody_serves_fails_with_the_reason(tmp_path: Path) -> None:
    async with opened(tmp_path) as live:
        written(live.root)
        await live.catalog.poll()
        assert live.reason("features_of_user", "1") == "a model of 'features' cannot be served here"


class Echo(VersionQueue):
    """Answers every call with its inputs."""

    ended = 0

    @property
    def queued(self) -> int:
        return 0

    def wait_ns(self, level: int, now_ns: int) -> int:
        return 0

    def put(self, call: Call) -> None:
        call.answer([np.frombuffer(tensor, np.float32) for tensor in call.inputs if isinstance(tensor, bytes)])

    def forget(self, call: Call) -> None:
        pass

    def end(self) -> None:
        Echo.ended += 1


@pytest.mark.skipif(is_compiled(), reason="a compiled class takes no child that is not; tests/features show its own")
async def test_the_calls_of_a_kind_wait_in_its_own_queue(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        stage.catalog.describe_by(ModelKind.FEATURES, as_declared)
        stage.engine.queue_by(ModelKind.FEATURES, lambda version: Echo())
        text = CONFIG.replace("TYPE_STRING dims: 1", "TYPE_FP32 dims: 3").replace("max_batch_size: 8", "")
        written(tmp_path / "models", text)
        await stage.catalog.poll()
        row = np.array([1, 2, 3], np.float32)
        call = await stage.infer("features_of_user", row)
        assert call.error is None
        assert given(call)[0].tolist() == [1, 2, 3]
        (logged,) = await stage.rows()
        assert logged.model == "features_of_user"
        assert stage.idle()
        await stage.catalog.unload("features_of_user")
        assert Echo.ended == 1
