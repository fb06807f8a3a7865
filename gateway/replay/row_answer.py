"""What the outputs of a run say of each row: a class, a score, and the numbers beside them. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gateway.records.lake.predicted_class import are_scores, chances
from gateway.records.worker.stream_schema import is_flat, width
from gateway.tensor import Array, Datatype, TensorSpec

RowClass = int | str | None


@dataclass(frozen=True, slots=True)
class RowAnswers:
    """The answers to the rows of one request; a model that does not batch answers one row.

    Shapes: all [rows]; `scores` is nan where there is none; `numbers` has the floats of each output, [rows, values].
    """

    classes: tuple[RowClass, ...]
    scores: npt.NDArray[np.float64]
    numbers: Mapping[str, npt.NDArray[np.float64]]

    def __len__(self) -> int:
        return len(self.classes)


def answers_of(outputs: Mapping[str, Array], specs: Sequence[TensorSpec], rows: int) -> RowAnswers:
    """Returns what the outputs say, by the rule of the prediction log.

    Shapes: `specs` as the log has them. An output that does not have `rows` rows says nothing of any row.
    """
    classes: list[RowClass] = [None] * rows
    scores = np.full(rows, np.nan)
    flat = {spec.name: _matrix(spec, outputs[spec.name], rows) for spec in specs if spec.name in outputs}
    tables = {name: table for name, table in flat.items() if table is not None}
    known = {spec.name: spec for spec in specs}
    whole = [name for name, table in tables.items() if table.dtype.kind in "iu" and table.shape[1] == 1]
    named = [name for name, table in tables.items() if table.dtype.kind == "O" and table.shape[1] == 1]
    if whole:
        classes = [int(value) for value in tables[whole[0]][:, 0]]
    elif named:
        classes = [bytes(value).decode(errors="replace") for value in tables[named[0]][:, 0]]
    decided = False
    for name, table in tables.items():
        if table.dtype.kind != "f" or decided:
            continue
        if table.shape[1] == 1:
            scores, decided = table[:, 0].astype(np.float64), True
            continue
        spec = known[name]
        classified = {name} if spec.labels else set()
        held = np.ones(rows, np.bool_)
        if not are_scores(name, classified=classified, class_beside=bool(whole or named)):
            held = chances(table, precise=spec.datatype.size >= 4)
        if not held.any():
            continue
        scores, decided = np.where(held, table.max(axis=1), np.nan).astype(np.float64), True
        if not (whole or named):
            best = table.argmax(axis=1)
            classes = [int(best[row]) if held[row] else None for row in range(rows)]
    return RowAnswers(tuple(classes), scores, _numbers(outputs, specs, rows))


def _matrix(spec: TensorSpec, array: Array, rows: int) -> Array | None:
    if not is_flat(spec) or array.shape[:1] != (rows,):
        return None
    table = array.reshape(rows, width(spec))
    return as_floats(spec, table) if spec.datatype.is_float else table


def as_floats(spec: TensorSpec, array: Array) -> Array:
    """Returns the array with BF16's patterns as the numbers that they are."""
    if spec.datatype is Datatype.BF16:
        return np.asarray((array.astype("<u4") << np.uint32(16)).view("<f4"))
    return array


def _numbers(
    outputs: Mapping[str, Array], specs: Sequence[TensorSpec], rows: int
) -> dict[str, npt.NDArray[np.float64]]:
    made = {}
    for spec in specs:
        if spec.name in outputs and spec.datatype.is_float:
            values = np.asarray(as_floats(spec, np.ascontiguousarray(outputs[spec.name])), np.float64)
            by_row = rows > 0 and values.shape[:1] == (rows,)
            made[spec.name] = values.reshape(rows if by_row else 1, -1)
    return made


def same_bits(one: Array, other: Array) -> bool:
    """Returns whether two tensors are equal to the bit; any NaN is like any other."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if one.dtype == object or not one.size:
        return bool((one == other).all())
    plain = [np.ascontiguousarray(tensor).reshape(-1).view(np.uint8) for tensor in (one, other)]
    if np.array_equal(plain[0], plain[1]):
        return True
    if one.dtype.kind != "f":
        return False
    alike = (one == other) & (np.signbit(one) == np.signbit(other))
    return bool((alike | (np.isnan(one) & np.isnan(other))).all())


def quantiles(values: Sequence[float]) -> dict[str, float]:
    """Returns mean and quantiles, {} where there is nothing."""
    if not values:
        return {}
    shares = (0.5, 0.9, 0.99)
    made = {f"p{100 * share:g}": round(float(np.quantile(values, share)), 1) for share in shares}
    return {"mean": round(float(np.mean(values)), 1), **made}
