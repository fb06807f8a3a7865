"""The four strategies of a route: A/B, canary, blue-green, pinned. All of them come down to weights of one table."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar

from gateway.errors import InvalidArgument
from gateway.routing.document.analysis import (
    NO_GATE,
    AfterPromote,
    Analysis,
    StepGate,
    parse_after_promote,
    parse_analysis,
    parse_gate,
)
from gateway.routing.document.bandit_plan import BanditPlan, parse_bandit
from gateway.routing.document.blue_green_plan import (
    BLUE_GREEN_PLAN,
    NO_BLUE_GREEN_PLAN,
    BlueGreenPlan,
    parse_blue_green_plan,
)
from gateway.routing.document.bucket import BUCKETS
from gateway.routing.document.experiment_plan import NO_PLAN, PLAN_FIELDS, ExperimentPlan, parse_experiment
from gateway.routing.document.field import Field
from gateway.routing.document.match import Match, parse_match
from gateway.routing.document.offline_check import OfflineCheck, parse_offline
from gateway.routing.document.quantity import percent, percent_text

HOLDOUT = "holdout"  # the pseudo-arm of the table that answers with the control arm's version
PREVIEW = "preview"  # the rule that blue-green's previewMatch becomes
STEP_PLAN = ("hold", "minEvents", "approval")
CANARY_PLAN = ("analysis", "afterPromote")
AB_FIELDS = ("control", "weights", "holdout", "bandit", *PLAN_FIELDS)
STEP_FIELDS = ("weight", "offline", *STEP_PLAN)
CANARY_FIELDS = ("stable", "canary", "weight", "step", "steps", *CANARY_PLAN)
BLUE_GREEN_FIELDS = ("active", "preview", "previewMatch", *BLUE_GREEN_PLAN)
PINNED_FIELDS = ("arm",)
STEP_LIMIT = 100


@dataclass(frozen=True, slots=True)
class Ab:
    """A test between arms; with a `bandit` its weights move by themselves.

    Units: `weights` and `holdout` in buckets; the weights are of what is not held out.
    """

    name: ClassVar[str] = "ab"
    splits: ClassVar[bool] = True
    control: str
    weights: tuple[tuple[str, int], ...]  # sorted by arm
    holdout: int = 0
    plan: ExperimentPlan = NO_PLAN
    bandit: BanditPlan | None = None

    @property
    def control_arm(self) -> str:
        """The arm that answers where a split cannot."""
        return self.control

    @property
    def is_judged(self) -> bool:
        """Returns whether what its arms do is counted while it runs."""
        return bool(self.plan.on_mismatch) or self.bandit is not None

    def to_value(self) -> dict[str, object]:
        value = self.plan.to_value()
        value |= {"control": self.control, "weights": {arm: percent_text(weight) for arm, weight in self.weights}}
        if self.holdout:
            value["holdout"] = percent_text(self.holdout)
        if self.bandit is not None:
            value["bandit"] = self.bandit.to_value()
        return value

    def table_weights(self) -> dict[str, int]:
        """Weights of the table: the holdout as it is, the arms scaled to the rest, rounded by largest remainder."""
        rest = BUCKETS - self.holdout
        weights = {arm: weight * rest // BUCKETS for arm, weight in self.weights}
        by_remainder = sorted(self.weights, key=lambda entry: (-(entry[1] * rest % BUCKETS), entry[0]))
        for arm, _ in by_remainder[: rest - sum(weights.values())]:
            weights[arm] += 1
        return weights | ({HOLDOUT: self.holdout} if self.holdout else {})


@dataclass(frozen=True, slots=True)
class CanaryStep:
    """One step of a ramp; one that is `offline` has no share. Units: `weight` in buckets."""

    weight: int
    gate: StepGate = NO_GATE
    offline: OfflineCheck | None = None

    def to_value(self) -> dict[str, object]:
        if self.offline is not None:
            return {"offline": self.offline.to_value()} | replace(self.gate, hold_ms=None).to_value()
        return self.gate.to_value() | {"weight": percent_text(self.weight)}


@dataclass(frozen=True, slots=True)
class Canary:
    """A growing share for one arm. Units: weights in buckets; `weight` is None where the steps say it."""

    name: ClassVar[str] = "canary"
    splits: ClassVar[bool] = True
    stable: str
    canary: str
    steps: tuple[CanaryStep, ...] = ()
    step: int = 0
    weight: int | None = None
    analysis: Analysis | None = None
    after_promote: AfterPromote | None = None
    previews: bool = False  # it is a blue-green rollout: its arm answers nobody before it answers everybody
    by_hand: bool = False  # the promotion of such a one

    @property
    def control_arm(self) -> str:
        """The arm that answers where a split cannot."""
        return self.stable

    @property
    def is_driven(self) -> bool:
        """Returns whether the gateway itself moves it: it is judged, or a step ends by itself."""
        return bool(self.steps) and (
            self.analysis is not None or any(step.gate.hold_ms is not None for step in self.steps)
        )

    @property
    def active_weight(self) -> int:
        """The canary's share at present: the given weight, else that of the current step."""
        return self.weight if self.weight is not None else self.steps[self.step].weight

    def to_value(self) -> dict[str, object]:
        value: dict[str, object] = {"stable": self.stable, "canary": self.canary}
        if self.steps:
            value["steps"] = [step.to_value() for step in self.steps]
        if self.analysis is not None:
            value["analysis"] = self.analysis.to_value()
        if self.after_promote is not None:
            value["afterPromote"] = self.after_promote.to_value()
        if self.step:
            value["step"] = self.step
        if self.weight is not None:
            value["weight"] = percent_text(self.weight)
        return value

    def table_weights(self) -> dict[str, int]:
        return {self.stable: BUCKETS - self.active_weight, self.canary: self.active_weight}


@dataclass(frozen=True, slots=True)
class BlueGreen:
    """All traffic on one arm; requests that fit `preview_match` see the other."""

    name: ClassVar[str] = "blueGreen"
    splits: ClassVar[bool] = False
    active: str
    preview: str = ""
    preview_match: Match | None = None
    plan: BlueGreenPlan = NO_BLUE_GREEN_PLAN

    @property
    def ramp(self) -> Canary | None:
        """Returns the rollout as that of a canary with one step; None where nothing is carried out.

        The step's weight is the share of requests that the preview answers too, and its flip is the promotion.
        """
        plan = self.plan
        if not self.preview or not plan.is_driven:
            return None
        return Canary(
            self.active,
            self.preview,
            (CanaryStep(plan.shadow, plan.gate),),
            weight=0 if plan.halted else None,
            analysis=plan.analysis or Analysis(),
            after_promote=plan.after,
            previews=True,
            by_hand=plan.promote != "auto",
        )

    @property
    def control_arm(self) -> str:
        """The arm that answers where a split cannot."""
        return self.active

    def to_value(self) -> dict[str, object]:
        value: dict[str, object] = self.plan.to_value() | {"active": self.active}
        if self.preview:
            value["preview"] = self.preview
        if self.preview_match is not None:
            value["previewMatch"] = self.preview_match.to_value()
        return value

    def table_weights(self) -> dict[str, int]:
        return {self.active: BUCKETS}


@dataclass(frozen=True, slots=True)
class Pinned:
    """All traffic on one arm."""

    name: ClassVar[str] = "pinned"
    splits: ClassVar[bool] = False
    arm: str

    @property
    def control_arm(self) -> str:
        """The arm that answers where a split cannot."""
        return self.arm

    def to_value(self) -> dict[str, object]:
        return {"arm": self.arm}

    def table_weights(self) -> dict[str, int]:
        return {self.arm: BUCKETS}


Strategy = Ab | Canary | BlueGreen | Pinned


def ramp_of(strategy: Strategy) -> Canary | None:
    """Returns the rollout that the gateway carries out, a blue-green one as a canary's; None where there is none."""
    if isinstance(strategy, BlueGreen):
        return strategy.ramp
    return strategy if isinstance(strategy, Canary) and strategy.is_driven else None


def bandit_of(strategy: Strategy) -> BanditPlan | None:
    """Returns the plan by which the gateway moves an A/B test's weights; None where it moves none."""
    return strategy.bandit if isinstance(strategy, Ab) else None


def strategy_words(strategy: Strategy) -> str:
    """Returns what a strategy is called where a decision is explained."""
    return "ab with a bandit, which moves its weights" if bandit_of(strategy) is not None else strategy.name


def parse_strategy(field: Field, arms: Mapping[str, object]) -> Strategy:
    """The one strategy of the document. Raises: InvalidArgument, also where it names an arm that is not in `arms`."""
    section = field.section(*STRATEGIES)
    if len(section.values) != 1:
        given = ", ".join(section.values) or "none"
        raise field.fail(f"exactly one of {', '.join(STRATEGIES)} is needed, given: {given}")
    [name] = section.values
    return STRATEGIES[name](section.required(name), arms)


def arm_of(field: Field, arms: Mapping[str, object]) -> str:
    """The name of an arm of the route."""
    if not isinstance(field.value, str) or field.value not in arms:
        raise field.refuse(f"an arm of this route ({', '.join(sorted(arms))})")
    return field.value


def _parse_ab(field: Field, arms: Mapping[str, object]) -> Ab:
    section = field.section(*AB_FIELDS)
    given = section.required("weights")
    weights: list[tuple[str, int]] = []
    fields: dict[str, Field] = {}
    for name, weight in given.entries(len(arms) + 1, what="weights"):
        weights.append((arm_of(Field(name, weight.path), arms), percent(weight)))
        fields[name] = weight
    total = sum(weight for _, weight in weights)
    if total != BUCKETS:
        shown = percent_text(total).removesuffix("%")
        raise given.fail(f"weights sum to {shown} %, they must sum to exactly 100 %")
    control = section.required("control")
    if arm_of(control, arms) not in dict(weights):
        raise control.refuse("an arm with a weight (0% will do)")
    holdout = section.field("holdout")
    held = percent(holdout) if holdout is not None else 0
    if holdout is not None and held == BUCKETS:
        raise holdout.fail("a holdout of 100 % leaves nothing to test")
    plan = parse_experiment(*(section.field(name) for name in PLAN_FIELDS))
    bandit = section.field("bandit")
    moved = parse_bandit(bandit, fields, dict(weights), arm_of(control, arms)) if bandit is not None else None
    return Ab(arm_of(control, arms), tuple(weights), held, plan, moved)


def _parse_canary(field: Field, arms: Mapping[str, object]) -> Canary:
    section = field.section(*CANARY_FIELDS)
    stable, canary = (
        arm_of(section.field(role) or Field(role, section.at(role)), arms) for role in ("stable", "canary")
    )
    if stable == canary:
        raise field.fail(f"the stable and the canary arm are both {stable!r}")
    given = section.field("steps")
    steps = tuple(_step(item) for item in given.items(STEP_LIMIT, what="steps")) if given is not None else ()
    if given is not None and not steps:
        raise given.fail("no step; leave the field out or give at least one")
    share = section.field("weight")
    at = section.field("step")
    if share is None and not steps:
        raise field.fail("either weight or steps is needed")
    if at is not None and not steps:
        raise at.fail("there are no steps")
    for index, one in enumerate(steps):
        if one.offline is not None and (index or len(steps) == 1):
            where = "only the first step can be" if index else "a step with a share has to follow one that is"
            raise InvalidArgument(f"{section.at('steps')}[{index}].offline: {where} offline")
    step = at.whole(0, len(steps) - 1) if at is not None else 0
    weight = percent(share) if share is not None else None
    analysis, after = section.field("analysis"), section.field("afterPromote")
    if analysis is not None and not steps:
        raise analysis.fail("there are no steps to judge; a canary with a weight alone grows by hand")
    parsed = Canary(
        stable,
        canary,
        steps,
        step,
        weight,
        parse_analysis(analysis) if analysis is not None else None,
        parse_after_promote(after) if after is not None else None,
    )
    for index, (before, now) in enumerate(pairwise(steps), start=1):
        if parsed.is_driven and now.weight < before.weight:
            fall = f"{percent_text(now.weight)} is less than the {percent_text(before.weight)} of the step before"
            raise InvalidArgument(f"{section.at('steps')}[{index}].weight: {fall}; a ramp that moves by itself grows")
    return parsed


def _step(field: Field) -> CanaryStep:
    section = field.section(*STEP_FIELDS)
    gate = parse_gate(*(section.field(name) for name in STEP_PLAN))
    offline = section.field("offline")
    if offline is not None:
        for name in ("weight", "hold", "minEvents"):
            if name in section:
                raise section.required(name).fail("a step that is offline has no traffic; it ends with its verdict")
        return CanaryStep(0, replace(gate, hold_ms=0), parse_offline(offline))
    return CanaryStep(percent(section.required("weight")), gate)


def _parse_blue_green(field: Field, arms: Mapping[str, object]) -> BlueGreen:
    section = field.section(*BLUE_GREEN_FIELDS)
    active = arm_of(section.required("active"), arms)
    shown, match = section.field("preview"), section.field("previewMatch")
    if match is not None and shown is None:
        raise match.fail("there is no preview arm to match for")
    preview = arm_of(shown, arms) if shown is not None else ""
    if shown is not None and preview == active:
        raise shown.fail(f"the active and the preview arm are both {active!r}")
    plan = parse_blue_green_plan(section, has_preview=shown is not None)
    return BlueGreen(active, preview, parse_match(match) if match is not None else None, plan)


def _parse_pinned(field: Field, arms: Mapping[str, object]) -> Pinned:
    return Pinned(arm_of(field.section(*PINNED_FIELDS).required("arm"), arms))


# Every strategy by its field in the document, with what reads it.
STRATEGIES: dict[str, Callable[[Field, Mapping[str, object]], Strategy]] = {
    Ab.name: _parse_ab,
    Canary.name: _parse_canary,
    BlueGreen.name: _parse_blue_green,
    Pinned.name: _parse_pinned,
}
