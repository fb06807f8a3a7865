"""Tells how far the reference's own windows are from the rest of it: what a window of that size does without any
change.

Rows of a reference are in the order of time where they have one, so its windows have the weather, the weekends and the
batches of similar rows that live windows have. Theory knows nothing of those. Where the rows are in another order, as
that of their values, own windows differ by that order alone: `explained` tells, and calibration is bounded.
"""

from collections.abc import Iterator
from enum import StrEnum
from itertools import pairwise
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from gateway.drift.statistics.bins import Bins
from gateway.drift.statistics.column import Column
from gateway.drift.statistics.distance import Floats
from gateway.drift.statistics.reference_profile import Calibration, FeatureProfile
from gateway.drift.statistics.statistic import CALIBRATED, JUDGED, MEAN, THRESHOLDS, Statistic

ROWS_PER_BIN: Final = 10  # a window with fewer rows per bin says nothing
DEVIATIONS: Final = 3.0  # above the mean of the reference's own windows, which a window has to exceed
_FEWEST_WINDOWS: Final = 8  # disjoint windows that a deviation can be taken from
_MOST_PIECES: Final = 2048
_MOST_WINDOWS: Final = 512  # of one size; a 99th percentile needs no more


class RowOrder(StrEnum):
    """Names what the order of a reference's rows is."""

    UNSAID = "unsaid"  # nobody said so: own windows count, up to the bound
    TIME = "time"  # that of time: own windows count, however far they are apart
    NONE = "none"  # one that means nothing: rows are shuffled, so that thresholds are those of independent rows


class OwnLimit(NamedTuple):
    """Tells how large a statistic is between windows of the reference itself. `bounded`: it was larger, and was cut."""

    value: float
    bounded: bool


def calibrate(bins: Bins, column: Column) -> tuple[Calibration, ...]:
    """Mean, deviation and 99th percentile of each calibrated statistic, for windows of doubling sizes.

    Empty where the reference is too small for eight windows: the thresholds are then those of theory alone.
    """
    whole = bins.count(column)
    smallest = ROWS_PER_BIN * max(int((bins.fold(whole) > 0).sum()), 2)
    smallest = max(smallest, len(column) // _MOST_PIECES)
    if len(column) < _FEWEST_WINDOWS * smallest:
        return ()
    starts = range(0, len(column) - smallest + 1, smallest)
    pieces = [column.rows(slice(start, start + smallest)) for start in starts]
    counts = np.stack([bins.count(piece) for piece in pieces])
    centre = _centre(column)
    sums = np.array([_sums(piece, centre) for piece in pieces])
    calibrations: list[Calibration] = []
    factor = 1
    while len(pieces) >= _FEWEST_WINDOWS * factor:
        windows, window_sums = _sliding(counts, factor), _sliding(sums, factor)
        values = {one.name: one.own(bins, whole, windows) for one in CALIBRATED if one.own is not None}
        values[MEAN.name] = _mean_shifts(_sums(column, centre), window_sums)
        calibrations += _summaries(values, smallest * factor)
        factor *= 2
    return tuple(calibrations)


def calibrated(feature: FeatureProfile, statistic: Statistic, rows: float) -> Calibration | None:
    """The calibration for a window of that many rows: of the largest size that is not larger, else the smallest.

    A smaller window is noisier, so its threshold is the more careful one. None where the reference was too small, or
    has no row of that kind.
    Raises: ValueError (a statistic that is never calibrated).
    """
    if statistic not in CALIBRATED:
        names = ", ".join(one.name for one in CALIBRATED)
        raise ValueError(f"statistic {statistic.name!r} is not calibrated, those that are: {names}")
    known = [one for one in feature.calibration if one.statistic == statistic.name]
    fitting = [one for one in known if one.rows <= rows]
    if fitting:
        return max(fitting, key=lambda one: one.rows)
    return min(known, key=lambda one: one.rows, default=None)


def own_limit(feature: FeatureProfile, statistic: Statistic, rows: float, deviations: float = DEVIATIONS) -> OwnLimit:
    """Returns what the reference's own windows reach, at most the largest threshold of the statistic unless the profile
    was built with the word that its order is that of time; 0 where nothing is known of that."""
    own = calibrated(feature, statistic, rows)
    value = 0.0 if own is None else own.mean + deviations * own.sd
    most = statistic.thresholds.most if statistic.thresholds is not None and feature.bounded else float("inf")
    return OwnLimit(min(value, most), value > most)


def doubt(feature: FeatureProfile) -> str:
    """Why the order of the reference's rows is probably not that of time, or would hide drift of the feature; "" where
    nothing speaks for that."""
    if not feature.bounded:
        return ""
    beyond = [
        (one.mean + DEVIATIONS * one.sd, JUDGED[one.statistic].word, one.rows, limits.most)
        for one in feature.calibration
        if (limits := THRESHOLDS.get(one.statistic)) is not None and one.mean + DEVIATIONS * one.sd > limits.most
    ]
    if not beyond:
        return ""
    size, word, rows, most = max(beyond)
    return (
        f"the order of the rows explains {feature.explained:.0%} of {feature.name!r}: windows of {rows} rows of the "
        f"reference itself reach {word} {size:.2g} against its other rows, and the largest threshold is {most:.2g}"
    )


def explained(bins: Bins, column: Column) -> float:
    """The share of a feature's variety that the order of its rows explains: 0 where eighths of the reference look
    alike, 1 where no two of them share a value; 0 where there are too few rows to tell.

    Source: Cramér's V² between the bin of a row and its eighth, less what it is on average for rows in any order.
    """
    folded = np.stack([bins.fold(bins.count(part)) for part in _eighths(column)]) if len(column) else np.zeros((0, 1))
    used = np.asarray(folded[:, folded.sum(axis=0) > 0], np.float64)
    rows = float(used.sum())
    freedom = (_FEWEST_WINDOWS - 1) * (used.shape[1] - 1)
    if rows < ROWS_PER_BIN * _FEWEST_WINDOWS * max(used.shape[1], 2) or freedom <= 0:
        return 0.0
    expected = used.sum(axis=1, keepdims=True) * used.sum(axis=0, keepdims=True) / rows
    chi2 = float(((used - expected) ** 2 / expected).sum())
    return float(min(max((chi2 - freedom) / (rows * min(_FEWEST_WINDOWS - 1, used.shape[1] - 1)), 0.0), 1.0))


def _eighths(column: Column) -> Iterator[Column]:
    edges = np.linspace(0, len(column), _FEWEST_WINDOWS + 1).astype(np.int64).tolist()
    for start, end in pairwise(edges):
        yield column.rows(slice(start, end))


def _mean_shifts(whole: Floats, windows: Floats) -> Floats:
    """Returns how many standard deviations the mean of each window is from that of the rest."""
    rest = whole - windows
    with np.errstate(divide="ignore", invalid="ignore"):
        sd = np.sqrt(np.maximum(whole[2] / whole[0] - (whole[1] / whole[0]) ** 2, 0.0)) if whole[0] else np.nan
        shifts = np.abs(windows[:, 1] / windows[:, 0] - rest[:, 1] / rest[:, 0]) / sd
    return np.asarray(shifts[np.isfinite(shifts)], np.float64)


def _summaries(values: dict[str, Floats], rows: int) -> Iterator[Calibration]:
    for name, sizes in values.items():
        if len(sizes):
            mean, sd, q99 = float(sizes.mean()), float(sizes.std()), float(np.quantile(sizes, 0.99))
            yield Calibration(name, rows, len(sizes), mean, sd, q99)


def _sums(column: Column, centre: float) -> Floats:
    """Number of finite values, and the sums of their distances from the centre and of the squares of those."""
    numbers = column.numbers()
    numbers = numbers[np.isfinite(numbers)] - centre
    return np.array([len(numbers), numbers.sum(), (numbers**2).sum()])


def _centre(column: Column) -> float:
    """A value in the middle of things: squares of distances from it keep their digits."""
    numbers = column.numbers()
    numbers = numbers[np.isfinite(numbers)]
    return float(numbers.mean()) if len(numbers) else 0.0


def _sliding(pieces: npt.NDArray[Any], factor: int) -> Floats:
    """Sums of `factor` pieces in a row, at evenly spaced places."""
    added = np.cumsum(pieces, axis=0)
    first = np.zeros((1, pieces.shape[1]), added.dtype)
    padded = np.concatenate([first, added])
    windows = padded[factor:] - padded[:-factor]
    return np.asarray(windows[:: -(-len(windows) // _MOST_WINDOWS)], np.float64)
