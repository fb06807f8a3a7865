"""How bad it is that a metric has changed."""

from typing import Final

from gateway.drift.statistics.performance import Change
from gateway.drift.statistics.verdict import State

DROP_WARN: Final = 0.02  # of a share: accuracy, F1, AUC
DROP_CRIT: Final = 0.05
RISE_WARN: Final = 0.05  # of a loss, relative to what it was
RISE_CRIT: Final = 0.25
_SHARES: Final = ("accuracy", "f1", "auc")


def rate(change: Change) -> State:
    """How bad a change of a metric is: OK where chance may have made it, or where it is too small to matter."""
    if not change.enough:
        return State.INSUFFICIENT
    if not change.worse:
        return State.OK
    size = abs(change.current - change.reference)
    if change.name in _SHARES:
        warn, crit = DROP_WARN, DROP_CRIT
    else:
        size /= max(abs(change.reference), 1e-12)
        warn, crit = RISE_WARN, RISE_CRIT
    return State.CRIT if size >= crit else State.WARN if size >= warn else State.OK
