"""The plan of a bandit, as checked values: by what the weights of an A/B test's arms move, how often, and how far."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from gateway.routing.document.analysis import ALPHA, MOST_EVENTS, Analysis
from gateway.routing.document.bucket import BUCKETS
from gateway.routing.document.field import Field
from gateway.routing.document.guardrail import FEEDBACK, METRICS, Guardrail, parse_guardrails
from gateway.routing.document.quantity import duration_ms, duration_text, percent, percent_text

Posterior = Literal["normal", "beta"]
Side = Literal["higher", "lower"]
POSTERIORS: Final[tuple[Posterior, ...]] = ("normal", "beta")
SIDES: Final[tuple[Side, ...]] = ("higher", "lower")
BANDIT_FIELDS: Final = (
    *("metric", "better", "posterior", "interval", "minEvents", "floor", "discount"),
    *("alpha", "guardrails"),
)
INTERVAL_MS: Final = (1_000, 30 * 86_400_000)
LEAST_EVENTS: Final = 10
DISCOUNT: Final = (0.5, 1.0)
LEAST_FLOOR: Final = 1_000  # buckets: 0.1 %; below it an arm would learn nothing more


@dataclass(frozen=True, slots=True)
class BanditPlan:
    """Holds how a bandit moves the weights of its arms.

    Units:  `interval_ms` between two changes of weights at least; `least_events` rewards that every arm must have since
            the last one; `floor` in buckets of the keys that are not held out: no arm that takes part has less;
            `discount` is what a reward's weight is multiplied by in each interval that passes, 1 for none; `alpha`
            bounds the chance that a guardrail ever stops an arm that is not worse than the control.
    """

    metric: str = METRICS[0]
    better: Side = "higher"
    posterior: Posterior = "normal"
    interval_ms: int = 600_000
    least_events: int = 100
    floor: int = 50_000
    discount: float = 1.0
    alpha: float = 0.01
    guardrails: tuple[Guardrail, ...] = ()  # as the document names them; () for the usual ones

    def analysis(self, others: int) -> Analysis:
        """Returns how each arm is held against the control, where there are that many beside it."""
        return Analysis(alpha=self.alpha / max(1, others), guardrails=self.guardrails)

    @property
    def counted(self) -> frozenset[str]:
        """Returns what workers have to count, beside requests, times and runs."""
        return Analysis(guardrails=self.guardrails).counted | {FEEDBACK}

    def to_value(self) -> dict[str, object]:
        usual = BanditPlan()
        value: dict[str, object] = {}
        for name, attribute in (
            ("metric", "metric"),
            ("better", "better"),
            ("posterior", "posterior"),
            ("minEvents", "least_events"),
            ("discount", "discount"),
            ("alpha", "alpha"),
        ):
            if getattr(self, attribute) != getattr(usual, attribute):
                value[name] = getattr(self, attribute)
        if self.interval_ms != usual.interval_ms:
            value["interval"] = duration_text(self.interval_ms)
        if self.floor != usual.floor:
            value["floor"] = percent_text(self.floor)
        if self.guardrails:
            value["guardrails"] = [guardrail.to_value() for guardrail in self.guardrails]
        return value


def parse_bandit(given: Field, weights: Mapping[str, Field], shares: Mapping[str, int], control: str) -> BanditPlan:
    """Returns the plan. `shares` are the arms' weights in buckets, `weights` the fields that they stand in.

    Where the control has everything the bandit is over: that is what one is left as by which every arm was stopped.
    Raises: InvalidArgument naming the field.
    """
    section = given.section(*BANDIT_FIELDS)
    usual = BanditPlan()
    metric, better, posterior = (section.field(name) for name in ("metric", "better", "posterior"))
    interval, events, floor = (section.field(name) for name in ("interval", "minEvents", "floor"))
    discount, alpha, guardrails = (section.field(name) for name in ("discount", "alpha", "guardrails"))
    plan = BanditPlan(
        metric.choice(*METRICS) if metric is not None else usual.metric,
        better.choice(*SIDES) if better is not None else usual.better,
        posterior.choice(*POSTERIORS) if posterior is not None else usual.posterior,
        _interval(interval) if interval is not None else usual.interval_ms,
        events.whole(LEAST_EVENTS, MOST_EVENTS) if events is not None else usual.least_events,
        percent(floor) if floor is not None else usual.floor,
        discount.number(*DISCOUNT) if discount is not None else usual.discount,
        alpha.number(*ALPHA) if alpha is not None else usual.alpha,
        _guardrails(guardrails) if guardrails is not None else (),
    )
    arms = [arm for arm, share in shares.items() if share]
    if not shares[control]:
        raise weights[control].fail("the control of a bandit needs a weight: the others are held against it")
    at = Field(percent_text(plan.floor), section.at("floor"))
    if plan.floor < LEAST_FLOOR:
        raise at.refuse(f"a percentage of at least {percent_text(LEAST_FLOOR)}; an arm without a share learns nothing")
    if plan.floor * len(arms) >= BUCKETS:
        most = percent_text(BUCKETS // len(arms))
        raise at.fail(f"{percent_text(plan.floor)} for each of {len(arms)} arms leaves nothing to move; below {most}")
    for arm in arms:
        if shares[arm] < plan.floor:
            text = f"{percent_text(shares[arm])} is below the floor of {percent_text(plan.floor)}"
            raise weights[arm].fail(f"{text}; give it as much, or 0% to leave the arm out")
    return plan


def _interval(given: Field) -> int:
    length_ms = duration_ms(given, least_ms=INTERVAL_MS[0])
    if length_ms > INTERVAL_MS[1]:
        raise given.refuse(f"a duration of at most {duration_text(INTERVAL_MS[1])}")
    return length_ms


def _guardrails(given: Field) -> tuple[Guardrail, ...]:
    """Returns the guardrails. One that looks at mirrors, asks at the end of a step, or is the reward has no place."""
    guardrails = parse_guardrails(given)
    for item, guardrail in zip(given.items(len(guardrails), what="guardrails"), guardrails, strict=True):
        kind = guardrail.kind
        if not kind.compares or kind.asked or kind.counts == FEEDBACK:
            raise Field(kind.name, f"{item.path}.kind").refuse("errors, latency, outputs or drift, for a bandit")
    return guardrails
