"""A drift report as a value: everything that its page and its JSON say."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from typing import Any, Final

import msgspec
import numpy as np

from gateway.drift.report.span import Span, moment_text
from gateway.drift.statistics.agreement import Agreement
from gateway.drift.statistics.cbpe import Estimate
from gateway.drift.statistics.domain_classifier import Separation
from gateway.drift.statistics.mmd import Mmd
from gateway.drift.statistics.performance import Metric, MetricChange
from gateway.drift.statistics.split import SplitVerdict
from gateway.drift.statistics.verdict import DriftState, Verdict
from gateway.drift.statistics.version_comparison import McNemar, PairedLoss, RewardGap, SplitTest

FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class TrendStep:
    """One time block of the window for one feature. `confirmed`: enough blocks in a row said so by then."""

    span: Span
    rows: int
    value: float  # debiased PSI
    missing: float
    state: DriftState
    confirmed: bool


@dataclass(frozen=True, slots=True)
class FeatureReport:
    """Tells what the window says of a feature or output.

    `verdict` has the statistic that decided, `statistics` all of them by name. Shapes: `labels`, `reference_shares`
    and `shares` one per bin. `since_us`: when the first confirmed alarm began, None where there is none.
    """

    name: str
    column: str
    kind: str
    is_output: bool
    state: DriftState
    verdict: Verdict
    statistics: Mapping[str, float]
    reference_rows: float
    labels: tuple[str, ...]
    reference_shares: tuple[float, ...]
    shares: tuple[float, ...]
    trend: tuple[TrendStep, ...]
    since_us: int | None = None
    exact: bool = False  # KS and Wasserstein from rows, not from bins
    bounds: tuple[float, ...] = ()  # of the intervals, which come first in `labels`; none of a category
    points: tuple[float, ...] = ()  # the single values that have bins of their own, which come next
    new: tuple[tuple[str, float], ...] = ()  # the most frequent categories that the reference lacks, with their shares
    note: str = ""


@dataclass(frozen=True, slots=True)
class VectorReport:
    """Whole rows, or an embedding, against those of the reference. `own_limit` is what MMD² has to exceed since the
    reference's own windows are as far apart, None where there are not enough of them."""

    name: str
    dimensions: int
    state: DriftState
    mmd: Mmd | None
    separation: Separation | None
    note: str = ""
    own_limit: float | None = None
    own_windows: int = 0


@dataclass(frozen=True, slots=True)
class MetricStep:
    """Metrics of one time block: realised where there are labels, estimated where answers carry a confidence."""

    span: Span
    rows: int
    realised: tuple[Metric, ...]
    estimated: tuple[Estimate, ...]


@dataclass(frozen=True, slots=True)
class PerformanceReport:
    """Tells how good the answers were (labels) and probably are (no labels).

    `reference` are the metrics of the reference's labelled rows, `changes` the window's less those; `by_version` the
    metrics of each version that answered. Units: `delays_s`.
    """

    task: str
    state: DriftState
    labelled: int
    rows: int
    delays_s: Mapping[str, float]
    metrics: tuple[Metric, ...]
    reference: tuple[Metric, ...]
    changes: tuple[MetricChange, ...]
    by_version: Mapping[str, tuple[Metric, ...]]
    estimated: tuple[Estimate, ...]
    trend: tuple[MetricStep, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OutputGap:
    """Tells how far one output of B is from that of A. `psi` is debiased, `p` adjusted for all outputs."""

    name: str
    psi: float
    p: float
    state: DriftState


@dataclass(frozen=True, slots=True)
class ComparisonReport:
    """Version B against version A.

    `split` tests the shares that the operator says were meant, `buckets` whether the model's requests fall evenly on
    the buckets of its split, whatever the shares; `rank_correlation` is Spearman's of the scores of the same rows.
    """

    a: str
    b: str
    rows_a: int
    rows_b: int
    state: DriftState
    outputs: tuple[OutputGap, ...]
    changes: tuple[MetricChange, ...]  # of the metrics, B less A, each on its own rows
    split: SplitTest | None
    agreement: Agreement | None  # on the same rows
    mcnemar: McNemar | None
    loss: PairedLoss | None
    rank_correlation: float | None
    buckets: SplitVerdict | None
    reward: RewardGap | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """A report on a window of a model.

    `state` is the worst of features, whole rows and performance; a version that differs from another, as a candidate is
    meant to, is no drift. `notes` say what was not looked at.
    """

    model: str
    versions: tuple[str, ...]
    arms: tuple[str, ...]
    where: str
    window: Span
    every_us: int
    reference: str
    reference_rows: int
    rows: int
    worth: float
    rows_by_version: Mapping[str, int]
    generated_us: int
    seed: int
    state: DriftState
    features: tuple[FeatureReport, ...]
    vectors: tuple[VectorReport, ...]
    performance: PerformanceReport | None
    comparison: ComparisonReport | None
    notes: tuple[str, ...] = ()

    def to_json(self) -> str:
        """One object; NaN is null, spans are ISO 8601, states are words."""
        return msgspec.json.format(msgspec.json.encode({"format": FORMAT, **_value(self)}), indent=1).decode()


def severity(state: DriftState) -> int:
    """The order that states are shown in: what is not known comes before what is well."""
    return (DriftState.CRIT, DriftState.WARN, DriftState.INSUFFICIENT, DriftState.OK).index(state)


def _value(item: Any) -> Any:
    if isinstance(item, Span):
        return {"start": moment_text(item.start_us), "end": moment_text(item.end_us)}
    if is_dataclass(item) and not isinstance(item, type):
        return {field.name: _value(getattr(item, field.name)) for field in fields(item)}
    if isinstance(item, Enum):
        return item.name.lower()
    if isinstance(item, np.generic):
        return item.item()
    if isinstance(item, Mapping):
        return {str(key): _value(value) for key, value in item.items()}
    if isinstance(item, Sequence) and not isinstance(item, str):
        return [_value(value) for value in item]
    return item
