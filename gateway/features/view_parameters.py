"""A feature view read from a model's configuration: `backend: "features"`, its tensors and its parameters.

Nothing that lets one in stands there: the parameter `store` names a connection that the gateway was started with.
"""

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Final, TypeVar

from gateway.errors import FailedPrecondition
from gateway.features.entity_key import KEY_DATATYPES, placeholders
from gateway.features.feature_view import FeatureView, HashEncoding, JoinKey, RowLayout, StaleRows, StoredFeature
from gateway.features.store_urls import DEFAULT_STORE
from gateway.features.stored_value import UnreadableValue, text_value
from gateway.records.worker.feature_names import FEATURE_NAMES_PARAMETER
from gateway.tensor import Datatype, TensorSpec

DEFAULT_DEADLINE_MS: Final = 50.0
MAX_DEADLINE_MS: Final = 1000.0
DEFAULT_CACHE_BYTES: Final = 16 << 20
MAX_CACHE_BYTES: Final = 1 << 40
MAX_FEATURES: Final = 1024
MAX_ROW_BYTES: Final = 16 << 20
_LONGEST_S: Final = 10 * 365 * 86_400.0
_STORE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z", re.ASCII)
_UNSUPPORTED: Final = (Datatype.BF16,)
_STATUS_NAMES: Final = ("status_output", "age_output")
# Parameters, and the layouts that they belong to.
_BOTH: Final = frozenset(RowLayout)
_HASH: Final = frozenset({RowLayout.HASH})
_FEAST: Final = frozenset({RowLayout.FEAST})
PARAMETERS: Final[Mapping[str, frozenset[RowLayout]]] = {
    "store": _BOTH,
    "layout": _BOTH,
    "key": _HASH,
    "encoding": _HASH,
    "timestamp_field": _HASH,
    "project": _FEAST,
    "feature_view": _FEAST,
    "entity_key_version": _FEAST,
    "max_age_seconds": _BOTH,
    "stale": _BOTH,
    "unavailable": _BOTH,
    "deadline_ms": _BOTH,
    "cache_seconds": _BOTH,
    "cache_bytes": _BOTH,
    "status_output": _BOTH,
    "age_output": _BOTH,
}
# Begin parameters of single tensors: what a feature or a key is called in the store, and a feature's default.
STORED_AS: Final = "stored_as."
DEFAULT: Final = "default."

E = TypeVar("E", bound=StrEnum)


def feature_view(
    name: str,
    parameters: Mapping[str, str],
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
) -> FeatureView:
    """Returns the view that a model's configuration describes.

    Shapes: those of inputs and outputs begin with the batch dimension.
    Raises: FailedPrecondition naming the parameter or tensor, what it is and what is allowed.
    """
    reading = _Parameters(parameters)
    layout = reading.choice("layout", RowLayout.HASH)
    reading.check_names(layout, [spec.name for spec in inputs], [spec.name for spec in outputs])
    keys = tuple(_join_key(spec, reading) for spec in inputs)
    if not keys:
        raise FailedPrecondition("input: a feature view needs the entity's key as an input, and has none")
    told = {kind: reading.text(kind) for kind in _STATUS_NAMES}
    features = tuple(_feature(spec, layout, reading) for spec in outputs if spec.name not in told.values())
    if not 0 < len(features) <= MAX_FEATURES:
        raise FailedPrecondition(f"output: {len(features)} features, allowed are 1 to {MAX_FEATURES}")
    _check_told(told, outputs, len(features))
    view = FeatureView(
        name=name,
        store=reading.text("store") or DEFAULT_STORE,
        layout=layout,
        keys=keys,
        features=features,
        pattern=reading.text("key"),
        project=reading.text("project"),
        source=reading.text("feature_view"),
        key_version=int(reading.one_of("entity_key_version", ("3", "2"))),
        encoding=reading.choice("encoding", HashEncoding.TEXT),
        timestamp=reading.text("timestamp_field"),
        max_age_s=reading.number("max_age_seconds", 0.0, 0.0, _LONGEST_S),
        stale_rows=reading.choice("stale", StaleRows.DEFAULT),
        deadline_ms=reading.number("deadline_ms", DEFAULT_DEADLINE_MS, 1.0, MAX_DEADLINE_MS),
        fails_unavailable=reading.one_of("unavailable", ("default", "error")) == "error",
        cache_s=reading.number("cache_seconds", 0.0, 0.0, _LONGEST_S),
        cache_bytes=int(reading.number("cache_bytes", DEFAULT_CACHE_BYTES, 0, MAX_CACHE_BYTES)),
        status_output=told["status_output"],
        age_output=told["age_output"],
        outputs=tuple(spec.name for spec in outputs),
    )
    _check(view)
    return view


class _Parameters:
    """The parameters, each read with a check that names it."""

    def __init__(self, parameters: Mapping[str, str]) -> None:
        self._parameters = parameters

    def check_names(self, layout: RowLayout, inputs: list[str], outputs: list[str]) -> None:
        stored = outputs if layout is RowLayout.HASH else [*inputs, *outputs]  # a pattern names the inputs itself
        for name in self._parameters:
            known = PARAMETERS.get(name)
            if name.startswith((STORED_AS, DEFAULT)):
                tensor = name.partition(".")[2]
                if tensor not in (stored if name.startswith(STORED_AS) else outputs):
                    raise FailedPrecondition(f"parameters.{name[:80]}: no feature has that name")
            elif known is None and name != FEATURE_NAMES_PARAMETER:
                allowed = [*PARAMETERS, f"{STORED_AS}TENSOR", f"{DEFAULT}OUTPUT"]
                raise FailedPrecondition(f"parameters: {name[:80]!a} is unknown; allowed: {', '.join(allowed)}")
            elif known is not None and layout not in known:
                raise FailedPrecondition(f"parameters.{name}: has no meaning in the layout {layout.value!r}")

    def text(self, name: str) -> str:
        return self._parameters.get(name, "")

    def maybe(self, name: str) -> str | None:
        return self._parameters.get(name)

    def one_of(self, name: str, allowed: tuple[str, ...]) -> str:
        """Returns the parameter, which is one of those; the first where it is not set."""
        text = self._parameters.get(name, allowed[0])
        if text not in allowed:
            raise FailedPrecondition(f"parameters.{name}: {text[:40]!a} is not one of {', '.join(sorted(allowed))}")
        return text

    def choice(self, name: str, default: E) -> E:
        kind = type(default)
        return kind(self.one_of(name, (default.value, *(member.value for member in kind if member is not default))))

    def number(self, name: str, default: float, least: float, most: float) -> float:
        text = self._parameters.get(name)
        if text is None:
            return default
        try:
            number = float(text)
        except ValueError:
            number = least - 1
        if not least <= number <= most:
            raise FailedPrecondition(f"parameters.{name}: {text[:40]!a} must be a number from {least:g} to {most:g}")
        return number


def _join_key(spec: TensorSpec, reading: _Parameters) -> JoinKey:
    if spec.datatype not in KEY_DATATYPES:
        allowed = ", ".join(datatype.config_name for datatype in KEY_DATATYPES)
        raise FailedPrecondition(f"input {spec.name!r}: {spec.datatype.config_name} is no key; allowed: {allowed}")
    if spec.optional:
        raise FailedPrecondition(f"input {spec.name!r}: a key cannot be optional")
    if spec.shape != (-1, 1):
        raise FailedPrecondition(
            f"input {spec.name!r}: dims must be [ 1 ], with max_batch_size of 1 or more: one key for each row"
        )
    return JoinKey(spec.name, reading.text(STORED_AS + spec.name) or spec.name, spec.datatype)


def _feature(spec: TensorSpec, layout: RowLayout, reading: _Parameters) -> StoredFeature:
    if spec.datatype in _UNSUPPORTED:
        raise FailedPrecondition(f"output {spec.name!r}: {spec.datatype.config_name} is not read from a store")
    dims = spec.shape[1:]
    if any(size < 1 for size in dims) or spec.any_shape:
        raise FailedPrecondition(f"output {spec.name!r}: dims {list(dims)} must be fixed sizes of 1 or more")
    stored = reading.text(STORED_AS + spec.name) or spec.name
    feature = StoredFeature(spec.name, stored, spec.datatype, dims)
    if feature.elements * max(1, spec.datatype.size) > MAX_ROW_BYTES:
        raise FailedPrecondition(f"output {spec.name!r}: a row exceeds the limit of {MAX_ROW_BYTES} bytes")
    text = reading.maybe(DEFAULT + spec.name)
    if text is None:
        return feature
    try:
        value = text_value(feature, text.encode())
    except UnreadableValue as error:
        raise FailedPrecondition(
            f"parameters.{DEFAULT}{spec.name}: {text[:40]!a} is no {spec.datatype.config_name} of dims {list(dims)}: "
            f"{error}"
        ) from None
    return StoredFeature(spec.name, stored, spec.datatype, dims, value)


def _check_told(told: Mapping[str, str], outputs: tuple[TensorSpec, ...], features: int) -> None:
    wanted = {"status_output": (Datatype.UINT8, (-1, features)), "age_output": (Datatype.FP32, (-1, 1))}
    specs = {spec.name: spec for spec in outputs}
    for kind, name in told.items():
        if not name:
            continue
        datatype, shape = wanted[kind]
        spec = specs.get(name)
        if spec is None or (spec.datatype, spec.shape) != (datatype, shape):
            raise FailedPrecondition(
                f"parameters.{kind}: {name[:80]!a} must be an output of {datatype.config_name} with dims "
                f"{list(shape[1:])}"
            )


def _check(view: FeatureView) -> None:
    """Checks what takes more than one parameter. Raises: FailedPrecondition."""
    if not _STORE_NAME.match(view.store):
        raise FailedPrecondition(f"parameters.store: {view.store[:40]!a} is not the name of a store, such as 'default'")
    if view.layout is RowLayout.FEAST:
        for parameter, text in (("project", view.project), ("feature_view", view.source)):
            if not text:
                raise FailedPrecondition(f"parameters.{parameter}: the layout 'feast' needs it, and it is not set")
    else:
        _check_pattern(view)
    if view.max_age_s and view.layout is RowLayout.HASH and not view.timestamp:
        raise FailedPrecondition(
            "parameters.max_age_seconds: needs parameters.timestamp_field, the field of the hash that holds the time "
            "of its values in seconds since 1970"
        )
    if view.stale_rows is not StaleRows.DEFAULT and not view.max_age_s:
        raise FailedPrecondition("parameters.stale: needs parameters.max_age_seconds, which says what is stale")
    names = [feature.stored for feature in view.features]
    if len(set(names)) < len(names):
        raise FailedPrecondition("parameters: two outputs are the same feature of the store")


def _check_pattern(view: FeatureView) -> None:
    pattern = view.pattern
    if not pattern:
        raise FailedPrecondition("parameters.key: the layout 'hash' needs it, such as 'user:{user_id}'")
    named = placeholders(pattern)
    wrong = sorted(set(named) - {key.name for key in view.keys})
    left_out = [key.name for key in view.keys if key.name not in named]
    if re.sub(r"\{[^{}]*\}", "", pattern).count("{") or re.sub(r"\{[^{}]*\}", "", pattern).count("}"):
        raise FailedPrecondition(f"parameters.key: {pattern[:80]!a} has a brace without its other half")
    if wrong:
        raise FailedPrecondition(f"parameters.key: {{{wrong[0][:80]}}} is no input")
    if left_out:
        raise FailedPrecondition(f"parameters.key: {pattern[:80]!a} leaves out the input {left_out[0]!r}")
    if "}{" in pattern:
        raise FailedPrecondition(f"parameters.key: {pattern[:80]!a} needs text between two inputs, to tell them apart")
    if pattern.startswith("{"):
        # Callers choose what stands for the braces: they must not be able to name any key of the store.
        raise FailedPrecondition(f"parameters.key: {pattern[:80]!a} must begin with text, such as 'user:'")
