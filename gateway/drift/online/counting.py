"""Counts rows of the log as they go to the lake."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from re import compile as pattern
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from gateway.drift import arrow_columns
from gateway.drift.online.windows import MINUTE_S, WEIGHT_ONE, CellLayout, Tally
from gateway.drift.statistics.agreement import Agreement, KeyedAnswers, compare
from gateway.drift.statistics.building import embedded_name
from gateway.drift.statistics.column import Column
from gateway.drift.statistics.reference_profile import FeatureKind, FeatureProfile
from gateway.records.worker.feature_names import from_metadata

_FEATURE_OF = pattern(r"(f\..+)_\d+")
_MOST_WEIGHT = 1 << 30  # of a row that was kept with next to no probability


@dataclass(frozen=True, slots=True, order=True)
class LoggedArm:
    """Identifies rows that are counted together: what an arm answered with one version, or what a mirror ran."""

    version: str
    arm: str
    shadow: bool

    @property
    def role(self) -> str:
        """The value of the label `role`: "serving", or "mirror" where nobody got the answers."""
        return "mirror" if self.shadow else "serving"


EVERY_ARM: Final = LoggedArm("", "", False)
SPLIT: Final = "SPLIT"  # the reason of a decision by the interval table


class VersionRows:
    """Holds the rows of one version, ordered by arm and minute.

    Units: `weights` in 1024ths of a row.
    """

    def __init__(self, table: Any) -> None:
        self._table = table
        self._named = from_metadata(table.schema.metadata)  # what profiles call by its place may have a name by now
        self.names = frozenset(table.column_names)
        arms, minutes = self._required("arm"), self._numbers("ts") // (MINUTE_S * 1_000_000)
        shadows, self._arms = self._numbers("is_shadow"), arms.texts or ("",)
        keys = (minutes - minutes.min()) * (2 * len(self._arms)) + arms.values * 2 + shadows
        self.order = None if _ascends(keys) else np.argsort(keys, kind="stable")
        ordered = self._ordered(keys)
        self._starts = np.flatnonzero(np.diff(ordered, prepend=ordered[0] - 1))
        self._ends = np.append(self._starts[1:], len(ordered))
        self._minutes, self._codes = self._ordered(minutes), self._ordered(arms.values)
        self.shadows = self._ordered(shadows) > 0
        self.answered = self._ordered(self._numbers("status")) == 0
        p = np.maximum(self._ordered(self._numbers("sample_p")).astype(np.float64), 1e-9)
        self.weights = np.minimum(np.rint(WEIGHT_ONE / p), _MOST_WEIGHT)

    def groups(self, version: str) -> Iterator[tuple[LoggedArm, int, slice]]:
        """Arm, minute (seconds since the epoch) and place of the rows that are counted together."""
        for start, end in zip(self._starts.tolist(), self._ends.tolist(), strict=True):
            arm = LoggedArm(version, self._arms[int(self._codes[start])], bool(self.shadows[start]))
            yield arm, int(self._minutes[start]) * MINUTE_S, slice(start, end)

    def column(self, name: str) -> Column | None:
        """The column, or the feature at that place, its rows in order; None if there is none, or none of values."""
        values = arrow_columns.column(self._table, self._named.get(name, name))
        if values is None:
            return None
        column = Column(*values)
        return column if self.order is None else column.rows(self.order)

    def vectors(self, name: str, width: int) -> npt.NDArray[np.float64] | None:
        """The column of lists, its rows in order: [rows, width]; None if there is none."""
        matrix = arrow_columns.vectors(self._table, name, width)
        return matrix if matrix is None or self.order is None else matrix[self.order]

    def _required(self, name: str) -> Column:
        values = arrow_columns.column(self._table, name)
        if values is None:
            raise ValueError(f"rows without a column {name!r}")
        return Column(*values)

    def _numbers(self, name: str) -> npt.NDArray[np.int64]:
        return np.asarray(self._required(name).values)

    def _ordered(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return values if self.order is None else values[self.order]


def count(rows: VersionRows, version: str, layout: CellLayout) -> dict[tuple[LoggedArm, int], Tally]:
    """Returns the tallies of these rows by arm and minute.

    Rows that ended in an error count as such and no more. Rows whose payload was withheld, and features that redaction
    hides, count for nothing: they are not missing values, they were not logged.
    """
    columns = _columns(rows, layout)
    if all(column is None for column in columns.values()):
        return {}
    withheld, hidden = _withheld(columns, len(rows.answered)), _hidden(columns)
    chosen = rows.answered if withheld is None else rows.answered & ~withheld
    complete = bool(chosen.all())
    tallies: dict[tuple[LoggedArm, int], Tally] = {}
    for arm, minute_s, place in rows.groups(version):
        tally = Tally.empty(layout)
        failed = ~rows.answered[place]
        picked = place if complete else np.flatnonzero(chosen[place]) + place.start
        weights = rows.weights[picked]
        exact = weights / WEIGHT_ONE
        tally.sums[:3] = len(weights), weights.sum(), (exact * exact).sum()
        tally.sums[3:] = rows.weights[place][failed].sum(), failed.sum()
        plain = bool((weights == WEIGHT_ONE).all())
        for index, (feature, cells) in enumerate(zip(layout.features, layout.places, strict=True)):
            column = columns[_key(feature)]
            if column is not None and _key(feature) not in hidden:
                own = column.rows(picked)
                tally.counts[cells] = _counted(feature, own, None if plain else weights)
                tally.moments[index] = _moments(feature, own, None if plain else weights)
        tallies[arm, minute_s] = tally
    return tallies


def count_split(rows: VersionRows, layout: CellLayout) -> dict[tuple[LoggedArm, int], Tally]:
    """Returns by minute how often each bucket of a split was hit, in all arms together; `layout` has the bucket alone.

    A request counts once, however many rows it has and however it ended.
    """
    reasons, firsts, buckets = (rows.column(name) for name in ("reason", "row_index", "bucket"))
    if reasons is None or firsts is None or buckets is None or SPLIT not in (reasons.texts or ()):
        return {}
    split = (reasons.values == (reasons.texts or ()).index(SPLIT)) & (firsts.values == 0) & ~rows.shadows
    tallies: dict[tuple[LoggedArm, int], Tally] = {}
    for _, minute_s, place in rows.groups(""):
        picked = np.flatnonzero(split[place]) + place.start
        tally = tallies.setdefault((EVERY_ARM, minute_s), Tally.empty(layout))
        weights = rows.weights[picked]
        exact = weights / WEIGHT_ONE
        tally.counts += np.rint(layout.features[0].bins.count(buckets.rows(picked), weights)).astype(np.int64)
        tally.sums[:3] += len(picked), weights.sum(), (exact * exact).sum()
    return {key: tally for key, tally in tallies.items() if tally.rows}


def answers(rows: VersionRows, *, shadow: bool) -> KeyedAnswers | None:
    """Returns what a version answered, or ran as a mirror, so that it can be paired with another version's answers."""
    hashes, places = rows.column("request_hash"), rows.column("row_index")
    if hashes is None or places is None:
        return None
    chosen = np.flatnonzero(rows.answered & (rows.shadows == shadow))
    classes, scores = rows.column("pred_class"), rows.column("pred_score")
    return KeyedAnswers(
        hashes.values[chosen].astype(np.uint64),
        places.values[chosen].astype(np.int64),
        _filled(classes, -1.0, len(rows.answered))[chosen].astype(np.int64),
        _filled(scores, np.nan, len(rows.answered))[chosen],
    )


def agreement(primaries: VersionRows, shadows: VersionRows) -> Agreement:
    """Returns how far the answers of a mirror agree with the served ones."""
    ours, theirs = answers(primaries, shadow=False), answers(shadows, shadow=True)
    return compare(ours, theirs) if ours is not None and theirs is not None else Agreement()


def _columns(rows: VersionRows, layout: CellLayout) -> dict[str, Column | None]:
    """The values of each feature. Those of an embedding are its vectors on the components."""
    columns = {_key(one): rows.column(one.column) for one in layout.features if one.kind is not FeatureKind.EMBEDDING}
    for embedding in layout.embeddings:
        vectors = rows.vectors(embedding.column, len(embedding.centre))
        placed = embedding.project(vectors) if vectors is not None else None
        for place in range(len(embedding.components) + 1):
            name = embedded_name(embedding.name, place, len(embedding.components))
            columns[name] = Column(placed[:, place], np.isnan(placed[:, place])) if placed is not None else None
    return columns


def _key(feature: FeatureProfile) -> str:
    return feature.name if feature.kind is FeatureKind.EMBEDDING else feature.column


def _counted(feature: FeatureProfile, column: Column, weights: npt.NDArray[np.float64] | None) -> npt.NDArray[np.int64]:
    if not feature.column.startswith(("f.", "in.")) and column.missing is not None:
        # An output that the caller did not ask for is not missing.
        present = ~column.missing
        column, weights = column.rows(present), None if weights is None else weights[present]
    counts = feature.bins.count(column, weights)
    return np.asarray(counts * WEIGHT_ONE if weights is None else np.rint(counts), np.int64)


def _moments(
    feature: FeatureProfile, column: Column, weights: npt.NDArray[np.float64] | None
) -> tuple[float, float, float]:
    if column.texts is not None:
        return 0.0, 0.0, 0.0
    numbers = column.values.astype(np.float64)
    # Sums, and no products of BLAS: its threads would wait for cores that workers have.
    with np.errstate(invalid="ignore", over="ignore"):
        numbers -= feature.mean if np.isfinite(feature.mean) else 0.0
        total = float(numbers.sum())
        if column.missing is None and weights is None and np.isfinite(total):
            squares = float(np.square(numbers, out=numbers).sum())
            return float(len(numbers) * WEIGHT_ONE), total * WEIGHT_ONE, squares * WEIGHT_ONE
        held = np.isfinite(numbers) if column.missing is None else np.isfinite(numbers) & ~column.missing
        kept = numbers[held]
        own = np.full(len(kept), float(WEIGHT_ONE)) if weights is None else weights[held]
        return float(own.sum()), float((own * kept).sum()), float((own * kept * kept).sum())


def _withheld(columns: Mapping[str, Column | None], rows: int) -> npt.NDArray[np.bool_] | None:
    """Marks the rows without any value of an input or output; None if every row has one."""
    held = [column for column in columns.values() if column is not None]
    if not held or any(column.missing is None for column in held):
        return None
    gone = np.ones(rows, np.bool_)
    for column in held:
        if column.missing is not None:
            gone &= column.missing
    return gone if gone.any() else None


def _hidden(columns: Mapping[str, Column | None]) -> frozenset[str]:
    """The inputs that redaction blanks out: those without a value where others of their tensor have one, and all where
    none has one, for nobody can ask without inputs."""
    inputs = {name: one for name, one in columns.items() if one is not None and name.startswith(("f.", "in."))}
    empty = {name for name, column in inputs.items() if column.missing is not None and column.missing.all()}
    if empty == inputs.keys():
        return frozenset(empty)
    tensors = {name: match[1] for name in inputs if (match := _FEATURE_OF.fullmatch(name)) is not None}
    seen = {tensor for name, tensor in tensors.items() if name not in empty}
    return frozenset(name for name in empty if tensors.get(name) in seen)


def _filled(column: Column | None, nothing: float, rows: int) -> npt.NDArray[np.float64]:
    if column is None or column.texts is not None:
        return np.full(rows, nothing)
    values = column.values.astype(np.float64)
    return values if column.missing is None else np.where(column.missing, nothing, values)


def _ascends(keys: npt.NDArray[Any]) -> bool:
    return bool((keys[1:] >= keys[:-1]).all())
