"""Runs of a session with inputs that have no elements: some models end the process that runs them.

An LSTM or GRU without rows does so in ONNX Runtime, whatever else is in the model. The trial therefore runs in the
probe's process, after everything else.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, combinations
from typing import Final

import numpy as np

from gateway.errors import GatewayError
from gateway.serving.session import Session
from gateway.serving.warm_up import of_each_rank
from gateway.tensor import Array, TensorSpec

# Up to so many free sizes every choice of empty ones is tried; beyond it each alone, and all together.
_EVERY_CHOICE: Final = 4
# Of sizes that no run has shown.
_USUAL_SIZE: Final = 16

Place = tuple[str, int]  # an input and one of its free dimensions


def try_empty_inputs(session: Session, accepted: Mapping[str, Array] | None, *, batches: bool) -> None:
    """Runs the session with each choice of free sizes set to 0. Answers and refusals do not matter.

    `accepted` are inputs that it has answered, `batches` whether their first dimensions are rows, which go together.
    """
    for inputs in of_each_rank(session.inputs):
        _try(session, inputs, _of_rank(inputs, accepted or {}), batches=batches)


def _try(session: Session, inputs: Sequence[TensorSpec], accepted: Mapping[str, Array], *, batches: bool) -> None:
    for shapes in _shapes(inputs, accepted, batches=batches):
        feed = {spec.name: _array(spec, shapes[spec.name], accepted.get(spec.name)) for spec in inputs}
        try:
            session.run(None, feed)
        except (GatewayError, MemoryError):
            continue


def _of_rank(inputs: Sequence[TensorSpec], accepted: Mapping[str, Array]) -> Mapping[str, Array]:
    """Returns the accepted inputs that have as many dimensions as these specs say."""
    ranks = {spec.name: len(spec.shape) for spec in inputs}
    return {name: array for name, array in accepted.items() if array.ndim == ranks.get(name)}


def _shapes(
    inputs: Sequence[TensorSpec], accepted: Mapping[str, Array], *, batches: bool
) -> Iterator[dict[str, tuple[int, ...]]]:
    free = [(spec.name, axis) for spec in inputs for axis, size in enumerate(spec.shape) if size < 0]
    rows = [place for place in free if place[1] == 0]
    groups: list[list[Place]] = [rows] if batches and rows else []
    groups += [[place] for place in free if not (batches and place[1] == 0)]
    if len(groups) <= _EVERY_CHOICE:
        choices = chain.from_iterable(combinations(groups, count) for count in range(1, len(groups) + 1))
    else:
        choices = chain(((group,) for group in groups), [tuple(groups)])
    for choice in choices:
        empty = set(chain.from_iterable(choice))
        yield {spec.name: _shape(spec, accepted.get(spec.name), empty) for spec in inputs}


def _shape(spec: TensorSpec, accepted: Array | None, empty: set[Place]) -> tuple[int, ...]:
    usual = accepted.shape if accepted is not None else tuple(_USUAL_SIZE if size < 0 else size for size in spec.shape)
    return tuple(0 if (spec.name, axis) in empty else size for axis, size in enumerate(usual))


def _array(spec: TensorSpec, shape: tuple[int, ...], accepted: Array | None) -> Array:
    if accepted is not None and accepted.shape == shape:
        return accepted
    return np.full(shape, b"", object) if spec.datatype.dtype == object else np.zeros(shape, spec.datatype.dtype)
