"""What follows for a bandit: an arm that does harm is stopped, else weights move or stay. Pure."""

from collections.abc import Mapping

import numpy as np

from gateway.rollout.bandit_record import BanditRecord, analysis_of
from gateway.rollout.bandit_weights import NewWeights, Unmoved, next_weights
from gateway.rollout.evidence import findings, is_harm
from gateway.rollout.statistics.thompson import floored
from gateway.routing.document.analysis import Analysis
from gateway.routing.document.bandit_plan import BanditPlan
from gateway.routing.document.bucket import BUCKETS
from gateway.routing.document.guardrail import Action
from gateway.routing.document.strategy import Ab


def decided(
    record: BanditRecord,
    test: Ab,
    plan: BanditPlan,
    now_ms: int,
    *,
    is_killed: bool = False,
    random: np.random.Generator | None = None,
) -> NewWeights | Unmoved:
    """Returns what follows from the record. Pure: `random` are its own draws where none are given.

    An arm that is proven to do harm is stopped also while a person holds the bandit.
    """
    if is_killed:
        return Unmoved("the kill switch is on")
    analysis = analysis_of(test, plan)
    harmful = {arm: _harm_told(record, arm, analysis, "fail") for arm in record.evidence.arms}
    harmful = {arm: told for arm, told in harmful.items() if told}
    if harmful:
        return _without(record, harmful)
    if record.paused_by:
        return Unmoved(f"paused by {record.paused_by}")
    held = [f"{arm}: {told}" for arm in record.evidence.arms if (told := _harm_told(record, arm, analysis, "hold"))]
    if held:
        return Unmoved(f"held: {'; '.join(held)}")
    return next_weights(plan, record.evidence, now_ms, random if random is not None else record.random)


def _without(record: BanditRecord, harmful: Mapping[str, str]) -> NewWeights:
    """Returns the weights without those arms; the others have more, each by the same factor."""
    present = record.evidence.phases[-1].weights
    left = [arm for arm in record.evidence.arms if arm not in harmful]
    shares = np.array([present[arm] for arm in left], np.float64)
    weights = dict.fromkeys(present, 0) | dict(zip(left, floored(shares, 0, BUCKETS), strict=True))
    return NewWeights(weights, "; ".join(f"{arm} is stopped: {told}" for arm, told in harmful.items()))


def _harm_told(record: BanditRecord, arm: str, analysis: Analysis, action: Action) -> str:
    """Returns what guardrails with that action have found of the arm; "" where they have found nothing."""
    known = record.harm.get(arm)
    if known is None or not is_harm(known, analysis, action):
        return ""
    told = [one for one in findings(known, analysis) if one.action == action and one.log_e > 0]
    return "; ".join(map(str, told))
