"""Maximum mean discrepancy of two samples: whether two sets of vectors come from one distribution."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from gateway.drift.statistics.distance import Floats
from gateway.drift.statistics.time_blocks import BlockedRows

_FEWEST_WINDOWS: Final = 8  # that a deviation can be taken from
_MOST_WINDOWS: Final = 12
_WINDOW_ROWS: Final = 500
_LEAST_WINDOW_ROWS: Final = 50


@dataclass(frozen=True, slots=True)
class Mmd:
    """The outcome of a test.

    `squared` is the unbiased estimate of MMD² (around 0, also below, where nothing differs); `p` comes from
    `permutations` exchanges of blocks of rows, so it is never below 1 / (permutations + 1); `sigma` is the kernel's
    width.
    """

    squared: float
    p: float
    sigma: float
    reference_rows: int
    current_rows: int
    permutations: int
    reference_blocks: int
    current_blocks: int


@dataclass(frozen=True, slots=True)
class OwnWindows:
    """MMD² of windows of the reference against the rest of it: how many, their mean and standard deviation."""

    windows: int
    mean: float
    sd: float


def mmd(
    reference: BlockedRows,
    current: BlockedRows,
    *,
    rng: np.random.Generator,
    permutations: int = 999,
    max_rows: int = 1000,
) -> Mmd:
    """The test with an RBF kernel of median width on at most `max_rows` rows of each sample, drawn by `rng`.

    Blocks are exchanged and not rows, so that the rows of one may depend on each other.
    Shapes: at least two rows each.
    Raises: ValueError.
    Source: Gretton et al., A Kernel Two-Sample Test, JMLR 13 (2012).
    """
    left, right = (
        _checked(reference, "reference").drawn(max_rows, rng),
        _checked(current, "current").drawn(max_rows, rng),
    )
    if left.values.shape[1] != right.values.shape[1]:
        widths = left.values.shape[1], right.values.shape[1]
        raise ValueError(f"reference has {widths[0]} dimensions and current {widths[1]}, expected the same")
    kernel, sigma = _kernel(np.concatenate([left.values, right.values]))
    starts = np.flatnonzero(np.diff(np.concatenate([left.blocks, left.count + right.blocks]), prepend=-1))
    sums = np.add.reduceat(np.add.reduceat(kernel, starts, axis=0), starts, axis=1)
    sizes = np.diff(starts, append=len(kernel)).astype(np.float64)
    labels = np.zeros((len(sizes), permutations + 1))
    labels[: left.count, 0] = 1.0
    for column in range(1, permutations + 1):
        labels[rng.permutation(len(sizes))[: left.count], column] = 1.0
    values = _discrepancies(sums, sizes, labels)
    # Equal sums in another order differ in the last bits; they must count as equal.
    extreme = int((values[1:] >= values[0] - 1e-12).sum())
    p = (1 + extreme) / (1 + permutations)
    return Mmd(float(values[0]), p, sigma, len(left), len(right), permutations, left.count, right.count)


def own_windows(reference: Floats, share: float, *, rng: np.random.Generator) -> OwnWindows | None:
    """Returns how far windows that hold this share of the reference are from the rest of it; None where it has not
    eight of them, or too few rows.

    What lasts as long as a window (a season, a storm, a campaign) is in there; no permutation knows of it.
    Shapes: [rows, dimensions], in the order of time; finite.
    """
    rows = round(len(reference) * share)
    if rows < _LEAST_WINDOW_ROWS or len(reference) < _FEWEST_WINDOWS * rows:
        return None
    starts = np.linspace(0, len(reference) - rows, min(len(reference) // rows, _MOST_WINDOWS)).astype(np.int64)
    distances = []
    for start in starts.tolist():
        inside = np.arange(start, start + rows)
        outside = np.concatenate([np.arange(start), np.arange(start + rows, len(reference))])
        parts = [rng.choice(part, min(len(part), _WINDOW_ROWS), replace=False) for part in (inside, outside)]
        kernel, _ = _kernel(reference[np.concatenate(parts)].astype(np.float64))
        labels = np.zeros((len(kernel), 1))
        labels[: len(parts[0])] = 1.0
        distances.append(float(_discrepancies(kernel, np.ones(len(kernel)), labels)[0]))
    return OwnWindows(len(distances), float(np.mean(distances)), float(np.std(distances)))


def squared_distances(left: Floats, right: Floats) -> Floats:
    """Squared Euclidean distances. Shapes: [rows of left, rows of right]."""
    products = left @ right.T
    squares = (left**2).sum(axis=1)[:, None] + (right**2).sum(axis=1)[None, :] - 2 * products
    return np.asarray(np.maximum(squares, 0.0), np.float64)


def median_width(distances: Floats) -> float:
    """The median of the distances between different rows, or their mean where more than half are equal; 0 where all
    rows are equal."""
    above = distances[np.triu_indices(len(distances), 1)]
    middle = float(np.sqrt(np.median(above)))
    return middle or float(np.sqrt(above).mean())


def _kernel(pooled: Floats) -> tuple[Floats, float]:
    """The RBF kernel of median width, and that width."""
    distances = squared_distances(pooled, pooled)
    sigma = median_width(distances)
    return (np.exp(-distances / (2 * sigma**2)) if sigma else np.ones_like(distances)), sigma


def _checked(rows: BlockedRows, name: str) -> BlockedRows:
    if rows.values.ndim != 2 or len(rows) < 2:
        raise ValueError(f"{name} has shape {rows.values.shape}, expected [rows, dimensions] with at least two rows")
    if not np.isfinite(rows.values).all():
        raise ValueError(f"{name} has values that are not finite, expected them to be left out or filled in before")
    return BlockedRows(rows.values.astype(np.float64), rows.blocks)


def _discrepancies(sums: Floats, sizes: Floats, labels: Floats) -> Floats:
    """Unbiased MMD² for each column of `labels`, which has 1 where a block belongs to the first sample.

    Shapes: `sums` of the kernel over pairs of blocks, `sizes` the rows of each.
    """
    first = sizes @ labels
    second = sizes.sum() - first
    within = sums @ labels
    own = np.einsum("ij,ij->j", labels, within)
    cross = np.einsum("ij,ij->j", 1 - labels, within)
    other = sums.sum() - own - 2 * cross
    # The diagonal of an RBF kernel is 1: leaving it out makes the estimate unbiased.
    same = (own - first) / (first * (first - 1)) + (other - second) / (second * (second - 1))
    return np.asarray(same - 2 * cross / (first * second))
