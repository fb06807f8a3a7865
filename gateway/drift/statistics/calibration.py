"""How far the reference's own windows are from the rest of it: what a window of that size does without any change.

Rows of a reference are in the order of time where they have one, so its windows have the weather, the weekends and the
batches of similar rows that live windows have. Theory knows nothing of those.
"""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from gateway.drift.statistics import distance as statistics
from gateway.drift.statistics.bins import Bins, NumericBins
from gateway.drift.statistics.column import Column
from gateway.drift.statistics.distance import Counts, Floats
from gateway.drift.statistics.reference_profile import Calibration

CHANCE: Final = 0.01  # what is less likely is not put down to chance
ROWS_PER_BIN: Final = 10  # a window with fewer rows per bin says nothing
_FEWEST_WINDOWS: Final = 8  # disjoint windows that a deviation can be taken from
_MOST_PIECES: Final = 2048
_MOST_WINDOWS: Final = 512  # of one size; a 99th percentile needs no more
_DISTANCES: Final = {
    "psi": statistics.debiased_psi,
    "js_distance": statistics.js_distance,
    "l_infinity": statistics.l_infinity,
}


def calibrate(bins: Bins, column: Column) -> tuple[Calibration, ...]:
    """Mean, deviation and 99th percentile of each statistic, for windows of doubling sizes.

    Statistics: the distances "psi" (debiased), "js_distance", "l_infinity"; "mean", the shift of the mean in standard
    deviations; the differences of the shares "missing" and "infinite"; and "vanished", the share that is not there.
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
    found: list[Calibration] = []
    factor = 1
    while len(pieces) >= _FEWEST_WINDOWS * factor:
        windows, window_sums = _sliding(counts, factor), _sliding(sums, factor)
        values = {**_distances(bins, whole, windows), **_shares(bins, whole, windows)}
        values["mean"] = _mean_shifts(_sums(column, centre), window_sums)
        found += _summaries(values, smallest * factor)
        factor *= 2
    return tuple(found)


def vanished(bins: Bins, reference: Counts, current: Counts) -> tuple[npt.NDArray[np.bool_], Floats]:
    """Which folded bins of categories and point masses have not come, though by chance they would have; and for every
    bin the chance that it or another one does not come.

    Shapes: `reference` [B], `current` [..., B]; both results as `current`.
    """
    values = np.zeros(len(reference), np.bool_)  # missing, and infinite or other, are no values
    values[len(bins.edges) + 1 if isinstance(bins, NumericBins) else 0 : -2] = True
    shares = statistics.shares(reference)
    chances = np.minimum((1.0 - shares) ** current.sum(axis=-1, keepdims=True) * max(int(values.sum()), 1), 1.0)
    return np.asarray((current <= 0) & values & (shares > 0) & (chances < CHANCE), np.bool_), chances


def _distances(bins: Bins, whole: Counts, windows: Counts) -> dict[str, Floats]:
    """Each window against the rest of the reference."""
    folded = bins.fold(windows)
    rest = bins.fold(whole) - folded
    return {name: distance(rest, folded) for name, distance in _DISTANCES.items()}


def _shares(bins: Bins, whole: Counts, windows: Counts) -> dict[str, Floats]:
    found: dict[str, Floats] = {}
    rows = windows.sum(axis=-1)
    for name, total in bins.special(whole).items():
        # Within its own reference nothing is out of range or unknown, whichever window is looked at.
        if total > 0:
            hits = np.array([bins.special(window)[name] for window in windows])
            found[name] = np.abs(hits / rows - (total - hits) / (whole.sum() - rows))
    folded = bins.fold(whole)
    gone, _ = vanished(bins, folded, bins.fold(windows))
    if gone.any():
        found["vanished"] = np.asarray(gone @ statistics.shares(folded), np.float64)
    return found


def _mean_shifts(whole: Floats, windows: Floats) -> Floats:
    """How many standard deviations the mean of each window is from that of the rest."""
    rest = whole - windows
    with np.errstate(divide="ignore", invalid="ignore"):
        sd = np.sqrt(np.maximum(whole[2] / whole[0] - (whole[1] / whole[0]) ** 2, 0.0)) if whole[0] else np.nan
        shifts = np.abs(windows[:, 1] / windows[:, 0] - rest[:, 1] / rest[:, 0]) / sd
    return np.asarray(shifts[np.isfinite(shifts)], np.float64)


def _summaries(values: dict[str, Floats], rows: int) -> Iterator[Calibration]:
    for name, found in values.items():
        if len(found):
            mean, sd, q99 = float(found.mean()), float(found.std()), float(np.quantile(found, 0.99))
            yield Calibration(name, rows, len(found), mean, sd, q99)


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
