"""The results of an experiment as a value: everything that its table, its page and its JSON say."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from typing import Any, Final

import msgspec

from gateway.rollout.results.experiment import Experiment, ExperimentPhase
from gateway.rollout.statistics.mean_difference import MeanDifference
from gateway.rollout.statistics.off_policy_value import OffPolicyValue
from gateway.rollout.statistics.phase_difference import ArmMean, PhaseDifference
from gateway.routing.document.strategy import HOLDOUT

FORMAT: Final = 1


class Says(Enum):
    """What an interval says about an arm against the control arm."""

    BETTER = "better"
    WORSE = "worse"
    DIFFERS = "differs"  # of a metric without a better side
    EQUAL = "no difference that matters"
    OPEN = "open"
    UNKNOWN = "not known"


class Outcome(Enum):
    """What is to be made of an arm, the worst first."""

    BROKEN = "broken"  # the split is not what was meant: no number means anything
    HARMFUL = "harmful"  # a guardrail is worse
    WORSE = "worse"
    UNKNOWN = "not known"
    OPEN = "open"
    EQUAL = "equal"
    BETTER = "better"


class MetricRole(Enum):
    """What a metric is for."""

    DECIDES = "decides"
    GUARDS = "guards"
    SHOWN = "shown"


@dataclass(frozen=True, slots=True)
class MetricResult:
    """One metric of an arm against the control arm; `why` says what is missing where nothing can be said."""

    arm: str
    metric: str
    label: str
    unit: str
    role: MetricRole
    says: Says
    treated: ArmMean
    control: ArmMean
    difference: MeanDifference | None
    phases: tuple[PhaseDifference, ...] = ()
    mde: float = 0.0
    why: str = ""


@dataclass(frozen=True, slots=True)
class SplitCheck:
    """Whether the keys of a phase came to the arms as the route says. `evidence` is against 1000, or infinite."""

    phase: int
    keys: Mapping[str, int]
    shares: Mapping[str, float]
    evidence: float
    deviation: float
    mismatch: bool


@dataclass(frozen=True, slots=True)
class PhaseResult:
    """A phase, and what the log has of it. Shapes: `quantiles` are latencies in ms (median, 95 %, 99 %) by arm."""

    phase: ExperimentPhase
    requests: int
    keys: int
    fallbacks: int
    logged_share: float
    quantiles: Mapping[str, Sequence[float]]


@dataclass(frozen=True, slots=True)
class SegmentResult:
    """The metrics of one segment. Their intervals are wider, so that all segments hold together."""

    column: str
    value: str
    keys: int
    alpha: float
    metrics: tuple[MetricResult, ...]


@dataclass(frozen=True, slots=True)
class ArmVerdict:
    """What is to be made of an arm, in a sentence."""

    arm: str
    outcome: Outcome
    text: str


@dataclass(frozen=True, slots=True)
class PolicyRule:
    """Rows that meet the condition go to the version; the first rule that holds decides."""

    version: str
    condition: str


@dataclass(frozen=True, slots=True)
class PolicyResult:
    """What a draft would have been worth. `shares` are of its split, by version; `coverage` is the share of rows that
    have a reward, on which alone this rests."""

    shares: Mapping[str, float]
    rules: tuple[PolicyRule, ...]
    value: OffPolicyValue
    features: tuple[str, ...]
    coverage: float
    text: str


@dataclass(frozen=True, slots=True)
class ExperimentResult:
    """The results of an experiment up to `generated_us`.

    Units: `alpha` is the chance, over all looks together, that an interval of one metric and arm misses.
    """

    experiment: Experiment
    generated_us: int
    alpha: float
    verdicts: tuple[ArmVerdict, ...]
    checks: tuple[SplitCheck, ...]
    phases: tuple[PhaseResult, ...]
    metrics: tuple[MetricResult, ...]
    segments: tuple[SegmentResult, ...] = ()
    segment_alpha: float = 0.0
    policy: PolicyResult | None = None
    notes: tuple[str, ...] = ()

    @property
    def outcome(self) -> Outcome:
        """Returns the outcome of the arm that it is worst with; of a holdout only what is wrong counts.

        A holdout is answered by the control arm's version: an arm that is better stays so while nothing is found of it.
        """
        order = list(Outcome)
        wrong = order[: order.index(Outcome.WORSE) + 1]
        told = [one.outcome for one in self.verdicts if one.arm != HOLDOUT or one.outcome in wrong]
        return min(told or [one.outcome for one in self.verdicts], key=order.index)

    def of_arm(self, arm: str) -> tuple[MetricResult, ...]:
        """Returns the metrics of one arm."""
        return tuple(metric for metric in self.metrics if metric.arm == arm)

    def to_value(self) -> dict[str, Any]:
        """Returns plain data for machines."""
        experiment = self.experiment
        told = {
            "format": FORMAT,
            "model": experiment.model,
            "control": experiment.control,
            "versions": dict(experiment.versions),
            "ended_by_revision": experiment.ended_by or None,
            "outcome": self.outcome,
        }
        rest = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "experiment"}
        value: dict[str, Any] = plain({**told, **rest})
        return value

    def to_json(self) -> str:
        """Returns one object; NaN is null, and so is infinity."""
        return msgspec.json.format(msgspec.json.encode(self.to_value()), indent=1).decode()


def plain(item: Any) -> Any:
    """Returns values of dataclasses, enumerations and mappings as plain data."""
    if isinstance(item, ExperimentPhase):
        told = {
            "revisions": item.revisions,
            "since_us": item.since_us,
            "until_us": item.until_us,
            "shares": item.shares,
        }
        return plain(told)
    if is_dataclass(item) and not isinstance(item, type):
        return {field.name: plain(getattr(item, field.name)) for field in fields(item)}
    if isinstance(item, Enum):
        return item.value
    if isinstance(item, Mapping):
        return {str(key): plain(value) for key, value in item.items()}
    if isinstance(item, Sequence) and not isinstance(item, str):
        return [plain(value) for value in item]
    return item
