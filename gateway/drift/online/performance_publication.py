"""Publishes the performance of models: a bounded number of metrics, and all of it as JSON.

The labels are names of models, versions, arms and metrics: operators chose them, no client does.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from gateway.drift.online.performance_assessment import ArmPerformance, Judged, Side
from gateway.telemetry import names
from gateway.telemetry.names import MetricName
from gateway.telemetry.published import PERFORMANCE_FILE, publish
from gateway.telemetry.sample import Sample

PART: Final = "performance"
MAX_ARMS: Final = 300  # of all models, those with the worst states first: about 3 MB


@dataclass(frozen=True, slots=True)
class _Names:
    """The metrics of one side."""

    value: MetricName
    bound: MetricName
    change: MetricName
    state: MetricName
    rows: MetricName


_REALISED: Final = _Names(
    names.MODEL_METRIC, names.MODEL_METRIC_BOUND, names.MODEL_METRIC_CHANGE, names.MODEL_METRIC_STATE,
    names.MODEL_LABELS,
)  # fmt: skip
_ESTIMATED: Final = _Names(
    names.MODEL_ESTIMATED, names.MODEL_ESTIMATED_BOUND, names.MODEL_ESTIMATED_CHANGE, names.MODEL_ESTIMATED_STATE,
    names.MODEL_ESTIMATED_ROWS,
)  # fmt: skip


def publish_performance(
    folder: Path, performances: Sequence[ArmPerformance], failures: Mapping[str, int], *, now_s: float
) -> None:
    """Replaces the file of metrics and the report, each as a whole.

    Raises: OSError.
    """
    publish(folder, PART, samples(performances, failures, now_s), now_s=now_s)
    staged = folder / f"{PERFORMANCE_FILE}.{os.getpid()}.new"
    staged.write_bytes(msgspec.json.encode(report(performances, now_s)))
    os.replace(staged, folder / PERFORMANCE_FILE)


def samples(performances: Sequence[ArmPerformance], failures: Mapping[str, int], now_s: float) -> Iterator[Sample]:
    """Yields the metrics. With too few labels only their number is exported."""
    for one in _ranked(performances)[:MAX_ARMS]:
        arm = {"model": one.model, "version": one.arm.version, "arm": one.arm.arm, "role": one.arm.role}
        yield from _side(_REALISED, arm, one.realised)
        yield Sample(names.MODEL_LABELS_UNKNOWN, arm, one.unknown)
        if one.realised.end_us:
            yield Sample(names.MODEL_METRIC_END, arm, one.realised.end_us / 1e6)
        if one.estimated.judged:
            yield from _side(_ESTIMATED, arm, one.estimated)
    yield Sample(names.PERFORMANCE_LOOKED, {}, now_s)
    for reason, count in sorted(failures.items()):
        yield Sample(names.DRIFT_FAILURES, {"reason": reason}, count)


def report(performances: Sequence[ArmPerformance], now_s: float) -> dict[str, Any]:
    """Every finding, for pages and programs."""
    return {
        "at_s": now_s,
        "arms": [
            {
                "model": one.model,
                "version": one.arm.version,
                "arm": one.arm.arm,
                "shadow": one.arm.shadow,
                "task": one.task,
                "baseline": one.baseline,
                "unknown_labels": one.unknown,
                "realised": _side_value(one.realised),
                "estimated": _side_value(one.estimated),
            }
            for one in _ranked(performances)
        ],
    }


def _ranked(performances: Sequence[ArmPerformance]) -> list[ArmPerformance]:
    return sorted(performances, key=lambda one: (-_worst(one), one.model, one.arm))


def _worst(one: ArmPerformance) -> int:
    states = [judged.state for side in (one.realised, one.estimated) for judged in side.judged]
    return max((int(state) for state in states if state is not None), default=-1)


def _side(named: _Names, arm: Mapping[str, str], side: Side) -> Iterator[Sample]:
    yield Sample(named.rows, arm, side.rows)
    for judged in side.judged:
        labels = {**arm, "name": judged.metric.name}
        yield Sample(named.value, labels, judged.metric.value)
        yield Sample(named.bound, {**labels, "bound": "low"}, judged.metric.low)
        yield Sample(named.bound, {**labels, "bound": "high"}, judged.metric.high)
        if judged.change is not None:
            yield Sample(named.change, labels, judged.change.current - judged.change.reference)
        if judged.state is not None:
            yield Sample(named.state, labels, int(judged.state))


def _side_value(side: Side) -> dict[str, Any]:
    return {
        "rows": side.rows,
        "start_s": side.start_us / 1e6,
        "end_s": side.end_us / 1e6,
        "note": side.note,
        "metrics": [_judged_value(judged) for judged in side.judged],
    }


def _judged_value(judged: Judged) -> dict[str, Any]:
    metric, change = judged.metric, judged.change
    return {
        "name": metric.name,
        "value": metric.value,
        "interval": [metric.low, metric.high],
        "reference": None if change is None else change.reference,
        "change": None if change is None else change.current - change.reference,
        "change_interval": None if change is None else [change.low, change.high],
        "state": None if judged.state is None else judged.state.name.lower(),
    }
