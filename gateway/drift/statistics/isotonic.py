"""Isotonic regression: the rising curve nearest to values that should rise and, by chance, do not everywhere."""

import numpy as np

from gateway.drift.statistics.distance import Floats


def rising(values: Floats, weights: Floats) -> Floats:
    """The non-decreasing sequence with the least weighed sum of squared distances from `values`.

    Shapes: [n] each; weights above 0.
    Source: pooling of adjacent violators (Ayer and others, 1955). Any order of pooling ends at the same curve, so here
            every falling run is pooled at once.
    """
    means, sizes = np.asarray(values, np.float64), np.asarray(weights, np.float64)
    lengths = np.ones(len(means), np.int64)
    while (means[1:] < means[:-1]).any():
        starts = np.flatnonzero(np.append(True, means[1:] > means[:-1]))
        joined = np.add.reduceat(sizes, starts)
        means = np.add.reduceat(means * sizes, starts) / joined
        lengths, sizes = np.add.reduceat(lengths, starts), joined
    return np.repeat(means, lengths)
