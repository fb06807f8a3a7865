"""The reference profile of a version: what its inputs and outputs looked like where it was right.

A profile is frozen: live windows are counted in its bins, so windows can be added and compared for as long as the
revision lasts.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import numpy as np

from gateway.drift.statistics.baseline import Baseline, baseline_json, read_baseline
from gateway.drift.statistics.bins import Bins, CategoryBins, NumericBins
from gateway.drift.statistics.distance import Counts, Floats
from gateway.errors import InvalidArgument

FORMAT: Final = 1


class FeatureKind(StrEnum):
    """What the values of a feature are."""

    NUMBER = "num"
    INTEGER = "int"
    CATEGORY = "cat"
    TEXT = "bytes"
    EMBEDDING = "embedding"


@dataclass(frozen=True, slots=True)
class Calibration:
    """What a statistic was between the reference's own windows of that many rows and the rest of the reference."""

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
    of `n` other rows about as many belong to categories that the reference has never seen.
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

    def calibrated(self, statistic: str, rows: float) -> Calibration | None:
        """The calibration for a window of that many rows: of the largest size that is not larger, else the smallest.

        A smaller window is noisier, so its threshold is the more careful one.
        """
        found = [one for one in self.calibration if one.statistic == statistic]
        fitting = [one for one in found if one.rows <= rows]
        if fitting:
            return max(fitting, key=lambda one: one.rows)
        return min(found, key=lambda one: one.rows, default=None)


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
        found = np.column_stack([placed, rest])
        found[~np.isfinite(found).all(axis=1)] = np.nan
        return np.asarray(found, np.float64)


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

    def to_json(self) -> str:
        """The text that `from_json` reads back; NaN is written as null."""
        return json.dumps(
            {
                "format": FORMAT,
                "model": self.model,
                "version": self.version,
                "revision": self.revision,
                "created_at": self.created_at,
                "source": self.source,
                "rows": self.rows,
                "features": [_feature_json(feature) for feature in self.features],
                "outputs": [_feature_json(output) for output in self.outputs],
                "embeddings": [_embedding_json(embedding) for embedding in self.embeddings],
                "baseline": None if self.baseline is None else baseline_json(self.baseline),
            },
            ensure_ascii=False,
            allow_nan=False,
        )

    @classmethod
    def from_json(cls, text: str | bytes) -> "Profile":
        """Raises: InvalidArgument (no profile, or one of a format that this version does not know)."""
        try:
            document = json.loads(text)
            found = document["format"]
            if found != FORMAT:
                raise InvalidArgument(f"format is {found!r}, this gateway reads {FORMAT}")
            return cls(
                model=str(document["model"]),
                version=str(document["version"]),
                revision=int(document["revision"]),
                created_at=float(document["created_at"]),
                source=str(document["source"]),
                rows=int(document["rows"]),
                features=tuple(_feature(item) for item in document["features"]),
                outputs=tuple(_feature(item) for item in document["outputs"]),
                embeddings=tuple(_embedding(item) for item in document["embeddings"]),
                baseline=None if document.get("baseline") is None else read_baseline(document["baseline"]),
            )
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InvalidArgument(f"no reference profile: {type(error).__name__}: {error}") from None


def _feature_json(feature: FeatureProfile) -> dict[str, object]:
    return {
        "name": feature.name,
        "column": feature.column,
        "kind": feature.kind.value,
        "bins": _bins_json(feature.bins),
        "counts": list(feature.counts),
        "n": feature.n,
        "missing": feature.missing,
        **{name: _number_json(getattr(feature, name)) for name in ("mean", "sd", "min", "max")},
        "singletons": feature.singletons,
        "calibration": [
            [one.statistic, one.rows, one.windows, *(float(f"{v:.6g}") for v in (one.mean, one.sd, one.q99))]
            for one in feature.calibration
        ],
    }


def _bins_json(bins: Bins) -> dict[str, object]:
    if isinstance(bins, NumericBins):
        numbers = {"edges": list(bins.edges), "points": list(bins.points), "low": bins.low, "high": bins.high}
        return {**numbers, "precision": bins.precision}
    return {
        "categories": list(bins.categories),
        "tail": list(bins.tail),
        "tail_complete": bins.tail_complete,
        "numeric": bins.numeric,
    }


def _feature(item: Mapping[str, Any]) -> FeatureProfile:
    bins = _bins(item["bins"])
    counts = tuple(int(count) for count in item["counts"])
    if len(counts) != len(bins.cells):
        raise ValueError(f"feature {item['name']!r} has {len(counts)} counts for {len(bins.cells)} cells")
    return FeatureProfile(
        name=str(item["name"]),
        column=str(item["column"]),
        kind=FeatureKind(item["kind"]),
        bins=bins,
        counts=counts,
        n=int(item["n"]),
        missing=int(item["missing"]),
        mean=_number(item["mean"]),
        sd=_number(item["sd"]),
        min=_number(item["min"]),
        max=_number(item["max"]),
        singletons=int(item["singletons"]),
        calibration=tuple(
            Calibration(str(name), int(rows), int(windows), float(mean), float(sd), float(q99))
            for name, rows, windows, mean, sd, q99 in item["calibration"]
        ),
    )


def _bins(item: Mapping[str, Any]) -> Bins:
    if "edges" in item:
        if item["precision"] not in ("f4", "f8"):
            raise ValueError(f"precision is {item['precision']!r}, allowed are f4 and f8")
        return NumericBins(
            tuple(float(edge) for edge in item["edges"]),
            tuple(float(point) for point in item["points"]),
            float(item["low"]),
            float(item["high"]),
            item["precision"],
        )
    return CategoryBins(
        tuple(str(name) for name in item["categories"]),
        tuple(int(sum_) for sum_ in item["tail"]),
        bool(item["tail_complete"]),
        bool(item["numeric"]),
    )


def _embedding_json(embedding: EmbeddingProfile) -> dict[str, object]:
    return {
        "name": embedding.name,
        "column": embedding.column,
        "rows": embedding.rows,
        "centre": _short(embedding.centre),
        "components": [_short(row) for row in embedding.components],
        "sample": [_short(row) for row in embedding.sample],
        "features": [_feature_json(feature) for feature in embedding.features],
    }


def _embedding(item: Mapping[str, Any]) -> EmbeddingProfile:
    return EmbeddingProfile(
        str(item["name"]),
        str(item["column"]),
        int(item["rows"]),
        tuple(float(value) for value in item["centre"]),
        tuple(tuple(float(value) for value in row) for row in item["components"]),
        tuple(tuple(float(value) for value in row) for row in item["sample"]),
        tuple(_feature(feature) for feature in item.get("features", ())),
    )


def rounded(value: float) -> float:
    """The value in as many digits as a profile stores of the parts of an embedding."""
    return float(f"{value:.5g}")


def _short(values: tuple[float, ...]) -> list[float]:
    return [rounded(value) for value in values]


def _number_json(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")
