"""One bandit as the store keeps it, and what a change of the route, by the judge or by a person, makes of it."""

import hashlib
from typing import Literal

import msgspec
import numpy as np

from gateway.rollout.arm_counts import ArmCounts
from gateway.rollout.bandit_weights import BanditEvidence, BanditPhase, settled
from gateway.rollout.evidence import CanaryEvidence, new_step, no_evidence
from gateway.rollout.rollout_events import BROUGHT_BACK
from gateway.rollout.rollout_record import plan_of
from gateway.routing.decision.route import Route
from gateway.routing.document.analysis import Analysis
from gateway.routing.document.bandit_plan import BanditPlan
from gateway.routing.document.document import RouteDocument
from gateway.routing.document.strategy import Ab
from gateway.routing.store.change import JUDGE_SOURCE, ChangeEntry

BanditStage = Literal["learning", "stopped"]


class BanditRecord(msgspec.Struct, frozen=True):
    """The state of one model's bandit. `sequence` is one more with every change of it: the fence between two judges.

    `plan` tells bandits apart: arms, versions and how weights move, whatever the weights of the moment. `totals` are
    the arms' counts at `revision` when the last tick was taken; `harm` is what is known of each arm against the
    control, and `out` why an arm was stopped, by arm. `told` is what the last tick said.
    Units: milliseconds since the epoch, by the store's clock.
    """

    sequence: int
    id: str
    model: str
    plan: str
    revision: int
    started_ms: int
    tick_ms: int
    phase: BanditStage
    evidence: BanditEvidence
    harm: dict[str, CanaryEvidence] = {}
    totals: dict[str, ArmCounts] = {}
    out: dict[str, str] = {}
    paused_by: str = ""
    told: str = "it begins"
    left_ms: int = 0

    @property
    def is_running(self) -> bool:
        """Returns whether its weights may still move."""
        return self.phase != "stopped"

    @property
    def random(self) -> np.random.Generator:
        """Returns the draws of the next change: the same for every judge, and for whoever judges it again."""
        return generator(self.id, self.revision)


def generator(record_id: str, revision: int) -> np.random.Generator:
    """Returns the draws of a bandit at a revision."""
    seed = hashlib.sha256(f"{record_id}:{revision}".encode()).digest()
    return np.random.default_rng(int.from_bytes(seed[:16], "big"))


def analysis_of(test: Ab, plan: BanditPlan) -> Analysis:
    """Returns how each arm is held against the control; the chance of a false stop is shared by all of them."""
    return plan.analysis(len(test.weights) - 1)


def bandit_in(document: RouteDocument) -> tuple[Ab, BanditPlan] | None:
    """Returns the test and its bandit; None where the route has none."""
    strategy = document.strategy
    return (strategy, strategy.bandit) if isinstance(strategy, Ab) and strategy.bandit is not None else None


def followed_bandit(
    record: BanditRecord | None,
    route: Route,
    entry: ChangeEntry | None,
    now_ms: int,
    new_id: str,
) -> BanditRecord | None:
    """Returns the state of the model's bandit under the route that is in force now; None where there is none.

    `entry` is the change that made the route, None where it is not kept. A bandit whose state is lost begins anew and
    is held, as one whose weights a person has set: what a person does is not undone.
    """
    test = bandit_in(route.document)
    if test is None:
        if record is None or not record.is_running or record.revision == route.revision:
            return record
        return _over(record, route, f"the route has no bandit any more{_by(entry)}")
    if record is not None and record.revision == route.revision:
        return record
    operation = entry.operation if entry is not None else "apply"
    by_judge = entry is not None and entry.source == JUDGE_SOURCE
    weights = dict(test[0].weights)
    active = {arm for arm, weight in weights.items() if weight}
    if record is None or record.plan != plan_of(route.spec) or operation == "retry":
        new = _begun(record, route, now_ms, new_id)
        if record is None and (entry is None or by_judge):
            return _held(new, "nobody (the state of the bandit was lost)")
        return _held(new, f"{entry.actor or 'somebody'} ({operation})") if entry and operation in BROUGHT_BACK else new
    if operation == "abort":
        told = entry.reason if entry is not None and entry.reason else f"aborted{_by(entry)}"
        return _over(record, route, told)
    if not record.is_running:
        return msgspec.structs.replace(record, revision=route.revision, totals={})
    by_hand = entry is not None and not by_judge and (operation in BROUGHT_BACK or operation == "weights")
    who = f"{entry.actor or 'somebody'} ({operation})" if entry is not None else "somebody"
    if not active <= set(record.evidence.arms):  # of an arm that comes back nobody knows what it would have shown
        return _held(_begun(record, route, now_ms, new_id), who)
    record = _moved(record, route, now_ms, *test)
    if len(active) < 2:
        return _over(record, route, "; ".join(record.out.values()) or f"one arm has everything{_by(entry)}")
    return _held(record, who) if by_hand else record


def _begun(record: BanditRecord | None, route: Route, now_ms: int, new_id: str) -> BanditRecord:
    test = bandit_in(route.document)
    if test is None:
        raise TypeError(f"model {route.model!r} has no bandit")
    strategy, plan = test
    weights = dict(strategy.weights)
    others = [arm for arm, weight in weights.items() if weight and arm != strategy.control]
    analysis = analysis_of(strategy, plan)
    new = BanditRecord(
        record.sequence if record is not None else 0,
        new_id,
        route.model,
        plan_of(route.spec),
        route.revision,
        now_ms,
        now_ms,
        "learning",
        BanditEvidence((BanditPhase(route.revision, now_ms, weights),)),
        {arm: no_evidence(analysis) for arm in others},
    )
    return new if others else _over(new, route, "one arm has everything")


def _moved(record: BanditRecord, route: Route, now_ms: int, test: Ab, plan: BanditPlan) -> BanditRecord:
    """Returns the record at the route's revision; what is proven of an arm stays."""
    weights = dict(test.weights)
    *before, last = record.evidence.phases
    ended = msgspec.structs.replace(last, until_ms=now_ms)
    phases = (*before, ended, BanditPhase(route.revision, now_ms, weights))
    harm = record.harm
    if weights != last.weights:
        harm = {arm: new_step(known, analysis_of(test, plan)) for arm, known in harm.items() if weights.get(arm)}
    evidence = settled(plan, msgspec.structs.replace(record.evidence, phases=phases))
    return msgspec.structs.replace(record, revision=route.revision, totals={}, harm=harm, evidence=evidence)


def _held(record: BanditRecord, who: str) -> BanditRecord:
    return msgspec.structs.replace(record, paused_by=who) if record.is_running else record


def _over(record: BanditRecord, route: Route, told: str) -> BanditRecord:
    return msgspec.structs.replace(
        record, revision=route.revision, totals={}, phase="stopped", paused_by="", told=told, left_ms=0
    )


def _by(entry: ChangeEntry | None) -> str:
    return f" by {entry.actor}" if entry is not None and entry.actor else ""
