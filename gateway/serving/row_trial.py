"""Runs of rows alone and together, which show whether the answer of a row depends on the other rows of its run.

1. Each row alone and among the others: what is added up, sorted, counted or normalised over the rows differs.
2. Each row among others that were changed, in a run of the same size: what rounding hides in the first trial shows,
   since the same kernel adds up in the same order.
3. A row among copies of itself: what compares rows with each other finds none that is equal in random data.

Rows that are all equal would hide every dependence, so they are made different first. Where all answers are equal
all the same, nothing has been shown.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt

from gateway.errors import GatewayError
from gateway.tensor import Array, Datatype, TensorSpec

Feed = Mapping[str, Array]

# How much a row may differ beside other rows: rounding from another order of addition, not another answer.
_TOLERANCES = {Datatype.FP16: 1e-2, Datatype.BF16: 4e-2, Datatype.FP32: 1e-3, Datatype.FP64: 1e-6}
_SAME_SIZE = 1e-3  # of that, where the runs have the same size


@dataclass(frozen=True, slots=True)
class TrialVerdict:
    """Says what the runs have shown: `independent` None is nothing. `output` is the one that `why` is about."""

    independent: bool | None
    bit_equal: bool | None = None
    output: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True)
class RowTrial:
    """The trial of one session, whose `outputs` are what `execute` gives in this order."""

    outputs: Sequence[TensorSpec]
    execute: Callable[[Feed], Sequence[Array]]

    def run(self, feed: Feed) -> TrialVerdict:
        """Returns what runs with these rows show; the model has answered them.

        Raises: InvalidModel (WarmUpFailed), where the model refuses one of these rows alone.
        """
        feed, together = self._different(feed)
        rows = len(together[0])
        if rows < 2:
            return TrialVerdict(None)
        bit_equal = True
        for row in range(rows):
            alone = self.execute(rows_of(feed, row, row + 1))
            for spec, whole, part in zip(self.outputs, together, alone, strict=True):
                own = whole[row : row + 1]
                if _same_bits(own, part):
                    continue
                bit_equal = False
                if not close(own, part, spec.datatype):
                    return TrialVerdict(False, False, spec.name, "it is another one alone")
        for trial in (self._among_changed, self._among_copies):
            verdict = trial(feed, together, rows)
            if verdict is not None:
                return verdict
        if not any(_differ(output) for output in together):
            return TrialVerdict(None, bit_equal)
        return TrialVerdict(True, bit_equal)

    def _different(self, feed: Feed) -> tuple[Feed, Sequence[Array]]:
        """Returns rows that differ from each other where the model takes such, and their answers."""
        if not any(_differ(array) for array in feed.values()):
            for varied in (_scaled(feed), _rolled(feed)):
                try:
                    outputs = self.execute(varied)
                except (GatewayError, MemoryError):
                    continue
                if not any(_all_nan(output, spec) for output, spec in zip(outputs, self.outputs, strict=True)):
                    return varied, outputs
        return feed, self.execute(feed)

    def _among_changed(self, feed: Feed, together: Sequence[Array], rows: int) -> TrialVerdict | None:
        """Changes every second row, then the others."""
        for kept in (0, 1):
            others = np.arange(rows) % 2 != kept
            changed = {name: _changed(array, others) for name, array in feed.items()}
            try:
                answers = self.execute(changed)
            except (GatewayError, MemoryError):  # the changed rows may be none that it takes
                continue
            for spec, before, after in zip(self.outputs, together, answers, strict=True):
                if after.shape != before.shape or not close(
                    before[~others], after[~others], spec.datatype, share=_SAME_SIZE
                ):
                    return TrialVerdict(False, False, spec.name, "it is another one beside other rows")
        return None

    def _among_copies(self, feed: Feed, together: Sequence[Array], rows: int) -> TrialVerdict | None:
        copies = {name: np.repeat(array[:1], rows, axis=0) for name, array in feed.items()}
        try:
            answers = self.execute(copies)
        except (GatewayError, MemoryError):
            return None
        for spec, before, after in zip(self.outputs, together, answers, strict=True):
            expected = np.repeat(before[:1], rows, axis=0)
            if after.shape != expected.shape or not close(expected, after, spec.datatype):
                return TrialVerdict(False, False, spec.name, "it is another one beside rows that are equal")
        return None


def rows_of(feed: Feed, start: int, end: int) -> Feed:
    """Returns these rows of each input."""
    return {name: np.ascontiguousarray(array[start:end]) for name, array in feed.items()}


def close(left: Array, right: Array, datatype: Datatype, *, share: float = 1.0) -> bool:
    """Returns whether two answers are equal within rounding; `share` of the usual tolerance is allowed."""
    if left.shape != right.shape:
        return False
    if not datatype.is_float:
        return bool(left.tolist() == right.tolist())
    if _same_bits(left, right):
        return True
    ours, theirs = as_float(left, datatype), as_float(right, datatype)
    tolerance = _TOLERANCES[datatype] * share
    largest = float(np.max(np.abs(ours), initial=0.0, where=np.isfinite(ours)))
    return bool(np.allclose(ours, theirs, rtol=tolerance, atol=tolerance * max(largest, 1e-6), equal_nan=True))


def as_float(array: Array, datatype: Datatype) -> npt.NDArray[np.float64]:
    """Returns the numbers of a floating point tensor."""
    if datatype is Datatype.BF16:
        return (array.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return array.astype(np.float64)


def _same_bits(left: Array, right: Array) -> bool:
    if left.shape != right.shape:
        return False
    return bool(left.tolist() == right.tolist() if left.dtype == object else left.tobytes() == right.tobytes())


def _differ(array: Array) -> bool:
    """Returns whether some row is another one than the first."""
    return any(not _same_bits(array[:1], array[row : row + 1]) for row in range(1, len(array)))


def _all_nan(array: Array, spec: TensorSpec) -> bool:
    return bool(spec.datatype.is_float and array.size and np.isnan(as_float(array, spec.datatype)).all())


def _scaled(feed: Feed) -> Feed:
    """Returns the rows, each with other numbers where these are real numbers."""
    return {name: _grown(array) for name, array in feed.items()}


def _grown(array: Array) -> Array:
    if array.dtype.kind != "f":
        return _shifted(array)
    numbers = array.astype(np.float64)
    steps = np.arange(len(array), dtype=np.float64).reshape(-1, *(1,) * (array.ndim - 1)) / 16
    with np.errstate(all="ignore"):
        return cast(Array, (numbers * (1 + steps) + steps).astype(array.dtype))


def _rolled(feed: Feed) -> Feed:
    """Returns the rows, the elements of each in another order: they stay ones that the model takes."""
    return {name: _shifted(array) for name, array in feed.items()}


def _shifted(array: Array) -> Array:
    moved = [np.roll(array[row].reshape(-1), row).reshape(array.shape[1:]) for row in range(len(array))]
    made = np.empty_like(array)
    for row, values in enumerate(moved):
        made[row] = values
    return made


def _changed(array: Array, others: npt.NDArray[np.bool_]) -> Array:
    """Returns the tensor with other values in these rows: far greater ones where they are real numbers."""
    made = array.copy()
    if array.dtype.kind == "f":
        with np.errstate(all="ignore"):
            made[others] = (array[others] * 3 + 1).astype(array.dtype)
    else:
        made[others] = np.roll(array[others], 1, axis=0)
    return made
