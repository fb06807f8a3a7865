"""The judge of bandits: by what workers count, which weights follow, each as one commit like an operator's.

Part of the judge of rollouts, which elects one process over all hosts: two that believe they are it are held apart by
the sequence of the state and the revision of the route.
"""

import logging
import math
import uuid
from collections.abc import Callable, Mapping
from typing import Final, Protocol

import msgspec

from gateway.rollout.arm_counts import NOTHING, ArmCounts
from gateway.rollout.bandit_decision import decided
from gateway.rollout.bandit_record import BanditRecord, analysis_of, bandit_in, followed_bandit
from gateway.rollout.bandit_store import BanditStore
from gateway.rollout.bandit_weights import NO_REWARDS, NewWeights, Sums, Unmoved, settled
from gateway.rollout.evidence import after_tick
from gateway.rollout.recorded_verdict import shortened
from gateway.rollout.recorded_weights import recorded_weights
from gateway.rollout.rollout_store import RolloutStore
from gateway.routing.decision.snapshot import Route
from gateway.routing.document.bandit_plan import BanditPlan
from gateway.routing.document.quantity import percent_text
from gateway.routing.document.strategy import Ab
from gateway.routing.store.change import DETAIL_LIMIT

TICK_MS: Final = 1_000
_log = logging.getLogger(__name__)


class WeightsHand(Protocol):
    """Who commits the weights that the judge has decided on, through the same door as an operator's."""

    async def reweigh(
        self, model: str, revision: int, weights: Mapping[str, str], reason: str, detail: str = ""
    ) -> None:
        """The arms have these percentages. Raises: GatewayError, StaleRevision among them."""


class BanditJudge:
    """Judges the bandits of one environment. `tell` is given each state with the one before it."""

    def __init__(
        self,
        store: BanditStore,
        counts: RolloutStore,
        hand: WeightsHand,
        tell: Callable[[BanditRecord | None, BanditRecord], None] = lambda before, after: None,
    ) -> None:
        self._store = store
        self._counts = counts
        self._hand = hand
        self._tell = tell

    async def records(self) -> dict[str, BanditRecord]:
        """Returns the state of every bandit by model. Raises: StoreUnavailable."""
        return await self._store.records()

    async def judge(self, before: BanditRecord | None, route: Route, now_ms: int) -> None:
        """Judges one bandit once. Raises: StoreUnavailable; what the commit raises."""
        moved = before is None or before.revision != route.revision
        entry = await self._counts.entry(route.model, route.revision) if moved else None
        if before is None and await self._store.is_lost(route.model):
            entry = None
        record = followed_bandit(before, route, entry, now_ms, uuid.uuid4().hex)
        test = bandit_in(route.document)
        if record is None or (test is None and record is before):
            return
        if not moved and 0 <= now_ms - record.tick_ms < TICK_MS - 500:  # less: the store's clock went back
            return
        if test is None or not record.is_running:
            if record is not before:
                await self._save(record, before)
            return
        record = await self._counted(record, route, *test, now_ms)
        step = decided(record, *test, now_ms, is_killed=route.document.kill_switch is not None)
        out = record.out
        if isinstance(step, NewWeights):
            gone = [arm for arm in record.evidence.arms if not step.weights[arm]]
            out = out | dict.fromkeys(gone, step.reason)
        left_ms = step.left_ms if isinstance(step, Unmoved) else 0
        record = msgspec.structs.replace(record, told=step.reason, left_ms=left_ms, out=out)
        if isinstance(step, Unmoved) and step.is_decided:
            record = msgspec.structs.replace(record, evidence=settled(test[1], record.evidence.decided(now_ms)))
        if not await self._save(record, before) or isinstance(step, Unmoved):
            return
        await self._carry_out(step, record, route, test[0], now_ms)

    async def end(self, record: BanditRecord) -> None:
        """Ends the bandit of a model whose route is gone."""
        if record.is_running:
            told = "its route was deleted: the newest version answers"
            over = msgspec.structs.replace(record, phase="stopped", paused_by="", told=told, left_ms=0)
            await self._save(over, record)

    async def _carry_out(self, step: NewWeights, record: BanditRecord, route: Route, test: Ab, now_ms: int) -> None:
        """Order: the evidence is kept before it is acted on; what could not be done is decided again, a tick later."""
        reason = shortened(step.reason)
        _log.info("bandit of model %s: %s", route.model, reason)
        detail = recorded_weights(record, test, step, now_ms, await self._counts.document(route.model))
        if len(detail) > DETAIL_LIMIT:  # what is right to do is done all the same
            _log.error("the evidence on model %s is too long to be recorded: %d bytes", route.model, len(detail))
            detail = ""
        weights = {arm: percent_text(weight) for arm, weight in step.weights.items()}
        await self._hand.reweigh(route.model, route.revision, weights, reason, detail)

    async def _counted(
        self, record: BanditRecord, route: Route, test: Ab, plan: BanditPlan, now_ms: int
    ) -> BanditRecord:
        """Returns the record with the tick since its totals were taken, and with all rewards that are known."""
        now = await self._counts.counts(route.revision)
        told: dict[int, Mapping[str, Sums]] = {route.revision: _sums(now, plan)}
        for revision in {phase.revision for phase in record.evidence.phases} - {route.revision}:
            told[revision] = _sums(await self._counts.counts(revision), plan)
        analysis, control = analysis_of(test, plan), test.control
        stable = now.get(control, NOTHING).since(record.totals.get(control, NOTHING))
        harm = {
            arm: after_tick(known, analysis, now.get(arm, NOTHING).since(record.totals.get(arm, NOTHING)), stable)
            for arm, known in record.harm.items()
        }
        totals = {arm: now[arm] for arm in (control, *harm) if arm in now}
        evidence = record.evidence.with_sums(told)
        return msgspec.structs.replace(record, evidence=evidence, harm=harm, totals=totals, tick_ms=now_ms)

    async def _save(self, record: BanditRecord, before: BanditRecord | None) -> bool:
        seen = before.sequence if before is not None else 0
        if not await self._store.save(record, seen):
            return False  # somebody else has judged this tick
        self._tell(before, msgspec.structs.replace(record, sequence=seen + 1))
        return True


def _sums(counts: Mapping[str, ArmCounts], plan: BanditPlan) -> dict[str, Sums]:
    """Returns the rewards of each arm. A sum that is no number says nothing."""
    sums = {arm: own.means.get(plan.metric, NO_REWARDS) for arm, own in counts.items()}
    return {arm: one for arm, one in sums.items() if one[0] and all(map(math.isfinite, one))}
