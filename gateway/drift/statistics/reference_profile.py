"""The reference profile of a version: what its inputs and outputs looked like where it was right.

A profile is frozen: live windows are counted in its bins, so windows can be added and compared for as long as the
revision lasts.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import numpy as np

from gateway.drift.statistics.baseline import Baseline
from gateway.drift.statistics.bins import Bins
from gateway.drift.statistics.distance import Counts, Floats


class FeatureKind(StrEnum):
    """Names what the values of a feature are."""

    NUMBER = "num"
    INTEGER = "int"
    CATEGORY = "cat"
    TEXT = "bytes"
    EMBEDDING = "embedding"


class Calibration(NamedTuple):
    """Tells what a statistic was between the reference's own windows of that many rows and the rest of the
    reference."""

    statistic: str
    rows: int
    windows: int
    mean: float
    sd: float
    q99: float


@dataclass(frozen=True, slots=True)
class FeatureProfile:
    """One feature or output.

    `counts` has a place for each of `bins.cells`; `n` is all rows, `missing` those without a value. Mean, sd, min and
    max are those of the finite numbers, NaN where there are none. `singletons` are the categories that occurred once:
    of `n` other rows about as many belong to categories that the reference has never seen. `explained` is the share of
    its variety that the order of the reference's rows explains; `bounded` is false where somebody said that this order
    is that of time, so that thresholds may be as large as the reference's own windows are apart.
    """

    name: str
    column: str
    kind: FeatureKind
    bins: Bins
    counts: tuple[int, ...]
    n: int
    missing: int
    mean: float
    sd: float
    min: float
    max: float
    singletons: int = 0
    calibration: tuple[Calibration, ...] = ()
    explained: float = 0.0
    bounded: bool = True

    @property
    def cell_counts(self) -> Counts:
        return np.array(self.counts, np.int64)

    @property
    def folded(self) -> Counts:
        """The counts in the bins that distances are taken over."""
        return self.bins.fold(self.cell_counts)

    def special(self) -> dict[str, float]:
        """Rows of each kind that is worth a look, as they are expected among `n` others of the same distribution.

        Of a sample none is out of its own range and none unknown; left out one by one, the two outermost are, and the
        singletons are.
        """
        expected = self.bins.special(self.cell_counts)
        if "unseen" in expected:
            expected["unseen"] = max(expected["unseen"], float(self.singletons))
        if "out_of_range" in expected and self.n > self.missing:
            expected["out_of_range"] = max(expected["out_of_range"], 2.0)
        return expected


@dataclass(frozen=True, slots=True)
class EmbeddingProfile:
    """Rows of an embedding tensor, kept for comparisons of whole vectors.

    `features` are the first components and the length of what lies beside them all, each watched like a number.
    Shapes: `centre` [d]; `components` [k][d], orthonormal rows; `sample` [rows][k], the rows on the components.
    """

    name: str
    column: str
    rows: int
    centre: tuple[float, ...]
    components: tuple[tuple[float, ...], ...]
    sample: tuple[tuple[float, ...], ...]
    features: tuple[FeatureProfile, ...] = ()

    def project(self, vectors: Floats) -> Floats:
        """The vectors on the components, and last the length of what is beside them.

        Shapes: [rows, d] to [rows, k + 1]; NaN where a vector is not finite.
        """
        components = np.array(self.components, np.float64)
        with np.errstate(invalid="ignore", over="ignore"):
            centred = vectors - np.array(self.centre, np.float64)
            placed = centred @ components.T
            rest = np.sqrt(np.maximum((centred**2).sum(axis=1) - (placed**2).sum(axis=1), 0.0))
        projected = np.column_stack([placed, rest])
        projected[~np.isfinite(projected).all(axis=1)] = np.nan
        return np.asarray(projected, np.float64)


@dataclass(frozen=True, slots=True)
class Profile:
    """The reference of one version.

    Units: `created_at` in seconds since the epoch. `source` says in words where the rows came from; `baseline` is of
    those that had a label, if there were any.
    """

    model: str
    version: str
    revision: int
    created_at: float
    source: str
    rows: int
    features: tuple[FeatureProfile, ...]
    outputs: tuple[FeatureProfile, ...] = ()
    embeddings: tuple[EmbeddingProfile, ...] = ()
    baseline: Baseline | None = None

    @property
    def all_features(self) -> tuple[FeatureProfile, ...]:
        """Inputs, then outputs."""
        return self.features + self.outputs

    @property
    def watched(self) -> tuple[FeatureProfile, ...]:
        """Inputs, those made of embeddings, then outputs: what is counted while the version serves."""
        made = tuple(feature for embedding in self.embeddings for feature in embedding.features)
        return self.features + made + self.outputs


def rounded(value: float) -> float:
    """The value in as many digits as a profile stores of the parts of an embedding."""
    return float(f"{value:.5g}")
