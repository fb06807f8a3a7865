"""How bad it is that a metric has changed."""

from typing import Final

from gateway.drift.statistics.performance import MetricChange
from gateway.drift.statistics.verdict import DriftState

DROP_WARN: Final = 0.02  # of a share: accuracy, F1, AUC
DROP_CRIT: Final = 0.05
RISE_WARN: Final = 0.05  # of a loss, relative to what it was
RISE_CRIT: Final = 0.25
_SHARES: Final = ("accuracy", "f1", "auc")


def rate(change: MetricChange) -> DriftState:
    """How bad a change of a metric is: OK where chance may have made it, or where it is too small to matter."""
    if not change.enough:
        return DriftState.INSUFFICIENT
    if not change.worse:
        return DriftState.OK
    size = abs(change.current - change.reference)
    if change.name in _SHARES:
        warn, crit = DROP_WARN, DROP_CRIT
    else:
        size /= max(abs(change.reference), 1e-12)
        warn, crit = RISE_WARN, RISE_CRIT
    return DriftState.CRIT if size >= crit else DriftState.WARN if size >= warn else DriftState.OK
