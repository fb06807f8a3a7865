"""Time blocks whose rows stay together: rows that follow each other are alike, and so are those of one request.

A test that exchanges single rows takes each for a witness of its own. Twenty blocks of each side are few enough to
be nearly independent where rows depend on their neighbours, and enough to say "one chance in a hundred".
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from gateway.drift.statistics.distance import Floats

Integers = npt.NDArray[np.int64]
BLOCKS: Final = 20
LEAST_BLOCKS: Final = 8


@dataclass(frozen=True, slots=True, eq=False)
class BlockedRows:
    """Whole rows in the order of time. Shapes: `values` [rows, columns], finite; `blocks` [rows], rising from 0 by
    at most 1: rows of one block depend on each other, those of two do not."""

    values: Floats
    blocks: Integers

    def __len__(self) -> int:
        return len(self.values)

    @property
    def count(self) -> int:
        """Returns how many blocks there are."""
        return int(self.blocks[-1]) + 1 if len(self.blocks) else 0

    @classmethod
    def independent(cls, values: Floats) -> "BlockedRows":
        """Rows that do not depend on each other: each is a block of its own."""
        return cls(values, np.arange(len(values)))

    @classmethod
    def in_order(cls, values: Floats, moments: npt.NDArray[np.int64] | None = None) -> "BlockedRows":
        """Rows in twenty blocks of about equal numbers of rows, and fewer where many rows are of one moment.

        Shapes: `moments` [rows] in rising order; None where only the order is known.
        """
        return cls(values, cut_blocks(np.arange(len(values)) if moments is None else moments))

    def drawn(self, most: int, rng: np.random.Generator) -> "BlockedRows":
        """Returns at most so many rows in their order, one from each of as many slices of equal length."""
        if len(self) <= most:
            return self
        chosen = ((np.arange(most) + rng.random(most)) * (len(self) / most)).astype(np.int64)
        _, renumbered = np.unique(self.blocks[chosen], return_inverse=True)
        return BlockedRows(self.values[chosen], np.asarray(renumbered, np.int64))


def cut_blocks(moments: npt.NDArray[np.int64], most: int = BLOCKS) -> Integers:
    """The block of each row: `most` of about equal numbers of rows, none of which ends within a moment.

    Shapes: `moments` [rows] in rising order.
    """
    if not len(moments):
        return np.zeros(0, np.int64)
    first_of_moment = np.searchsorted(moments, moments, side="left")
    _, blocks = np.unique(first_of_moment * most // len(moments), return_inverse=True)
    return np.asarray(blocks, np.int64)
