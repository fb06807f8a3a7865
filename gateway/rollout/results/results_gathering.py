"""Puts results together: the history of a route and the lake in, one value out."""

from collections.abc import Callable, Sequence

import numpy as np

from gateway.drift.report.lake_reader import Lake
from gateway.drift.report.span import Span
from gateway.errors import CLIENT_CODES
from gateway.rollout.results.assigned_units import (
    UNREAD,
    DrawnRows,
    LoggedBasis,
    UnitTable,
    read_basis,
    read_units,
    said_column,
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
from gateway.rollout.results.experiment import PHASE_LIMIT, Experiment
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
    draft: RouteDocument | None = None, rules: Sequence[tuple[str, str]] = (), classes: Sequence[str] = (),
    tell: Tell = lambda what, done, total: None,
) -> ExperimentResult:  # fmt: skip
    """Returns the results of the experiment's rows in the span; `draft` is the policy whose reward is estimated, and
    `rules` are arms of it with the conditions of rows that go there before its split. `classes` name the classes
    0, 1, ... where labels are texts.

    Raises: GatewayError (the condition is none, no such column, the log is of another store).
    """
    steps = 1 + len(by)
    tell("reading the prediction log", 0, steps)
    lake.condition(where)  # a wrong one is refused also where no row is there
    selection = selection_of(experiment, span, where)
    drawn = DrawnRows(selection, experiment, CLIENT_NUMBERS, said_column(lake, selection), tuple(classes))
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
        notes.append("the policy is not estimated: where the split is broken, nobody knows what was drawn how often")
    return ExperimentResult(
        experiment, generated_us, alpha, verdicts, checks, phase_results(experiment, units), metrics, tuple(segments),
        min((segment.alpha for segment in segments), default=0.0), policy, tuple(notes),
    )  # fmt: skip


def freshness_text(newest_us: int, now_us: int) -> str:
    """Returns how fresh the log is in words. `newest_us` is when its newest row was answered, 0 where it has none."""
    if not newest_us:
        return "no row of the log is in these results; rows come to Parquet about a minute after they were answered"
    age_s = max(0.0, (now_us - newest_us) / 1e6)
    age = f"{age_s:.0f} s" if age_s < 600 else f"{age_s / 60:.0f} min" if age_s < 7200 else f"{age_s / 3600:.1f} hours"
    late = "" if age_s < 600 else ", which is late: nothing was asked since, or the compactor stands (gateway log)"
    return (
        f"the newest row in these results is {age} old{late}; rows come to Parquet about a minute after they were "
        "answered, rewards about as long after they were told"
    )


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
    notes = [freshness_text(max((one.last_us for one in units.basis.phases), default=0), generated_us)]
    if experiment.left_out:
        notes.append(f"{experiment.left_out} older phases are not in these results: the newest {PHASE_LIMIT} are")
    texts = units.sums.get(UNREAD)
    if texts is not None and texts[0].any() and "accuracy" not in units.sums:
        notes.append(
            f"{int(texts[0].sum())} labels are texts and answers are not, so no accuracy is known: name the classes in "
            "order with --classes a,b,c"
        )
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
