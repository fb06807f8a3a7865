"""The plan of an A/B test, as checked values: what is compared between its arms, and what is known to be worse."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

from gateway.routing.document.field import Field
from gateway.routing.document.quantity import duration_ms, duration_text

Better = Literal["higher", "lower", ""]
OnMismatch = Literal["hold", "warn"]
BETTER: Final[tuple[Better, ...]] = ("higher", "lower")
ON_MISMATCH: Final[tuple[OnMismatch, ...]] = ("hold", "warn")
PLANNED_METRIC_FIELDS: Final = ("name", "mde", "better")
SRM_FIELDS: Final = ("onMismatch",)
PLAN_FIELDS: Final = ("metrics", "guardrails", "srm", "maxDuration")
METRIC_LIMIT: Final = 16
MDE: Final = (1e-9, 1e9)


@dataclass(frozen=True, slots=True)
class ExperimentMetric:
    """A number of each key that arms are compared by. `share`: it is between 0 and 1; `guards`: as a guardrail too."""

    name: str
    label: str
    better: Better = ""
    share: bool = False
    guards: bool = False
    unit: str = ""


# What can be compared. Where the metric is of rows, a key's number is the mean over its rows; else over its requests.
EXPERIMENT_METRICS: Final[Mapping[str, ExperimentMetric]] = MappingProxyType(
    {
        metric.name: metric
        for metric in (
            ExperimentMetric("reward", "reward", "higher"),
            ExperimentMetric("accuracy", "right answers by labels", "higher", share=True),
            ExperimentMetric("error", "absolute error by labels", "lower"),
            ExperimentMetric("errors", "failed requests", "lower", share=True, guards=True),
            ExperimentMetric("latency", "mean latency", "lower", guards=True, unit="ms"),
            ExperimentMetric("p99", "requests slower than the control's p99", "lower", share=True, guards=True),
            ExperimentMetric("prediction", "mean prediction"),
            ExperimentMetric("coverage", "rows with a reward", share=True),
        )
    }
)
GUARDING: Final = tuple(name for name, metric in EXPERIMENT_METRICS.items() if metric.guards)


@dataclass(frozen=True, slots=True)
class PlannedMetric:
    """A metric that decides. `mde` is the smallest difference that matters, in the metric's unit; 0: not said."""

    metric: ExperimentMetric
    mde: float = 0.0
    better: Better = ""

    def to_value(self) -> dict[str, object]:
        value: dict[str, object] = {"name": self.metric.name}
        if self.mde:
            value["mde"] = self.mde
        if self.better != self.metric.better:
            value["better"] = self.better
        return value


@dataclass(frozen=True, slots=True)
class ExperimentPlan:
    """What an A/B test is judged by. `on_mismatch` is "" where the document does not ask for the live check."""

    metrics: tuple[PlannedMetric, ...] = ()
    guardrails: tuple[str, ...] = ()
    on_mismatch: OnMismatch | Literal[""] = ""
    max_duration_ms: int = 0

    def to_value(self) -> dict[str, object]:
        value: dict[str, object] = {}
        if self.metrics:
            value["metrics"] = [metric.to_value() for metric in self.metrics]
        if self.guardrails:
            value["guardrails"] = list(self.guardrails)
        if self.on_mismatch:
            value["srm"] = {"onMismatch": self.on_mismatch}
        if self.max_duration_ms:
            value["maxDuration"] = duration_text(self.max_duration_ms)
        return value


NO_PLAN: Final = ExperimentPlan()


def parse_experiment(
    metrics: Field | None, guardrails: Field | None, srm: Field | None, longest: Field | None
) -> ExperimentPlan:
    """Returns what the test is judged by. Raises: InvalidArgument naming the field."""
    on_mismatch: OnMismatch | Literal[""] = ""
    if srm is not None:
        given = srm.section(*SRM_FIELDS).field("onMismatch")
        on_mismatch = given.choice(*ON_MISMATCH) if given is not None else "hold"
    return ExperimentPlan(
        _metrics(metrics) if metrics is not None else (),
        _guardrails(guardrails) if guardrails is not None else (),
        on_mismatch,
        duration_ms(longest, least_ms=1) if longest is not None else 0,
    )


def _metrics(given: Field) -> tuple[PlannedMetric, ...]:
    items = given.items(METRIC_LIMIT, what="metrics")
    if not items:
        raise given.fail("no metric; leave the field out or name at least one")
    planned: list[PlannedMetric] = []
    for item in items:
        planned.append(_metric(item))
        if any(planned[-1].metric == one.metric for one in planned[:-1]):
            raise item.fail(f"{planned[-1].metric.name} stands there twice")
    return tuple(planned)


def _metric(given: Field) -> PlannedMetric:
    section = given.section(*PLANNED_METRIC_FIELDS)
    metric = EXPERIMENT_METRICS[section.required("name").choice(*EXPERIMENT_METRICS)]
    mde, better = section.field("mde"), section.field("better")
    wanted: Better = better.choice(*BETTER) if better is not None else metric.better
    if not wanted:
        raise given.fail(f"{metric.name} has no better side of its own; say better: higher or better: lower")
    return PlannedMetric(metric, mde.number(*MDE) if mde is not None else 0.0, wanted)


def _guardrails(given: Field) -> tuple[str, ...]:
    items = given.items(METRIC_LIMIT, what="guardrails")
    if not items:
        raise given.fail(f"no guardrail; leave the field out, or name some of {', '.join(GUARDING)}")
    return tuple(dict.fromkeys(item.choice(*GUARDING) for item in items))
