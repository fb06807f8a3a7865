"""The decision rule: a window has drifted where the change is large, not by chance, larger than the reference's own
windows are apart, and seen in several windows in a row.

A p-value alone says "different" of any large window; a distance alone says it of any small one; both say it of a week
of bad weather. What one window says is `judge`d here; `confirm` takes the last windows together. What is measured, and
from which size on it counts, is in the table of `statistic`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum, StrEnum

import numpy as np

from gateway.drift.statistics.calibration import DEVIATIONS, ROWS_PER_BIN, own_limit
from gateway.drift.statistics.distance import Counts, psi_null_sd
from gateway.drift.statistics.reference_profile import FeatureProfile
from gateway.drift.statistics.significance import benjamini_hochberg
from gateway.drift.statistics.statistic import CHANCE, JUDGED, PSI, Contrast, Measurement, Statistic


class DriftState(IntEnum):
    """Names how a feature is, the worse the higher; too few rows to tell is never OK."""

    INSUFFICIENT = -1
    OK = 0
    WARN = 1
    CRIT = 2


class Origin(StrEnum):
    """Names where the threshold of an evidence comes from."""

    TABLE = "table"  # the size that warns, by docs/drift.md
    SAMPLE = "sample"  # that and what the error of the samples may have added, or what chance alone reaches
    REFERENCE = "reference"  # the reference's own windows are as far apart
    BOUND = "bound"  # they are further apart, and no threshold may be larger


@dataclass(frozen=True, slots=True)
class DriftRule:
    """The parameters, the same for every model and data set; sizes that warn are in the table of statistics.

    `alpha` bounds the false alarms of one window over all features, and 1 - `alpha` is the confidence of the intervals
    whose end nearer to no change is held against a threshold. A window must be `deviations` above the mean of the
    reference's windows; `confirmations` windows in a row must say the same.
    """

    alpha: float = CHANCE
    deviations: float = DEVIATIONS
    confirmations: int = 3
    rows_per_bin: int = ROWS_PER_BIN


@dataclass(frozen=True, slots=True)
class Evidence:
    """One statistic of one feature in one window.

    `value` is the change, of which `error` may be that of the samples (0 for PSI, which is debiased); `threshold` what
    it had to exceed for a warning, and `origin` where that comes from. `p` is adjusted for all tests of the window.
    `direction` says which way, in words.
    """

    statistic: str
    value: float
    threshold: float
    direction: str
    p: float
    state: DriftState
    error: float = 0.0
    origin: Origin = Origin.TABLE


@dataclass(frozen=True, slots=True)
class Verdict:
    """Tells what is said of one feature: the worst of its statistics, with what it was held against.

    `n` is the rows of the window, as many as count, and `least_rows` how many it needs to be judged; `streak` how many
    windows in a row exceed the thresholds by now.
    """

    feature: str
    state: DriftState
    statistic: str
    direction: str
    value: float
    threshold: float
    n: float
    p: float
    streak: int = 0
    evidence: tuple[Evidence, ...] = ()
    origin: Origin = Origin.TABLE
    least_rows: int = 0


def judge(
    features: Sequence[FeatureProfile], windows: Mapping[str, Counts], rule: DriftRule, *, rows: float | None = None
) -> tuple[Verdict, ...]:
    """Returns a verdict on each feature from one window, without confirmation by others.

    Shapes: `windows` holds the counts of a feature's cells by its name; a feature without them is INSUFFICIENT.
    Units: `rows` is how many rows of equal weight the window is worth, its counts' sum where it is None.
    """
    measured = [_measured(feature, _scaled(windows.get(feature.name), rows), rule) for feature in features]
    adjusted = iter(benjamini_hochberg([one.p for _, parts in measured for one in parts.values()]).tolist())
    return tuple(
        _worst(feature, n, tuple(
            _evidence(feature, JUDGED[name], one, n, next(adjusted), rule) for name, one in parts.items()
        ), rule)
        for feature, (n, parts) in zip(features, measured, strict=True)
    )  # fmt: skip


def psi_threshold(feature: FeatureProfile, rows: float, rule: DriftRule) -> tuple[float, Origin]:
    """Returns what PSI has to exceed in a window of so many rows, and where that comes from."""
    current = np.asarray(feature.folded * (rows / max(feature.n, 1)), np.float64)
    noise = rule.deviations * float(psi_null_sd(feature.folded, current)) if feature.n and rows else 0.0
    return _threshold(feature, PSI, Measurement(0.0, 0.0, 1.0, "", noise=noise), rows, rule)


def confirm(windows: Sequence[Verdict], rule: DriftRule) -> Verdict:
    """Returns the verdict of the newest window; an alarm counts once enough windows in a row agree.

    Order: oldest first, at least one, all of one feature. Windows that could not be judged are passed over; an alarm
    that too few windows have been judged for is INSUFFICIENT.
    """
    newest = windows[-1]
    if newest.state <= DriftState.OK:
        return newest
    judged = [window for window in windows if window.state is not DriftState.INSUFFICIENT]
    streak = 0
    for window in reversed(judged):
        if window.state < DriftState.WARN:
            break
        streak += 1
    if streak >= rule.confirmations:
        least = min(window.state for window in judged[-rule.confirmations :])
        return replace(newest, state=least, streak=streak)
    state = DriftState.OK if len(judged) >= rule.confirmations else DriftState.INSUFFICIENT
    return replace(newest, state=state, streak=streak)


def least_rows(feature: FeatureProfile, rule: DriftRule) -> int:
    """Returns how many rows a window needs to be judged: so many for each bin that the reference fills."""
    return rule.rows_per_bin * max(int((feature.folded > 0).sum()), 2)


def _measured(feature: FeatureProfile, counts: Counts | None, rule: DriftRule) -> tuple[float, dict[str, Measurement]]:
    """The rows of the window and each statistic by its name; none where the window has too few rows."""
    n = float(counts.sum()) if counts is not None else 0.0
    if counts is None or n < least_rows(feature, rule) or feature.n <= 0:
        return n, {}
    contrast = Contrast(feature, counts, alpha=rule.alpha, deviations=rule.deviations)
    measured: dict[str, Measurement] = {}
    for statistic in JUDGED.values():
        if statistic.applies(feature.bins) and _is_calibrated(feature, statistic):
            assert statistic.measure is not None
            one = statistic.measure(contrast)
            if one is not None:
                measured[statistic.name] = one
    return n, measured


def _is_calibrated(feature: FeatureProfile, statistic: Statistic) -> bool:
    """Returns whether the profile knows own windows of the statistic; one that is newer judges nothing."""
    if statistic.rare or not feature.calibration:
        return True
    return any(one.statistic == statistic.name for one in feature.calibration)


def _evidence(
    feature: FeatureProfile, statistic: Statistic, one: Measurement, n: float, adjusted_p: float, rule: DriftRule
) -> Evidence:
    assert statistic.thresholds is not None
    threshold, origin = _threshold(feature, statistic, one, n, rule)
    state = DriftState.OK
    if adjusted_p < rule.alpha and one.size > threshold:
        state = DriftState.CRIT if one.size - one.error >= statistic.thresholds.crit else DriftState.WARN
    return Evidence(statistic.name, one.value, threshold, one.direction, adjusted_p, state, one.error, origin)


def _threshold(
    feature: FeatureProfile, statistic: Statistic, one: Measurement, n: float, rule: DriftRule
) -> tuple[float, Origin]:
    assert statistic.thresholds is not None
    warn = statistic.thresholds.warn
    threshold = max(warn + one.error, one.noise)
    own = own_limit(feature, statistic, n, rule.deviations)
    if own.value > threshold:
        return own.value, Origin.BOUND if own.bounded else Origin.REFERENCE
    return threshold, Origin.SAMPLE if threshold > warn else Origin.TABLE


def _worst(feature: FeatureProfile, n: float, evidence: tuple[Evidence, ...], rule: DriftRule) -> Verdict:
    least = least_rows(feature, rule)
    if not evidence:
        return Verdict(feature.name, DriftState.INSUFFICIENT, "", "", 0.0, 0.0, n, 1.0, least_rows=least)
    # Of equal alarms one that names what it is, and then the one that is furthest above its threshold.
    worst = max(
        evidence,
        key=lambda one: (
            one.state,
            one.state > DriftState.OK and JUDGED[one.statistic].says_what,
            abs(one.value) / one.threshold,
        ),
    )
    return Verdict(
        feature.name, worst.state, worst.statistic, worst.direction, worst.value, worst.threshold, n, worst.p,
        evidence=evidence, origin=worst.origin, least_rows=least,
    )  # fmt: skip


def _scaled(counts: Counts | None, rows: float | None) -> Counts | None:
    """The counts as rows of equal weight, as many as the weighted ones are worth."""
    if counts is None or rows is None or counts.sum() <= 0:
        return counts
    return np.asarray(counts * (rows / counts.sum()), np.float64)
