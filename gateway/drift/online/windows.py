"""Counts of live rows by minute, hour and day; windows of any length are sums of them.

Everything is a whole number or a sum, so what two segments, two workers or two hosts counted can be added in any order.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from gateway.drift.statistics.agreement import Agreement
from gateway.drift.statistics.distance import Counts, Floats, effective_rows
from gateway.drift.statistics.reference_profile import EmbeddingProfile, FeatureProfile

WEIGHT_ONE: Final = 1024  # a row that stands for itself; sampled rows weigh more, in whole parts
MINUTE_S: Final = 60
HOUR_S: Final = 3600
DAY_S: Final = 86400
MAX_SPAN: Final = 24  # base windows that a window of few rows grows to at most
_KEPT: Final = {MINUTE_S: 240, HOUR_S: 200, DAY_S: 400}
_FEWEST: Final = {MINUTE_S: 130, HOUR_S: 80, DAY_S: 30}
_BUDGET_BYTES: Final = 16 << 20  # for the buckets of one length, of one arm; wide models keep fewer
_SUMS: Final = ("rows", "weight", "squares", "errors", "error_rows")
_AGREEMENT: Final = tuple(one.name for one in fields(Agreement) if one.name != "largest")


@dataclass(frozen=True, slots=True)
class CellLayout:
    """Tells where the cells of each feature are in a vector of counts; `key` differs where the bins do.

    `embeddings` are those that some of the features are made of.
    """

    key: str
    features: tuple[FeatureProfile, ...]
    embeddings: tuple[EmbeddingProfile, ...] = ()
    places: tuple[slice, ...] = field(init=False)

    def __post_init__(self) -> None:
        places, start = [], 0
        for feature in self.features:
            end = start + len(feature.bins.cells)
            places.append(slice(start, end))
            start = end
        object.__setattr__(self, "places", tuple(places))

    @property
    def cells(self) -> int:
        return self.places[-1].stop if self.places else 0


@dataclass(slots=True, eq=False)
class Tally:
    """Holds what was counted in a span of time.

    Shapes: `counts` [cells]; `moments` [features, 3]: weight of the finite numbers, and the sums of their distances
            from the reference's mean and of the squares of those; `sums` [5]: rows, their weight, its squares, weight
            and number of rows that ended in an error; `agreement` [6] pairs with the version that served.
    Units: weights in 1024ths of a row, squares in rows.
    """

    counts: npt.NDArray[np.int64]
    moments: Floats
    sums: Floats
    agreement: Floats

    @classmethod
    def empty(cls, layout: CellLayout) -> "Tally":
        return cls(
            np.zeros(layout.cells, np.int64),
            np.zeros((len(layout.features), 3)),
            np.zeros(len(_SUMS)),
            np.zeros(len(_AGREEMENT)),
        )

    def add(self, other: "Tally") -> None:
        """Adds what the other tally counted."""
        self.counts += other.counts
        with np.errstate(over="ignore", invalid="ignore"):  # of numbers too large to have squares
            self.moments += other.moments
        self.sums += other.sums
        self.agreement += other.agreement

    @property
    def rows(self) -> int:
        return int(self.sums[0])

    @property
    def row_value(self) -> float:
        """Returns how many rows of equal weight a row of average weight is worth: 1 where all weigh the same."""
        return effective_rows(self.sums[1] / WEIGHT_ONE, self.sums[2]) / self.sums[0] if self.sums[0] else 1.0

    @property
    def error_share(self) -> float:
        """The share of all rows that ended in an error."""
        total = self.sums[1] + self.sums[3]
        return float(self.sums[3] / total) if total else 0.0

    @property
    def ended(self) -> int:
        """Rows that were answered or ended in an error."""
        return int(self.sums[0] + self.sums[4])

    def agreed(self) -> Agreement:
        values = dict(zip(_AGREEMENT, self.agreement.tolist(), strict=True))
        return Agreement(**{name: value if name == "difference" else int(value) for name, value in values.items()})


def agreement_vector(agreement: Agreement) -> Floats:
    """Returns the agreement as the vector that tallies add up."""
    return np.array([getattr(agreement, name) for name in _AGREEMENT], np.float64)


def window_counts(layout: CellLayout, tally: Tally) -> dict[str, Counts]:
    """The counts of each feature's cells, as rows of equal weight. Features that were not logged are not there."""
    scale = 1.0 / WEIGHT_ONE
    total, worth = float(tally.sums[1]), effective_rows(tally.sums[1] / WEIGHT_ONE, tally.sums[2])
    if total > 0:
        scale = worth / total
    by_feature: dict[str, Counts] = {}
    for feature, place in zip(layout.features, layout.places, strict=True):
        counts = tally.counts[place]
        if counts.any():
            by_feature[feature.name] = np.asarray(counts * scale, np.float64)
    return by_feature


def means(layout: CellLayout, tally: Tally) -> dict[str, float]:
    """The mean of each feature that had finite numbers."""
    by_feature = {}
    for feature, (weight, total, _) in zip(layout.features, tally.moments.tolist(), strict=True):
        if weight > 0:
            by_feature[feature.name] = (feature.mean if np.isfinite(feature.mean) else 0.0) + total / weight
    return by_feature


@dataclass(frozen=True, slots=True)
class Window:
    """A span of whole base windows and what was counted in it. Units: seconds since the epoch."""

    start_s: int
    end_s: int
    tally: Tally


class TallySeries:
    """The buckets of one arm."""

    def __init__(self, layout: CellLayout) -> None:
        self._layout = layout
        self.buckets: dict[int, dict[int, Tally]] = {MINUTE_S: {}, HOUR_S: {}, DAY_S: {}}

    def add(self, minute_s: int, tally: Tally) -> None:
        """Counts what happened in the minute that begins then."""
        for length_s, buckets in self.buckets.items():
            start_s = minute_s - minute_s % length_s
            own = buckets.get(start_s)
            if own is None:
                own = buckets[start_s] = Tally.empty(self._layout)
                self._prune(length_s)
            own.add(tally)

    def last_s(self) -> int:
        """When the newest minute ends; 0 if there is none."""
        return max(self.buckets[MINUTE_S], default=-MINUTE_S) + MINUTE_S

    def sum(self, start_s: int, end_s: int) -> Tally:
        """Returns what was counted from `start_s` up to `end_s`, both on the bounds of minutes, hours or days."""
        total = Tally.empty(self._layout)
        length_s = next(size for size in (DAY_S, HOUR_S, MINUTE_S) if start_s % size == 0 and end_s % size == 0)
        for begin_s, tally in self.buckets[length_s].items():
            if start_s <= begin_s < end_s:
                total.add(tally)
        return total

    def windows(self, end_s: int, base_s: int, least_rows: int, count: int) -> list[Window]:
        """The newest `count` windows that end by `end_s`, oldest first, each with at least so many rows.

        A window is as many base windows as it takes to have the rows, but at most 24; the newest may have fewer rows.
        """
        first_s = min(self.buckets[resolution_s(base_s)], default=end_s)
        newest: list[Window] = []
        while len(newest) < count and end_s > first_s:
            window = self._grown(end_s, base_s, least_rows, first_s)
            if window.tally.ended or not newest:
                newest.append(window)
            end_s = window.start_s
        return newest[::-1]

    def history(self, end_s: int, base_s: int) -> Iterator[Window]:
        """Every base window that is kept and ended by `end_s`, oldest first, those without rows left out."""
        length_s = resolution_s(base_s)
        groups: dict[int, Tally] = {}
        for start_s in sorted(self.buckets[length_s]):
            begin_s = start_s - start_s % base_s
            groups.setdefault(begin_s, Tally.empty(self._layout)).add(self.buckets[length_s][start_s])
        for begin_s, tally in groups.items():
            if begin_s + base_s <= end_s and tally.ended:
                yield Window(begin_s, begin_s + base_s, tally)

    def _grown(self, end_s: int, base_s: int, least_rows: int, first_s: int) -> Window:
        start_s = end_s - base_s
        tally = self.sum(start_s, end_s)
        for _ in range(MAX_SPAN - 1):
            if tally.rows * tally.row_value >= least_rows or start_s <= first_s:
                break
            start_s -= base_s
            tally.add(self.sum(start_s, start_s + base_s))
        return Window(start_s, end_s, tally)

    def _prune(self, length_s: int) -> None:
        buckets = self.buckets[length_s]
        fitting = _BUDGET_BYTES // (8 * (self._layout.cells + 3 * len(self._layout.features) + 16))
        kept = max(min(_KEPT[length_s], fitting), _FEWEST[length_s])
        while len(buckets) > kept:
            del buckets[min(buckets)]


def resolution_s(base_s: int) -> int:
    """The length of the buckets that windows of so many seconds are made of."""
    return next(size for size in (DAY_S, HOUR_S, MINUTE_S) if base_s % size == 0)


def stacked(tallies: Sequence[Tally], layout: CellLayout) -> list[npt.NDArray[Any]]:
    """The parts of many tallies, each as one array; `unstacked` is its inverse."""
    empty = Tally.empty(layout)
    return [
        np.stack([getattr(tally, name) for tally in tallies])
        if tallies
        else np.zeros((0, *getattr(empty, name).shape), getattr(empty, name).dtype)
        for name in ("counts", "moments", "sums", "agreement")
    ]


def unstacked(parts: Sequence[npt.NDArray[Any]], layout: CellLayout) -> list[Tally]:
    """The tallies that `stacked` put together.

    Raises: ValueError (another layout's).
    """
    empty = Tally.empty(layout)
    for part, name in zip(parts, ("counts", "moments", "sums", "agreement"), strict=True):
        own = getattr(empty, name)
        if part.shape[1:] != own.shape or part.dtype != own.dtype:
            raise ValueError(f"{name} have shape {part.shape[1:]}, expected {own.shape}")
    return [Tally(*(part[index].copy() for part in parts)) for index in range(len(parts[0]))]
