"""The rows of a replay, both answers side by side, added up. Pure: rows in, a report's numbers out."""

import heapq
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from gateway.replay.replay_report import RowDifference, SegmentChange, Share, Spread
from gateway.replay.row_answer import RowAnswers, RowClass

_Z: Final = 1.96
_QUANTILES: Final = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
_BINS: Final = 40
_SEGMENTS: Final = 30
_DISTINCT: Final = 20  # numbers with more values than this are put into five bins
OTHERS: Final = "(all others)"
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ComparedRow:
    """What is told of a row besides its answers. `segment` is its value of the column that was asked for."""

    request_id: str
    row_index: int
    ts_us: int
    version: str
    arm: str
    weight: float
    segment: object
    inputs: Mapping[str, str | int | float | None]


@dataclass(slots=True)
class RowComparison:
    """Adds up rows. `shown` is how many of the largest differences are kept as rows."""

    shown: int = 20
    transitions: Counter[tuple[str, str]] = field(default_factory=Counter)
    _weights: list[float] = field(default_factory=list)
    _before: list[float] = field(default_factory=list)
    _after: list[float] = field(default_factory=list)
    _differences: list[float] = field(default_factory=list)
    _classed: list[bool] = field(default_factory=list)
    _sure: list[str] = field(default_factory=list)  # what has changed for certain, "" where the score decides
    _segments: list[object] = field(default_factory=list)
    _largest: list[tuple[float, int, RowDifference]] = field(default_factory=list)

    @property
    def rows(self) -> int:
        return len(self._weights)

    def add(self, rows: Sequence[ComparedRow], before: RowAnswers | None, after: RowAnswers | None) -> None:
        """Adds the rows of one request; None where a side has failed. What both failed at has not changed."""
        for place, row in enumerate(rows):
            was, is_ = _at(before, place), _at(after, place)
            named = before is not None and before.classes[place] is not None
            sure = self._certainty(before, after, place)
            old, new, difference = _values(before, after, place)
            self._weights.append(row.weight)
            self._before.append(old)
            self._after.append(new)
            self._differences.append(difference)
            self._classed.append(named)
            self._sure.append(sure)
            self._segments.append(row.segment)
            if sure == "class":
                self.transitions[was, is_] += 1
            self._keep(row, was, is_, old, new, difference, sure)

    def changed(self, tolerance: float) -> tuple[npt.NDArray[np.bool_], dict[str, int], float]:
        """Returns which rows would change, how many by what, and from what difference on a score has moved.

        A row that has a class changes with it, and one that has none where its score moves by more than `tolerance`
        times the range of the middle 90 % of the scores before.
        """
        sure = np.array(self._sure, object)
        before, differences = np.array(self._before), np.abs(np.array(self._differences))
        moved_by = tolerance * _range(before)
        undecided = (sure == "") & ~np.array(self._classed, np.bool_)
        moved = undecided & (np.nan_to_num(differences, nan=0.0) > moved_by)
        kinds = {kind: int((sure == kind).sum()) for kind in ("class", "nan", "failed")} | {"moved": int(moved.sum())}
        return (sure != "") | moved, kinds, moved_by

    def share(self, chosen: npt.NDArray[np.bool_]) -> Share:
        """Returns the share of all rows that the chosen ones are."""
        return share_of(chosen, np.array(self._weights))

    def spreads(self) -> tuple[Spread, Spread, Spread]:
        """Returns how the scores before, those after, and their differences are distributed."""
        before, after = np.array(self._before), np.array(self._after)
        edges = _edges(np.concatenate([before, after]))
        return spread_of(before, edges), spread_of(after, edges), spread_of(np.array(self._differences))

    def largest(self) -> tuple[RowDifference, ...]:
        """Returns the rows that differ most, the largest difference first; those that failed or are nan before all."""
        return tuple(row for _, _, row in sorted(self._largest, reverse=True, key=lambda entry: entry[:2]))

    def segments(self, chosen: npt.NDArray[np.bool_]) -> tuple[SegmentChange, ...]:
        """Returns the segments, the one with the largest share of changed rows first."""
        labels = np.array(_labels(self._segments), object)
        names = [name for name, _ in Counter(labels.tolist()).most_common(_SEGMENTS)]
        labels = np.where(np.isin(labels, names), labels, OTHERS)
        weights, differences = np.array(self._weights), np.array(self._differences)
        made = []
        for name in dict.fromkeys(labels.tolist()):
            own = labels == name
            known = differences[own & np.isfinite(differences)]
            mean = float(known.mean()) if len(known) else None
            made.append(SegmentChange(str(name), share_of(chosen[own], weights[own]), mean))
        return tuple(sorted(made, key=lambda segment: (-segment.changed.share, -segment.changed.of, segment.value)))

    def _certainty(self, before: RowAnswers | None, after: RowAnswers | None, place: int) -> str:
        if after is None:
            return "failed" if before is not None else ""
        if before is None:
            return ""
        if _has_nan(after, place) and not _has_nan(before, place):
            return "nan"
        return "class" if before.classes[place] != after.classes[place] else ""

    def _keep(self, row: ComparedRow, was: str, is_: str, old: float, new: float, difference: float, sure: str) -> None:
        size = math.inf if sure in ("failed", "nan") else abs(difference) if math.isfinite(difference) else 0.0
        size = size if size or sure != "class" else 1e-300
        if not size or not self.shown:
            return
        entry = (size, -self.rows, RowDifference(
            row.request_id, row.row_index, row.ts_us, row.version, row.arm, was, is_, _finite(old), _finite(new),
            difference if math.isfinite(difference) else 0.0, dict(row.inputs),
        ))  # fmt: skip
        if len(self._largest) < self.shown:
            heapq.heappush(self._largest, entry)
        elif entry[:2] > self._largest[0][:2]:
            heapq.heapreplace(self._largest, entry)


def share_of(chosen: npt.NDArray[np.bool_], weights: Floats) -> Share:
    """Returns the share that the chosen rows are, with Wilson's interval at the rows' effective number.

    Source: Wilson 1927; Kish 1965 for the effective number of weighted rows.
    """
    total = float(weights.sum())
    if not total:
        return Share(0, 0, 0.0, 0.0, 1.0)
    share = float(weights[chosen].sum()) / total
    rows = total * total / float((weights * weights).sum())
    spread = _Z * math.sqrt(share * (1 - share) / rows + _Z * _Z / (4 * rows * rows))
    middle, scale = share + _Z * _Z / (2 * rows), 1 + _Z * _Z / rows
    low, high = (middle - spread) / scale, (middle + spread) / scale
    return Share(int(chosen.sum()), len(weights), share, max(0.0, min(low, share)), min(1.0, max(high, share)))


def spread_of(values: Floats, edges: Floats | None = None) -> Spread:
    """Returns how the finite ones of the values are distributed."""
    known = values[np.isfinite(values)]
    if not len(known):
        return Spread(0, 0.0, {})
    edges = _edges(known) if edges is None else edges
    counts, edges = np.histogram(known, bins=edges)
    quantiles = {f"{share:g}": float(np.quantile(known, share)) for share in _QUANTILES}
    return Spread(len(known), float(known.mean()), quantiles, tuple(edges.tolist()), tuple(counts.tolist()))


def _edges(values: Floats) -> Floats:
    known = values[np.isfinite(values)]
    if not len(known):
        return np.array([0.0, 1.0])
    low, high = float(known.min()), float(known.max())
    return np.linspace(low, high, _BINS + 1) if high > low else np.array([low - 0.5, low + 0.5])


def _range(values: Floats) -> float:
    known = values[np.isfinite(values)]
    if not len(known):
        return 0.0
    low, high = np.quantile(known, (0.05, 0.95))
    return float(high - low) or float(np.abs(known).max())


def _values(before: RowAnswers | None, after: RowAnswers | None, place: int) -> tuple[float, float, float]:
    """Returns the score before and after, and their difference: of rows without a score the largest of any output."""
    old = float(before.scores[place]) if before is not None else math.nan
    new = float(after.scores[place]) if after is not None else math.nan
    if before is None or after is None or (math.isfinite(old) and math.isfinite(new)):
        return old, new, new - old
    largest, size = math.nan, math.nan
    for name in before.numbers.keys() & after.numbers.keys():
        one, other = _row(before.numbers[name], place), _row(after.numbers[name], place)
        if one.shape == other.shape and one.size:
            apart = np.abs(other - one)
            if np.isfinite(apart).any():
                largest = float(np.nanmax([largest, np.nanmax(np.where(np.isfinite(apart), apart, np.nan))]))
                size = float(np.nanmax([size, np.nanmax(np.abs(np.where(np.isfinite(one), one, np.nan)))]))
    return (size if math.isnan(old) else old), (size + largest if math.isnan(new) else new), largest


def _row(table: Floats, place: int) -> Floats:
    return np.asarray(table[place] if len(table) > place else table[0])


def _has_nan(answers: RowAnswers, place: int) -> bool:
    return any(bool(np.isnan(_row(table, place)).any()) for table in answers.numbers.values() if len(table))


def _at(answers: RowAnswers | None, place: int) -> str:
    if answers is None:
        return "(failed)"
    value: RowClass = answers.classes[place]
    return "" if value is None else str(value)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _labels(values: Sequence[object]) -> list[str]:
    """Returns the names of the segments; numbers of many values become five ranges with as many rows each."""
    numbers = [float(value) for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(set(numbers)) <= _DISTINCT or len(numbers) < sum(value is not None for value in values):
        return [_text(value) for value in values]
    edges = np.unique(np.quantile([value for value in numbers if math.isfinite(value)], (0.2, 0.4, 0.6, 0.8)))

    def name(value: object) -> str:
        if not isinstance(value, int | float) or not math.isfinite(value):
            return _text(value)
        place = int(np.searchsorted(edges, value, side="right"))
        low = f"{edges[place - 1]:.4g} <= " if place else ""
        return f"{low}value" + (f" < {edges[place]:.4g}" if place < len(edges) else "")

    return [name(value) for value in values]


def _text(value: object) -> str:
    return "(none)" if value is None else str(value)
