"""What is to be made of an arm, as a sentence that says its numbers. Pure."""

from collections.abc import Sequence
from typing import Final

from gateway.rollout.results.experiment import Experiment
from gateway.rollout.results.result import ArmVerdict, MetricResult, MetricRole, Outcome, Says, SplitCheck
from gateway.rollout.statistics.mean_difference import units_needed

_MOST_DAYS: Final = 365.0
HOLDS: Final = "this holds at every look"


def arm_verdict(
    experiment: Experiment, arm: str, metrics: Sequence[MetricResult], checks: Sequence[SplitCheck], *,
    keys_per_day: float, alpha: float,
) -> ArmVerdict:  # fmt: skip
    """Returns what the metrics of an arm say together.

    Order: a broken split comes before every number, a guardrail before what is better; not known is no equality.
    """
    broken = next((check for check in checks if check.mismatch), None)
    if broken is not None and experiment.plan.on_mismatch != "warn":
        return ArmVerdict(arm, Outcome.BROKEN, f"do not read these numbers: {mismatch_text(experiment, broken)}")
    harmful = [one for one in metrics if one.role is MetricRole.GUARDS and one.says is Says.WORSE]
    if harmful:
        told = "; ".join(difference_text(one, experiment.control) for one in harmful)
        return ArmVerdict(arm, Outcome.HARMFUL, f"{arm} does harm: {told}; {HOLDS}")
    deciding = [one for one in metrics if one.role is MetricRole.DECIDES]
    blind = [one.label for one in metrics if one.role is MetricRole.GUARDS and one.says is Says.UNKNOWN]
    rest = f"; not known of its guardrails: {', '.join(blind)}" if blind else ""
    if not deciding:
        text = "nothing is known: no row has a reward or a label, and the document names no metric that decides"
        return ArmVerdict(arm, Outcome.UNKNOWN, text + rest)
    outcome, text = _decided(deciding, experiment.control, keys_per_day, alpha)
    return ArmVerdict(arm, outcome, text + rest)


def mismatch_text(experiment: Experiment, check: SplitCheck) -> str:
    """Returns what is wrong with the split of a phase."""
    total = sum(check.keys.values())
    told = ", ".join(
        f"{arm} has {keys} of {total} keys ({keys / total:.2%}) and should have {check.shares[arm]:.2%}"
        for arm, keys in check.keys.items()
    )
    first = experiment.phases[check.phase].revisions[0]
    return (
        f"the split of revision {first} is broken: {told}. Requests of an arm are lost or not logged; "
        "`gateway_log_dropped` and the errors of the arm tell where to look"
    )


def difference_text(result: MetricResult, control: str) -> str:
    """Returns the numbers of a metric with its interval, in a clause."""
    difference = result.difference
    if difference is None:
        return f"{result.label}: not known ({result.why})"
    unit = f" {result.unit}" if result.unit else ""
    gap = f"{number(difference.value)} [{number(difference.low)}, {number(difference.high)}]{unit}"
    far = abs(difference.value) > 10 * abs(result.control.mean)  # of nearly nothing, a share says nothing
    ratio = "" if far or not result.control.mean else f", {difference.value / abs(result.control.mean):+.1%}"
    return (
        f"{result.label} {number(result.treated.mean)} against {number(result.control.mean)} of {control}: {gap}{ratio}"
    )


def number(value: float) -> str:
    """Returns a number with four significant digits."""
    return f"{value:.4g}"


def _decided(deciding: Sequence[MetricResult], control: str, keys_per_day: float, alpha: float) -> tuple[Outcome, str]:
    """Returns what the metrics that decide say together."""
    worse = [one for one in deciding if one.says is Says.WORSE]
    better = [one for one in deciding if one.says is Says.BETTER]
    if worse and better:
        told = "; ".join(difference_text(one, control) for one in (*worse, *better))
        return Outcome.WORSE, f"{worse[0].arm} is worse by one metric and better by another: {told}; {HOLDS}"
    for chosen, outcome in ((worse, Outcome.WORSE), (better, Outcome.BETTER)):
        if chosen:
            told = "; ".join(difference_text(one, control) for one in chosen)
            return outcome, f"{chosen[0].arm} is {outcome.value}: {told}; {HOLDS}"
    first = deciding[0]
    if all(one.says is Says.EQUAL for one in deciding):
        text = f"no difference between {first.arm} and {control} that matters: {difference_text(first, control)}"
        return Outcome.EQUAL, f"{text}; a difference of {number(first.mde)} would matter; {HOLDS}"
    opened = next((one for one in deciding if one.says is Says.OPEN), None)
    if opened is None:
        return Outcome.UNKNOWN, f"nothing is known: {difference_text(first, control)}"
    more = _time_left(opened, keys_per_day, alpha)
    return Outcome.OPEN, f"nothing can be said yet: {difference_text(opened, control)}; {more}"


def _time_left(result: MetricResult, keys_per_day: float, alpha: float) -> str:
    """Returns how long it takes until a difference of the size that matters would be told from none."""
    difference = result.difference
    wanted = result.mde or (abs(difference.value) if difference is not None else 0.0)
    size = "that matters" if result.mde else "as large as the one that was seen"
    if difference is None or not wanted:
        return "how long it takes is not known: say with mde what difference matters"
    if keys_per_day <= 0:
        return "how long it takes is not known: no new keys came"
    days = max(0.0, (units_needed(difference, wanted, alpha=alpha) - difference.n) / keys_per_day)
    if days > _MOST_DAYS:
        return f"at the present traffic it takes more than a year to find a difference {size} ({number(wanted)})"
    hours = max(1, round(days * 24))
    length = f"{days:.0f} days" if days >= 2 else f"{hours} hour{'s' if hours > 1 else ''}"
    return f"at the present traffic about {length} more, to find a difference {size} ({number(wanted)})"
