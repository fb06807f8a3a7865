"""What ONNX Runtime says of a model's inputs and outputs, as the protocol can carry them."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from gateway.errors import FailedPrecondition
from gateway.serving.carried_value import CarriedValue, Form, carried
from gateway.tensor import Datatype


def carried_node(
    node: Any,
    side: str,
    without_shape: Collection[str],
    map_keys: Mapping[str, tuple[str | int, ...]],
) -> CarriedValue:
    return carried(
        node.name,
        node.type,
        side,
        _shape_of(node),
        any_shape=node.name in without_shape,
        keys=map_keys.get(node.name, ()),
    )


def overridable(nodes: Sequence[Any]) -> list[CarriedValue]:
    """Returns the weights that a request may replace: those that the protocol can carry."""
    values: list[CarriedValue] = []
    for node in nodes:
        try:
            values.append(carried(node.name, node.type, "input", _shape_of(node), optional=True))
        except FailedPrecondition:
            continue
    return values


def _shape_of(node: Any) -> tuple[int, ...]:
    return tuple(size if isinstance(size, int) and size >= 0 else -1 for size in node.shape or ())


def check_bindable(given: Sequence[CarriedValue], answered: Sequence[CarriedValue]) -> None:
    """Checks that the runtime's values can hold all of a run whose outputs numpy does not have.

    Raises: FailedPrecondition naming the output and what cannot stand beside it.
    """
    odd = next(value for value in answered if value.element is not None)
    for side, values in (("input", given), ("output", answered)):
        for value in values:
            if value.form is not Form.TENSOR or value.specs[0].datatype is Datatype.BYTES or value.specs[0].optional:
                raise FailedPrecondition(
                    f"output {odd.name!r} has ONNX type {odd.onnx_type} beside the {side} {value.name!r} of type "
                    f"{value.onnx_type}, which ONNX Runtime cannot bind together; cast the output in the model"
                )
