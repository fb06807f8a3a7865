"""The warm-up requests of a configuration: read with the data that they name, and checked against the model."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod

from gateway.errors import FailedPrecondition
from gateway.pb import inference_pb2
from gateway.serving.config_source import ConfigSource
from gateway.serving.configured_tensor import TYPES, compatible, reshapes
from gateway.serving.model_config import Warmup, WarmupInput
from gateway.tensor import Datatype, TensorSpec

MAX_WARMUP_COUNT = 1000
MAX_WARMUP_ELEMENTS = 1 << 26
ReadFile = Callable[[str], bytes]


def warmups(source: ConfigSource, read_file: ReadFile) -> tuple[Warmup, ...]:
    """Returns the warm-up requests of the configuration, with the data that they name.

    Raises: FailedPrecondition naming the request, the input and what is wrong.
    """
    return tuple(_warmup(warmup, source, read_file) for warmup in source.message.model_warmup)


def in_model_shapes(requests: Sequence[Warmup], source: ConfigSource) -> tuple[Warmup, ...]:
    """Returns the warm-up requests in the model's own shapes, where the configuration offers an input in another."""
    targets = reshapes(source.message.input)

    def reshaped(name: str, value: WarmupInput) -> WarmupInput:
        if name not in targets:
            return value
        fixed = prod(size for size in targets[name] if size > 0)
        open_size = prod(value.dims) // max(fixed, 1)
        return replace(value, dims=tuple(open_size if size < 0 else size for size in targets[name]))

    return tuple(
        replace(request, inputs={name: reshaped(name, value) for name, value in request.inputs.items()})
        for request in requests
    )


def _warmup(warmup: inference_pb2.ModelWarmup, source: ConfigSource, read_file: ReadFile) -> Warmup:
    where = f"model_warmup {warmup.name[:80]!a}"
    limit = source.message.max_batch_size
    if source.sets("max_batch_size") and warmup.batch_size > limit:
        raise FailedPrecondition(f"{where}: batch_size {warmup.batch_size} exceeds max_batch_size {limit}")
    # Triton reads batch_size 0 of a batching model as a request of one row.
    rows = warmup.batch_size or (1 if source.message.max_batch_size > 0 else 0)
    values = {
        name: _warmup_input(f"{where} input {name[:80]!a}", value, rows, read_file)
        for name, value in warmup.inputs.items()
    }
    return Warmup(warmup.name, rows, values, count=min(warmup.count or 1, MAX_WARMUP_COUNT))


def _warmup_input(where: str, value: inference_pb2.ModelWarmup.Input, rows: int, read_file: ReadFile) -> WarmupInput:
    datatype = TYPES.get(value.data_type)
    if datatype is None:
        raise FailedPrecondition(f"{where}: data_type is missing")
    dims = tuple(value.dims)
    elements = prod((max(rows, 1), *dims))
    if any(size < 0 for size in dims) or elements > MAX_WARMUP_ELEMENTS:
        raise FailedPrecondition(
            f"{where}: dims {list(dims)} must not be variable, and have at most {MAX_WARMUP_ELEMENTS} elements"
        )
    choice = value.WhichOneof("input_data_type")
    if choice != "input_data_file":
        return WarmupInput(datatype, dims, "random" if choice == "random_data" else "zero")
    data = read_file(f"warmup/{value.input_data_file}")
    if datatype is Datatype.BYTES:
        return WarmupInput(datatype, dims, "file", data)
    needed = elements * datatype.size
    if len(data) < needed:
        raise FailedPrecondition(f"{where}: input_data_file has {len(data)} bytes, {needed} are needed")
    return WarmupInput(datatype, dims, "file", data[:needed])


def checked(warmup: Warmup, inputs: Sequence[TensorSpec]) -> Warmup:
    """Returns the warm-up request, checked to fit the inputs."""
    where = f"model_warmup {warmup.name[:80]!a}"
    known = {spec.name: spec for spec in inputs}
    missing = sorted({spec.name for spec in inputs if not spec.optional} - warmup.inputs.keys())
    unknown = sorted(warmup.inputs.keys() - known.keys())
    if missing or unknown:
        raise FailedPrecondition(f"{where}: inputs missing {missing}, not in the model {unknown}")
    for name, value in warmup.inputs.items():
        spec = known[name]
        offered = spec.shape[1:] if warmup.batch_size else spec.shape
        fits = spec.any_shape or compatible(value.dims, offered)
        if value.datatype is not spec.datatype or not fits:
            raise FailedPrecondition(
                f"{where}: input {name[:80]!a} is {value.datatype.wire_name} {list(value.dims)}, "
                f"the model has {spec.datatype.wire_name} {list(offered)}"
            )
    return warmup
