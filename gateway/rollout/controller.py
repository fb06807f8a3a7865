"""The judge: once a second, for each canary that moves by itself, what it did, what that proves, and what follows.

One process of all hosts judges at a time; two that believe they do are held apart by the sequence of the state and the
revision of the route. While the store is away, or nobody judges, weights stay as they are.
"""

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from time import time
from typing import Final, Protocol

import msgspec

from gateway.errors import GatewayError, StoreDamaged, StoreForbidden, StoreUnavailable
from gateway.rollout.arm_counts import NOTHING, ArmCounts
from gateway.rollout.bandit_judge import BanditJudge
from gateway.rollout.bandit_record import BanditRecord, bandit_in
from gateway.rollout.capacity import LoadSample, LoadWindow, forecast_load
from gateway.rollout.evidence import after_tick, no_evidence, with_answer
from gateway.rollout.offline_verdict import OfflineVerdict
from gateway.rollout.post_promotion import after_watched_tick, watched_harm
from gateway.rollout.ramp import Advance, Ask, Finish, Hold, Promote, Step, Stop, next_step, not_ahead, standing
from gateway.rollout.recorded_verdict import recorded, shortened
from gateway.rollout.rollout_events import canary_of, followed
from gateway.rollout.rollout_record import UNJUDGED, RolloutRecord
from gateway.rollout.rollout_store import LEASE_MS, RolloutStore
from gateway.rollout.rollout_story import told_rollout
from gateway.rollout.split_watch import SplitMismatch, SplitWatch
from gateway.rollout.step_gates import GateQuestion, StepGates
from gateway.routing.decision.snapshot import Route
from gateway.routing.document.analysis import Analysis
from gateway.routing.document.bucket import BUCKETS
from gateway.routing.document.guardrail import FEEDBACK
from gateway.routing.document.offline_check import OfflineCheck
from gateway.routing.document.quantity import percent_text
from gateway.routing.document.strategy import Canary
from gateway.routing.store.change import DETAIL_LIMIT

TICK_S: Final = 1.0
# So often nobody judges while a lease passes from one host to another.
_HANDOVER_LOOKS: Final = round(LEASE_MS / 1000 / TICK_S)
NO_REPLAYER: Final = OfflineVerdict("nodata", "nothing was replayed: nobody here can replay")
_log = logging.getLogger(__name__)


class RolloutHand(Protocol):
    """Who carries out what the judge decides, each as one commit through the same door as an operator's.

    `detail` is what the audit entry carries: the evidence that the decision follows from (`recorded_verdict`).

    Raises: GatewayError, StaleRevision among them: somebody else was faster, and is right.
    """

    async def advance(self, model: str, revision: int, reason: str, detail: str = "") -> None:
        """The canary is at its next step."""

    async def promote(self, model: str, revision: int, reason: str, detail: str = "") -> None:
        """The canary's version is the stable one."""

    async def abort(self, model: str, revision: int, reason: str, detail: str = "") -> None:
        """The canary has no share."""

    async def revert(self, model: str, revision: int, reason: str, detail: str = "") -> None:
        """The version that was stable before the promotion is it again, and the other has no share."""

    async def reweigh(
        self, model: str, revision: int, weights: Mapping[str, str], reason: str, detail: str = ""
    ) -> None:
        """The arms of a bandit have these percentages."""


class OfflineReplayer(Protocol):
    """Who replays logged requests for a rollout, in a process of its own."""

    def ask(self, record: RolloutRecord, check: OfflineCheck) -> OfflineVerdict | None:
        """Returns the verdict, None while it is being found out; the first call begins."""


class RolloutController:
    """Judges the rollouts of one environment. `tell` is given each record whose phase or step is new.

    Without an `offline` replayer nothing can be replayed, and rollouts that begin so are told so.
    """

    def __init__(
        self,
        store: RolloutStore,
        hand: RolloutHand,
        holder: str,
        *,
        tell: Callable[[RolloutRecord | None, RolloutRecord], None] = lambda before, after: None,
        tell_split: Callable[[SplitMismatch], None] = lambda found: None,
        tell_bandit: Callable[[BanditRecord | None, BanditRecord], None] = lambda before, after: None,
        offline: OfflineReplayer | None = None,
        gates: StepGates | None = None,
    ) -> None:
        self._gates = gates or StepGates(None, wall_s=time)
        self._store = store
        self._hand = hand
        self._holder = holder
        self._tell = tell
        self._offline = offline
        self._standing: dict[str, str] = {}
        self._unled_looks = 0  # in a row, while something should move
        self._splits = SplitWatch(store, tell_split)
        self._bandits = BanditJudge(store.bandits, store, hand, tell_bandit)
        self._loads: dict[str, LoadWindow] = {}
        self.leads = False

    async def run(self) -> None:
        """Judges for ever."""
        while True:
            try:
                await self.step()
            except StoreUnavailable as error:
                self.leads = False
                if isinstance(error, StoreDamaged):
                    self._stands("", error)
                else:
                    _log.debug("rollouts stand still: %s", error)
            await asyncio.sleep(TICK_S)

    async def step(self) -> None:
        """Judges once, if this process is the one that does. Raises: StoreUnavailable."""
        try:
            self.leads = await self._store.lead(self._holder)
        except StoreForbidden as error:
            self.leads = False
            await self._left_to_others(error)
        if not self.leads:
            return
        routes, records = await self._store.routes(), await self._store.records()
        now_ms = await self._store.now_ms()
        self._gates.forget({record.id for record in records.values() if record.is_running})
        canaries = {model for model, route in routes.items() if canary_of(route.document)}
        await self._each(sorted(records.keys() | canaries), partial(self._follow, routes, records, now_ms))
        bandits = await self._bandits.records()
        tests = {model for model, route in routes.items() if bandit_in(route.document)}
        await self._each(sorted(bandits.keys() | tests), partial(self._follow_bandit, routes, bandits, now_ms))
        await self._splits.look(routes, now_ms)
        self._standing.pop("", None)

    async def _left_to_others(self, error: StoreForbidden) -> None:
        """Says so where no host judges and something should move: a lease is what a host whose user may judge has.

        For less than the time of a lease that means nothing: the host that judged has gone, and another takes over.
        """
        if await self._store.is_led() or not await self._is_any_waiting():
            self._unled_looks = 0
            self._standing.pop("", None)
            return
        self._unled_looks += 1
        if self._unled_looks > _HANDOVER_LOOKS:
            self._stands("", error)

    async def _is_any_waiting(self) -> bool:
        """Returns whether anything would move if somebody judged."""
        records = await self._store.records()
        for model, route in (await self._store.routes()).items():
            record = records.get(model)
            if canary_of(route.document) is not None and (record is None or record.is_running):
                return True
            if bandit_in(route.document) is not None:
                return True
        return False

    async def _each(self, models: Iterable[str], judge: Callable[[str], Awaitable[None]]) -> None:
        """Judges each, whatever becomes of the others. Raises: StoreUnavailable."""
        for model in models:
            try:
                await judge(model)
                self._standing.pop(model, None)
            except StoreDamaged as error:
                self._stands(model, error)
            except StoreUnavailable:
                raise
            except Exception as error:
                # The boundary of a rollout: one that cannot move costs itself, the others are judged all the same.
                self._stands(model, error)

    async def _follow(
        self, routes: Mapping[str, Route], records: Mapping[str, RolloutRecord], now_ms: int, model: str
    ) -> None:
        if model in routes:
            await self._judge(records.get(model), routes[model], now_ms)
        else:
            await self._end(records[model])

    async def _follow_bandit(
        self, routes: Mapping[str, Route], records: Mapping[str, BanditRecord], now_ms: int, model: str
    ) -> None:
        if model in routes:
            await self._bandits.judge(records.get(model), routes[model], now_ms)
        else:
            await self._bandits.end(records[model])

    async def _end(self, record: RolloutRecord) -> None:
        """Ends the rollout of a model whose route is gone."""
        if record.is_running:
            state = msgspec.structs.replace(record.state, phase="stopped", paused_by="")
            told = "its route was deleted: the newest version answers"
            await self._save(msgspec.structs.replace(record, state=state, told=told, left_ms=0), record)

    def _stands(self, model: str, error: Exception) -> None:
        """Logs why a rollout does not move, once for each reason."""
        reason = f"{type(error).__name__}: {error}"
        if self._standing.get(model) != reason:
            self._standing[model] = reason
            known = isinstance(error, GatewayError)
            what = f"the rollout of model {model} stands" if model else "all rollouts stand"
            _log.warning("%s still: %s", what, reason, exc_info=None if known else error)

    async def _judge(self, before: RolloutRecord | None, route: Route, now_ms: int) -> None:
        moved = before is None or before.revision != route.revision
        entry = await self._store.entry(route.model, route.revision) if moved else None
        lost = before is None and await self._store.is_lost(route)
        record = followed(before, route, entry, now_ms, uuid.uuid4().hex, is_lost=lost)
        if record is None:
            return
        canary = canary_of(route.document)
        if canary is None or not record.is_running:
            if record != before:
                await self._save(record, before)
            return
        analysis = canary.analysis or UNJUDGED
        if len(record.state.evidence.guardrails) != len(
            analysis.effective_guardrails
        ):  # of a release that judged others
            state = msgspec.structs.replace(record.state, evidence=no_evidence(analysis))
            record = msgspec.structs.replace(record, state=state)
        tick_ms = analysis.tick_ms
        if not moved and 0 <= now_ms - record.tick_ms < tick_ms - 500:  # less: the store's clock went back
            return
        killed = route.document.kill_switch is not None
        state = standing(not_ahead(record.state, now_ms), canary, now_ms - record.tick_ms, killed=killed)
        record = msgspec.structs.replace(record, state=state)
        record = record.at_revision()
        now, loads = await self._store.told(route.revision)
        phases = await self._phases(record, canary, now) if FEEDBACK in analysis.counted else ()
        record = _counted(record, canary, now, phases, now_ms)
        record = self._answered(record, analysis, now_ms)
        record = self._forecast(record, canary, LoadSample(now_ms, loads, _rows(canary, now)))
        if not killed:
            record = await self._replayed(record, canary)
        harmful = ""
        if record.watch is not None and canary.analysis is not None:
            harmful = watched_harm(record.watch, canary.analysis)
        seen = record.watch is not None and any(metric.requests for metric in record.watch.metrics)
        step = next_step(canary, record.state, now_ms, killed=killed, watched=harmful, is_watched=seen)
        if isinstance(step, Promote) and canary.previews and (late := await self._store.laggards(route.revision)):
            step = Hold(f"the preview is not loaded by every worker: {', '.join(late)}")
        record = _said(record, step)
        if not await self._save(record, before):
            return
        if isinstance(step, Ask):
            self._ask(record, canary, analysis, step)
        else:
            await self._carry_out(step, route, record, canary, now_ms)

    async def _replayed(self, record: RolloutRecord, canary: Canary) -> RolloutRecord:
        """Returns the record with the verdict of its replay, where its step is one and the verdict has come.

        Order: the audit trail has it before the state does.
        """
        state = record.state
        check = canary.steps[state.step].offline if state.phase == "ramping" else None
        if check is None or state.offline is not None or canary.weight is not None:
            return record
        verdict = self._offline.ask(record, check) if self._offline is not None else NO_REPLAYER
        if verdict is None:
            return record
        await self._store.record_offline(record, verdict)
        return msgspec.structs.replace(record, state=msgspec.structs.replace(state, offline=verdict))

    def _forecast(self, record: RolloutRecord, canary: Canary, sample: LoadSample) -> RolloutRecord:
        """Returns the record with what the next step makes of the load; None of it where nobody knows."""
        window = self._loads.setdefault(record.model, LoadWindow())
        window.add(sample)
        present, state = window.load(), record.state
        forecast = None
        if present is not None and state.phase == "ramping":
            following = state.step + 1
            next_weight = canary.steps[following].weight if following < len(canary.steps) else BUCKETS
            own, stable = state.evidence.whole
            forecast = forecast_load(present, own, stable, canary.active_weight, next_weight)
        state = msgspec.structs.replace(state, capacity=forecast, is_early=window.is_early)
        return msgspec.structs.replace(record, state=state)

    def _answered(self, record: RolloutRecord, analysis: Analysis, now_ms: int) -> RolloutRecord:
        """Returns the record with what was answered since the last tick."""
        evidence = record.state.evidence
        for place, guardrail in enumerate(analysis.effective_guardrails):
            if guardrail.kind.asked:
                answer = self._gates.take(GateQuestion(record.id, record.state.step, place), now_ms)
                evidence = with_answer(evidence, place, answer) if answer is not None else evidence
        return msgspec.structs.replace(record, state=msgspec.structs.replace(record.state, evidence=evidence))

    def _ask(self, record: RolloutRecord, canary: Canary, analysis: Analysis, step: Ask) -> None:
        known = told_rollout(record, analysis) | {
            "versions": {"stable": record.versions[0], "canary": record.versions[1]},
            "steps": [percent_text(one.weight) for one in canary.steps],
        }
        for place in step.guardrails:
            question = GateQuestion(record.id, record.state.step, place)
            self._gates.ask(question, analysis.effective_guardrails[place], known)

    async def _phases(
        self, record: RolloutRecord, canary: Canary, now: Mapping[str, ArmCounts]
    ) -> tuple[tuple[ArmCounts, ArmCounts], ...]:
        """Returns the totals of both arms, canary first, at each revision that the rollout was at."""
        counts = [await self._store.counts(revision) for revision in record.revisions[:-1]]
        return tuple((one.get(canary.canary, NOTHING), one.get(canary.stable, NOTHING)) for one in (*counts, now))

    async def _save(self, record: RolloutRecord, before: RolloutRecord | None) -> bool:
        seen = before.sequence if before is not None else 0
        if not await self._store.save(record, seen):
            return False  # somebody else has judged this tick
        self._tell(before, msgspec.structs.replace(record, sequence=seen + 1))
        return True

    async def _carry_out(self, step: Step, route: Route, record: RolloutRecord, canary: Canary, now_ms: int) -> None:
        """Order: the evidence is kept before it is acted on; what could not be done is decided again, a tick later."""
        if isinstance(step, Hold | Ask | Finish):
            return
        stop = self._hand.revert if record.state.phase == "watching" else self._hand.abort
        act = {Advance: self._hand.advance, Promote: self._hand.promote, Stop: stop}[type(step)]
        reason = shortened(step.reason)
        _log.info("rollout of model %s: %s: %s", route.model, type(step).__name__.lower(), reason)
        detail = recorded(record, canary, step, now_ms, await self._store.document(route.model))
        if len(detail) > DETAIL_LIMIT:  # what is right to do is done all the same
            _log.error("the evidence on model %s is too long to be recorded: %d bytes", route.model, len(detail))
            detail = ""
        await act(route.model, route.revision, reason, detail)


def _rows(canary: Canary, now: Mapping[str, ArmCounts]) -> int:
    return sum(sum(now[arm].run_rows) for arm in (canary.stable, canary.canary) if arm in now)


def _counted(
    record: RolloutRecord,
    canary: Canary,
    now: Mapping[str, ArmCounts],
    phases: tuple[tuple[ArmCounts, ArmCounts], ...],
    now_ms: int,
) -> RolloutRecord:
    """Returns the record with the tick since its totals were taken."""
    stable, own = (
        now.get(arm, NOTHING).since(record.totals.get(arm, NOTHING)) for arm in (canary.stable, canary.canary)
    )
    totals = {arm: now.get(arm, NOTHING) for arm in (canary.stable, canary.canary)}
    record = msgspec.structs.replace(record, totals=totals, tick_ms=now_ms)
    if record.state.phase == "watching":
        watch = record.watch
        return msgspec.structs.replace(record, watch=after_watched_tick(watch, stable) if watch is not None else None)
    evidence = after_tick(record.state.evidence, canary.analysis or UNJUDGED, own, stable, phases)
    return msgspec.structs.replace(record, state=msgspec.structs.replace(record.state, evidence=evidence))


def _said(record: RolloutRecord, step: Step) -> RolloutRecord:
    left_ms = step.left_ms if isinstance(step, Hold) else 0
    record = msgspec.structs.replace(record, told=step.reason, left_ms=left_ms)
    if isinstance(step, Finish):
        state = msgspec.structs.replace(record.state, phase="promoted")
        return msgspec.structs.replace(record, state=state)
    return record
