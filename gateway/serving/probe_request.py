"""The request to a probe and its result, as values and as JSON."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

import msgspec

from gateway.serving.model_config import Warmup
from gateway.serving.model_policy import Policy
from gateway.serving.verification import ModelFacts
from gateway.tensor import TensorSpec
from loaders.loader import LocalVersion

# Part of every cache key: a result in an older format is never read.
FORM = 6
_SPARE_BYTES = 2 << 30
_COPIES = 4  # of the weights, held at once by a load: the file, its parsed form, the session's, prepacked ones


@dataclass(frozen=True, slots=True)
class ProbeRequest:
    """A version to verify, load and warm up in a process of its own.

    `max_batch_size` None: a model whose tensors all have a free first dimension is tried with batches; 0: never.
    `options` are those of `gateway.serving.session.Session`.

    Units: `memory_bytes` of address space beyond what the process has before it reads the model; 0: four times the
           files and 2 GiB.
    """

    local: LocalVersion
    filename: str = "model.onnx"
    intra_threads: int = 1
    inter_threads: int = 1
    options: Mapping[str, str] = field(default_factory=dict)
    max_batch_size: int | None = None
    warmups: tuple[Warmup, ...] = ()
    policy: Policy = field(default_factory=Policy)
    timeout_s: float = 60.0
    memory_bytes: int = 0
    seed: int = 0

    @property
    def memory_limit(self) -> int:
        """Bytes."""
        return self.memory_bytes or _COPIES * self.local.size + _SPARE_BYTES

    def key(self, runtime: str) -> str:
        """Returns the result's name in a cache; it depends on the content, the parameters and the runtime version."""
        content = replace(self, local=replace(self.local, path=Path()))
        document = msgspec.json.encode(content, enc_hook=_encoded, order="deterministic")
        return sha256(f"{FORM} {runtime} ".encode() + document).hexdigest()


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """The result of a probe. If `ok` is False the version must not serve; `reason` says why, fit for any client.

    `lasting` is False where the next probe may end differently (time, memory, a crash); `timed_out`: it took
    too long; `was_tried` is False where the host could start no process for it, which is no fault of the version.
    `batches`: every tensor has a free first dimension and a run of several rows answers as many.
    `rows_independent`: a row has the same answer alone and among others (to the bit where `bit_equal`, else within
    rounding); None if that was not tried, or if the runs could not show it. `repeatable`: the same inputs have the
    same answer twice; None if that was not tried.

    `empty_inputs`: why requests without rows or elements must be refused (they crashed the probe's process); ""
    if they need not be.

    Shapes: `inputs`, `outputs` as the session declares them; `answers` as a run of one row actually returned them.
    Units:  `run_us` median microseconds of a run, by batch size (0: not a batch).
    """

    ok: bool
    reason: str = ""
    lasting: bool = True
    timed_out: bool = False
    was_tried: bool = True
    facts: ModelFacts | None = None
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    overridable: tuple[TensorSpec, ...] = ()
    answers: tuple[TensorSpec, ...] = ()
    run_us: Mapping[int, float] = field(default_factory=dict)
    batches: bool = False
    rows_independent: bool | None = None
    bit_equal: bool | None = None
    repeatable: bool | None = None
    empty_inputs: str = ""
    warnings: tuple[str, ...] = ()
    load_ms: float = 0.0
    baseline_rss_bytes: int = 0
    peak_rss_bytes: int = 0

    @property
    def memory_bytes(self) -> int:
        """By how much the process grew at most while it loaded and ran the version; 0 where that is not known."""
        return max(0, self.peak_rss_bytes - self.baseline_rss_bytes) if self.baseline_rss_bytes else 0


class ProbeMessage(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of a probe's process: the stage that begins, or the result.

    `provisional` is the result that holds if the process dies in the stage that tries empty inputs.
    """

    stage: str = ""
    result: ProbeResult | None = None
    provisional: ProbeResult | None = None


Message = TypeVar("Message")


def to_json(value: object) -> bytes:
    """Returns the value as JSON in one line."""
    return msgspec.json.encode(value, enc_hook=_encoded)


def from_json(text: bytes, kind: type[Message]) -> Message:
    """Returns the value that `to_json` wrote.

    Raises: msgspec.ValidationError or msgspec.DecodeError, both ValueError, where the text is something else.
    """
    return msgspec.json.decode(text, type=kind, dec_hook=_decoded)


def _encoded(value: object) -> str:
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError(f"no JSON for {type(value).__name__}")


def _decoded(kind: type, value: object) -> object:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise NotImplementedError(f"no {kind.__name__} in JSON")
