"""Parameters of requests and tensors: their caps, their types, and the few that the gateway acts on.

Source: Open Inference Protocol v2, InferParameter; Triton's extensions for sequences, scheduling policy,
classification and shared memory.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from gateway.api.naming import shown
from gateway.errors import InvalidArgument, Unimplemented
from gateway.pb import inference_pb2 as pb

Value = str | int | float | bool
MAX_PARAMETERS = 64
MAX_PARAMETER_BYTES = 4096
NONE: Mapping[str, Value] = {}

_RESERVED = frozenset({"headers", "binary_data_output"})
_RESERVED_PREFIX = "triton_"
_SHARED_MEMORY = ("shared_memory_region", "shared_memory_byte_size", "shared_memory_offset")
_INTEGERS = ("int64_param", "uint64_param")


class Expected(NamedTuple):
    """Says what a parameter with a meaning of its own may be."""

    kinds: tuple[str, ...]
    negative: bool = True


# Parameters that Triton's clients send with a meaning. Any other name is the application's own, for rules and keys.
KNOWN: Final[Mapping[str, Expected]] = {
    "sequence_id": Expected(("int64_param", "uint64_param", "string_param")),
    "sequence_start": Expected(("bool_param",)),
    "sequence_end": Expected(("bool_param",)),
    "priority": Expected(_INTEGERS, negative=False),
    "timeout": Expected(_INTEGERS, negative=False),
    "response_cache": Expected(("bool_param",)),
    # The one reserved name that a request may carry: perf_analyzer sends it with every call, streamed or not.
    "triton_enable_empty_final_response": Expected(("bool_param",)),
}


def read_request(request: pb.ModelInferRequest) -> Mapping[str, Value]:
    """Returns the request's parameters by name.

    Raises: InvalidArgument (too many, too large, unset, reserved, or a known one of the wrong type or sign).
    """
    fields = request.parameters
    if not len(fields):
        return NONE
    check_count(len(fields), "the request")
    values: dict[str, Value] = {}
    for name, field in fields.items():
        kind, value = _read(name, field, "the request")
        expected = KNOWN.get(name)
        if expected is not None:
            if kind not in expected.kinds:
                allowed = " or ".join(expected.kinds)
                raise InvalidArgument(f"invalid value type for parameter {name!r}: expected {allowed}, got {kind}")
            if not expected.negative and isinstance(value, int) and value < 0:
                raise InvalidArgument(f"parameter {name!r} is {value}: it cannot be negative")
        elif name in _RESERVED or name.startswith(_RESERVED_PREFIX):
            raise InvalidArgument(f"parameter {shown(name)} is reserved and cannot be set by a request")
        values[name] = value
    return values


def timeout_ns(parameters: Mapping[str, Value]) -> int:
    """Returns how long the caller lets the request wait for a run, 0 where it does not say.

    Units: the parameter is in microseconds.
    """
    timeout_us = parameters.get("timeout", 0)
    return timeout_us * 1000 if isinstance(timeout_us, int) else 0


def refuses_cache(parameters: Mapping[str, Value]) -> bool:
    """Returns whether the caller wants an answer of a run of its own."""
    return parameters.get("response_cache") is False


def check_tensor(name: str, fields: Mapping[str, pb.InferParameter], kind: str) -> None:
    """Checks that the parameters of one input or output are within the caps and ask for nothing that is not done.

    Raises: InvalidArgument, Unimplemented (shared memory).
    """
    where = f"{kind} {shown(name)}"
    check_count(len(fields), where)
    for key, field in fields.items():
        _read(key, field, where)
        if key in _SHARED_MEMORY:
            raise Unimplemented(
                f"parameter {key!r} of {where}: shared memory is not supported, send the data in the message"
            )


def class_count(name: str, fields: Mapping[str, pb.InferParameter]) -> int:
    """Returns how many top classes the caller wants of an output instead of its values; 0: the values.

    Raises: InvalidArgument.
    """
    field = fields.get("classification")
    if field is None:
        return 0
    kind = field.WhichOneof("parameter_choice")
    if kind not in _INTEGERS:
        raise InvalidArgument(
            f"invalid value type for parameter 'classification' of output {shown(name)}: "
            f"expected int64_param, got {kind}"
        )
    count = int(getattr(field, kind))
    if not 0 < count < 1 << 32:
        raise InvalidArgument(
            f"parameter 'classification' of output {shown(name)} is {count}: 1 to 2^32 - 1 is allowed"
        )
    return count


def check_count(count: int, where: str) -> None:
    """Raises: InvalidArgument for more parameters than are accepted."""
    if count > MAX_PARAMETERS:
        raise InvalidArgument(f"{where} has {count} parameters, the limit is {MAX_PARAMETERS}")


def _read(name: str, field: pb.InferParameter, where: str) -> tuple[str, Value]:
    kind = field.WhichOneof("parameter_choice")
    if kind is None:
        raise InvalidArgument(f"parameter {shown(name)} of {where} has no value")
    value: Value = getattr(field, kind)
    size = len(name.encode()) + (len(value.encode()) if isinstance(value, str) else 0)
    if size > MAX_PARAMETER_BYTES:
        raise InvalidArgument(
            f"parameter {shown(name)} of {where} takes {size} bytes, the limit is {MAX_PARAMETER_BYTES}"
        )
    return kind, value
