"""What is asked of a probe and what it answers, as values and as JSON."""

import json
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

from gateway.serving.model_config import Warmup, WarmupInput
from gateway.serving.model_policy import Policy
from gateway.serving.verification import ModelFacts
from gateway.tensor import BY_NAME, Datatype, TensorSpec
from loaders.loader import FileEntry, LocalVersion

# Part of every cache key: a result of an older form is never read.
FORM = 1
_SPARE_BYTES = 2 << 30
_COPIES = 4  # of the weights, that a load may hold at once: the file, its parsed form, the session's, prepacked ones


@dataclass(frozen=True, slots=True)
class ProbeRequest:
    """A version to verify, load and warm up in a process of its own.

    `max_batch_size` None: a model whose tensors all have a free first dimension is tried with batches; 0: never.
    `options` are those of `gateway.serving.session.Session`.

    Units: `memory_bytes` of address space beyond what the process has before it looks at the model; 0: four times the
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
        """The name of the result in a cache: same content, same parameters, same runtime version."""
        document = to_json(replace(self, local=replace(self.local, path=Path())))
        return sha256(f"{FORM} {runtime} {document}".encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What came of a probe. `ok` False: the version must not serve, and `reason` says why, fit for any client.

    `lasting` is False where the outcome may be another next time (time, memory, a crash). `batches`: every tensor has
    a free first dimension and a run of several rows answers as many. `rows_independent`: a row has the same answer
    alone and among others (to the bit where `bit_equal`, else within rounding); None where that was not tried.

    Shapes: `inputs`, `outputs` as the session declares them; `answers` as a run of one row really answered.
    Units:  `run_us` median microseconds of a run, by batch size (0: not a batch).
    """

    ok: bool
    reason: str = ""
    lasting: bool = True
    facts: ModelFacts | None = None
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    overridable: tuple[TensorSpec, ...] = ()
    answers: tuple[TensorSpec, ...] = ()
    run_us: Mapping[int, float] = field(default_factory=dict)
    batches: bool = False
    rows_independent: bool | None = None
    bit_equal: bool | None = None
    warnings: tuple[str, ...] = ()
    load_ms: float = 0.0
    baseline_rss_bytes: int = 0
    peak_rss_bytes: int = 0


def to_json(value: ProbeRequest | ProbeResult) -> str:
    """One line of JSON; the same value gives the same line."""
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"))


def request_from_json(text: str) -> ProbeRequest:
    """The request that `to_json` wrote."""
    raw = json.loads(text)
    local = raw.pop("local")
    files = tuple(FileEntry(**entry) for entry in local["files"])
    return ProbeRequest(
        **{
            **raw,
            "local": LocalVersion(Path(local["path"]), local["digest"], files),
            "warmups": tuple(_warmup(entry) for entry in raw["warmups"]),
            "policy": Policy(**raw["policy"]),
        }
    )


def result_from_json(text: str) -> ProbeResult:
    """The result that `to_json` wrote.

    Raises: ValueError, KeyError, TypeError, if the text is something else.
    """
    raw = json.loads(text)
    specs = {name: _specs(raw[name]) for name in ("inputs", "outputs", "overridable", "answers")}
    run_us = {int(size): float(run_us) for size, run_us in raw["run_us"].items()}
    facts = None if raw["facts"] is None else _facts(raw["facts"])
    return ProbeResult(**{**raw, **specs, "run_us": run_us, "facts": facts, "warnings": tuple(raw["warnings"])})


def _plain(value: object) -> object:
    if isinstance(value, Datatype):
        return value.wire_name
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, bytes):
        return b64encode(value).decode()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if hasattr(value, "__dataclass_fields__"):
        return {item.name: _plain(getattr(value, item.name)) for item in fields(cast(Any, value))}
    return value


def _specs(raw: list[dict[str, Any]]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(
            entry["name"],
            BY_NAME[entry["datatype"]],
            tuple(entry["shape"]),
            optional=entry["optional"],
            labels=tuple(entry["labels"]),
        )
        for entry in raw
    )


def _facts(raw: dict[str, Any]) -> ModelFacts:
    return ModelFacts(
        **{
            **raw,
            "inputs": _specs(raw["inputs"]),
            "outputs": _specs(raw["outputs"]),
            "external_files": tuple(raw["external_files"]),
        }
    )


def _warmup(raw: dict[str, Any]) -> Warmup:
    inputs = {
        name: WarmupInput(BY_NAME[entry["datatype"]], tuple(entry["dims"]), entry["source"], b64decode(entry["data"]))
        for name, entry in raw["inputs"].items()
    }
    return Warmup(raw["name"], raw["batch_size"], inputs, raw["count"])
