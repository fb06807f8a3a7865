"""Features by severity: each judged over the whole window and over its time blocks, with every statistic printed."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from gateway.drift.report.report import FeatureReport, TrendStep, severity
from gateway.drift.report.survey import Survey
from gateway.drift.statistics import distance as statistics
from gateway.drift.statistics.bins import NumericBins
from gateway.drift.statistics.column import Column
from gateway.drift.statistics.distance import Counts, Floats
from gateway.drift.statistics.reference_profile import FeatureProfile, Profile
from gateway.drift.statistics.significance import chi2_test, ks_p
from gateway.drift.statistics.statistic import SHARE_SUFFIX, STATISTICS, UNSEEN
from gateway.drift.statistics.verdict import DriftRule, DriftState, Verdict, confirm, judge

_NEW: Final = 10  # categories that the reference lacks, which a report lists
_NAMED: Final = 3  # of them, in a direction
_LOOK_BACK: Final = 8  # blocks that a confirmation can depend on, insufficient ones among them


def feature_table(
    profile: Profile, window: Survey, rule: DriftRule, *, reference: Mapping[str, Column] | None = None
) -> tuple[FeatureReport, ...]:
    """A report of each feature and output, the worst first.

    A feature is as its whole window is, or as the worst of its confirmed blocks if that is worse. `reference` holds
    sampled rows of the reference where there are some: Kolmogorov-Smirnov and Wasserstein are then taken from rows.
    """
    everything = profile.all_features
    totals = {feature.name: counts for feature in everything if (counts := window.total(feature.name)) is not None}
    whole = judge(everything, totals, rule, rows=window.worth if window.weighted else None)
    blocks = [
        judge(
            everything,
            {name: counts[bucket] for name, counts in window.counts.items()},
            rule,
            rows=worth if window.weighted else None,
        )
        for bucket, worth in enumerate(window.effective.tolist())
    ]
    outputs = {feature.name for feature in profile.outputs}
    reports = []
    for index, (feature, verdict) in enumerate(zip(everything, whole, strict=True)):
        steps = _trend(feature, window, [block[index] for block in blocks], rule)
        report = _report(feature, window, verdict, steps, (reference or {}).get(feature.name))
        reports.append(replace(report, is_output=feature.name in outputs))
    return tuple(sorted(reports, key=_severity))


def _severity(report: FeatureReport) -> tuple[int, float, str]:
    verdict = report.verdict
    return severity(report.state), -(abs(verdict.value) / verdict.threshold if verdict.threshold else 0.0), report.name


def _trend(
    feature: FeatureProfile, window: Survey, verdicts: Sequence[Verdict], rule: DriftRule
) -> list[tuple[TrendStep, Verdict]]:
    """The time blocks with their own verdicts as confirmed by those before."""
    counts = window.counts.get(feature.name)
    if counts is None:
        return []
    filled = counts.sum(axis=1) > 0
    values = np.full(len(filled), np.nan)
    values[filled] = statistics.debiased_psi(feature.folded, feature.bins.fold(counts[filled]))
    steps = []
    for bucket, span in enumerate(window.buckets):
        confirmed = confirm(verdicts[max(bucket - _LOOK_BACK, 0) : bucket + 1], rule)
        rows = int(window.bucket_rows[bucket])
        missing = feature.bins.special(counts[bucket])["missing"] / max(float(counts[bucket].sum()), 1.0)
        step = TrendStep(
            span,
            rows,
            float(values[bucket]),
            missing,
            verdicts[bucket].state,
            confirmed.state >= DriftState.WARN,
        )
        steps.append((step, confirmed))
    return steps


def _report(
    feature: FeatureProfile,
    window: Survey,
    verdict: Verdict,
    steps: Sequence[tuple[TrendStep, Verdict]],
    reference: Column | None,
) -> FeatureReport:
    counts = window.total(feature.name)
    worst = max((confirmed for _, confirmed in steps), key=lambda one: one.state, default=verdict)
    if worst.state >= DriftState.WARN and worst.state > verdict.state:
        verdict = worst
    alarms = [step.span.start_us for step, _ in steps if step.confirmed]
    sample = window.sample.get(feature.name)
    exact = reference is not None and sample is not None and isinstance(feature.bins, NumericBins)
    note = "" if counts is not None else f"the window has no column {feature.column}"
    if counts is not None and window.rows and not counts.sum():
        note = "no value of it was logged: redaction hides it"
    if counts is not None and not feature.n:
        note = "the reference has no rows of it"
    known = counts if counts is not None else np.zeros(len(feature.bins.cells), np.int64)
    new = _new(feature, window, known)
    if new and verdict.statistic == UNSEEN.name:
        verdict = replace(verdict, direction=f"new: {', '.join(name for name, _ in new[:_NAMED])}")
    return FeatureReport(
        name=feature.name,
        column=feature.column,
        kind=feature.kind.value,
        is_output=False,
        state=verdict.state,
        verdict=verdict,
        statistics=_statistics(feature, known, sample, reference) if known.sum() > 0 and feature.n else {},
        reference_rows=feature.n,
        labels=feature.bins.labels,
        reference_shares=tuple(statistics.shares(feature.folded).tolist()),
        shares=tuple(statistics.shares(feature.bins.fold(known)).tolist()),
        trend=tuple(step for step, _ in steps),
        since_us=min(alarms, default=None),
        exact=exact,
        note=note,
        bounds=_bounds(feature),
        points=feature.bins.points if isinstance(feature.bins, NumericBins) else (),
        new=new,
    )


def _bounds(feature: FeatureProfile) -> tuple[float, ...]:
    bins = feature.bins
    return (bins.low, *bins.edges, bins.high) if isinstance(bins, NumericBins) else ()


def _new(feature: FeatureProfile, window: Survey, counts: Counts) -> tuple[tuple[str, float], ...]:
    """The most frequent categories that the reference does not know, with their shares of the window."""
    rows = max(float(counts.sum()), 1.0)
    seen = sorted(window.new.get(feature.name, {}).items(), key=lambda item: (-item[1], item[0]))
    return tuple((name, amount / rows) for name, amount in seen[:_NEW])


def _statistics(
    feature: FeatureProfile, counts: Counts, sample: Column | None, reference: Column | None
) -> dict[str, float]:
    """Every statistic of the table that is defined for the feature, by name and in the order of the table."""
    before, now = feature.folded, feature.bins.fold(counts)
    values = {one.name: float(one.distance(before, now)) for one in STATISTICS.values() if one.distance is not None}
    values["chi2_p"] = chi2_test(before, now).p
    rows = float(counts.sum())
    values |= {name + SHARE_SUFFIX: hits / rows for name, hits in feature.bins.special(counts).items()}
    values["reference_missing_share"] = feature.missing / feature.n
    if isinstance(feature.bins, NumericBins):
        values |= _along(feature, counts, sample, reference)
    if unknown := values.keys() - STATISTICS.keys():
        raise ValueError(f"statistics {sorted(unknown)} are not in the table of statistics")
    return {name: values[name] for name in STATISTICS if name in values}


@np.errstate(over="ignore", invalid="ignore")  # numbers too large to have squares
def _along(
    feature: FeatureProfile, counts: Counts, sample: Column | None, reference: Column | None
) -> dict[str, float]:
    """The statistics of values that have an order."""
    assert isinstance(feature.bins, NumericBins)
    positions, before = feature.bins.along(feature.cell_counts)
    _, now = feature.bins.along(counts)
    along: dict[str, float] = {}
    scale = max(feature.sd, 1e-3 * (feature.max - feature.min)) if np.isfinite(feature.sd) else 0.0
    values = _finite(sample)
    if len(values):
        along["mean"], along["sd"] = float(values.mean()), float(values.std())
        if scale > 0:
            along["mean_shift"] = (along["mean"] - feature.mean) / scale
            along["sd_ratio"] = along["sd"] / scale
    along |= {"reference_mean": feature.mean, "reference_sd": feature.sd}
    if not before.sum() or not now.sum():
        return along
    kept = _finite(reference)
    if len(kept) and len(values):
        along["ks"] = statistics.ks_distance(kept, values)
        along["ks_p"] = ks_p(along["ks"], len(kept), len(values))
        distance = statistics.wasserstein(kept, values)
    else:
        along["ks"] = float(statistics.ks_binned(before, now))
        distance = float(statistics.wasserstein_binned(before, now, positions))
    if scale > 0:
        along["wasserstein"] = distance / scale
    return along


def _finite(column: Column | None) -> Floats:
    numbers = column.numbers() if column is not None else np.empty(0, np.float64)
    return np.asarray(numbers[np.isfinite(numbers)], np.float64)
