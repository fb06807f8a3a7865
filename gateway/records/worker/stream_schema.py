"""Tells what the rows of one stream look like: model, version, arm and the tensors of the version's contract."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from math import prod

import msgspec

from gateway.tensor import BY_NAME, Datatype, TensorSpec

MAX_FLAT = 512  # widest [batch, d] tensor that becomes one column per feature


@dataclass(frozen=True, slots=True)
class StreamSchema:
    """The schema of a stream; written into every segment that holds rows of it.

    `dropped` names the tensors that redaction keeps out, `hidden` the features of a tensor that it blanks out. In a
    stream of copies that a mirror ran, `shadow_of` is the version that answered the callers; it is "" in every other.
    `redacted` names all tensors that redaction keeps out, blanks out or changes.
    `classified` names the outputs whose numbers are scores of classes, because the configuration has labels for them.
    `features` has what the configuration calls the features of an input, in their order.
    """

    model: str
    version: str
    arm: str
    digest: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    dropped: frozenset[str] = frozenset()
    hidden: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    redaction_revision: int = 0
    shadow_of: str = ""
    classified: frozenset[str] = frozenset()
    features: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    redacted: frozenset[str] = frozenset()

    @property
    def shape_hash(self) -> str:
        """Eight hex digits that differ where the columns of two streams differ."""
        specs = [_spec_json(spec) for spec in (*self.inputs, *self.outputs)]
        named = [self.features] if self.features else []
        text = msgspec.json.encode([*specs, sorted(self.dropped), *named], order="sorted")
        return sha256(f"{self.digest}{len(self.inputs)}".encode() + text).hexdigest()[:8]

    def to_json(self) -> bytes:
        return msgspec.json.encode(
            {
                "model": self.model,
                "version": self.version,
                "arm": self.arm,
                "digest": self.digest,
                "inputs": [_spec_json(spec) for spec in self.inputs],
                "outputs": [_spec_json(spec) for spec in self.outputs],
                "dropped": sorted(self.dropped),
                "hidden": {name: list(indices) for name, indices in self.hidden.items()},
                "redaction_revision": self.redaction_revision,
                "shadow_of": self.shadow_of,
                "classified": sorted(self.classified),
                "features": self.features,
                "redacted": sorted(self.redacted),
            }
        )

    @classmethod
    def from_json(cls, text: bytes | memoryview) -> "StreamSchema":
        """Returns the schema that a writer wrote.

        Raises: ValueError, KeyError, TypeError (the text is not a schema).
        """
        document = msgspec.json.decode(text)
        return cls(
            model=str(document["model"]),
            version=str(document["version"]),
            arm=str(document["arm"]),
            digest=str(document["digest"]),
            inputs=tuple(_spec(item) for item in document["inputs"]),
            outputs=tuple(_spec(item) for item in document["outputs"]),
            dropped=frozenset(document["dropped"]),
            hidden={name: tuple(indices) for name, indices in document["hidden"].items()},
            redaction_revision=int(document["redaction_revision"]),
            shadow_of=str(document.get("shadow_of", "")),
            classified=frozenset(document.get("classified", ())),
            features={name: tuple(names) for name, names in document.get("features", {}).items()},
            redacted=frozenset(document.get("redacted", (*document["dropped"], *document["hidden"]))),
        )


def is_batched(spec: TensorSpec) -> bool:
    """Returns whether the first dimension counts instances."""
    return spec.batched and bool(spec.shape) and spec.shape[0] < 0


def fixed_bytes(spec: TensorSpec) -> int:
    """Returns the bytes of one instance (of the whole tensor where it is not batched), or 0 if they are not fixed."""
    if spec.any_shape:
        return 0
    tail = spec.shape[1:] if is_batched(spec) else spec.shape
    return 0 if any(size < 0 for size in tail) else prod(tail) * spec.datatype.size


def is_flat(spec: TensorSpec) -> bool:
    """Returns whether each feature gets a column of its own: [batch], or [batch, d] with a small fixed d."""
    return is_batched(spec) and (len(spec.shape) == 1 or (len(spec.shape) == 2 and 0 < spec.shape[1] <= MAX_FLAT))


def width(spec: TensorSpec) -> int:
    """Returns the elements of one instance of a tensor whose size is fixed."""
    return prod(spec.shape[1:] if is_batched(spec) else spec.shape)


def _spec_json(spec: TensorSpec) -> list[object]:
    item: list[object] = [spec.name, spec.datatype.wire_name, list(spec.shape)]
    if spec.any_shape:
        return [*item, spec.batched, True]
    return item if spec.batched else [*item, False]


def _spec(item: object) -> TensorSpec:
    if not isinstance(item, list) or len(item) not in (3, 4, 5):
        raise ValueError(
            f"tensor spec is {item!r}, expected [name, datatype, shape], with false where it is not batched, and true "
            "behind that where it has any shape"
        )
    name, datatype, shape = item[:3]
    known: Datatype = BY_NAME[datatype]
    batched, any_shape = item[3:4] != [False], item[4:] == [True]
    return TensorSpec(str(name), known, tuple(int(size) for size in shape), batched=batched, any_shape=any_shape)
