"""Verification of a version's files: whether the model may be loaded, and what it declares about itself.

Nothing here runs the model or trusts a number in it: declared sizes are compared with the files before memory is
allocated. A hostile file can still cost the parsers time and memory, so production calls this in the limited process
of `gateway.serving.probe`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from math import isnan
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import AttributeProto, TensorProto

from gateway.errors import FailedPrecondition
from gateway.serving.carried_value import CarriedValue, carried
from gateway.serving.chance import chance_in
from gateway.serving.model_policy import InvalidModel, Policy, shown
from gateway.serving.model_walk import check_texts, messages, nodes
from gateway.serving.row_independence import row_dependence
from gateway.serving.weights import Weights
from gateway.tensor import TensorSpec
from loaders.errors import LoaderError
from loaders.loader import LocalVersion

__all__ = ["InvalidModel", "ModelFacts", "Policy", "verify"]

_ELEMENT_NAMES: Mapping[int, str] = {number: name.lower() for name, number in TensorProto.DataType.items()}
# Operator sets that the format defines, with the newest version of each that is understood here.
_DEFAULT = ""
_SETS: Mapping[str, int] = {
    domain: max(version for (name, version) in onnx.helper.OP_SET_ID_VERSION_MAP if name == domain)
    for domain in ("ai.onnx", "ai.onnx.ml")
}
# Operators that ONNX Runtime itself adds; only the runtime can say which of them exist.
_RUNTIME_DOMAINS = frozenset(
    (
        *("com.microsoft", "com.microsoft.experimental", "com.microsoft.nchwc", "com.ms.internal.nhwc"),
        *("ai.onnx.preview", "ai.onnx.preview.training", "ai.onnx.training"),
    )
)
# Weights of the ML operators are lists in attributes, not tensors. (Others may hold NaN for good reason: what an
# imputer replaces, what a label encoder maps from.)
_WEIGHT_LISTS = frozenset(
    {
        *("base_values", "class_weights", "coefficients", "intercepts", "leaf_weights", "offset", "prob_a", "prob_b"),
        *("rho", "scale", "support_vectors", "target_weights", "value_floats"),
    }
)


# Tensors in attributes that may hold NaN: a split that missing values take, what a label encoder maps from and to.
_NAN_TENSORS = frozenset(("nodes_splits", "membership_values", "keys_tensor", "values_tensor", "default_tensor"))


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """Holds what a verified model declares about itself.

    `row_dependence` is that of `gateway.serving.row_independence`; `objection` is what the ONNX checker
    rejects. It decides nothing: ONNX Runtime accepts much that the checker does not. `map_keys` are the keys of the
    maps that outputs hold, as ZipMap declares them; `chance` is what answers by chance (`gateway.serving.chance`).

    Shapes: as declared, -1 where a size is free; `any_shape` where none is declared.
    Units:  bytes.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    opset: int
    ir_version: int
    producer: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    model_bytes: int = 0
    weight_bytes: int = 0
    parameter_count: int = 0
    infinite_weights: int = 0
    external_files: tuple[str, ...] = ()
    row_dependence: str = ""
    objection: str = ""
    map_keys: Mapping[str, tuple[str | int, ...]] = field(default_factory=dict)
    chance: str = ""

    @property
    def without_shape(self) -> frozenset[str]:
        """The inputs and outputs that the graph declares no shape for."""
        return frozenset(spec.name for spec in (*self.inputs, *self.outputs) if spec.any_shape)


def verify(local: LocalVersion, *, filename: str = "model.onnx", policy: Policy | None = None) -> ModelFacts:
    """Returns what the model in this copy declares about itself, once everything harmful in it has been ruled out.

    Raises: InvalidModel, whose text is the reason.
    """
    policy = policy or Policy()
    path = _model_path(local, filename)
    model = _parse(local, path, policy)
    opsets = _opsets(model.opset_import)
    for message in messages(model):
        check_texts(message, policy)
    _check_operators(model, opsets)
    folder = "" if path.parent == local.path else str(path.parent.relative_to(local.path))
    weights = Weights(local.path, {entry.name: entry.size for entry in local.files}, folder, policy)
    _check_tensors(model, weights)
    facts = _facts(model, opsets, weights, path.stat().st_size)
    return replace(facts, objection=_objection(path))


def _model_path(local: LocalVersion, filename: str) -> Path:
    try:
        return local.model_file(filename)
    except LoaderError as error:
        raise InvalidModel(str(error)) from None


def _parse(local: LocalVersion, path: Path, policy: Policy) -> onnx.ModelProto:
    name = str(path.relative_to(local.path))
    entry = next(entry for entry in local.files if entry.name == name)
    if entry.size == 0:
        raise InvalidModel(f"{name} is empty")
    if entry.size > policy.max_model_bytes:
        raise InvalidModel(f"{name} has {entry.size} bytes, at most {policy.max_model_bytes} are allowed")
    with path.open("rb") as file:
        content = file.read(entry.size + 1)
    if len(content) != entry.size or sha256(content).hexdigest() != entry.sha256:
        raise InvalidModel(f"{name} is not the file that was fetched: its SHA-256 is another")
    try:
        model: onnx.ModelProto = onnx.ModelProto.FromString(content)
    except DecodeError:
        raise InvalidModel(f"{name} is no ONNX model, or not all of one: {_first_bytes(content)}") from None
    if not model.HasField("graph") or not model.opset_import or not model.ir_version:
        raise InvalidModel(f"{name} is no ONNX model: it has no graph, no operator set or no IR version")
    if not 1 <= model.ir_version <= onnx.IR_VERSION:
        raise InvalidModel(f"{name} has IR version {model.ir_version}; 1 to {onnx.IR_VERSION} are supported")
    return model


def _first_bytes(content: bytes) -> str:
    head = content[:64].lstrip().lower()
    if head.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "it looks like a web page"
    if head.startswith(b"version https://git-lfs"):
        return "it is a pointer of Git LFS, not the file"
    return f"it begins with {shown(content[:16])}"


def _opsets(entries: Sequence[onnx.OperatorSetIdProto]) -> dict[str, int]:
    """Returns the version of each imported operator set."""
    opsets: dict[str, int] = {}
    for entry in entries:
        domain = _DEFAULT if entry.domain == "ai.onnx" else entry.domain
        newest = _SETS.get(domain or "ai.onnx")
        if newest is not None and not 1 <= entry.version <= newest:
            raise InvalidModel(
                f"the model needs version {entry.version} of operator set {domain or 'ai.onnx'!r}; "
                f"versions up to {newest} are supported"
            )
        opsets[domain] = entry.version
    return opsets


def _check_operators(model: onnx.ModelProto, opsets: Mapping[str, int]) -> None:
    functions = {(function.domain, function.name) for function in model.functions}
    graphs = [model.graph]
    for training in model.training_info:
        graphs += [training.initialization, training.algorithm]
    for graph in graphs:
        for node in nodes(graph.node):
            _check_operator(node, opsets, functions)
    for function in model.functions:
        own = _opsets(function.opset_import)
        for node in nodes(function.node):
            _check_operator(node, {**opsets, **own}, functions)


def _check_operator(node: onnx.NodeProto, opsets: Mapping[str, int], functions: set[tuple[str, str]]) -> None:
    domain = _DEFAULT if node.domain == "ai.onnx" else node.domain
    if (node.domain, node.op_type) in functions or domain in _RUNTIME_DOMAINS:
        return
    if (domain or "ai.onnx") not in _SETS:
        raise InvalidModel(
            f"operator {shown(node.op_type)} belongs to {shown(domain)}: custom operator libraries are not loaded"
        )
    version = opsets.get(domain)
    if version is None:
        raise InvalidModel(f"operator {shown(node.op_type)} is of {domain or 'ai.onnx'!r}, which is not imported")
    try:
        onnx.defs.get_schema(node.op_type, version, domain)
    except onnx.defs.SchemaError:
        raise InvalidModel(
            f"operator {shown(node.op_type)} does not exist in version {version} of {domain or 'ai.onnx'!r}"
        ) from None


def _check_tensors(model: onnx.ModelProto, weights: Weights) -> None:
    exempt: list[TensorProto] = []
    for message in messages(model):
        if isinstance(message, TensorProto):
            weights.check(message, may_hold_nan=any(message is tensor for tensor in exempt))
        elif isinstance(message, onnx.SparseTensorProto):
            # The runtime makes a dense tensor of it when it loads the model.
            weights.element_count(message.dims, f"sparse tensor {shown(message.values.name)}", 64)
        elif isinstance(message, AttributeProto):
            if message.HasField("t") and message.name in _NAN_TENSORS:
                exempt.append(message.t)  # the same object when the walk comes to it
            if not weights.policy.allow_nan:
                _check_list(message)


def _check_list(attribute: AttributeProto) -> None:
    if attribute.name in _WEIGHT_LISTS and any(map(isnan, attribute.floats)):
        raise InvalidModel(f"attribute {attribute.name!r} holds NaN: the model would answer NaN")


def _facts(model: onnx.ModelProto, opsets: Mapping[str, int], weights: Weights, size: int) -> ModelFacts:
    given = {tensor.name for tensor in model.graph.initializer}
    given.update(tensor.values.name for tensor in model.graph.sparse_initializer)
    inputs = [value for value in model.graph.input if value.name not in given]
    keys = _map_keys(model.graph)
    if not model.graph.output:
        raise InvalidModel("the model has no output")
    return ModelFacts(
        inputs=tuple(spec for value in inputs for spec in _carried(value, "input", weights).specs),
        outputs=tuple(
            spec
            for value in model.graph.output
            for spec in _carried(value, "output", weights, keys.get(value.name, ())).specs
        ),
        opset=opsets.get(_DEFAULT, 0),
        ir_version=model.ir_version,
        producer=f"{model.producer_name} {model.producer_version}".strip(),
        metadata={entry.key: entry.value for entry in model.metadata_props},
        model_bytes=size,
        weight_bytes=weights.weight_bytes,
        parameter_count=weights.parameter_count,
        infinite_weights=weights.infinite,
        external_files=tuple(sorted(weights.external_files)),
        row_dependence=row_dependence(model),
        chance=chance_in(model),
        map_keys={value.name: keys[value.name] for value in model.graph.output if value.name in keys},
    )


def _carried(value: onnx.ValueInfoProto, side: str, weights: Weights, keys: tuple[str | int, ...] = ()) -> CarriedValue:
    """Returns how a value is carried. Raises: InvalidModel, where it cannot be."""
    tensor = value.type.tensor_type
    is_tensor = value.type.WhichOneof("value") == "tensor_type"
    # Some exporters write -1 for a free size; anything below is nonsense.
    sizes = [size.dim_value if size.HasField("dim_value") else -1 for size in tensor.shape.dim]
    weights.element_count([1 if size == -1 else size for size in sizes], f"{side} {shown(value.name)}", 8)
    undeclared = is_tensor and not tensor.HasField("shape")
    try:
        return carried(value.name, _type_name(value.type), side, tuple(sizes), any_shape=undeclared, keys=keys)
    except FailedPrecondition as error:
        raise InvalidModel(str(error)) from None


def _type_name(kind: onnx.TypeProto) -> str:
    """Returns the name of the type as ONNX Runtime writes it."""
    which = kind.WhichOneof("value")
    if which == "tensor_type":
        element = kind.tensor_type.elem_type
        return f"tensor({_ELEMENT_NAMES.get(element, element)})"
    if which == "sequence_type":
        return f"seq({_type_name(kind.sequence_type.elem_type)})"
    if which == "map_type":
        key = kind.map_type.key_type
        return f"map({_ELEMENT_NAMES.get(key, key)},{_type_name(kind.map_type.value_type)})"
    if which == "optional_type":
        return f"optional({_type_name(kind.optional_type.elem_type)})"
    return (which or "missing type").removesuffix("_type")


def _map_keys(graph: onnx.GraphProto) -> Mapping[str, tuple[str | int, ...]]:
    """Returns the keys of the maps that each ZipMap of the graph gives."""
    keys: dict[str, tuple[str | int, ...]] = {}
    for node in graph.node:
        if node.op_type == "ZipMap" and node.output:
            for attribute in node.attribute:
                if attribute.name == "classlabels_int64s":
                    keys[node.output[0]] = tuple(attribute.ints)
                elif attribute.name == "classlabels_strings":
                    keys[node.output[0]] = tuple(text.decode("utf-8", "replace") for text in attribute.strings)
    return keys


def _objection(path: Path) -> str:
    try:
        onnx.checker.check_model(str(path))
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        text = " ".join(str(error).replace(str(path), path.name).replace(f"{path.parent}/", "").split())
        return f"the ONNX checker objects: {shown(text)[1:-1]}"
    return ""
