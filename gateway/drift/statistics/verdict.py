"""The decision rule: a window has drifted where the change is large, not by chance, larger than the reference's own
windows are apart, and seen in several windows in a row.

A p-value alone says "different" of any large window; a distance alone says it of any small one; both say it of a week
of bad weather. What one window says is `judge`d here; `confirm` takes the last windows together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Final

import numpy as np

from gateway.drift.statistics import distance as statistics
from gateway.drift.statistics.bins import CategoryBins, NumericBins
from gateway.drift.statistics.calibration import CHANCE, ROWS_PER_BIN, vanished
from gateway.drift.statistics.distance import Counts
from gateway.drift.statistics.reference_profile import FeatureProfile
from gateway.drift.statistics.significance import (
    benjamini_hochberg,
    chi2_test,
    least_difference,
    normal_quantile,
    share_test,
    wilson,
)

_WHOLE: Final = ("psi", "l_infinity")  # statistics of the whole distribution, which say that it changed and not how


class DriftState(IntEnum):
    """How a feature is, the worse the higher; too few rows to tell is never OK."""

    INSUFFICIENT = -1
    OK = 0
    WARN = 1
    CRIT = 2


@dataclass(frozen=True, slots=True)
class DriftRule:
    """The parameters, the same for every model and data set.

    `psi_*` are on debiased PSI; `category_*` on the largest difference of a single category's share; `share_*` on the
    difference of a share that is rare (missing, infinite, out of range, unseen, vanished). Differences of shares are
    held against them by the end of their interval of confidence 1 - `alpha` that is nearer to no change. `alpha` also
    bounds the false alarms of one window over all features; a window must be `deviations` above the mean of the
    reference's windows; `confirmations` windows in a row must say the same.
    """

    psi_warn: float = 0.10
    psi_crit: float = 0.25
    category_warn: float = 0.05
    category_crit: float = 0.10
    share_warn: float = 0.01
    share_crit: float = 0.05
    alpha: float = CHANCE
    deviations: float = 3.0
    confirmations: int = 3
    rows_per_bin: int = ROWS_PER_BIN


@dataclass(frozen=True, slots=True)
class Evidence:
    """One statistic of one feature in one window.

    `value` is the change, of which `error` may be that of the samples (0 for PSI, which is debiased); `threshold` what
    it had to exceed for a warning: the rule's and the error, or the calibration's, whichever is larger. `p` is adjusted
    for all tests of the window. `direction` says which way, in words.
    """

    statistic: str
    value: float
    threshold: float
    direction: str
    p: float
    state: DriftState
    error: float = 0.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is said of one feature: the worst of its statistics, with what it was held against.

    `n` is the rows of the window, as many as count; `streak` how many windows in a row exceed the thresholds by now.
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


def judge(
    features: Sequence[FeatureProfile], windows: Mapping[str, Counts], rule: DriftRule, *, rows: float | None = None
) -> tuple[Verdict, ...]:
    """What one window says of each feature, without confirmation by others.

    Shapes: `windows` holds the counts of a feature's cells by its name; a feature without them is INSUFFICIENT.
    Units: `rows` is how many rows of equal weight the window is worth, its counts' sum where it is None.
    """
    looked = [_look(feature, _scaled(windows.get(feature.name), rows), rule) for feature in features]
    adjusted = iter(benjamini_hochberg([one.p for _, found in looked for one in found]).tolist())
    return tuple(
        _worst(feature, n, tuple(_decided(one, next(adjusted), rule) for one in found))
        for feature, (n, found) in zip(features, looked, strict=True)
    )


def confirm(windows: Sequence[Verdict], rule: DriftRule) -> Verdict:
    """The verdict of the newest window, its alarm held back until as many windows in a row as the rule asks for agree.

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
    """The rows that a window needs to be judged: so many for each bin that the reference fills."""
    return rule.rows_per_bin * max(int((feature.folded > 0).sum()), 2)


def _look(feature: FeatureProfile, counts: Counts | None, rule: DriftRule) -> tuple[float, list[Evidence]]:
    """The rows of the window and each statistic with its raw p-value; no state has been decided."""
    n = float(counts.sum()) if counts is not None else 0.0
    if counts is None or n < least_rows(feature, rule) or feature.n <= 0:
        return n, []
    reference, current = feature.folded, feature.bins.fold(counts)
    distance = float(statistics.debiased_psi(reference, current))
    noise = rule.deviations * float(statistics.psi_null_sd(reference, current))
    limit = max(rule.psi_warn, noise, _own(feature, "psi", n, rule))
    p = chi2_test(reference, current).p
    found = [Evidence("psi", distance, limit, _direction(feature, counts), p, DriftState.OK)]
    if isinstance(feature.bins, CategoryBins):
        found.append(_largest_gap(feature, reference, current, n, found[0], rule))
    now = feature.bins.special(counts)
    for name, expected in feature.special().items():
        gap = now[name] / n - expected / feature.n
        least = float(least_difference(expected, feature.n, now[name], n, _z(rule)))
        limit, error = _share_limit(feature, name, n, abs(gap), least, rule)
        p = share_test(expected, feature.n, now[name], n)
        found.append(Evidence(name, gap, limit, "more" if gap > 0 else "less", p, DriftState.OK, error))
    return n, [*found, _vanished(feature, counts, n, rule)]


def _largest_gap(
    feature: FeatureProfile, reference: Counts, current: Counts, n: float, distance: Evidence, rule: DriftRule
) -> Evidence:
    """How much a single category has gained or lost: PSI is small where large categories trade rows.

    The error is that of the category of which most is left, with an interval so wide that those of all categories hold
    at once: the largest of many differences is large by chance alone.
    """
    live = (reference > 0) | (current > 0)
    m, z = float(reference.sum()), _z(rule, tests=int(live.sum()))
    least = float(np.max(least_difference(reference[live], m, current[live], n, z), initial=0.0))
    size = float(statistics.l_infinity(reference, current))
    limit, error = _share_limit(feature, "l_infinity", n, size, least, rule, rule.category_warn)
    return replace(distance, statistic="l_infinity", value=size, threshold=limit, error=error)


def _vanished(feature: FeatureProfile, counts: Counts, n: float, rule: DriftRule) -> Evidence:
    """The share of the reference whose categories or single values have not come at all.

    That they do not come is what `p` is about; the error is that of their share in the reference.
    """
    reference = feature.folded
    gone, chances = vanished(feature.bins, reference, feature.bins.fold(counts))
    shares = statistics.shares(reference)
    largest = sorted(np.flatnonzero(gone).tolist(), key=lambda place: -float(shares[place]))
    lost = float(reference[gone].sum())
    least = wilson(lost, float(reference.sum()), _z(rule)).low
    limit, error = _share_limit(feature, "vanished", n, float(shares[gone].sum()), least, rule)
    direction = ", ".join(feature.bins.labels[place] for place in largest[:3])
    p = float(chances[gone].min(initial=1.0))
    return Evidence("vanished", float(shares[gone].sum()), limit, direction, p, DriftState.OK, error)


def _share_limit(
    feature: FeatureProfile, name: str, n: float, size: float, least: float, rule: DriftRule, warn: float | None = None
) -> tuple[float, float]:
    """What a difference of shares has to exceed, and how much of it may be the samples' error."""
    error = max(size - least, 0.0)
    return max((rule.share_warn if warn is None else warn) + error, _own(feature, name, n, rule)), error


def _own(feature: FeatureProfile, name: str, n: float, rule: DriftRule) -> float:
    """How large a statistic is between windows of the reference itself; 0 where nothing is known of that."""
    own = feature.calibrated(name, n)
    return 0.0 if own is None else own.mean + rule.deviations * own.sd


def _z(rule: DriftRule, tests: int = 1) -> float:
    """The standard deviations to each side of an interval of confidence 1 - alpha, or of several that hold at once."""
    return normal_quantile(1.0 - rule.alpha / (2.0 * max(tests, 1)))


def _decided(one: Evidence, adjusted_p: float, rule: DriftRule) -> Evidence:
    size = one.value if one.statistic == "psi" else abs(one.value)
    crit = {"psi": rule.psi_crit, "l_infinity": rule.category_crit}.get(one.statistic, rule.share_crit)
    state = DriftState.OK
    if adjusted_p < rule.alpha and size > one.threshold:
        state = DriftState.CRIT if size - one.error >= crit else DriftState.WARN
    return replace(one, p=adjusted_p, state=state)


def _worst(feature: FeatureProfile, n: float, evidence: tuple[Evidence, ...]) -> Verdict:
    if not evidence:
        return Verdict(feature.name, DriftState.INSUFFICIENT, "", "", 0.0, 0.0, n, 1.0)
    # Of equal alarms one that names what it is, and then the one that is furthest above its threshold.
    worst = max(
        evidence,
        key=lambda one: (
            one.state,
            one.state > DriftState.OK and one.statistic not in _WHOLE,
            abs(one.value) / one.threshold,
        ),
    )
    return Verdict(
        feature.name, worst.state, worst.statistic, worst.direction, worst.value, worst.threshold, n, worst.p,
        evidence=evidence,
    )  # fmt: skip


def _direction(feature: FeatureProfile, counts: Counts) -> str:
    """Where the values have gone: up or down for numbers, the category with the largest change for others."""
    reference, current = statistics.shares(feature.folded), statistics.shares(feature.bins.fold(counts))
    gaps = current - reference
    if isinstance(feature.bins, NumericBins):
        positions, before = feature.bins.along(feature.cell_counts)
        _, now = feature.bins.along(counts)
        if before.sum() > 0 and now.sum() > 0 and float(np.abs(gaps[: len(positions)]).max()) >= np.abs(gaps).max():
            shift = float((positions * (statistics.shares(now) - statistics.shares(before))).sum())
            return "higher" if shift > 0 else "lower"
    place = int(np.argmax(np.abs(gaps)))
    return f"{'more' if gaps[place] > 0 else 'less'} {feature.bins.labels[place]}"


def _scaled(counts: Counts | None, rows: float | None) -> Counts | None:
    """The counts as rows of equal weight, as many as the weighted ones are worth."""
    if counts is None or rows is None or counts.sum() <= 0:
        return counts
    return np.asarray(counts * (rows / counts.sum()), np.float64)
