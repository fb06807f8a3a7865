"""The JSON of a reference profile. NaN is null; embeddings and calibrations are written in few digits."""

from typing import Final, Literal

import msgspec

from gateway.drift.statistics.answers import Task
from gateway.drift.statistics.baseline import Baseline, Curve
from gateway.drift.statistics.bins import Bins, CategoryBins, NumericBins, Precision
from gateway.drift.statistics.performance import Metric
from gateway.drift.statistics.reference_profile import (
    Calibration,
    EmbeddingProfile,
    FeatureKind,
    FeatureProfile,
    Profile,
    rounded,
)
from gateway.errors import InvalidArgument

FORMAT: Final = 1


class _Numbers(msgspec.Struct):
    edges: tuple[float, ...]
    points: tuple[float, ...]
    low: float
    high: float
    precision: Precision


class _Categories(msgspec.Struct):
    categories: tuple[str, ...]
    tail: tuple[int, ...]
    tail_complete: bool
    numeric: bool


class _Feature(msgspec.Struct):
    name: str
    column: str
    kind: FeatureKind
    bins: msgspec.Raw
    counts: tuple[int, ...]
    n: int
    missing: int
    mean: float | None
    sd: float | None
    min: float | None
    max: float | None
    singletons: int
    calibration: tuple[Calibration, ...]
    explained: float = 0.0
    bounded: bool = True


class _Embedding(msgspec.Struct):
    name: str
    column: str
    rows: int
    centre: tuple[float, ...]
    components: tuple[tuple[float, ...], ...]
    sample: tuple[tuple[float, ...], ...]
    features: tuple[_Feature, ...] = ()


class _Baseline(msgspec.Struct):
    task: Task
    source: str
    rows: int
    classes: tuple[str, ...]
    metrics: tuple[tuple[str, float, float, float, int], ...]
    curve: Curve | None
    note: str


class _Profile(msgspec.Struct):
    format: Literal[1]
    model: str
    version: str
    revision: int
    created_at: float
    source: str
    rows: int
    features: tuple[_Feature, ...]
    outputs: tuple[_Feature, ...]
    embeddings: tuple[_Embedding, ...]
    baseline: _Baseline | None = None


def profile_json(profile: Profile) -> bytes:
    """The text that `read_profile` reads back."""
    return msgspec.json.encode(
        _Profile(
            FORMAT, profile.model, profile.version, profile.revision, profile.created_at, profile.source, profile.rows,
            tuple(map(_feature_document, profile.features)), tuple(map(_feature_document, profile.outputs)),
            tuple(map(_embedding_document, profile.embeddings)), _baseline_document(profile.baseline),
        )
    )  # fmt: skip


def read_profile(text: str | bytes) -> Profile:
    """The profile of a document. Raises: InvalidArgument (no profile, or one of a format that is not known here)."""
    try:
        document = msgspec.json.decode(text, type=_Profile)
        return Profile(
            document.model, document.version, document.revision, document.created_at, document.source, document.rows,
            tuple(map(_feature, document.features)), tuple(map(_feature, document.outputs)),
            tuple(map(_embedding, document.embeddings)), _baseline(document.baseline),
        )  # fmt: skip
    except (ValueError, TypeError) as error:  # those of msgspec are ValueErrors
        raise InvalidArgument(f"no reference profile of format {FORMAT}: {error}") from None


def _feature_document(feature: FeatureProfile) -> _Feature:
    bins = feature.bins
    document = (
        _Numbers(bins.edges, bins.points, bins.low, bins.high, bins.precision)
        if isinstance(bins, NumericBins)
        else _Categories(bins.categories, bins.tail, bins.tail_complete, bins.numeric)
    )
    return _Feature(
        feature.name, feature.column, feature.kind, msgspec.Raw(msgspec.json.encode(document)), feature.counts,
        feature.n, feature.missing, feature.mean, feature.sd, feature.min, feature.max, feature.singletons,
        tuple(Calibration(*one[:3], *(float(f"{value:.6g}") for value in one[3:])) for one in feature.calibration),
        float(f"{feature.explained:.3g}"), feature.bounded,
    )  # fmt: skip


def _feature(document: _Feature) -> FeatureProfile:
    bins = _bins(document.bins)
    if len(document.counts) != len(bins.cells):
        raise ValueError(f"feature {document.name!r} has {len(document.counts)} counts for {len(bins.cells)} cells")
    return FeatureProfile(
        document.name, document.column, document.kind, bins, document.counts, document.n, document.missing,
        _number(document.mean), _number(document.sd), _number(document.min), _number(document.max),
        document.singletons, document.calibration, document.explained, document.bounded,
    )  # fmt: skip


def _bins(document: msgspec.Raw) -> Bins:
    if "edges" in msgspec.json.decode(document, type=dict[str, msgspec.Raw]):
        numbers = msgspec.json.decode(document, type=_Numbers)
        return NumericBins(numbers.edges, numbers.points, numbers.low, numbers.high, numbers.precision)
    known = msgspec.json.decode(document, type=_Categories)
    return CategoryBins(known.categories, known.tail, known.tail_complete, known.numeric)


def _embedding_document(embedding: EmbeddingProfile) -> _Embedding:
    return _Embedding(
        embedding.name, embedding.column, embedding.rows, _short(embedding.centre),
        tuple(map(_short, embedding.components)), tuple(map(_short, embedding.sample)),
        tuple(map(_feature_document, embedding.features)),
    )  # fmt: skip


def _embedding(document: _Embedding) -> EmbeddingProfile:
    return EmbeddingProfile(
        document.name, document.column, document.rows, document.centre, document.components, document.sample,
        tuple(map(_feature, document.features)),
    )  # fmt: skip


def _baseline_document(baseline: Baseline | None) -> _Baseline | None:
    if baseline is None:
        return None
    metrics = tuple((one.name, one.value, one.low, one.high, one.rows) for one in baseline.metrics)
    return _Baseline(
        baseline.task, baseline.source, baseline.rows, baseline.classes, metrics, baseline.curve, baseline.note
    )


def _baseline(document: _Baseline | None) -> Baseline | None:
    if document is None:
        return None
    return Baseline(
        document.task, document.source, document.rows, document.classes,
        tuple(Metric(*values) for values in document.metrics), document.curve, document.note,
    )  # fmt: skip


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _short(values: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(map(rounded, values))
