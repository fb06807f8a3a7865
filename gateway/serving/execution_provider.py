"""Which of ONNX Runtime's execution providers a model runs on, as its configuration says it to Triton.

1. `optimization { execution_accelerators }` names accelerators, those of the GPU before those of the CPU, each in the
   order written; the runtime gives each node to the first that can run it.
2. `instance_group { kind: KIND_GPU }` adds CUDA where it is installed; where it is not, the model runs on the CPU and a
   warning says so, as configurations written for Triton have that kind by habit.
3. The CPU comes last, always, and is all there is by default.

An accelerator that the installed ONNX Runtime does not have refuses the version, and names those that it has.
Source: Triton, ModelOptimizationPolicy.ExecutionAccelerators, and the options of its ONNX Runtime backend.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from gateway.errors import FailedPrecondition
from gateway.pb import inference_pb2
from gateway.serving.config_source import ConfigSource

CPU: Final = "CPUExecutionProvider"
# The session's option that holds the providers, as JSON.
PROVIDERS_OPTION: Final = "execution_providers"
_WHERE: Final = "optimization.execution_accelerators"
# Options that name files or code: the configuration of a model names none.
_FORBIDDEN: Final = ("path", "dir", "library", "config", "file", "context")


@dataclass(frozen=True, slots=True)
class Accelerator:
    """An accelerator by its name in configurations, the provider that it is, and how to get that."""

    name: str
    provider: str
    side: str  # of the configuration: gpu or cpu
    install: str


ACCELERATORS: Final = (
    Accelerator("tensorrt", "TensorrtExecutionProvider", "gpu", "pip install onnxruntime-gpu, and TensorRT"),
    Accelerator("cuda", "CUDAExecutionProvider", "gpu", "pip install onnxruntime-gpu"),
    Accelerator("directml", "DmlExecutionProvider", "gpu", "pip install onnxruntime-directml (Windows)"),
    Accelerator("coreml", "CoreMLExecutionProvider", "gpu", "ONNX Runtime for macOS"),
    Accelerator("openvino", "OpenVINOExecutionProvider", "cpu", "pip install onnxruntime-openvino"),
)
_BY_NAME: Final[Mapping[str, Accelerator]] = {each.name: each for each in ACCELERATORS}
_CUDA: Final = _BY_NAME["cuda"]
_NUMBERED: Final = frozenset({"CUDAExecutionProvider", "TensorrtExecutionProvider", "DmlExecutionProvider"})
# What Triton calls options of TensorRT, in ONNX Runtime.
_PRECISIONS: Final[Mapping[str, Mapping[str, str]]] = {
    "FP32": {},
    "FP16": {"trt_fp16_enable": "1"},
    "INT8": {"trt_int8_enable": "1"},
}


class Provider(NamedTuple):
    """A provider of the runtime with its options."""

    name: str
    options: Mapping[str, str]
    demanded: bool = True  # the version is refused where it is not installed


def providers_of(source: ConfigSource) -> tuple[Provider, ...]:
    """Returns the providers that the configuration asks for, without the CPU.

    Raises: FailedPrecondition naming the accelerator or option that is none.
    """
    accelerators = source.message.optimization.execution_accelerators
    groups = [
        group for group in source.message.instance_group if group.kind == inference_pb2.ModelInstanceGroup.KIND_GPU
    ]
    device = next((str(group.gpus[0]) for group in groups if group.gpus), "")
    providers = [
        _provider(entry, side, device)
        for side, entries in (
            ("gpu", accelerators.gpu_execution_accelerator),
            ("cpu", accelerators.cpu_execution_accelerator),
        )
        for entry in entries
    ]
    if groups and all(provider.name != _CUDA.provider for provider in providers):
        providers.append(Provider(_CUDA.provider, {"device_id": device} if device else {}, demanded=False))
    names = [provider.name for provider in providers]
    for name in names:
        if names.count(name) > 1:
            raise FailedPrecondition(f"{_WHERE}: {name} is named twice")
    return tuple(providers)


def to_option(providers: Sequence[Provider]) -> str:
    """Returns the providers as the option of a session."""
    return json.dumps([[*provider] for provider in providers], sort_keys=True)


def chosen(option: str, installed: Collection[str], runtime: str) -> list[tuple[str, dict[str, str]]]:
    """Returns the providers of a session in order, the CPU last.

    Raises: FailedPrecondition, where one that is demanded is not installed; it names those that are.
    """
    named: list[tuple[str, dict[str, str]]] = []
    for name, options, demanded in json.loads(option or "[]"):
        if name in installed:
            named.append((name, options))
        elif demanded:
            entry = next(each for each in ACCELERATORS if each.provider == name)
            raise FailedPrecondition(
                f"{_WHERE}: {entry.name!r} needs {name}, which the installed ONNX Runtime {runtime} does not have "
                f"(it has {', '.join(sorted(installed))}): {entry.install}"
            )
    return [*named, (CPU, {})]


def on_cpu_alone(option: str, installed: Collection[str]) -> bool:
    """Returns whether none of the providers is installed but the CPU's."""
    return not any(name in installed for name, _, _ in json.loads(option or "[]"))


def _provider(
    entry: inference_pb2.ModelOptimizationPolicy.ExecutionAccelerators.Accelerator, side: str, device: str
) -> Provider:
    name = entry.name.lower()
    accelerator = _BY_NAME.get(name)
    if accelerator is None or accelerator.side != side:
        known = ", ".join(each.name for each in ACCELERATORS if each.side == side)
        raise FailedPrecondition(
            f"{_WHERE}.{side}_execution_accelerator: {entry.name[:80]!a} is refused; allowed: {known}"
        )
    options: dict[str, str] = {"device_id": device} if device and accelerator.provider in _NUMBERED else {}
    for key, value in sorted(entry.parameters.items()):
        where = f"{_WHERE}: {name} parameter {key[:80]!a}"
        if any(part in key for part in _FORBIDDEN):
            raise FailedPrecondition(f"{where} names a file: a model's configuration may not")
        if key == "precision_mode":
            precision = _PRECISIONS.get(value.upper())
            if precision is None:
                raise FailedPrecondition(f"{where}: {value[:40]!a} is refused; allowed: {', '.join(_PRECISIONS)}")
            options.update(precision)
        elif key == "max_workspace_size_bytes":
            options["trt_max_workspace_size"] = value
        else:
            options[key] = value
    return Provider(accelerator.provider, options)
