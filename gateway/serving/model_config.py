"""The values of a model's configuration: how the gateway serves one model.

`gateway.serving.config_source` reads what the author wrote, `gateway.serving.contract` completes it from the model.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from gateway.errors import InvalidArgument
from gateway.serving.model_kind import ModelKind
from gateway.tensor import Datatype, TensorSpec

# Rows that may run together where the configuration does not say. Triton's default is 4; a run of 256 rows of a small
# model costs about as much as the fixed part of a few runs, and a batch never waits to fill up.
DEFAULT_MAX_BATCH_SIZE = 256

_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z", re.ASCII)
_VERSION_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z", re.ASCII)
# Digits alone, and exponents: another spelling of a number would be mistaken for it.
_NUMBER_LIKE = re.compile(r"[0-9]+([eE][0-9]+)?\Z", re.ASCII)
_NUMERIC = re.compile(r"[1-9][0-9]{0,17}\Z", re.ASCII)


def check_model_name(name: str) -> None:
    """Checks that a model can have this name. Raises: InvalidArgument, if not."""
    if not _MODEL_NAME.match(name):
        raise InvalidArgument(
            f"model name {name[:80]!a} must begin with a letter or digit, hold only letters, digits and '._-', "
            "and have at most 128 characters"
        )


def check_version_name(name: str) -> None:
    """Checks that a version can have this name. Raises: InvalidArgument, if not."""
    if not is_version_name(name):
        raise InvalidArgument(
            f"version {name[:80]!a} must be a number without leading zeros, or a label that begins with a letter "
            "or digit, holds only letters, digits and '._-', and has at most 64 characters"
        )


def is_version_name(name: str) -> bool:
    """Returns whether a version can have this name: a number without leading zeros, or a label that is no number."""
    if _NUMERIC.match(name):
        return True
    return bool(_VERSION_NAME.match(name)) and not _NUMBER_LIKE.match(name)


def version_order(name: str) -> tuple[int, int, str]:
    """Returns the sort key of a version name; the order is oldest first: labels by name, then numbers by value.

    So the newest version of a model is its highest number, and a label only where it has no number.
    """
    return (1, int(name), "") if _NUMERIC.match(name) else (0, 0, name)


@dataclass(frozen=True, slots=True)
class VersionPolicy:
    """Holds which versions of a model are loaded: all of them, the `latest` n, or exactly the `specific` ones."""

    latest: int = 0
    specific: frozenset[str] = frozenset()

    def select(self, present: Iterable[str]) -> frozenset[str]:
        """Returns the versions to load out of those that are there."""
        names = sorted(present, key=version_order)
        if self.specific:
            return frozenset(names) & self.specific
        return frozenset(names[-self.latest :] if self.latest else names)


@dataclass(frozen=True, slots=True)
class WarmupInput:
    """One input of a warm-up request. Shapes: `dims` without the batch dimension; `source`: zero, random or a file."""

    datatype: Datatype
    dims: tuple[int, ...]
    source: str = "zero"
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class Warmup:
    """A request that is run `count` times before a version serves; `batch_size` 0 means that it is not a batch."""

    name: str
    batch_size: int
    inputs: Mapping[str, WarmupInput]
    count: int = 1


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Holds how one version of a model is served.

    Shapes: `inputs` and `outputs` include the batch dimension (-1) where max_batch_size > 0. `reshapes` holds
            the model's own shape, without the batch dimension, of each tensor that is offered in another one.
    Units:  `max_batch_size` bounds what is merged, `max_request_rows` a single request (0: only the size of a message
            does); `max_queue_size` in requests, 0: no limit; `default_timeout_us` 0: none.
    """

    name: str
    kind: ModelKind = ModelKind.ONNX
    max_batch_size: int = 0
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    max_request_rows: int = 0
    merges: bool = False  # requests of several clients may share a run
    merging: str = ""  # why they may, or may not
    caches: bool = False  # answers are kept and given again to the same inputs
    chance: str = ""  # what answers by chance; "": nothing is known to
    version_policy: VersionPolicy = VersionPolicy()
    max_queue_delay_us: int = 0
    max_queue_size: int = 0
    default_timeout_us: int = 0
    allow_timeout_override: bool = False
    delays_expired: bool = False  # a request past the queue's time limit is run late instead of refused
    warmups: tuple[Warmup, ...] = ()
    instance_count: int = 1
    refuses_empty: str = ""  # why requests without rows or elements are refused; "": they are not
    parameters: Mapping[str, str] = field(default_factory=dict)
    input_reshapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    output_reshapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    message: bytes = b""  # serialized inference.ModelConfig, completed from the model
