"""The next weights of a bandit's arms: what its plan and its evidence ask for at this moment. Pure.

Nothing known is no change: weights move when every arm that takes part has its rewards of the present weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np

from gateway.rollout.statistics.thompson import ArmStrata, best_shares, floored, strata_of
from gateway.routing.document.bandit_plan import BanditPlan
from gateway.routing.document.bucket import BUCKETS
from gateway.routing.document.quantity import duration_text, percent_text

Sums = tuple[int, float, float]  # of rewards: how many, their sum, the sum of their squares
NO_REWARDS: Final[Sums] = (0, 0.0, 0.0)
MOST_PHASES: Final = 8  # whose rewards are still counted; what older ones said is settled
LEAST_MOVE: Final = 10_000  # buckets, one point: less is not worth a change of the route
TOO_FEW: Final = "too few rewards"
AS_THEY_ARE: Final = "the weights are right as they are"
USUAL_CAUSES: Final = frozenset({TOO_FEW, AS_THEY_ARE})  # why weights stay that nobody has to look after
_CLOSE: Final = 1e-6


class BanditPhase(msgspec.Struct, frozen=True):
    """A revision of the route, or what came of one between two decisions. `sums` are the rewards of its answers by arm,
    without those in `base`, which came in its phases before; `is_decided` is whether a decision has ended it.

    Units: milliseconds since the epoch, by the store's clock; `until_ms` 0 while it goes on. Weights in buckets.
    """

    revision: int
    since_ms: int
    weights: dict[str, int]
    until_ms: int = 0
    sums: dict[str, Sums] = {}
    base: dict[str, Sums] = {}
    is_decided: bool = False


class SettledPhases(msgspec.Struct, frozen=True):
    """What phases said that are too old for another reward, discounted to `at_ms`."""

    at_ms: int = 0
    arms: dict[str, ArmStrata] = {}


class BanditEvidence(msgspec.Struct, frozen=True):
    """What is known of the arms: revisions, the newest last, and what came before them."""

    phases: tuple[BanditPhase, ...] = ()
    settled: SettledPhases = SettledPhases()

    @property
    def arms(self) -> tuple[str, ...]:
        """Returns the arms that take part now."""
        return tuple(sorted(arm for arm, weight in self.phases[-1].weights.items() if weight)) if self.phases else ()

    @property
    def spans(self) -> tuple[BanditPhase, ...]:
        """Returns the phases; those of the same weights between two decisions, as where a label was edited, are one."""
        made: list[BanditPhase] = []
        for phase in self.phases:
            if made and made[-1].weights == phase.weights and not made[-1].is_decided:
                sums = {arm: added(made[-1].sums, phase.sums, arm) for arm in made[-1].sums.keys() | phase.sums.keys()}
                made[-1] = msgspec.structs.replace(
                    made[-1], until_ms=phase.until_ms, sums=sums, is_decided=phase.is_decided
                )
            else:
                made.append(phase)
        return tuple(made)

    @property
    def rewards(self) -> dict[str, int]:
        """Returns how many rewards each arm has of the present weights."""
        newest = self.spans[-1].sums if self.phases else {}
        return {arm: newest.get(arm, NO_REWARDS)[0] for arm in self.arms}

    def with_sums(self, told: Mapping[int, Mapping[str, Sums]]) -> "BanditEvidence":
        """Returns it with the rewards that are known now, by revision and arm; one that was known stays so."""
        last = {phase.revision: place for place, phase in enumerate(self.phases)}
        phases = tuple(
            msgspec.structs.replace(phase, sums=_more(phase, told.get(phase.revision, {})))
            if place == last[phase.revision]
            else phase
            for place, phase in enumerate(self.phases)
        )
        return msgspec.structs.replace(self, phases=phases)

    def decided(self, now_ms: int) -> "BanditEvidence":
        """Returns it after a decision that left the weights as they are: what comes from now on is another phase."""
        *before, last = self.phases
        base = {arm: added(last.base, last.sums, arm) for arm in last.base.keys() | last.sums.keys()}
        ended = msgspec.structs.replace(last, until_ms=now_ms, is_decided=True)
        begun = BanditPhase(last.revision, now_ms, last.weights, base=base)
        return msgspec.structs.replace(self, phases=(*before, ended, begun))


@dataclass(frozen=True, slots=True)
class NewWeights:
    """The arms get these weights, in buckets; those that are out have none."""

    weights: dict[str, int]
    reason: str


@dataclass(frozen=True, slots=True)
class Unmoved:
    """Nothing changes. `left_ms` is how long at least, where that is known; `is_decided` that the weights are right."""

    reason: str
    left_ms: int = 0
    is_decided: bool = False


def next_weights(
    plan: BanditPlan, evidence: BanditEvidence, now_ms: int, random: np.random.Generator
) -> NewWeights | Unmoved:
    """Returns the weights that follow, or why they stay."""
    arms = evidence.arms
    if len(arms) < 2:
        return Unmoved("nothing can move: one arm is left")
    present = evidence.spans[-1]
    left_ms = plan.interval_ms - (now_ms - present.since_ms)
    if left_ms > 0:
        return Unmoved(f"{duration_text(-(-left_ms // 1000) * 1000)} until weights may move", left_ms)
    rewards = evidence.rewards
    if not any(rewards.values()):
        return Unmoved(f"no data: no {plan.metric} is known of any answer of the present weights")
    late = [f"{arm} {n}" for arm, n in rewards.items() if n < plan.least_events]
    if late:
        told = f"{', '.join(late)} of the {plan.least_events} that each arm needs of the present weights"
        return Unmoved(f"{TOO_FEW}: {told}")
    if plan.posterior == "beta" and (odd := _not_binary(evidence)):
        return Unmoved(f"rewards of {odd} are not all 0 or 1, which posterior beta needs; posterior normal takes any")
    strata = posterior_strata(plan, evidence, now_ms)
    shares = best_shares([strata[arm] for arm in arms], plan.posterior, random, lower_is_better=plan.better == "lower")
    weights = dict.fromkeys(present.weights, 0) | dict(zip(arms, floored(shares, plan.floor, BUCKETS), strict=True))
    told = "; ".join(
        f"{arm} {percent_text(weights[arm])}, best with {share:.1%}, {plan.metric} {strata[arm].value:.4g} of "
        f"{strata[arm].rewards:.0f}"
        for arm, share in zip(arms, shares.tolist(), strict=True)
    )
    if max(abs(weights[arm] - present.weights[arm]) for arm in arms) < LEAST_MOVE:
        return Unmoved(f"{AS_THEY_ARE}: {told}", is_decided=True)
    return NewWeights(weights, f"{plan.posterior}: {told}")


def posterior_strata(plan: BanditPlan, evidence: BanditEvidence, now_ms: int) -> dict[str, ArmStrata]:
    """Returns what is known of each arm that takes part, discounted to now."""
    arms = evidence.arms
    known = _aged(plan, evidence.settled, now_ms)
    total = {arm: known.get(arm, ArmStrata()) for arm in arms}
    for phase in evidence.spans:
        factor = _factor(plan, now_ms - (phase.until_ms or now_ms))
        told = strata_of([phase.sums.get(arm, NO_REWARDS) for arm in arms])
        total = {arm: total[arm] + one.aged(factor) for arm, one in zip(arms, told, strict=True)}
    return total


def settled(plan: BanditPlan, evidence: BanditEvidence) -> BanditEvidence:
    """Returns the same with what is too old for another reward added up: a record does not grow with time."""
    arms = evidence.arms
    while len(evidence.phases) > MOST_PHASES:
        oldest, *others = evidence.phases
        at_ms = oldest.until_ms or evidence.settled.at_ms
        known = _aged(plan, evidence.settled, at_ms)
        told = strata_of([oldest.sums.get(arm, NO_REWARDS) for arm in arms])
        joined = {arm: known.get(arm, ArmStrata()) + one for arm, one in zip(arms, told, strict=True)}
        evidence = BanditEvidence(tuple(others), SettledPhases(at_ms, joined))
    return evidence


def added(one: Mapping[str, Sums], other: Mapping[str, Sums], arm: str) -> Sums:
    """Returns the rewards of an arm in both."""
    mine, others = one.get(arm, NO_REWARDS), other.get(arm, NO_REWARDS)
    return mine[0] + others[0], mine[1] + others[1], mine[2] + others[2]


def _more(phase: BanditPhase, told: Mapping[str, Sums]) -> dict[str, Sums]:
    """Returns what is told of each arm, unless more was known: counts that were lost take nothing back."""
    made = dict(phase.sums)
    for arm, (n, total, squares) in told.items():
        base = phase.base.get(arm, NO_REWARDS)
        if n - base[0] >= made.get(arm, NO_REWARDS)[0]:
            made[arm] = (n - base[0], total - base[1], squares - base[2])
    return made


def _aged(plan: BanditPlan, known: SettledPhases, now_ms: int) -> dict[str, ArmStrata]:
    factor = _factor(plan, now_ms - known.at_ms)
    return {arm: one.aged(factor) for arm, one in known.arms.items()}


def _factor(plan: BanditPlan, age_ms: int) -> float:
    factor: float = plan.discount ** (max(0, age_ms) / plan.interval_ms)
    return factor


def _not_binary(evidence: BanditEvidence) -> str:
    """Returns the first arm whose rewards cannot all be 0 or 1; "" where there is none."""
    for phase in evidence.phases:
        for arm, (n, total, squares) in phase.sums.items():
            if abs(total - squares) > _CLOSE * max(1.0, abs(total)) or not -_CLOSE <= total <= n + _CLOSE:
                return arm
    return ""
