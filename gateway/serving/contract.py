"""The contract of a version: its configuration, checked against the model and completed from it."""

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from types import MappingProxyType

from gateway.errors import FailedPrecondition
from gateway.pb import inference_pb2
from gateway.records.worker.feature_names import FEATURE_NAMES_PARAMETER, name_features
from gateway.serving.config_source import ConfigSource
from gateway.serving.configured_tensor import NUMBERS, TYPES, Tensor, compatible, reshapes
from gateway.serving.configured_warmups import ReadFile, checked, warmups
from gateway.serving.execution_provider import CPU, PROVIDERS_OPTION, providers_of, to_option
from gateway.serving.model_config import DEFAULT_MAX_BATCH_SIZE, ModelConfig, VersionPolicy
from gateway.serving.model_kind import ModelKind, kind_of
from gateway.serving.request_merging import MERGE_PARAMETER, WITHOUT_SESSION, Merging, merging
from gateway.tensor import TensorSpec

MODEL_FILENAME = "model.onnx"
# Parameters that are read here; `session.` entries are judged by the session itself.
_PARAMETERS = frozenset(
    {
        "intra_op_thread_count",
        "inter_op_thread_count",
        "execution_mode",
        "enable_mem_arena",
        "enable_mem_pattern",
        "session.use_device_allocator_for_initializers",
        "session.disable_prepacking",
        "session.set_denormal_as_zero",
        MERGE_PARAMETER,
    }
)
# Begins the parameters that tell clients what a tensor carries, where that is no tensor of its datatype.
ONNX_TYPE_PARAMETER = "onnx_type."
# Tells the execution providers of the session, where the CPU's is not the only one.
RAN_ON_PARAMETER = "execution_providers"
_GRAPH_LEVELS = {-1: "basic", 1: "extended", 2: "off"}
_MAX_THREADS = 1024


def session_options(source: ConfigSource) -> dict[str, str]:
    """Returns the session's options from the configuration: Triton's parameters, the graph optimisation level and the
    execution providers.

    Raises: FailedPrecondition, as `gateway.serving.execution_provider.providers_of`.
    """
    options = {name: value.string_value for name, value in source.message.parameters.items() if name in _PARAMETERS}
    if source.sets("optimization.graph.level"):
        options["graph_level"] = _GRAPH_LEVELS.get(source.message.optimization.graph.level, "all")
    providers = providers_of(source)
    if providers:
        options[PROVIDERS_OPTION] = to_option(providers)
    return options


def thread_count(source: ConfigSource, parameter: str, default: int) -> int:
    """Returns the number of threads that a parameter asks for; `default` if it is absent or 0.

    Raises: FailedPrecondition, if it is not such a number.
    """
    if parameter not in source.message.parameters:
        return default
    text = source.message.parameters[parameter].string_value.strip()
    if not (text.isascii() and text.isdigit() and len(text) <= 4 and int(text) <= _MAX_THREADS):
        raise FailedPrecondition(f"parameters.{parameter}: {text[:40]!r} must be a number from 0 to {_MAX_THREADS}")
    return int(text) or default


def version_policy(source: ConfigSource) -> VersionPolicy:
    """Returns which versions to load: all of them if the configuration does not say (Triton: the latest)."""
    policy = source.message.version_policy
    choice = policy.WhichOneof("policy_choice")
    if choice == "latest":
        return VersionPolicy(latest=policy.latest.num_versions or 1)
    if choice == "specific":
        return VersionPolicy(specific=frozenset(str(version) for version in policy.specific.versions))
    return VersionPolicy()


def check_identity(source: ConfigSource, model: str) -> None:
    """Checks that the configuration is for this model, and of a kind that is served. Raises: FailedPrecondition."""
    message = source.message
    if message.name and message.name != model:
        raise FailedPrecondition(f"name: {message.name[:128]!a} is not {model!r}, the name of the model's directory")
    kind_of(source)


def complete(
    source: ConfigSource,
    model: str,
    *,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    overridable: Sequence[TensorSpec] = (),
    read_file: ReadFile,
    offers_overridable: bool = True,
    may_batch: bool = True,
    row_dependence: str = "",
    rows_independent: bool | None = None,
    chance: str = "",
    providers: Sequence[str] = (CPU,),
) -> ModelConfig:
    """Returns the configuration of a version whose model has these tensors.

    If the configuration says nothing about batches, a model whose tensors all have a variable first dimension is
    batched, unless `may_batch` is False. Inputs with a default in the model (`overridable`) are offered without being
    configured where `offers_overridable`; `row_dependence`, `rows_independent` and `chance` are those of
    `gateway.serving.request_merging.merging`. `read_file` reads a file below the model's directory (labels, warm-up).
    `providers` are those of the session.

    Raises: FailedPrecondition naming the tensor, what is configured and what the model has.
    """
    check_identity(source, model)
    kind = kind_of(source)
    message = inference_pb2.ModelConfig()
    message.CopyFrom(source.message)
    if tuple(providers) != (CPU,):
        message.parameters[RAN_ON_PARAMETER].string_value = ",".join(providers)
    if not message.input:
        _list(message.input, (*inputs, *(overridable if offers_overridable else ())))
    if not message.output:
        _list(message.output, outputs)
    own_inputs = _listed(message.input, inputs, overridable, "input")
    own_outputs = _listed(message.output, outputs, (), "output")
    tensors: list[tuple[Tensor, TensorSpec]] = [
        *zip(message.input, own_inputs, strict=True),
        *zip(message.output, own_outputs, strict=True),
    ]
    rows = _max_batch_size(source, tensors, may_batch)
    offered = [_fit(tensor, spec, batches=rows > 0) for tensor, spec in tensors]
    split = len(own_inputs)
    labelled = [
        _with_labels(spec, tensor.label_filename, read_file)
        for spec, tensor in zip(offered[split:], message.output, strict=True)
    ]
    decision = WITHOUT_SESSION.get(kind) or merging(source, rows, row_dependence, rows_independent, chance)
    _fill_in(message, kind, model, rows, merges=decision.allowed)
    values = _values(message, source, kind, tuple(offered[:split]), tuple(labelled), read_file, decision)
    caches = message.response_cache.enable and not chance
    told = values.warnings
    if message.response_cache.enable and chance:
        told += (f"response_cache: no answer is kept, as the version answers by chance: {chance}",)
    return replace(values, chance=chance, caches=caches, warnings=told)


def _list(tensors: "Sequence[Tensor]", own: Sequence[TensorSpec]) -> None:
    """Adds all of the model's tensors to a configuration that names none."""
    for spec in own:
        tensor = tensors.add(name=spec.name)  # type: ignore[attr-defined]  # a repeated field
        if spec.optional:
            tensor.optional = True


def _listed(
    tensors: "Sequence[Tensor]", own: Sequence[TensorSpec], overridable: Sequence[TensorSpec], side: str
) -> list[TensorSpec]:
    """Returns the model's tensor for each configured one.

    An output that the configuration leaves out is not offered; an input may be left out only if the model has a
    default for it.
    """
    known = {spec.name: spec for spec in (*own, *overridable)}
    names = [tensor.name for tensor in tensors]
    for index, name in enumerate(names):
        if name not in known:
            raise FailedPrecondition(f"{side} {name[:128]!r} is not in the model, which has {sorted(known)}")
        if name in names[:index]:
            raise FailedPrecondition(f"{side} {name[:128]!r} is configured twice")
    if side == "input":
        missing = sorted({spec.name for spec in own} - set(names))
        if missing:
            raise FailedPrecondition(f"the model needs the inputs {missing}, which the configuration does not list")
    return [known[name] for name in names]


def _max_batch_size(source: ConfigSource, tensors: Sequence[tuple[Tensor, TensorSpec]], may_batch: bool) -> int:
    if source.sets("max_batch_size"):
        rows = source.message.max_batch_size
        if rows < 0:
            raise FailedPrecondition(f"max_batch_size: {rows} must not be negative")
        return rows
    if not may_batch or not all(spec.shape and spec.shape[0] == -1 for _, spec in tensors):
        return 0
    # Dims of the model's full rank include the first dimension: the author does not treat it as the batch.
    full = any(
        _dims_written(tensor) is not None and len(_dims_written(tensor) or ()) == len(spec.shape)
        for tensor, spec in tensors
    )
    return 0 if full else DEFAULT_MAX_BATCH_SIZE


def _dims_written(tensor: Tensor) -> tuple[int, ...] | None:
    """Returns the model's shape as the author wrote it, or None."""
    if tensor.HasField("reshape"):
        return tuple(tensor.reshape.shape)
    return tuple(tensor.dims) if tensor.dims else None


def _fit(tensor: Tensor, spec: TensorSpec, *, batches: bool) -> TensorSpec:
    """Returns the tensor as it is offered; fills in what the author left out of `tensor`."""
    where = f"{'input' if isinstance(tensor, inference_pb2.ModelInput) else 'output'} {spec.name!r}"
    written = _dims_written(tensor)
    if spec.any_shape and written is not None:  # what the model leaves open as a whole, the configuration says
        spec = replace(spec, shape=(-1, *written) if batches else written, any_shape=False)
    if batches and spec.any_shape:
        raise FailedPrecondition(f"{where} has no shape in the model; max_batch_size > 0 needs its dims")
    if batches and spec.shape[:1] != (-1,):
        raise FailedPrecondition(
            f"{where} has shape {list(spec.shape)} in the model; max_batch_size > 0 needs a variable first dimension"
        )
    own = spec.shape[1:] if batches else spec.shape
    configured = TYPES.get(tensor.data_type)
    if configured is not None and configured is not spec.datatype:
        raise FailedPrecondition(
            f"{where} is configured as {configured.wire_name}, the model has {spec.datatype.wire_name}"
        )
    tensor.data_type = NUMBERS[spec.datatype]
    if written is None:
        tensor.dims.extend(spec.told_shape if spec.any_shape else own)
    elif not compatible(written, own):
        raise FailedPrecondition(
            f"{where} is configured with dims {list(written)}, the model has {list(own)}"
            f"{' after the batch dimension' if batches else ''}"
        )
    dims = () if spec.any_shape else tuple(tensor.dims)
    if any(size < -1 or (size == 0 and 0 not in own) for size in dims):
        raise FailedPrecondition(f"{where}: dims {list(dims)} must be -1 or positive")
    if tensor.HasField("reshape"):
        _check_reshape(where, dims, tuple(tensor.reshape.shape))
    optional = isinstance(tensor, inference_pb2.ModelInput) and (tensor.optional or spec.optional)
    if optional and not spec.optional:
        raise FailedPrecondition(f"{where} is configured as optional, but the model has no default for it")
    return replace(spec, shape=(-1, *dims) if batches else dims, optional=optional)


def _check_reshape(where: str, dims: Sequence[int], target: Sequence[int]) -> None:
    variable = dims.count(-1), target.count(-1)
    if variable not in ((0, 0), (1, 1)):
        raise FailedPrecondition(
            f"{where}: reshape from {list(dims)} to {list(target)}: both may have one variable dimension, or none"
        )
    if prod(abs(size) for size in dims) != prod(abs(size) for size in target):
        raise FailedPrecondition(f"{where}: reshape from {list(dims)} to {list(target)} changes the number of elements")


def _with_labels(spec: TensorSpec, filename: str, read_file: ReadFile) -> TensorSpec:
    if not filename:
        return spec
    try:
        text = read_file(filename).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FailedPrecondition(f"output {spec.name!r}: label_filename {filename[:80]!r} is not UTF-8") from error
    # One label a line. Other separators of Unicode are part of a label: splitlines would shift all that follow.
    lines = text.replace("\r\n", "\n").removesuffix("\n").split("\n") if text else []
    return replace(spec, labels=tuple(lines))


def _fill_in(message: inference_pb2.ModelConfig, kind: ModelKind, model: str, rows: int, *, merges: bool) -> None:
    message.name, message.platform, message.backend = model, kind.platform, kind.backend
    message.max_batch_size = rows
    if kind.has_file:
        message.default_model_filename = message.default_model_filename or MODEL_FILENAME
    if merges and not message.HasField("dynamic_batching"):
        message.dynamic_batching.SetInParent()
    if message.version_policy.WhichOneof("policy_choice") is None:
        message.version_policy.all.SetInParent()
    if kind.has_file and not message.instance_group:
        message.instance_group.add(name=model, count=1, kind=inference_pb2.ModelInstanceGroup.KIND_CPU)


def _values(
    message: inference_pb2.ModelConfig,
    source: ConfigSource,
    kind: ModelKind,
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
    read_file: ReadFile,
    decision: Merging,
) -> ModelConfig:
    parameters = {name: value.string_value for name, value in message.parameters.items()}
    known = _PARAMETERS | {FEATURE_NAMES_PARAMETER, RAN_ON_PARAMETER}
    unknown = sorted(parameters.keys() - known) if kind.has_file else []  # others judge their own
    warnings = [*source.warnings]
    if unknown:
        warnings.append(f"parameters without effect here: {', '.join(name[:80] for name in unknown)}")
    if FEATURE_NAMES_PARAMETER in parameters and message.max_batch_size:
        inputs, unnamed = name_features(inputs, parameters[FEATURE_NAMES_PARAMETER])
        warnings += [unnamed] if unnamed else []
    for spec in (*inputs, *outputs):
        if spec.onnx_type:
            message.parameters[f"{ONNX_TYPE_PARAMETER}{spec.name}"].string_value = spec.onnx_type
    queue = message.dynamic_batching.default_queue_policy
    return ModelConfig(
        name=message.name,
        kind=kind,
        max_batch_size=message.max_batch_size,
        inputs=inputs,
        outputs=outputs,
        max_request_rows=message.max_batch_size if source.sets("max_batch_size") else 0,
        merges=decision.allowed,
        merging=str(decision),
        version_policy=version_policy(source),
        max_queue_delay_us=message.dynamic_batching.max_queue_delay_microseconds,
        max_queue_size=queue.max_queue_size,
        default_timeout_us=queue.default_timeout_microseconds,
        allow_timeout_override=queue.allow_timeout_override,
        delays_expired=queue.timeout_action == inference_pb2.ModelQueuePolicy.DELAY,
        warmups=tuple(checked(warmup, inputs) for warmup in warmups(source, read_file)),
        instance_count=max((group.count for group in message.instance_group), default=1) or 1,
        parameters=MappingProxyType(parameters),
        input_reshapes=reshapes(message.input),
        output_reshapes={tensor.name: tuple(tensor.dims) for tensor in message.output if tensor.HasField("reshape")},
        warnings=tuple(warnings),
        message=message.SerializeToString(deterministic=True),
    )
