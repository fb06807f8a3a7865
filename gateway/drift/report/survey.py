"""A window of the log counted on the bins of a profile, block by block, with some of its rows kept as they are.

Memory does not grow with the rows: a slice of at most a million is read, counted and forgotten.
"""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from gateway.drift.report.lake_reader import Lake
from gateway.drift.report.lake_selection import Census, Selection
from gateway.drift.report.lake_sql import quoted, text
from gateway.drift.report.span import DAY_US, Span
from gateway.drift.statistics.bins import CategoryBins, number_text
from gateway.drift.statistics.column import Column, as_column
from gateway.drift.statistics.distance import Counts, effective_rows
from gateway.drift.statistics.reference_profile import FeatureProfile

Array = npt.NDArray[Any]
Progress = Callable[[int], None]  # told how many more rows have been read
SAMPLE_ROWS: Final = 20_000
_MINUTE_US: Final = 60_000_000
_SLICE_VALUES: Final = 20_000_000
_SLICE_ROWS: Final = 1_000_000
_MOST_BUCKETS: Final = 62
_MOST_NEW: Final = 1000  # categories of a feature that are told apart
_TENSOR: Final = re.compile(r"_\d+$")


@dataclass(frozen=True, slots=True, eq=False)
class Survey:
    """Tells what was found in a window.

    Shapes: `counts` by feature name [buckets, cells], weighted where rows were sampled; `effective` [buckets] how many
            rows of equal weight those are worth; `sample` by feature name or by the name of an extra expression, and
            `sample_us`, their times: rows drawn evenly, one that was sampled the likelier the more it stands for.
    """

    rows: int
    buckets: tuple[Span, ...]
    bucket_rows: npt.NDArray[np.int64]
    effective: npt.NDArray[np.float64]
    counts: Mapping[str, Counts]
    sample: Mapping[str, Column]
    sample_us: npt.NDArray[np.int64]
    weighted: bool = False  # some rows stand for more than themselves
    new: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # rows of each new category, by feature

    @property
    def worth(self) -> float:
        """Returns how many rows of equal weight the whole window is worth."""
        return float(self.effective.sum())

    def total(self, feature: str) -> Counts | None:
        """The counts of the whole window. Shapes: [cells]."""
        counts = self.counts.get(feature)
        return None if counts is None else np.asarray(counts.sum(axis=0))


def cut(span: Span, every_us: int | None = None) -> tuple[Span, ...]:
    """The span in blocks of that length, or of one that suits: days where it has several, else hours or minutes."""
    if every_us is None:
        lengths = (_MINUTE_US, 5 * _MINUTE_US, 60 * _MINUTE_US, DAY_US, 7 * DAY_US, 28 * DAY_US)
        fitting = [length for length in lengths if 3 * length <= span.length_us <= _MOST_BUCKETS * length]
        several = [length for length in fitting if 7 * length <= span.length_us]
        every_us = max(several) if several else min(fitting, default=span.length_us)
    starts = range(span.start_us, span.end_us, every_us)
    return tuple(Span(start, min(start + every_us, span.end_us)) for start in starts)


def survey(
    lake: Lake,
    selection: Selection,
    features: Sequence[FeatureProfile],
    *,
    rng: np.random.Generator,
    census: Census,
    buckets: Sequence[Span],
    extra: Mapping[str, str] | None = None,
    sample_rows: int = SAMPLE_ROWS,
    progress: Progress = lambda rows: None,
) -> Survey:
    """Counts and sample of the selection. A feature whose column the log does not have is left out.

    As in the monitor, what was not logged is not missing: features that redaction hides, rows whose payload was
    withheld, outputs that the caller did not ask for. `extra` are SQL expressions of numbers that are sampled too, by
    name.
    """
    kinds = lake.columns(selection)
    present = [feature for feature in features if feature.column in kinds]
    texts = {feature.column for feature in present if kinds[feature.column] == "VARCHAR"}
    expressions = _expressions(present, texts, weighted=census.sampled) | dict(extra or {})
    kind: type[np.float64] | type[np.int64] = np.float64 if census.sampled else np.int64
    counts: dict[str, Any] = {f.name: np.zeros((len(buckets), len(f.bins.cells)), kind) for f in present}
    kept: list[dict[str, Array]] = []
    hidden: set[str] = set()
    new: dict[str, Counter[str]] = {}
    share = sample_rows / max(float(census.weights.sum()), 1.0)
    for bucket, block, rows in slices(census, buckets, len(expressions)):
        part = replace(selection, span=block)
        rows_of_slice, now_hidden = _logged(lake.fetch(part, expressions), {feature.column for feature in present})
        hidden |= now_hidden
        for feature in present:
            if feature.column not in now_hidden:
                seen = new.setdefault(feature.name, Counter())
                added = _count(lake, part, feature, rows_of_slice, seen, coded=feature.column in texts)
                if len(seen) > _MOST_NEW:  # ids or free text: the most frequent ones are enough
                    new[feature.name] = Counter(dict(seen.most_common(_MOST_NEW)))
                counts[feature.name][bucket] += added.astype(kind)
        weights = rows_of_slice.get("~weight")
        chance = share if weights is None else share * np.ma.getdata(weights)
        drawn = np.flatnonzero(rng.random(len(rows_of_slice["~ts"])) < chance)
        kept.append({name: values[drawn] for name, values in rows_of_slice.items()})
        progress(rows)
    sample = _joined(kept, expressions)
    # What was hidden for a part of the time cannot be compared row by row.
    columns = {
        f.name: _sampled(f, sample[f.column], coded=f.column in texts) for f in present if f.column not in hidden
    } | {name: as_column(name, sample[name]) for name in extra or {}}
    order = np.argsort(sample["~ts"], kind="stable")
    moments = np.asarray(np.ma.getdata(sample["~ts"]), np.int64)[order]
    kept_columns = {name: column.rows(order) for name, column in columns.items()}
    rows_of, worth = _by_bucket(census, buckets)
    return Survey(census.total, tuple(buckets), rows_of, worth, counts, kept_columns, moments, census.sampled, new)


def _expressions(features: Sequence[FeatureProfile], texts: Collection[str], *, weighted: bool) -> dict[str, str]:
    """SQL of what is read of each row, by name: its time, its weight where that is not 1, and its features."""
    expressions = {"~ts": "epoch_us(ts)"} | ({"~weight": "1 / sample_p::DOUBLE"} if weighted else {})
    for feature in features:
        expressions[feature.column] = _coded(feature) if feature.column in texts else quoted(feature.column)
    return expressions


def _count(
    lake: Lake, part: Selection, feature: FeatureProfile, rows: Mapping[str, Array], new: "Counter[str]", *, coded: bool
) -> Counts:
    """The counts of one feature in a slice; `new` takes the rows of each category that the reference does not know."""
    values = rows[feature.column]
    weights = np.ma.getdata(rows["~weight"]) if "~weight" in rows else None
    if not feature.column.startswith("f.") and (absent := np.ma.getmaskarray(values)).any():
        values, weights = values[~absent], None if weights is None else weights[~absent]
    if coded:
        return _count_texts(lake, part, feature, values, weights, new)
    column = as_column(feature.name, values)
    counts = feature.bins.count(column, weights)
    if feature.bins.special(counts).get("unseen"):
        _add_new(feature, column, weights, new)
    return counts


def slices(census: Census, buckets: Sequence[Span], width: int) -> Iterator[tuple[int, Span, int]]:
    """Time blocks with a bounded number of rows, none across the end of a bucket: bucket, block, rows."""
    most = max(min(_SLICE_ROWS, _SLICE_VALUES // max(width, 1)), 1)
    minutes, places = np.unique(census.minutes_us, return_inverse=True)
    rows = np.bincount(places, census.rows, len(minutes)).astype(np.int64)
    for index, bucket in enumerate(buckets):
        first, last = (
            np.searchsorted(minutes + _MINUTE_US, bucket.start_us, "right"),
            np.searchsorted(minutes, bucket.end_us),
        )
        start, held = bucket.start_us, 0
        for place in range(int(first), int(last)):
            if held and held + rows[place] > most:
                yield index, Span(start, int(minutes[place])), held
                start, held = int(minutes[place]), 0
            held += int(rows[place])
        if held:
            yield index, Span(start, bucket.end_us), held


def _logged(rows: dict[str, Array], columns: Collection[str]) -> tuple[dict[str, Array], set[str]]:
    """The rows that have their payload, and the inputs that redaction hides in them.

    Hidden are those without a value where others of their tensor have one, and all where none has one.
    """
    masks = _masks(rows, columns)
    if len(masks) == len(columns) and (withheld := np.logical_and.reduce(list(masks.values()))).any():
        rows = {name: values[~withheld] for name, values in rows.items()}
        masks = _masks(rows, columns)
    inputs = [name for name in columns if name.startswith("f.")]
    empty = {name for name in inputs if name in masks and len(masks[name]) and masks[name].all()}
    if len(empty) == len(inputs):
        return rows, empty
    beside = {_TENSOR.sub("", name) for name in inputs if name not in empty}
    return rows, {name for name in empty if _TENSOR.sub("", name) in beside}


def _masks(rows: Mapping[str, Array], columns: Collection[str]) -> dict[str, npt.NDArray[np.bool_]]:
    """Returns where the columns that have nulls have them."""
    return {name: np.ma.getmaskarray(rows[name]) for name in columns if isinstance(rows[name], np.ma.MaskedArray)}


def _coded(feature: FeatureProfile) -> str:
    """The place of a text among the feature's categories from 1 on, 0 for another, null for none."""
    known = feature.bins.categories if isinstance(feature.bins, CategoryBins) else ()
    column = quoted(feature.column)
    listed = ", ".join(text(name) for name in known)
    return f"CASE WHEN {column} IS NOT NULL THEN coalesce(list_position([{listed}]::VARCHAR[], {column}), 0) END"


def _count_texts(
    lake: Lake,
    part: Selection,
    feature: FeatureProfile,
    codes: Array,
    weights: npt.NDArray[np.float64] | None,
    new: "Counter[str]",
) -> Counts:
    """The counts of a text feature from the codes of `_coded`; texts without a code are asked for by themselves."""
    column = _sampled(feature, codes, coded=True)
    known = feature.bins.categories if isinstance(feature.bins, CategoryBins) else ()
    absent = column.missing if column.missing is not None else np.zeros(len(column), np.bool_)
    other = (column.values == 0) & ~absent
    counts = feature.bins.count(column.rows(~other), None if weights is None else weights[~other])
    if other.any():
        values, tallied = lake.tally(part, feature.column, beside=known)
        present = [value is not None for value in values]
        rest = as_column(feature.name, np.array(values, object)[present])
        counts = counts + feature.bins.count(rest, tallied[present])
        _add_new(feature, rest, tallied[present], new)
    return counts


def _add_new(
    feature: FeatureProfile, column: Column, weights: npt.NDArray[np.float64] | None, new: "Counter[str]"
) -> None:
    """Adds the rows of each category that the reference does not know."""
    if not isinstance(feature.bins, CategoryBins):
        return
    present = np.ones(len(column), np.bool_) if column.missing is None else ~column.missing
    if column.values.dtype.kind == "f":
        present &= ~np.isnan(column.values.astype(np.float64))
    weighed = np.ones(len(column)) if weights is None else weights
    distinct, places = np.unique(column.values[present], return_inverse=True)
    rows = np.bincount(places, weighed[present], len(distinct))
    for value, amount in zip(distinct.tolist(), rows.tolist(), strict=True):
        name = number_text(value) if column.texts is None else column.texts[value]
        if feature.bins.is_new(name):
            new[name] += amount


def _sampled(feature: FeatureProfile, values: Array, *, coded: bool) -> Column:
    column = as_column(feature.name, values)
    if not coded:
        return column
    known = feature.bins.categories if isinstance(feature.bins, CategoryBins) else ()
    return Column(column.values.astype(np.int64), column.missing, ("(another)", *known))


def _joined(parts: Sequence[Mapping[str, Array]], names: Mapping[str, str]) -> dict[str, Array]:
    join: Callable[[Sequence[Array]], Array] = np.ma.concatenate
    return {name: join([part[name] for part in parts]) if parts else np.zeros(0) for name in names}


def _by_bucket(census: Census, buckets: Sequence[Span]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Rows of each bucket, and how many of equal weight they are worth; minutes belong to the bucket they begin in."""
    starts = np.array([bucket.start_us for bucket in buckets], np.int64)
    places = np.maximum(np.searchsorted(starts, census.minutes_us, side="right") - 1, 0)
    sums = [np.bincount(places, values, len(buckets)) for values in (census.rows, census.weights, census.squares)]
    worth = [
        effective_rows(weight, squares) for weight, squares in zip(sums[1].tolist(), sums[2].tolist(), strict=True)
    ]
    return sums[0].astype(np.int64), np.array(worth)
