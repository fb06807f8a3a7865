"""Which execution providers a configuration asks for, and what is said where they are not there."""

from pathlib import Path

import pytest

from gateway.errors import FailedPrecondition
from gateway.serving.config_source import parse_text
from gateway.serving.contract import session_options
from gateway.serving.execution_provider import (
    ACCELERATORS,
    CPU,
    PROVIDERS_OPTION,
    Provider,
    chosen,
    on_cpu_alone,
    providers_of,
    to_option,
)
from gateway.serving.session import Session, ort_version, runs_on_cpu
from tests import models
from tests.serving.catalogs import opened

EVERY = [each.provider for each in ACCELERATORS] + [CPU]
TENSORRT = """optimization { execution_accelerators { gpu_execution_accelerator: [ {
  name: "tensorrt" parameters { key: "precision_mode" value: "FP16" }
  parameters { key: "max_workspace_size_bytes" value: "1024" } } ] } }
instance_group [ { kind: KIND_GPU gpus: [ 1 ] } ]"""

TENSORRT_HABIT = "instance_group [ { kind: KIND_GPU } ]"


def accelerated(side: str, entry: str) -> str:
    return f"optimization {{ execution_accelerators {{ {side}_execution_accelerator: [ {{ {entry} }} ] }} }}"


def test_the_cpu_is_the_default() -> None:
    assert providers_of(parse_text(b"max_batch_size: 8")) == ()
    assert PROVIDERS_OPTION not in session_options(parse_text(b"max_batch_size: 8"))
    assert chosen("", EVERY, "1") == [(CPU, {})]
    assert Session(models.affine(), intra_threads=1).providers == (CPU,)


def test_tensorrt_comes_before_cuda_and_the_cpu_last() -> None:
    option = session_options(parse_text(TENSORRT.encode()))[PROVIDERS_OPTION]
    assert chosen(option, EVERY, "1") == [
        (
            "TensorrtExecutionProvider",
            {"device_id": "1", "trt_fp16_enable": "1", "trt_max_workspace_size": "1024"},
        ),
        ("CUDAExecutionProvider", {"device_id": "1"}),
        (CPU, {}),
    ]


@pytest.mark.parametrize("accelerator", ACCELERATORS, ids=lambda each: each.name)
def test_each_accelerator_is_its_provider_or_refused_by_name(accelerator: object) -> None:
    entry = next(each for each in ACCELERATORS if each is accelerator)
    source = parse_text(accelerated(entry.side, f'name: "{entry.name}"').encode())
    assert source.warnings == ()
    option = to_option(providers_of(source))
    assert chosen(option, EVERY, "1") == [(entry.provider, {}), (CPU, {})]
    with pytest.raises(FailedPrecondition) as caught:
        chosen(option, ["AzureExecutionProvider", CPU], "1.32.0")
    said = str(caught.value)
    assert f"'{entry.name}' needs {entry.provider}" in said
    assert f"1.32.0 does not have (it has AzureExecutionProvider, {CPU}): {entry.install}" in said


def test_a_gpu_by_habit_is_the_cpu_where_there_is_no_cuda() -> None:
    source = parse_text(b"instance_group [ { kind: KIND_GPU } ]")
    assert providers_of(source) == (Provider("CUDAExecutionProvider", {}, demanded=False),)
    assert chosen(to_option(providers_of(source)), [CPU], "1") == [(CPU, {})]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (
            accelerated("gpu", 'name: "turbo"'),
            r"gpu_execution_accelerator: 'turbo' is refused; allowed: tens",
        ),
        (
            accelerated("cpu", 'name: "tensorrt"'),
            r"cpu_execution_accelerator: 'tensorrt' is refused; allowed: open",
        ),
        (
            accelerated("gpu", 'name: "tensorrt" parameters { key: "precision_mode" value: "FP3" }'),
            "'FP3' is refused; allowed: FP32, FP16, INT8",
        ),
        (
            accelerated("gpu", 'name: "tensorrt" parameters { key: "trt_engine_cache_path" value: "/etc" }'),
            "names a file: a model's configuration may not",
        ),
        (accelerated("gpu", 'name: "cuda" }, { name: "CUDA"'), "CUDAExecutionProvider is named twice"),
    ],
)
def test_what_is_no_accelerator_is_named(text: str, why: str) -> None:
    with pytest.raises(FailedPrecondition, match=why):
        providers_of(parse_text(text.encode()))


def test_a_session_says_what_is_installed() -> None:
    options = session_options(parse_text(TENSORRT.encode()))
    with pytest.raises(FailedPrecondition, match=f"ONNX Runtime {ort_version()} does not have .*{CPU}"):
        Session(models.affine(), intra_threads=1, options=options)
    assert runs_on_cpu(options)
    assert runs_on_cpu({})
    assert not on_cpu_alone(options[PROVIDERS_OPTION], EVERY)


def test_the_chapter_names_each_accelerator() -> None:
    chapter = Path("docs/models.md").read_text()
    for each in ACCELERATORS:
        assert f"| `{each.name}` | {each.side} | {each.provider} | {each.install} |" in chapter


async def test_each_model_has_its_own_and_what_is_absent_is_said_when_the_gateway_starts(tmp_path: Path) -> None:
    """One that asks for what is not there is FAILED, by the name in its configuration, and the others serve."""
    configurations = {
        "plain": None,
        "habit": TENSORRT_HABIT,
        "unknown": accelerated("cpu", 'name: "turbo"'),
        **{each.name: accelerated(each.side, f'name: "{each.name}"') for each in ACCELERATORS},
    }
    for model, config in configurations.items():
        models.write_version(tmp_path / "models", model, "1", models.affine(), config=config)
    async with opened(tmp_path) as live:
        await live.catalog.poll()
        serve = {name for name, state in live.states().items() if state.value == "AVAILABLE"}
        assert serve == {"plain/1", "habit/1"}
        assert {state.value for name, state in live.states().items() if name not in serve} == {"FAILED"}
        for each in ACCELERATORS:
            reason = live.reason(each.name, "1")
            assert f"{each.name!r} needs {each.provider}, which the installed ONNX Runtime {ort_version()}" in reason
            assert f"{CPU}): {each.install}" in reason
        assert "cpu_execution_accelerator: 'turbo' is refused; allowed: openvino" in live.reason("unknown", "1")
        (warning,) = live.catalog.version("habit", "1").config.warnings
        assert "KIND_GPU runs on the CPU here: CUDAExecutionProvider is not installed" in warning
