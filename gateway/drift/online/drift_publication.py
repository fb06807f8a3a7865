"""Publishes the findings of the monitor: a bounded number of metrics, and all of it as JSON.

The labels are names of models, versions, arms and features: operators chose them, no client does.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from gateway.drift.online.assessment import (
    ArmAssessment,
    ArmComparison,
    Pairing,
    SplitAssessment,
    by_severity,
    verdict_value,
)
from gateway.drift.statistics.cusum import Cusum
from gateway.drift.statistics.statistic import JUDGED, PSI, ExportedAs
from gateway.drift.statistics.verdict import DriftState, Verdict
from gateway.telemetry import names
from gateway.telemetry.drift_states import REPORT_FILE
from gateway.telemetry.names import MetricName
from gateway.telemetry.published import publish
from gateway.telemetry.sample import Sample

PART: Final = "drift"
MAX_FEATURES: Final = 50  # of one model, the worst of all its arms; the report has all
MAX_SAMPLES: Final = 30_000  # of features of all arms, the worst arms first: about 5 MB
MAX_DRAWN_ARMS: Final = 100  # whose histograms the report has
MAX_ARMS: Final = 1000  # with their state alone where there is no more room
_SHARES: Final = {
    "missing": names.DRIFT_MISSING,
    "unseen": names.DRIFT_UNSEEN,
    "out_of_range": names.DRIFT_OUT_OF_RANGE,
}
if _SHARES.keys() != (exported := {one.name for one in JUDGED.values() if one.gauge is ExportedAs.SHARE}):
    raise ValueError(f"shares {sorted(exported ^ _SHARES.keys())} have a metric or are said to have one, not both")


@dataclass(frozen=True, slots=True)
class Assessments:
    """Holds the newest assessments of all models."""

    versions: Sequence[ArmAssessment]
    arms: Sequence[ArmComparison]
    pairs: Sequence[Pairing]
    splits: Sequence[SplitAssessment] = ()


@dataclass(frozen=True, slots=True)
class MonitorHealth:
    """Says how the monitor itself works."""

    at_s: float
    rows: int
    failures: Mapping[str, int]
    profiles: int
    damaged: int


def publish_all(folder: Path, assessments: Assessments, health: MonitorHealth, window_s: int) -> None:
    """Replaces the file of metrics and the report, each as a whole.

    Raises: OSError.
    """
    publish(folder, PART, samples(assessments, health, window_s), now_s=health.at_s)
    staged = folder / f"{REPORT_FILE}.{os.getpid()}.new"
    staged.write_bytes(msgspec.json.encode(report(assessments, health, window_s)))
    os.replace(staged, folder / REPORT_FILE)


def samples(assessments: Assessments, health: MonitorHealth, window_s: int) -> Iterator[Sample]:
    """The metrics."""
    window = window_text(window_s)
    worst = sorted(assessments.versions, key=lambda one: (-one.state, one.model, one.arm))
    shown = _worst_features(assessments.versions)
    room = MAX_SAMPLES
    for arm in worst[:MAX_ARMS]:
        yield from _whole(arm, window)
        of_features = list(_features(arm, window, shown[arm.model])) if room > 0 else []
        if len(of_features) <= room:
            yield from of_features
        room -= len(of_features)
    for comparison in assessments.arms[:MAX_ARMS]:
        labels = {"model": comparison.model, "version": comparison.arm.version, "arm": comparison.arm.arm}
        labels |= {"against": comparison.against.arm or comparison.against.version}
        for verdict in comparison.verdicts[:MAX_FEATURES]:
            if verdict.state is not DriftState.INSUFFICIENT:
                yield Sample(names.ARMS_SCORE, {**labels, "feature": verdict.feature}, _psi(verdict))
            yield Sample(names.ARMS_STATE, {**labels, "feature": verdict.feature}, int(verdict.state))
    for pairing in assessments.pairs[:MAX_ARMS]:
        labels = {"model": pairing.model, "version": pairing.arm.version, "arm": pairing.arm.arm}
        if pairing.agreement.compared:
            yield Sample(names.SHADOW_AGREEMENT, labels, pairing.agreement.ratio)
        yield Sample(names.SHADOW_AGREEMENT_STATE, labels, int(pairing.agreement.state))
        yield Sample(names.SHADOW_PAIRS, labels, pairing.agreement.pairs)
    for split in assessments.splits[:MAX_ARMS]:
        yield Sample(names.SPLIT_STATE, {"model": split.model}, int(split.verdict.state))
        yield Sample(names.SPLIT_MISMATCH, {"model": split.model}, split.verdict.mismatch)
    yield Sample(names.DRIFT_LOOKED, {}, health.at_s)
    yield Sample(names.DRIFT_WINDOW, {}, window_s)
    yield Sample(names.DRIFT_PROFILES, {}, health.profiles)
    yield Sample(names.DRIFT_ROWS, {}, health.rows)
    for reason, count in sorted({"damaged": health.damaged, **health.failures}.items()):
        yield Sample(names.DRIFT_FAILURES, {"reason": reason}, count)


def report(assessments: Assessments, health: MonitorHealth, window_s: int) -> dict[str, Any]:
    """Returns every finding, for pages, events and programs."""
    return {
        "at_s": health.at_s,
        "window": window_text(window_s),
        "arms": [
            {
                "model": one.model,
                "version": one.arm.version,
                "arm": one.arm.arm,
                "shadow": one.arm.shadow,
                "profile_revision": one.revision,
                "start_s": one.start_s,
                "end_s": one.end_s,
                "rows": one.rows,
                "state": one.state.name.lower(),
                "features": [
                    {
                        **verdict_value(verdict),
                        "output": verdict.feature in one.outputs,
                        "bars": one.bars.get(verdict.feature, ()) if rank < MAX_DRAWN_ARMS else (),
                    }
                    for verdict in one.ranked
                ],
                "score_cusum": _cusum_value(one.score),
                "error_cusum": _cusum_value(one.errors),
            }
            for rank, one in enumerate(assessments.versions)
        ],
        "comparisons": [
            {
                "model": one.model,
                "version": one.arm.version,
                "arm": one.arm.arm,
                "against": {"version": one.against.version, "arm": one.against.arm},
                "end_s": one.end_s,
                "rows": one.rows,
                "outputs": [verdict_value(verdict) for verdict in one.verdicts],
            }
            for one in assessments.arms
        ],
        "mirrors": [
            {
                "model": one.model,
                "version": one.arm.version,
                "arm": one.arm.arm,
                "end_s": one.end_s,
                "pairs": one.agreement.pairs,
                "agreement": one.agreement.ratio if one.agreement.compared else None,
                "interval": list(one.agreement.interval),
                "mean_difference": one.agreement.difference / one.agreement.scores if one.agreement.scores else None,
                "state": one.agreement.state.name.lower(),
            }
            for one in assessments.pairs
        ],
        "splits": [
            {**asdict(one.verdict), "model": one.model, "end_s": one.end_s, "state": one.verdict.state.name.lower()}
            for one in assessments.splits
        ],
    }


def window_text(window_s: int) -> str:
    """The length of a window as people write it: 5m, 1h, 1d."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if window_s % size == 0:
            return f"{window_s // size}{unit}"
    return f"{window_s}s"


def _worst_features(arms: Sequence[ArmAssessment]) -> dict[str, frozenset[str]]:
    """Returns the features of each model that are exported: the same of all its arms, so that these can be compared."""
    ranked: dict[str, list[Verdict]] = {}
    for arm in arms:
        ranked.setdefault(arm.model, []).extend(arm.verdicts)
    worst = {}
    for model, verdicts in ranked.items():
        names_by_rank = dict.fromkeys(one.feature for one in by_severity(verdicts))
        worst[model] = frozenset(list(names_by_rank)[:MAX_FEATURES])
    return worst


def _whole(one: ArmAssessment, window: str) -> Iterator[Sample]:
    """Yields the metrics of an arm as a whole."""
    arm = {"model": one.model, "version": one.arm.version, "arm": one.arm.arm, "role": one.arm.role}
    yield Sample(names.DRIFT_ARM_STATE, {**arm, "window": window}, int(one.state))
    yield Sample(names.DRIFT_WINDOW_ROWS, {**arm, "window": window}, one.rows)
    yield Sample(names.DRIFT_WINDOW_END, {**arm, "window": window}, one.end_s)
    yield from _cusum(names.DRIFT_CUSUM, arm, "score", one.score)
    yield from _cusum(names.DRIFT_CUSUM, arm, "error", one.errors)


def _features(one: ArmAssessment, window: str, shown: frozenset[str]) -> Iterator[Sample]:
    arm = {"model": one.model, "version": one.arm.version, "arm": one.arm.arm, "role": one.arm.role}
    for verdict in one.ranked:
        if verdict.feature not in shown:
            continue
        kind = "output" if verdict.feature in one.outputs else "input"
        labels = {**arm, "kind": kind, "feature": verdict.feature}
        yield Sample(names.DRIFT_STATE, {**labels, "window": window}, int(verdict.state))
        for evidence in verdict.evidence:
            if JUDGED[evidence.statistic].gauge is ExportedAs.SCORE:
                scored = {**labels, "stat": evidence.statistic, "window": window}
                yield Sample(names.DRIFT_SCORE, scored, evidence.value)
        shares = one.shares.get(verdict.feature, {})
        yield from (Sample(metric, labels, shares[name]) for name, metric in _SHARES.items() if name in shares)
        if kind == "output" and verdict.feature in one.means:
            yield Sample(names.PREDICTION_MEAN, {**arm, "feature": verdict.feature}, one.means[verdict.feature])


def _cusum(metric: MetricName, arm: Mapping[str, str], signal: str, sums: Cusum | None) -> Iterator[Sample]:
    if sums is not None:
        yield Sample(metric, {**arm, "signal": signal, "side": "higher"}, sums.up)
        yield Sample(metric, {**arm, "signal": signal, "side": "lower"}, sums.down)


def _cusum_value(sums: Cusum | None) -> dict[str, object] | None:
    if sums is None:
        return None
    return {"higher": sums.up, "lower": sums.down, "alarm": sums.alarm, "direction": sums.direction}


def _psi(verdict: Verdict) -> float:
    return next((one.value for one in verdict.evidence if one.statistic == PSI.name), 0.0)
