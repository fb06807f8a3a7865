"""How the values that a model takes and gives are carried by tensors of the protocol: one rule for each type of ONNX.

`RULES_OF_FORMS` says the rules in words, and the chapter "Kinds of models" of docs/models.md shows them. A value that
is a tensor is one tensor of the same shape; the others are:

1. A sequence of tensors is two tensors: `<name>`, the elements of all of them one after another, and `<name>.shapes`,
   INT64 [tensors, dimensions], the shape of each; shapes of fewer dimensions end in -1.
2. A map is two tensors of one dimension: `<name>.keys` and `<name>.values`.
3. A sequence of maps that a ZipMap makes is the tensor that it is made from: [rows, classes], labelled by the keys.
4. An optional input may be left out. An optional output is a sequence of at most one tensor; where it is a sequence
   itself, nothing looks like the empty sequence.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from math import prod
from operator import itemgetter
from typing import Any, Final, cast

import numpy as np

from gateway.errors import FailedPrecondition, InvalidArgument
from gateway.serving.element_type import BY_RUNTIME_NAME, ElementType
from gateway.tensor import Array, Datatype, TensorSpec

_DATATYPES: Final = {kind.runtime_name: kind for kind in Datatype}
_TYPE: Final = re.compile(r"(optional\()?(seq\()?(?:map\((\w+),)?tensor\((\w+)\)\)*\Z")
_MAX_RANK: Final = 64
_CURE: Final = "export the model with plain tensors"


class Form(Enum):
    """Says what a value is, beside the type of its elements."""

    TENSOR = "tensor"
    SEQUENCE = "sequence of tensors"
    MAP = "map"
    MAPS = "sequence of maps"
    OPTIONAL = "optional tensor"


# Form, side, the tensors that carry it.
RULES_OF_FORMS: Final = (
    (Form.TENSOR, "input, output", "`<name>`, of the same shape; a scalar has the shape []"),
    (
        Form.SEQUENCE,
        "input, output",
        "`<name>` [elements]: those of all tensors, one after another; `<name>.shapes` INT64 [tensors, dimensions]: "
        "the shape of each, ended by -1 where it has fewer dimensions than others",
    ),
    (Form.MAP, "input", "`<name>.keys` INT64 or BYTES [entries]; `<name>.values` [entries]"),
    (Form.MAPS, "output", "of ZipMap: `<name>` [rows, classes], the keys are its labels, in the order of the model"),
    (
        Form.OPTIONAL,
        "input, output",
        "an input may be left out; an output is a sequence of at most one tensor. Of an optional sequence nothing is "
        "given as the empty sequence",
    ),
)


@dataclass(frozen=True, slots=True)
class CarriedValue:
    """One input or output of a model, and the tensors that carry it.

    `onnx_type` is the runtime's name of its type; `element` that of its elements, where numpy does not have it; `keys`
    are those of the maps of a ZipMap.
    """

    name: str
    form: Form
    onnx_type: str
    specs: tuple[TensorSpec, ...]
    element: ElementType | None = None
    keys: tuple[str | int, ...] = ()

    @property
    def is_plain(self) -> bool:
        """Whether the value is the tensor itself, as numpy has it."""
        return self.form is Form.TENSOR and self.element is None

    def assembled(self, feeds: Mapping[str, Array]) -> Any:
        """Returns the value that these tensors carry, as the runtime takes it; None if none is given.

        Raises: InvalidArgument, where they do not fit together.
        """
        parts = [feeds.get(spec.name) for spec in self.specs]
        given = [part for part in parts if part is not None]
        if not given:
            return None
        if len(given) < len(parts):
            names = " and ".join(repr(spec.name) for spec in self.specs)
            raise InvalidArgument(f"inputs {names} carry one {self.form.value} together: give both or none")
        if self.form is Form.SEQUENCE:
            return _apart(self.name, given[0], given[1])
        if self.form is Form.MAP:
            if len(given[0]) != len(given[1]):
                raise InvalidArgument(
                    f"inputs {self.specs[0].name!r} and {self.specs[1].name!r} carry one map: they have "
                    f"{len(given[0])} and {len(given[1])} elements"
                )
            return dict(zip(given[0].tolist(), given[1].tolist(), strict=True))
        return given[0]

    def fitted(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        """Returns the tensors among these that must be others to carry a value: made-up elements are one tensor."""
        elements = feeds.get(self.name)
        if self.form is not Form.SEQUENCE or elements is None:
            return {}
        return {self.specs[1].name: np.array([[elements.size]], np.int64)}

    def taken_apart(self, value: Any) -> Sequence[Array]:
        """Returns the tensors that carry what the runtime gave."""
        if self.form is Form.MAPS:
            return (_table(value, self.keys, self.specs[0].datatype),)
        if self.form is Form.OPTIONAL:
            value = [] if value is None else [value]
        if self.form in (Form.SEQUENCE, Form.OPTIONAL):
            return _together(value or [], self.specs[0].datatype)
        return (value,)


def carried(
    name: str,
    onnx_type: str,
    side: str,
    shape: tuple[int, ...] = (),
    *,
    any_shape: bool = False,
    optional: bool = False,
    keys: tuple[str | int, ...] = (),
) -> CarriedValue:
    """Returns how a value of that type is carried. `onnx_type` as ONNX Runtime writes it; `side` is input or output.

    Raises: FailedPrecondition naming the type and what to do, where no rule carries it.
    """
    match = _TYPE.match(onnx_type)
    where = f"{side} {name!r} has ONNX type {onnx_type}"
    if match is None:
        raise FailedPrecondition(f"{where}, which no tensor of the protocol can carry; {_CURE}")
    may_miss, sequence, key, element_name = match.groups()
    datatype = _DATATYPES.get(f"tensor({element_name})")
    element = BY_RUNTIME_NAME.get(element_name)
    datatype = element.datatype if element is not None else datatype
    if datatype is None:
        raise FailedPrecondition(
            f"{where}: the protocol cannot carry elements of type {element_name}; "
            "cast them to a type that it has, in the model"
        )
    told = "" if onnx_type == datatype.runtime_name else onnx_type
    form = _form(key, sequence, may_miss if side == "output" else None)
    optional = optional or (bool(may_miss) and side == "input")
    if element is not None and form is not Form.TENSOR:
        raise FailedPrecondition(f"{where}: {element_name} is carried in plain tensors only; {_CURE}")

    def spec(suffix: str, kind: Datatype, dims: tuple[int, ...]) -> TensorSpec:
        return TensorSpec(name + suffix, kind, dims, optional=optional, onnx_type=told)

    specs: tuple[TensorSpec, ...]
    if form is Form.TENSOR:
        # A shape that the runtime worked out itself is better than none; [] may be a scalar or nothing at all.
        only = TensorSpec(name, datatype, shape, optional=optional, any_shape=any_shape and not shape, onnx_type=told)
        specs = (only,)
    elif form is Form.MAP:
        if side == "output":
            raise FailedPrecondition(f"{where}: a map is carried as an input only; {_CURE}")
        specs = (spec(".keys", _key_datatype(where, key), (-1,)), spec(".values", datatype, (-1,)))
    elif form is Form.MAPS:
        if side == "input" or not keys:
            raise FailedPrecondition(
                f"{where}: only maps that a ZipMap of the graph gives are carried; convert the model with zipmap=False"
            )
        labels = tuple(str(each) for each in keys)
        specs = (TensorSpec(name, datatype, (-1, len(keys)), labels=labels, onnx_type=told),)
    else:
        specs = (spec("", datatype, (-1,)), spec(".shapes", Datatype.INT64, (-1, -1)))
    return CarriedValue(name, form, onnx_type, specs, element, keys if form is Form.MAPS else ())


def check_names(values: Sequence[CarriedValue], side: str) -> None:
    """Checks that no two tensors have one name. Raises: FailedPrecondition, if two have."""
    names = [spec.name for value in values for spec in value.specs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise FailedPrecondition(f"two {side}s of the model are carried as {twice[0]!r}: rename one of them")


def _form(key: str | None, sequence: str | None, optional: str | None) -> Form:
    if key:
        return Form.MAPS if sequence else Form.MAP
    if sequence:
        return Form.SEQUENCE
    return Form.OPTIONAL if optional else Form.TENSOR


def _key_datatype(where: str, key: str) -> Datatype:
    datatype = _DATATYPES.get(f"tensor({key})")
    if datatype not in (Datatype.INT64, Datatype.BYTES):
        raise FailedPrecondition(f"{where}: keys must be integers of 64 bits or strings; {_CURE}")
    return datatype


def _apart(name: str, elements: Array, shapes: Array) -> list[Array]:
    """Returns the tensors of a sequence. Raises: InvalidArgument, if the shapes do not say which elements are whose."""
    tensors: list[Array] = []
    start = 0
    flat = elements.reshape(-1)
    if shapes.ndim != 2 or shapes.shape[1] > _MAX_RANK:
        raise InvalidArgument(f"input '{name}.shapes' must have the shape [tensors, dimensions], at most {_MAX_RANK}")
    for row in shapes.tolist():
        shape = list(row)
        while shape and shape[-1] == -1:
            shape.pop()
        if any(size < 0 for size in shape):
            raise InvalidArgument(f"input '{name}.shapes' has the negative size {min(shape)}")
        end = start + prod(shape)
        if end > len(flat):
            break
        tensors.append(flat[start:end].reshape(shape))
        start = end
    if len(tensors) < len(shapes) or start != len(flat):
        wanted = sum(prod(size for size in row if size != -1) for row in shapes.tolist())
        raise InvalidArgument(
            f"the tensors in input '{name}.shapes' have {wanted} elements, input {name!r} has {len(flat)}"
        )
    return tensors


def _together(tensors: Sequence[Array], datatype: Datatype) -> Sequence[Array]:
    rank = max((tensor.ndim for tensor in tensors), default=0)
    shapes = np.full((len(tensors), rank), -1, np.int64)
    for row, tensor in enumerate(tensors):
        shapes[row, : tensor.ndim] = tensor.shape
    flat = [tensor.reshape(-1) for tensor in tensors]
    return (np.concatenate(flat) if flat else np.empty(0, datatype.dtype)), shapes


def _table(maps: Sequence[Mapping[Any, Any]], keys: Sequence[Any], datatype: Datatype) -> Array:
    of_all = itemgetter(*keys)
    rows = [of_all(each) for each in maps]
    return cast(Array, np.array(rows, datatype.dtype).reshape(len(rows), len(keys)))
