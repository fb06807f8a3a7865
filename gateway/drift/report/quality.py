"""Tells how good a window's answers were, and are likely to be, against the labelled rows of the reference."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from gateway.drift.report.report import MetricStep, PerformanceReport
from gateway.drift.report.span import Span
from gateway.drift.statistics.answers import Answers, Labelled, estimate_performance, reference_curve
from gateway.drift.statistics.cbpe import Calibrator, Estimate
from gateway.drift.statistics.distance import Floats
from gateway.drift.statistics.performance import (
    MIN_LABELLED,
    Metric,
    MetricChange,
    Outcomes,
    compare,
    delay_quantiles,
    measure,
)
from gateway.drift.statistics.rating import rate, rate_estimate
from gateway.drift.statistics.verdict import DriftState

_LEAST_STEP: Final = 30  # labels of a block that a point is drawn for
_LEAST_ESTIMATE: Final = 50


def judge_performance(
    labelled: Labelled | None,
    reference: Labelled | None,
    answers: tuple[Answers, Floats] | None,
    *,
    rows: int,
    buckets: Sequence[Span],
    by_version: Mapping[str, Labelled],
    rng: np.random.Generator,
) -> PerformanceReport | None:
    """The section on performance; None where there are labels neither in the window nor in the reference.

    `answers` are sampled answers of the window, labelled or not, with their times.
    """
    known = labelled or reference
    if known is None:
        return None
    notes: list[str] = []
    before = reference.outcomes() if reference is not None and len(reference) else None
    now = labelled.outcomes() if labelled is not None else None
    if before is not None and now is not None and type(before) is not type(now):
        notes.append("labels of the reference and of the window are of different kinds: they are not compared")
        before = None
    changes = compare(before, now, rng=rng) if before is not None and now is not None else ()
    metrics = measure(now, rng=rng) if now is not None else ()
    was = measure(before, rng=rng) if before is not None else ()
    estimated: tuple[Estimate, ...] = ()
    estimated_steps: dict[int, tuple[Estimate, ...]] = {}
    if reference is None:
        notes.append(
            "the reference has no labelled rows: metrics are not compared, and nothing is estimated; "
            "--labelled names a window that has some"
        )
    elif answers is not None:
        try:
            curve = reference_curve(reference, answers[0])
            estimated = estimate_performance(reference, answers[0], curve, rng=rng)
            estimated_steps = _estimated_steps(reference, answers, curve, buckets, rng) if estimated else {}
        except ValueError as error:
            notes.append(f"no estimate without labels: {error}")
    return PerformanceReport(
        task=str(known.answers.task),
        state=_state(labelled, changes, was, estimated),
        labelled=labelled.total if labelled is not None else 0,
        rows=rows,
        delays_s=delay_quantiles(labelled.delays_s) if labelled is not None else {},
        metrics=metrics,
        reference=was,
        changes=changes,
        by_version={name: measure(part.outcomes(), rng=rng) for name, part in by_version.items()},
        estimated=estimated,
        trend=tuple(_trend(labelled, estimated_steps, buckets, rng)),
        notes=tuple(notes),
    )


def _state(
    labelled: Labelled | None, changes: Sequence[MetricChange], was: Sequence[Metric], estimated: Sequence[Estimate]
) -> DriftState:
    states = [rate(change) for change in changes]
    before = {metric.name: metric for metric in was}
    states += [rate_estimate(before[one.name], one) for one in estimated if one.name in before]
    if labelled is not None and len(labelled) < MIN_LABELLED and not estimated:
        return DriftState.INSUFFICIENT
    return max(states, default=DriftState.INSUFFICIENT)


def _estimated_steps(
    reference: Labelled,
    answers: tuple[Answers, Floats],
    curve: Calibrator | None,
    buckets: Sequence[Span],
    rng: np.random.Generator,
) -> dict[int, tuple[Estimate, ...]]:
    steps = {}
    given, moments = answers
    for index, bucket in enumerate(buckets):
        chosen = np.flatnonzero((moments >= bucket.start_us) & (moments < bucket.end_us))
        if len(chosen) >= _LEAST_ESTIMATE:
            steps[index] = estimate_performance(reference, given.rows(chosen), curve, rng=rng)
    return steps


def _trend(
    labelled: Labelled | None,
    estimated: Mapping[int, tuple[Estimate, ...]],
    buckets: Sequence[Span],
    rng: np.random.Generator,
) -> list[MetricStep]:
    steps = []
    for index, bucket in enumerate(buckets):
        realised: tuple[Metric, ...] = ()
        rows = 0
        if labelled is not None:
            first, last = np.searchsorted(labelled.moments_us, (bucket.start_us, bucket.end_us))
            rows = int(last - first)
            if rows >= _LEAST_STEP:
                part: Outcomes = labelled.rows(np.arange(first, last)).outcomes()
                realised = measure(part, rng=rng)
        steps.append(MetricStep(bucket, rows, realised, estimated.get(index, ())))
    return steps
