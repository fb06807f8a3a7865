"""Tells what must not reach the disk: rules per tensor and feature, applied before a record is written."""

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

import numpy as np

from gateway.records.worker.redaction_rule import EVERY_MODEL, InputMode, RedactionAction, RedactionRule
from gateway.records.worker.stream_schema import StreamSchema, fixed_bytes, is_batched, width
from gateway.tensor import Array, Datatype, TensorSpec


@dataclass(frozen=True, slots=True)
class Redaction:
    """The rules of a log, and the key of its hashes.

    Raises: ValueError (HASH without a key, BUCKET without edges, or edges out of order).
    """

    rules: tuple[RedactionRule, ...] = ()
    inputs: InputMode = InputMode.ALL
    listed: frozenset[tuple[str, str]] = frozenset()  # (model, input)
    key: bytes = field(default=b"", repr=False)
    key_id: str = ""
    revision: int = 0

    def __post_init__(self) -> None:
        for rule in self.rules:
            where = f"redaction of tensor {rule.tensor!r} of model {rule.model!r}"
            if rule.action is RedactionAction.HASH and not self.key:
                raise ValueError(f"{where}: hash needs a key")
            if rule.action is RedactionAction.BUCKET and (
                not rule.edges or list(rule.edges) != sorted(set(rule.edges))
            ):
                raise ValueError(f"{where}: bucket edges are {rule.edges}, expected rising numbers")
            if rule.action is RedactionAction.DROP and rule.feature is not None:
                raise ValueError(f"{where}: drop takes the whole tensor; use null for feature {rule.feature}")

    def of(self, model: str, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> "StreamRedaction":
        """Returns the rules as they bear on one model's tensors.

        A rule that cannot be carried out on the tensor it names (a hash of numbers, a feature of a tensor without fixed
        size) blanks the whole tensor: redaction fails closed.
        """
        dropped = {rule.tensor for rule in self.rules if rule.concerns(model) and rule.action is RedactionAction.DROP}
        for spec in inputs:
            listed = not self.listed.isdisjoint({(model, spec.name), (EVERY_MODEL, spec.name)})
            if self.inputs is InputMode.NONE or (self.inputs is InputMode.LISTED and not listed):
                dropped.add(spec.name)
        changes: dict[str, tuple[RedactionRule, ...]] = {}
        blank: set[str] = set()
        for spec in (*inputs, *outputs):
            rules = tuple(rule for rule in self.rules if rule.concerns(model) and rule.tensor == spec.name)
            rules = tuple(rule for rule in rules if rule.action is not RedactionAction.DROP)
            whole = any(rule.action is RedactionAction.NULL and rule.feature is None for rule in rules)
            if whole or any(not _fits(rule, spec) for rule in rules):
                blank.add(spec.name)
            elif rules:
                changes[spec.name] = rules
        return StreamRedaction(frozenset(dropped), frozenset(blank), changes, self.key, self.key_id, self.revision)

    def idle(self, model: str, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> list[str]:
        """Returns the tensors that the model's own rules name and it does not have: a misspelt name hides nothing."""
        known = {spec.name for spec in (*inputs, *outputs)}
        named = {rule.tensor for rule in self.rules if rule.model == model}
        named |= {tensor for own, tensor in self.listed if own == model}
        return sorted(named - known)


@dataclass(frozen=True, slots=True)
class StreamRedaction:
    """Redaction of one stream: tensors left out, tensors blanked, and rules that change values."""

    dropped: frozenset[str]
    blank: frozenset[str]
    changes: Mapping[str, tuple[RedactionRule, ...]]
    key: bytes = field(repr=False)
    key_id: str
    revision: int

    @property
    def hidden(self) -> dict[str, tuple[int, ...]]:
        """The features that are blanked, by tensor."""
        blanked = {
            name: tuple(sorted(rule.feature for rule in rules if _blanks(rule) and rule.feature is not None))
            for name, rules in self.changes.items()
        }
        return {name: features for name, features in blanked.items() if features}

    def withholds(self, name: str) -> bool:
        return name in self.dropped or name in self.blank

    def touches(self, schema: StreamSchema) -> bool:
        """Returns whether any tensor of the stream is left out, blanked or changed."""
        return any(self.touches_tensor(spec.name) for spec in (*schema.inputs, *schema.outputs))

    def touches_tensor(self, name: str) -> bool:
        """Returns whether the tensor is left out, blanked or changed."""
        return self.withholds(name) or name in self.changes

    def numbers(self, spec: TensorSpec, values: Array) -> Array:
        """Returns a changed copy of a tensor's values.

        Shapes: [elements], a whole number of instances.
        """
        changed = values.copy()
        table = changed.reshape(-1, max(width(spec), 1)) if fixed_bytes(spec) else changed.reshape(-1, 1)
        for rule in self.changes[spec.name]:
            columns = slice(None) if rule.feature is None else slice(rule.feature, rule.feature + 1)
            if rule.action is RedactionAction.NULL:
                table[:, columns] = 0
            else:
                table[:, columns] = np.searchsorted(np.array(rule.edges), table[:, columns], side="right")
        return changed

    def texts(self, spec: TensorSpec, elements: Sequence[bytes]) -> list[bytes]:
        """Changed copies of the elements of a BYTES tensor."""
        tail = spec.shape[1:] if is_batched(spec) else spec.shape
        size = 1 if any(dimension < 0 for dimension in tail) else max(width(spec), 1)
        changed = list(elements)
        for rule in self.changes[spec.name]:
            for index in range(rule.feature or 0, len(changed), 1 if rule.feature is None else size):
                changed[index] = b"" if rule.action is RedactionAction.NULL else self._hashed(changed[index])
        return changed

    def _hashed(self, value: bytes) -> bytes:
        return f"hmac:{self.key_id}:{hmac.new(self.key, value, sha256).hexdigest()[:32]}".encode()


def _blanks(rule: RedactionRule) -> bool:
    return rule.action is RedactionAction.NULL


def _fits(rule: RedactionRule, spec: TensorSpec) -> bool:
    text = spec.datatype is Datatype.BYTES
    if rule.action is RedactionAction.HASH and not text:
        return False
    if rule.action is RedactionAction.BUCKET and (text or spec.datatype in (Datatype.BF16, Datatype.BOOL)):
        return False
    if rule.feature is None:
        return True
    if spec.any_shape:
        return False
    tail = spec.shape[1:] if is_batched(spec) else spec.shape
    return not any(size < 0 for size in tail) and 0 <= rule.feature < width(spec)
