"""The arms of an experiment held against its control arm: metric by metric, and the split itself. Pure."""

import math
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from gateway.rollout.results.assigned_units import CLASS_PREFIX, UnitTable
from gateway.rollout.results.experiment import Experiment
from gateway.rollout.results.result import MetricResult, MetricRole, PhaseResult, Says, SplitCheck
from gateway.rollout.statistics.mean_difference import LEAST_UNITS, MeanDifference
from gateway.rollout.statistics.phase_difference import PhasedDifference, PhasedUnits, phased_difference
from gateway.rollout.statistics.sample_ratio import is_mismatch, largest_deviation, mismatch_log_e
from gateway.routing.document.experiment_plan import EXPERIMENT_METRICS, Better, ExperimentMetric, PlannedMetric

ALPHA: Final = 0.05  # of all intervals of one metric together
USUAL_GUARDRAILS: Final = ("errors", "p99")  # where the document names none
_DECIDING: Final = ("reward", "accuracy", "error")  # where it names none: the first that is known


def split_checks(experiment: Experiment, units: UnitTable) -> tuple[SplitCheck, ...]:
    """Returns the test of each phase that has keys. A key counts once, however many requests it makes."""
    checks = []
    for number, phase in enumerate(experiment.phases):
        chosen = units.phases == number
        if not chosen.any():
            continue
        shares = phase.shares
        pairs = np.unique(np.column_stack([units.keys[chosen], units.arms[chosen]]), axis=0)
        owners = pairs[:, 1]
        counts = [int((owners == experiment.arms.index(arm)).sum()) for arm in shares]
        log_e = mismatch_log_e(counts, list(shares.values()))
        deviation = largest_deviation(counts, list(shares.values()))
        evidence = math.exp(min(log_e, 700.0))
        keys = dict(zip(shares, counts, strict=True))
        checks.append(SplitCheck(number, keys, shares, evidence, deviation, is_mismatch(log_e, deviation)))
    return tuple(checks)


def phase_results(experiment: Experiment, units: UnitTable) -> tuple[PhaseResult, ...]:
    """Returns each phase with what the log has of it."""
    return tuple(
        PhaseResult(
            phase, logged.requests, len(np.unique(units.keys[units.phases == number])), logged.fallbacks,
            logged.least_share, {arm: values for (at, arm), values in units.basis.quantiles.items() if at == number},
        )
        for number, (phase, logged) in enumerate(zip(experiment.phases, units.basis.phases, strict=True))
    )  # fmt: skip


def planned_metrics(experiment: Experiment, known: Sequence[str]) -> dict[str, tuple[MetricRole, PlannedMetric]]:
    """Returns every metric that is shown, by name, those that decide first; planned ones also if nothing is known."""
    plan = experiment.plan
    deciding = plan.metrics or tuple(_planned(name) for name in _DECIDING if name in known)[:1]
    planned = {one.metric.name: (MetricRole.DECIDES, one) for one in deciding}
    for name in plan.guardrails or USUAL_GUARDRAILS:
        planned.setdefault(name, (MetricRole.GUARDS, _planned(name)))
    for name in (*EXPERIMENT_METRICS, *(name for name in known if name.startswith(CLASS_PREFIX))):
        if name in known:
            planned.setdefault(name, (MetricRole.SHOWN, _planned(name)))
    return planned


def compare_arms(experiment: Experiment, units: UnitTable, *, alpha: float) -> Iterator[MetricResult]:
    """Yields each metric of each arm against the control arm; `alpha` is of one of them, over all looks."""
    for arm in experiment.others:
        for role, planned in planned_metrics(experiment, list(units.sums)).values():
            yield compare_metric(experiment, units, arm, role, planned, alpha=alpha)


def compare_metric(
    experiment: Experiment, units: UnitTable, arm: str, role: MetricRole, planned: PlannedMetric, *, alpha: float
) -> MetricResult:
    """Returns one metric of one arm."""
    metric = planned.metric
    compared = _phased_units(experiment, units, arm, metric)
    told = phased_difference(compared, len(experiment.phases), alpha=alpha)
    says = _says(told.combined, planned.better, planned.mde)
    why = _why(told, compared, metric) if told.combined is None else ""
    return MetricResult(
        arm, metric.name, metric.label, metric.unit, role, says, told.treated, told.control, told.combined, told.phases,
        planned.mde, why,
    )  # fmt: skip


def _planned(name: str) -> PlannedMetric:
    metric = EXPERIMENT_METRICS.get(name) or ExperimentMetric(name, f"answers of {name}", share=True)
    return PlannedMetric(metric, 0.0, metric.better)


def _phased_units(experiment: Experiment, units: UnitTable, arm: str, metric: ExperimentMetric) -> PhasedUnits:
    """Returns the units of the arm and the control arm that have the metric, each with its mean."""
    nothing = np.zeros(len(units.keys))
    total, count = units.sums.get(metric.name, (nothing, nothing))
    places = experiment.arms.index(arm), 0
    chosen = np.isin(units.arms, places) & (count > 0)
    bounds = (0.0, 1.0) if metric.share else (float("nan"), float("nan"))
    return PhasedUnits(
        units.phases[chosen], units.keys[chosen], units.arms[chosen] == places[0], total[chosen] / count[chosen],
        *bounds,
    )  # fmt: skip


def _says(difference: MeanDifference | None, better: Better, mde: float) -> Says:
    if difference is None:
        return Says.UNKNOWN
    if mde and -mde < difference.low and difference.high < mde:
        return Says.EQUAL
    if difference.low <= 0 <= difference.high:
        return Says.OPEN
    if not better:
        return Says.DIFFERS
    return Says.BETTER if (difference.value > 0) == (better == "higher") else Says.WORSE


def _why(told: PhasedDifference, compared: PhasedUnits, metric: ExperimentMetric) -> str:
    """Returns what is missing where there is no interval."""
    if not len(compared.values):
        missing = {
            "reward": "no row has a reward: `gateway feedback send` or SendFeedback tells them",
            "coverage": "no row has a reward",
            "accuracy": "no row has a class and a label that is a number",
            "error": "no row has a prediction that is a number and a label that is one",
        }
        return missing.get(metric.name, "no request of these arms has it")
    most = max(((phase.treated.keys, phase.control.keys) for phase in told.phases), key=min)
    if min(most) < LEAST_UNITS:
        return f"{most[0]} and {most[1]} keys in the phase that has most, each arm needs {LEAST_UNITS}"
    return "every key has the same value, so its spread is not known"
