"""Puts results together: the history of a route and the lake in, one value out."""

from collections.abc import Callable, Sequence

import numpy as np

from gateway.drift.report.lake_reader import Lake
from gateway.drift.report.span import Span
from gateway.errors import CLIENT_CODES
from gateway.rollout.results.assigned_units import (
    DrawnRows,
    LoggedBasis,
    UnitTable,
    read_basis,
    read_units,
    selection_of,
)
from gateway.rollout.results.comparison import (
    ALPHA,
    compare_arms,
    compare_metric,
    phase_results,
    planned_metrics,
    split_checks,
)
from gateway.rollout.results.experiment import Experiment
from gateway.rollout.results.policy import estimate_policy, policy_of
from gateway.rollout.results.result import ExperimentResult, MetricRole, SegmentResult
from gateway.rollout.results.result_segment import segment_note, segment_sql
from gateway.rollout.results.result_verdict import arm_verdict, mismatch_text
from gateway.routing.document.document import RouteDocument
from gateway.routing.document.strategy import HOLDOUT

Tell = Callable[[str, int, int], None]
CLIENT_NUMBERS = tuple(sorted(code.value for code in CLIENT_CODES))
_DAY_US = 86_400_000_000


def gather_results(
    lake: Lake, experiment: Experiment, span: Span, *, generated_us: int, where: str = "", by: Sequence[str] = (),
    draft: RouteDocument | None = None, rules: Sequence[tuple[str, str]] = (),
    tell: Tell = lambda what, done, total: None,
) -> ExperimentResult:  # fmt: skip
    """Returns the results of the experiment's rows in the span; `draft` is the policy whose reward is estimated, and
    `rules` are arms of it with the conditions of rows that go there before its split.

    Raises: GatewayError (the condition is none, no such column, the log is of another store).
    """
    steps = 1 + len(by)
    tell("reading the prediction log", 0, steps)
    lake.condition(where)  # a wrong one is refused also where no row is there
    drawn = DrawnRows(selection_of(experiment, span, where), experiment, CLIENT_NUMBERS)
    basis = read_basis(lake, drawn)
    units = read_units(lake, drawn, basis)
    alpha = ALPHA / len(experiment.others)
    checks = split_checks(experiment, units)
    metrics = tuple(compare_arms(experiment, units, alpha=alpha))
    rate = keys_per_day(units)
    verdicts = tuple(
        arm_verdict(experiment, arm, [one for one in metrics if one.arm == arm], checks, keys_per_day=rate, alpha=alpha)
        for arm in experiment.others
    )
    segments: list[SegmentResult] = []
    for done, column in enumerate(by, 1):
        tell(f"cutting by {column}", done, steps)
        segments += _segments(lake, drawn, basis, column, alpha / len(by))
    policy = None
    if draft is not None:
        shares, conditions = policy_of(experiment, draft, rules)
        if not any(check.mismatch for check in checks):
            policy = estimate_policy(lake, drawn, basis, shares, conditions)
    notes = [*_notes(experiment, units, generated_us), *lake.left_out, *filter(None, map(segment_note, by))]
    if experiment.plan.on_mismatch == "warn":
        notes += [mismatch_text(experiment, check) for check in checks if check.mismatch]
    if draft is not None and policy is None:
        notes.append("the draft is not estimated: where the split is broken, nobody knows what was drawn how often")
    return ExperimentResult(
        experiment, generated_us, alpha, verdicts, checks, phase_results(experiment, units), metrics, tuple(segments),
        min((segment.alpha for segment in segments), default=0.0), policy, tuple(notes),
    )  # fmt: skip


def keys_per_day(units: UnitTable) -> float:
    """Returns how many keys came a day in the newest phase that has rows."""
    for number in range(len(units.basis.phases) - 1, -1, -1):
        phase = units.basis.phases[number]
        if phase.last_us > phase.first_us:
            keys = len(np.unique(units.keys[units.phases == number]))
            return keys * _DAY_US / (phase.last_us - phase.first_us)
    return 0.0


def _segments(lake: Lake, drawn: DrawnRows, basis: LoggedBasis, column: str, alpha: float) -> list[SegmentResult]:
    if basis.is_empty:
        return []
    units = read_units(lake, drawn, basis, segment=segment_sql(lake, drawn, column, basis.phases))
    values = sorted(set(units.segments.tolist()))
    own = alpha / max(1, len(values))
    experiment = drawn.experiment
    planned = planned_metrics(experiment, list(units.sums))
    shown = [(role, one) for role, one in planned.values() if role is not MetricRole.SHOWN]
    made = []
    for value in values:
        part = units.of(units.segments == value)
        metrics = tuple(
            compare_metric(experiment, part, arm, role, one, alpha=own)
            for arm in experiment.others
            for role, one in shown
        )
        made.append(SegmentResult(column, value, len(np.unique(part.keys)), own, metrics))
    return made


def _notes(experiment: Experiment, units: UnitTable, generated_us: int) -> list[str]:
    """Returns what a reader has to know beside the numbers."""
    notes = []
    if not experiment.is_keyed:
        notes.append(
            "the route has no key: every request is drawn for itself, callers see all arms, and what is called a key "
            "here is a request"
        )
    thin = [one for one in units.basis.phases if one.requests and one.least_share < one.most_share]
    if thin:
        least = min(one.least_share for one in thin)
        notes.append(
            f"the log keeps requests with different probabilities; so that arms can be compared, a request is counted "
            f"with the smallest of its phase (down to {least:.3g})"
        )
    elif any(one.requests and one.least_share < 1 for one in units.basis.phases):
        least = min(one.least_share for one in units.basis.phases if one.requests)
        notes.append(f"the log keeps {least:.1%} of the requests: keys that made few may be missing, in all arms alike")
    known = [phase.since_us for phase, one in zip(experiment.phases, units.basis.phases, strict=True) if one.requests]
    gone = [phase for phase, one in zip(experiment.phases, units.basis.phases, strict=True) if not one.requests]
    first = min((one.first_us for one in units.basis.phases if one.requests), default=0)
    if known and gone:
        revisions = ", ".join(str(phase.revisions[0]) for phase in gone)
        notes.append(
            f"the log has no row of the phases that began at revision {revisions}: they are not in these results"
        )
    if known and first - min(known) > _DAY_US and not gone:
        notes.append(
            f"the first row of the log is {(first - min(known)) / _DAY_US:.1f} days younger than the test: rows "
            "expire, and what is gone is not in these results"
        )
    coverage = units.sums.get("coverage")
    if coverage is not None and "reward" in units.sums:
        share = float(coverage[0].sum() / coverage[1].sum())
        if share < 0.999:
            notes.append(
                f"{share:.1%} of the rows have a reward; the others are not known, not 0. Where arms differ in that "
                "share (metric coverage), compare rewards with care"
            )
    if HOLDOUT in experiment.others:
        notes.append(
            "holdout is answered by the control arm's version: a difference of it shows the error of the method"
        )
    if experiment.ended_by:
        notes.append(f"the split has ended: since revision {experiment.ended_by} all keys have one arm")
    longest_us = experiment.plan.max_duration_ms * 1000
    began_us = experiment.phases[0].since_us
    if longest_us and generated_us - began_us > longest_us:
        over = (generated_us - began_us - longest_us) / _DAY_US
        notes.append(f"maxDuration was over {over:.1f} days ago: decide, and end the test")
    return notes
