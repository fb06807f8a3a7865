"""Maximum mean discrepancy of two samples: whether two sets of vectors come from one distribution."""

from dataclasses import dataclass

import numpy as np

from gateway.drift.statistics import Floats


@dataclass(frozen=True, slots=True)
class Mmd:
    """The outcome of a test.

    `squared` is the unbiased estimate of MMD² (around 0, also below, where nothing differs); `p` comes from
    `permutations` exchanges of labels, so it is never below 1 / (permutations + 1); `sigma` is the kernel's width.
    """

    squared: float
    p: float
    sigma: float
    reference_rows: int
    current_rows: int
    permutations: int


def mmd(
    reference: Floats,
    current: Floats,
    *,
    rng: np.random.Generator,
    permutations: int = 200,
    max_rows: int = 1000,
) -> Mmd:
    """The test with an RBF kernel of median width on at most `max_rows` rows of each sample, drawn by `rng`.

    Shapes: [rows, dimensions] with at least two rows each; finite.
    Raises: ValueError.
    Source: Gretton et al., A Kernel Two-Sample Test, JMLR 13 (2012).
    """
    left, right = _drawn(reference, max_rows, rng, "reference"), _drawn(current, max_rows, rng, "current")
    if left.shape[1] != right.shape[1]:
        raise ValueError(f"reference has {left.shape[1]} dimensions and current {right.shape[1]}, expected the same")
    pooled = np.concatenate([left, right])
    distances = squared_distances(pooled, pooled)
    sigma = median_width(distances)
    kernel = np.exp(-distances / (2 * sigma**2)) if sigma else np.ones_like(distances)
    labels = np.zeros((len(pooled), permutations + 1))
    labels[: len(left), 0] = 1.0
    for column in range(1, permutations + 1):
        labels[rng.permutation(len(pooled))[: len(left)], column] = 1.0
    values = _discrepancies(kernel, labels)
    # Equal sums in another order differ in the last bits; they must count as equal.
    extreme = int((values[1:] >= values[0] - 1e-12).sum())
    return Mmd(float(values[0]), (1 + extreme) / (1 + permutations), sigma, len(left), len(right), permutations)


def squared_distances(left: Floats, right: Floats) -> Floats:
    """Squared Euclidean distances. Shapes: [rows of left, rows of right]."""
    products = left @ right.T
    found = (left**2).sum(axis=1)[:, None] + (right**2).sum(axis=1)[None, :] - 2 * products
    return np.asarray(np.maximum(found, 0.0), np.float64)


def median_width(distances: Floats) -> float:
    """The median of the distances between different rows, or their mean where more than half are equal; 0 where all
    rows are equal."""
    above = distances[np.triu_indices(len(distances), 1)]
    middle = float(np.sqrt(np.median(above)))
    return middle or float(np.sqrt(above).mean())


def _drawn(rows: Floats, limit: int, rng: np.random.Generator, name: str) -> Floats:
    if rows.ndim != 2 or len(rows) < 2:
        raise ValueError(f"{name} has shape {rows.shape}, expected [rows, dimensions] with at least two rows")
    chosen = rows if len(rows) <= limit else rows[rng.choice(len(rows), limit, replace=False)]
    if not np.isfinite(chosen).all():
        raise ValueError(f"{name} has values that are not finite, expected them to be left out or filled in before")
    return chosen.astype(np.float64)


def _discrepancies(kernel: Floats, labels: Floats) -> Floats:
    """Unbiased MMD² for each column of `labels`, which has 1 where a row belongs to the first sample."""
    first = labels.sum(axis=0)
    second = len(labels) - first
    within = kernel @ labels
    own = np.einsum("ij,ij->j", labels, within)
    cross = np.einsum("ij,ij->j", 1 - labels, within)
    other = kernel.sum() - own - 2 * cross
    # The diagonal of an RBF kernel is 1: leaving it out makes the estimate unbiased.
    same = (own - first) / (first * (first - 1)) + (other - second) / (second * (second - 1))
    return np.asarray(same - 2 * cross / (first * second))
