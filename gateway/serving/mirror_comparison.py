"""Comparison of a mirrored answer with the one that was served.

Only the first elements of large outputs are looked at: the comparison happens on the loop, beside requests.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from gateway.routing.document.mirror import Tolerance
from gateway.tensor import Array, Datatype, TensorSpec

MAX_ELEMENTS = 16_384  # of one output: about 30 us
MAX_TEXTS = 2_048
_FLOATS = (Datatype.FP16, Datatype.FP32, Datatype.FP64, Datatype.BF16)
Numbers = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Says whether the outputs agree, and what that rests on.

    Units:  `rows` are those whose highest score was compared (of the first floating-point output of two dimensions),
            `same_rows` those where both have it in the same place; `max_difference` is the largest absolute difference
            of any numbers, those left out of which one is not finite. `by_rows`: these rows say whether they
            agree.
    """

    agrees: bool
    rows: int
    same_rows: int
    max_difference: float
    by_rows: bool = False

    @property
    def judged_rows(self) -> tuple[int, int]:
        """Returns the rows that a judge counts, and those of them that differ.

        Where the answers are not compared row by row, by their highest scores, the whole answer is one row.
        """
        return (self.rows, self.rows - self.same_rows) if self.by_rows else (1, 0 if self.agrees else 1)


def compare(
    specs: Sequence[TensorSpec],
    served: Sequence[Array],
    mirrored: Sequence[Array],
    tolerances: Mapping[str, Tolerance],
) -> Comparison:
    """Compares mirrored outputs with those served, in the order of `specs`.

    They agree if every output that `tolerances` names is within its tolerance. Without tolerances they agree if the
    highest score of every row is in the same place; where no output has scores, if all outputs are equal. Outputs of
    different shapes never agree. Two values that are not numbers are equal.
    """
    agrees = True
    rows = same_rows = 0
    largest = 0.0
    exact = True
    for spec, theirs, mine in zip(specs, served, mirrored, strict=True):
        tolerance = tolerances.get(spec.name)
        if theirs.shape != mine.shape:
            agrees = exact = False
            continue
        if spec.datatype is Datatype.BYTES:
            equal = within = _same_texts(theirs, mine)
        else:
            first, second = _numbers(theirs, spec.datatype), _numbers(mine, spec.datatype)
            equal, within, difference = _distance(first, second, tolerance)
            largest = max(largest, difference)
            if not rows and spec.datatype in _FLOATS and theirs.ndim == 2:
                rows, same_rows = _same_highest(first, second, theirs.shape[1])
        exact = exact and equal
        if tolerance is not None and not (equal if tolerance.exact else within):
            agrees = False
    by_rows = agrees and not tolerances and rows > 0
    if not tolerances:
        agrees = agrees and (same_rows == rows if rows else exact)
    return Comparison(agrees, rows, same_rows, largest, by_rows)


def _numbers(array: Array, datatype: Datatype) -> Numbers:
    """The first elements, flat, as numbers that can be subtracted."""
    flat = array.reshape(-1)[:MAX_ELEMENTS]
    if datatype is Datatype.BF16:  # bit patterns: the upper half of a float32
        return cast(Numbers, (flat.astype(np.uint32) << 16).view(np.float32))
    return cast(Numbers, flat if datatype in (Datatype.FP32, Datatype.FP64) else flat.astype(np.float64))


def _distance(served: Numbers, mirrored: Numbers, tolerance: Tolerance | None) -> tuple[bool, bool, float]:
    """Returns whether all are equal, whether all are within the tolerance, and the largest difference."""
    same = served == mirrored
    if same.all():
        return True, True, 0.0
    with np.errstate(invalid="ignore", over="ignore"):
        difference = np.abs(served - mirrored)
        # What is not finite is as good as far away, unless both are the same.
        finite = np.isfinite(difference)
        same |= np.isnan(served) & np.isnan(mirrored)
        close = same
        if tolerance is not None and not tolerance.exact:
            limit = tolerance.absolute + tolerance.relative * np.abs(served)
            close = same | (finite & (difference <= limit))
    largest = float(difference[finite].max()) if finite.any() else 0.0
    return bool(same.all()), bool(close.all()), largest


def _same_highest(served: Numbers, mirrored: Numbers, width: int) -> tuple[int, int]:
    """Rows that were looked at, and those with the highest score in the same place."""
    rows = len(served) // width if width else 0
    if not rows:
        return 0, 0
    first, second = (numbers[: rows * width].reshape(rows, width) for numbers in (served, mirrored))
    return rows, int(np.count_nonzero(first.argmax(axis=1) == second.argmax(axis=1)))


def _same_texts(served: Array, mirrored: Array) -> bool:
    return bool(served.reshape(-1)[:MAX_TEXTS].tolist() == mirrored.reshape(-1)[:MAX_TEXTS].tolist())
