"""Bins on frozen reference edges: counts of any two windows can be added, and compared with the reference.

A count has one place per cell. Numbers: below the reference's least value, its quantiles, above its largest value, one
cell for each point mass, then null, NaN and infinite. Categories: the most frequent ones, other known ones, those that
the reference does not know, null and NaN. `fold` makes of that the bins that distances are taken over: what is out of
range joins the outermost bins, unknown categories join the other ones, NaN joins null (a float tensor says "missing"
with NaN, a table with null).
"""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, Literal
from zlib import crc32

import numpy as np
import numpy.typing as npt

from gateway.drift.statistics.column import Array, Column, as_column
from gateway.drift.statistics.distance import Counts, Floats

QUANTILES: Final = 20
TOP: Final = 50
POINT_MASS: Final = 0.05  # a single value with a larger share gets a cell of its own
_MANY: Final = 4096  # values that are counted end by end
_TAIL: Final = 500  # rarer categories that are remembered by checksum
Precision = Literal["f4", "f8"]
Weights = npt.NDArray[np.float64] | None


@dataclass(frozen=True, slots=True)
class NumericBins:
    """Bins of a number: `edges` between the quantile bins, within [low, high]; `points` are single values.

    `precision` is what values are compared in: float32 wherever it keeps the edges apart, so that a profile made from
    doubles fits the float32 that a client sends.
    """

    edges: tuple[float, ...]
    points: tuple[float, ...]
    low: float
    high: float
    precision: Precision = "f4"
    _ends: Array = field(init=False, repr=False, compare=False)
    _homes: tuple[int, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        kind = np.float32 if self.precision == "f4" else np.float64
        low, *inner, high = (kind(value) for value in (self.low, *self.edges, self.high))
        # The lowest bin begins at `low`, the highest ends with `high`: the first value out of range is the next one.
        # Beyond the largest finite number that is infinity, which has a cell of its own.
        with np.errstate(over="ignore"):
            ends = np.array([low, *inner, np.nextafter(high, kind(np.inf))], kind)
        object.__setattr__(self, "_ends", ends)
        homes = np.searchsorted(ends, np.array(self.points, kind), side="right").tolist()
        object.__setattr__(self, "_homes", tuple(homes))

    @property
    def cells(self) -> tuple[str, ...]:
        """Returns what each place of a count stands for."""
        bounds = [self.low, *self.edges, self.high]
        ranges = [f"{a:.6g} to {b:.6g}" for a, b in pairwise(bounds)]
        points = [f"= {point:.6g}" for point in self.points]
        return (f"< {self.low:.6g}", *ranges, f"> {self.high:.6g}", *points, "null", "NaN", "infinite")

    @property
    def labels(self) -> tuple[str, ...]:
        """Returns what each bin of `fold` stands for."""
        return (*self.cells[1 : len(self.edges) + 2], *self.cells[len(self.edges) + 3 : -3], "missing", "infinite")

    @property
    def positions(self) -> Floats:
        """Returns where the bins of `fold` that hold numbers lie, for distances along the axis, in their order."""
        bounds = np.array([self.low, *self.edges, self.high])
        return np.concatenate([bounds[:-1] / 2.0 + bounds[1:] / 2.0, np.array(self.points, np.float64)])

    def count(self, values: npt.ArrayLike | Column, weights: Weights = None) -> Counts:
        """Rows in each cell, or the sums of their weights.

        Raises: InvalidArgument (not one value per row).
        """
        column = as_column("values", values)
        size = len(self._ends) + 1 + len(self.points) + 3
        counts: Counts = np.zeros(size, np.int64) if weights is None else np.zeros(size, np.float64)
        values_there, chosen = column.values, weights
        if column.texts is not None:  # a number that came as text is none
            counts[-3], counts[-2] = _missing_and_rest(column, weights)
            return counts
        if column.missing is not None:
            present = ~column.missing
            counts[-3] = _total(column.missing, weights)
            values_there, chosen = values_there[present], None if weights is None else weights[present]
        with np.errstate(over="ignore", invalid="ignore"):
            numbers = values_there.astype(self._ends.dtype, copy=False)
        counts[: len(self._ends) + 1] = self._spread(numbers, chosen)
        self._take_out(counts, numbers, chosen)
        return counts if weights is None else np.maximum(counts, 0.0)  # a difference of sums may end just below 0

    def _spread(self, numbers: Array, weights: Weights) -> Counts:
        """Rows below the first end, between each two, and above the last, NaN among the last."""
        if weights is None and len(numbers) >= _MANY:
            # Comparing all values with each end takes a tenth of the time of looking each value up.
            beyond = [np.count_nonzero(numbers >= end) for end in self._ends]
            below, above = np.count_nonzero(numbers < self._ends[0]), beyond[-1]
            inside = (np.array(beyond[:-1], np.int64) - beyond[1:]).tolist()
            return np.array([below, *inside, len(numbers) - below - beyond[0] + above], np.int64)
        places = np.searchsorted(self._ends, numbers, side="right")
        return np.bincount(places, weights, minlength=len(self._ends) + 1)

    def _take_out(self, counts: Counts, numbers: Array, weights: Weights) -> None:
        """Moves point masses, NaN and infinities from the ranges that they were counted in to cells of their own."""
        above = len(self._ends)
        for index, (point, home) in enumerate(zip(self.points, self._homes, strict=True)):
            hits = _total(numbers == self._ends.dtype.type(point), weights)
            counts[home] -= hits
            counts[above + 1 + index] = hits
        with np.errstate(over="ignore", invalid="ignore"):
            finite = np.isfinite(numbers.sum(dtype=np.float64))
        if not finite:
            not_a_number = _total(np.isnan(numbers), weights)
            largest, least = _total(numbers == np.inf, weights), _total(numbers == -np.inf, weights)
            counts[above] -= not_a_number + largest
            counts[0] -= least
            counts[-2], counts[-1] = not_a_number, largest + least

    def fold(self, counts: Counts) -> Counts:
        """The bins that distances are taken over.

        Shapes: [..., cells] to [..., quantile bins + points + missing + infinite].
        """
        bins = len(self._ends) - 1
        folded = np.concatenate([counts[..., 1:-2], counts[..., -1:]], axis=-1)
        folded = np.delete(folded, bins, axis=-1)
        folded[..., 0] += counts[..., 0]
        folded[..., bins - 1] += counts[..., bins + 1]
        folded[..., -2] += counts[..., -2]
        return folded

    def along(self, counts: Counts) -> tuple[Floats, Counts]:
        """Positions in ascending order and the folded counts at them: numbers only, for distances along the axis."""
        order = np.argsort(self.positions, kind="stable")
        return self.positions[order], self.fold(counts)[..., : len(order)][..., order]

    def special(self, counts: Counts) -> dict[str, float]:
        """Rows that are worth a look by themselves: missing, infinite, out_of_range."""
        outside = counts[0] + counts[len(self._ends)]
        return {
            "missing": float(counts[-3] + counts[-2]),
            "infinite": float(counts[-1]),
            "out_of_range": float(outside),
        }


@dataclass(frozen=True, slots=True)
class CategoryBins:
    """Bins of a category: the most frequent `categories`, and by checksum the rarer ones.

    `numeric` categories are numbers, written as `number_text` does. Where there are more rare ones than are
    remembered (`tail_complete` is false), every category that has no bin counts as known.
    """

    categories: tuple[str, ...]
    tail: tuple[int, ...] = ()
    tail_complete: bool = True
    numeric: bool = False
    _places: dict[str, int] = field(init=False, repr=False, compare=False)
    _numbers: Array = field(init=False, repr=False, compare=False)
    _known: frozenset[int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_places", {name: place for place, name in enumerate(self.categories)})
        object.__setattr__(self, "_known", frozenset(self.tail))
        numbers = np.array([float(name) for name in self.categories] if self.numeric else [], np.float32)
        object.__setattr__(self, "_numbers", numbers)

    @property
    def cells(self) -> tuple[str, ...]:
        """Returns what each place of a count stands for."""
        return (*self.categories, "other", "unseen", "null", "NaN")

    @property
    def labels(self) -> tuple[str, ...]:
        """Returns what each bin of `fold` stands for."""
        return (*self.categories, "other", "missing")

    def count(self, values: npt.ArrayLike | Column, weights: Weights = None) -> Counts:
        """Rows in each cell, or the sums of their weights.

        Raises: InvalidArgument (not one value per row).
        """
        column = as_column("values", values)
        cells = len(self.categories) + 4
        places = self._numeric_places(column) if column.texts is None else self._text_places(column)
        if column.missing is not None:
            places = np.where(column.missing, cells - 2, places)
        return np.bincount(places, weights, minlength=cells)

    def fold(self, counts: Counts) -> Counts:
        """The bins that distances are taken over.

        Shapes: [..., cells] to [..., categories + other + missing].
        """
        known = len(self.categories)
        other = counts[..., known : known + 2].sum(axis=-1, keepdims=True)
        missing = counts[..., known + 2 :].sum(axis=-1, keepdims=True)
        return np.concatenate([counts[..., :known], other, missing], axis=-1)

    def special(self, counts: Counts) -> dict[str, float]:
        """Rows that are worth a look by themselves: missing, and unseen where every known category is remembered."""
        missing = {"missing": float(counts[-1] + counts[-2])}
        return {**missing, "unseen": float(counts[-3])} if self.tail_complete else missing

    def is_new(self, text: str) -> bool:
        """Returns whether a category is one that the reference does not know."""
        return self._place(text) == len(self.categories) + 1

    def _text_places(self, column: Column) -> npt.NDArray[np.int64]:
        assert column.texts is not None
        of_text = np.array([self._place(text) for text in column.texts] or [0], np.int64)
        return np.asarray(of_text[column.values.astype(np.int64)], np.int64)

    def _numeric_places(self, column: Column) -> npt.NDArray[np.int64]:
        if not self.numeric:
            distinct, codes = np.unique(column.values, return_inverse=True)
            return self._text_places(Column(codes, None, tuple(number_text(value) for value in distinct.tolist())))
        known = len(self.categories)
        with np.errstate(over="ignore", invalid="ignore"):
            numbers = column.values.astype(np.float32, copy=False)
        places = np.full(len(numbers), known + 1, np.int64)
        if self.tail or not self.tail_complete:
            distinct, codes = np.unique(numbers, return_inverse=True)
            places = np.array([self._place(number_text(value)) for value in distinct.tolist()], np.int64)[codes]
        for place, number in enumerate(self._numbers):
            places[numbers == number] = place
        places[np.isnan(numbers)] = known + 3
        return places

    def _place(self, text: str) -> int:
        place = self._places.get(text)
        if place is not None:
            return place
        known = not self.tail_complete or checksum(text) in self._known
        return len(self.categories) + (0 if known else 1)


Bins = NumericBins | CategoryBins


def build_numeric(values: npt.ArrayLike | Column) -> NumericBins:
    """Bins of equal shares of these values. Values without a finite number among them give one bin, [0, 0].

    Raises: InvalidArgument (not one value per row).
    """
    numbers = as_column("values", values).numbers()
    numbers = numbers[np.isfinite(numbers)]
    if not len(numbers):
        return NumericBins((), (), 0.0, 0.0)
    wide = _cut(np.sort(numbers))
    with np.errstate(over="ignore"):
        narrow = np.sort(numbers.astype(np.float32).astype(np.float64))
    if not np.isfinite(narrow[[0, -1]]).all():
        return NumericBins(*wide, precision="f8")
    cut = _cut(narrow)
    if len(cut[0]) + len(cut[1]) < len(wide[0]) + len(wide[1]):
        return NumericBins(*wide, precision="f8")
    return NumericBins(*cut)


def build_categories(values: npt.ArrayLike | Column, *, top: int = TOP) -> CategoryBins:
    """Bins of the most frequent categories of these values.

    Order: by falling count, then by name.
    Raises: InvalidArgument (not one value per row).
    """
    column = as_column("values", values)
    present = column.values if column.missing is None else column.values[~column.missing]
    if column.texts is None:
        with np.errstate(over="ignore", invalid="ignore"):
            present = present.astype(np.float32)
        present = present[~np.isnan(present)]
    distinct, counts = np.unique(present, return_counts=True)
    names = [number_text(v) if column.texts is None else column.texts[v] for v in distinct.tolist()]
    ranked = [name for _, name in sorted(zip((-counts).tolist(), names, strict=True))]
    tail = ranked[top:]
    return CategoryBins(
        tuple(ranked[:top]),
        tuple(sorted({checksum(name) for name in tail})) if len(tail) <= _TAIL else (),
        len(tail) <= _TAIL,
        column.texts is None,
    )


def number_text(value: float) -> str:
    """Returns how a number is written as a category: 3 for 3.0, else the shortest text that gives the same float32."""
    narrow = np.float32(value)
    return str(int(narrow)) if np.isfinite(narrow) and narrow == int(narrow) else str(narrow)


def checksum(text: str) -> int:
    return crc32(text.encode(errors="replace"))


def _cut(ordered: Floats) -> tuple[tuple[float, ...], tuple[float, ...], float, float]:
    """Edges, points, least and largest of sorted numbers."""
    distinct, counts = np.unique(ordered, return_counts=True)
    heavy = counts > POINT_MASS * len(ordered)
    points = distinct[heavy]
    rest = ordered[~np.isin(ordered, points)] if len(points) else ordered
    low, high = float(ordered[0]), float(ordered[-1])
    if not len(rest):
        return (), tuple(points.tolist()), low, high
    # As many bins for the rest as its share of the rows is worth, so that all cells are about equally full.
    bins = max(1, round(QUANTILES * len(rest) / len(ordered)))
    edges = np.unique(rest[np.arange(1, bins) * len(rest) // bins])
    return tuple(edges[edges > low].tolist()), tuple(points.tolist()), low, high


def _total(mask: npt.NDArray[np.bool_], weights: Weights) -> float:
    return float(np.count_nonzero(mask)) if weights is None else float(weights[mask].sum())


def _missing_and_rest(column: Column, weights: Weights) -> tuple[float, float]:
    absent = np.zeros(len(column), np.bool_) if column.missing is None else column.missing
    return _total(absent, weights), _total(~absent, weights)
