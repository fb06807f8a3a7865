"""Tells how bad it is that a metric has changed, by the table of metrics."""

from gateway.drift.statistics.cbpe import Estimate
from gateway.drift.statistics.performance import METRICS, Metric, MetricChange, MetricKind
from gateway.drift.statistics.verdict import DriftState


def rate(change: MetricChange) -> DriftState:
    """Returns how bad a change of a metric is: OK where chance may have made it, or where it is too small to matter.

    Raises: KeyError (a metric that is not in the table).
    """
    kind = METRICS[change.name]
    if not change.enough:
        return DriftState.INSUFFICIENT
    if not change.worse:
        return DriftState.OK
    return _rated(kind, change.reference, change.current)


def rate_estimate(reference: Metric, estimate: Estimate) -> DriftState:
    """Returns how bad it is that a metric is estimated so, against that of the reference's labelled rows.

    Raises: KeyError (a metric that is not in the table).
    """
    kind = METRICS[estimate.name]
    apart = estimate.high < reference.low if kind.higher_is_better else estimate.low > reference.high
    return _rated(kind, reference.value, estimate.value) if apart else DriftState.OK


def _rated(kind: MetricKind, before: float, now: float) -> DriftState:
    size = abs(now - before)
    if kind.relative:
        size /= max(abs(before), 1e-12)
    return DriftState.CRIT if size >= kind.crit else DriftState.WARN if size >= kind.warn else DriftState.OK
