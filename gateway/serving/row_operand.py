"""Facts about one value and one node, as the walk for row independence collects them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from math import prod
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

ROWS: Final = "rows"  # a size that is the number of rows of the run
MIXED: Final = "mixed"  # a number that was computed from it

# A size: a number, ROWS, or None where it is free but the same for all requests of a run.
Size = int | str | None
Objects = npt.NDArray[np.object_]


class NotRowWise(Exception):
    """Raised when a node works across rows, or may do so; the text names the node and says how."""


class Dependence(Enum):
    """Says what a value depends on: not on the request's rows, on the rows one by one, or on their number."""

    FIXED = "fixed"
    ROWS = "rows"
    COUNT = "count"


@dataclass(frozen=True, slots=True)
class Operand:
    """Holds the facts known about one value of a graph.

    Shapes: `dims` is None where the rank is not known; `axis` is the row axis where `origin` is ROWS; `known` holds
            the elements of small integer tensors: numbers, ROWS, MIXED, or None.
    """

    origin: Dependence
    dims: tuple[Size, ...] | None = None
    axis: int = 0
    known: Objects | None = None

    @property
    def rank(self) -> int:
        """Returns the number of dimensions. Raises: NotRowWise, if it is not known."""
        if self.dims is None:
            raise NotRowWise("the rank of an input is not known")
        return len(self.dims)

    @property
    def is_rows(self) -> bool:
        return self.origin is Dependence.ROWS

    def numbers(self) -> list[int]:
        """Returns the elements, all of them known numbers. Raises: NotRowWise."""
        elements = [] if self.known is None else self.known.reshape(-1).tolist()
        if self.known is None or not all(isinstance(element, int) for element in elements):
            raise NotRowWise("an axis or size is computed from data")
        return elements


class Operation(NamedTuple):
    """Holds one node and the facts about its inputs; None stands for an optional input that is left out."""

    kind: str
    attributes: Mapping[str, Any]
    inputs: Sequence[Operand | None]
    outputs: int  # that are used
    opset: int

    def fixed(self, *positions: int) -> None:
        """Checks that none of these inputs depends on the request. Raises: NotRowWise, if one does."""
        for position in positions:
            operand = self.at(position)
            if operand is not None and operand.origin is not Dependence.FIXED:
                raise NotRowWise(f"its input {position + 1} depends on the request")

    def at(self, position: int) -> Operand | None:
        return self.inputs[position] if position < len(self.inputs) else None

    def rows(self, position: int = 0) -> Operand:
        """Returns the input at this position, which is row-wise. Raises: NotRowWise."""
        operand = self.at(position)
        if operand is None or not operand.is_rows:
            raise NotRowWise(f"its input {position + 1} is not the one that depends on the rows")
        return operand

    def axes(self, attribute: str = "axes", position: int = 1) -> list[int] | None:
        """Returns the axes from the attribute (older operator sets) or the input; None if neither is given."""
        if attribute in self.attributes:
            value = self.attributes[attribute]
            return [value] if isinstance(value, int) else list(value)
        operand = self.at(position)
        return None if operand is None else operand.numbers()


def reshaped_axis(source: Operand, target: Sequence[Size], *, copies_zero: bool) -> tuple[int, tuple[Size, ...]]:
    """Returns the row axis after a Reshape to `target`, and the new dims.

    1. In row-major order rows stay whole exactly if the sizes before their axis have the same product as before and
       the axis still has the size ROWS; the sizes after it then fit by themselves.
    2. The size is ROWS if the target says so, if it is copied (0), or if it is inferred (-1) and the product of the
       other sizes has not changed.

    Raises: NotRowWise.
    """
    dims = source.dims or ()
    before, behind = dims[: source.axis], dims[source.axis + 1 :]
    sizes = [
        dims[index] if size == 0 and copies_zero and index < len(dims) else size for index, size in enumerate(target)
    ]
    for index, size in enumerate(sizes):
        copied = index == source.axis and all(target[i] == 0 for i in range(index)) and copies_zero
        if not copied and not _same_product(sizes[:index], before):
            continue
        if size == ROWS or (size == -1 and _same_product(sizes[index + 1 :], behind)):
            made = tuple(None if each == -1 else each for each in sizes)
            return index, (*made[:index], ROWS, *made[index + 1 :])
    raise NotRowWise("it reshapes the rows together with another axis, or to sizes that are not known")


def _same_product(first: Sequence[Size], second: Sequence[Size]) -> bool:
    ours, theirs = ([size for size in sizes if isinstance(size, int) and size > 0] for sizes in (first, second))
    return len(ours) == len(first) and len(theirs) == len(second) and prod(ours) == prod(theirs)
