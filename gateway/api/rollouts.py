"""Rollouts as operators ask for them: their states with the numbers, and what people do to them."""

import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from gateway.api.bandits import Bandits
from gateway.api.findings import e_value, finding_message
from gateway.api.hand_driven import hand_driven, hand_driven_message, hand_edit
from gateway.api.route_messages import change_of, named
from gateway.errors import FailedPrecondition, InvalidArgument, NotFound, Unavailable, UnknownRoute
from gateway.pb import control_pb2 as pb
from gateway.rollout.bandit_record import bandit_in
from gateway.rollout.capacity import CapacityForecast, cpu_seconds_per_1000
from gateway.rollout.evidence import CanaryEvidence, findings, harm_log_e, harmed
from gateway.rollout.guardrail_evidence import Finding
from gateway.rollout.post_promotion import WatchedMetric
from gateway.rollout.rollout_events import canary_of, followed
from gateway.rollout.rollout_record import UNJUDGED, RolloutRecord, plan_of
from gateway.rollout.rollout_store import RolloutStore
from gateway.rollout.steering import aborted, approved, check_goes_on, ends, paused, resumed, skipped
from gateway.routing.decision.route import Route
from gateway.routing.document.bucket import BUCKETS
from gateway.routing.document.document import RouteDocument
from gateway.routing.document.strategy import BlueGreen, Canary, ramp_of
from gateway.routing.store.amendment import Amendment, abort, resume, retry, revert
from gateway.routing.store.audit_trail import append
from gateway.routing.store.change import Change
from gateway.routing.store.editor import Editor
from gateway.routing.store.route_control import RouteControl
from gateway.routing.store.route_reader import RouteReader

_TRIES: Final = 20


class Rollouts:
    """Serves GetRollout, ListRollouts, SteerRollout and ApproveStep."""

    def __init__(self, control: RouteControl) -> None:
        self._control = control
        self._editor = Editor(control)
        self._store = RolloutStore(control.store, RouteReader(control.store))
        self._bandits = Bandits(control, self._editor)
        self._bandit_verbs: Mapping[int, Callable[[str, Change], Awaitable[None]]] = {
            pb.SteerRolloutRequest.PAUSE: self._bandits.pause,
            pb.SteerRolloutRequest.RESUME: self._bandits.resume,
            pb.SteerRolloutRequest.ABORT: self._bandits.abort,
            pb.SteerRolloutRequest.RETRY: self._bandits.retry,
        }
        self._verbs: Mapping[int, Callable[[str, Change], Awaitable[None]]] = {
            pb.SteerRolloutRequest.PAUSE: self._pause,
            pb.SteerRolloutRequest.RESUME: self._resume,
            pb.SteerRolloutRequest.ABORT: self._abort,
            pb.SteerRolloutRequest.RETRY: self._retry,
        }

    async def get(self, request: pb.GetRolloutRequest, context: object) -> pb.RolloutState:
        return await self._state(named(request.model))

    async def list(self, request: pb.ListRolloutsRequest, context: object) -> pb.ListRolloutsResponse:
        records, routes = await self._store.records(), await self._store.routes()
        states = {
            model: _message(await self._present(record, routes.get(model)), routes.get(model))
            for model, record in records.items()
        }
        for model, state in (await self._bandits.states(routes)).items():
            if model not in states or state.phase != "stopped":  # a model has one of them at a time
                states[model] = state
        return pb.ListRolloutsResponse(rollouts=[states[model] for model in sorted(states)])

    async def steer(self, request: pb.SteerRolloutRequest, context: object) -> pb.RolloutState:
        model = named(request.model)
        if request.verb in self._verbs and hand_driven(await self._route(model)) is not None:
            edit = hand_edit(model, request.verb)
            await self._editor.amend(model, edit, change=change_of(request.change, context), check=False)
            return await self._state(model)
        verbs = self._bandit_verbs if await self._bandits.has(model) else self._verbs
        carry_out = verbs.get(request.verb)
        if carry_out is None:
            raise InvalidArgument(f"verb: {request.verb} is none of PAUSE, RESUME, ABORT and RETRY")
        await carry_out(model, change_of(request.change, context))
        return await self._state(model)

    async def approve(self, request: pb.ApproveStepRequest, context: object) -> pb.RolloutState:
        model, change = named(request.model), change_of(request.change, context)
        canary = canary_of((await self._control.get(model)).document)
        if canary is None:
            raise FailedPrecondition(f"model {model!r}: its route has no canary that moves by itself")
        await self._change(
            "rollout.approve", model, change, lambda record: approved(record, canary, request.step, change.actor)
        )
        return await self._state(model)

    async def admit(self, document: RouteDocument, *, override: bool) -> None:
        """Returns if the document may be applied.

        Raises: FailedPrecondition (it would end a rollout that is running), unless `override`.
        """
        await self.admit_edit(document.model, lambda _: document, override=override)

    async def admit_edit(self, model: str, edit: Callable[[RouteDocument], RouteDocument], *, override: bool) -> None:
        """Returns if what was applied may be edited so. Raises: as `admit`; what `edit` raises."""
        if override:
            return
        try:
            applied = (await self._control.get(model)).spec
        except UnknownRoute:
            return
        await self.admit_between(applied, edit(applied))

    async def admit_between(self, applied: RouteDocument, document: RouteDocument) -> None:
        """Returns if what was applied may be replaced by the document. Raises: as `admit`."""
        record = await self._store.record(applied.model)
        if record is not None and record.is_running:
            check_goes_on(record, applied, document)
        if bandit_in(applied) is not None:
            await self._bandits.check_goes_on(applied, document)

    async def admit_flip(self, model: str, arm: str = "", *, override: bool) -> str:
        """Returns what of the preview's way to everybody a flip to `arm` by hand skips, in words; "" where nothing.

        Raises: FailedPrecondition (it skips something), unless `override`.
        """
        route = await self._route(model)
        strategy = route.document.strategy if route is not None else None
        canary = ramp_of(strategy) if strategy is not None else None
        if route is None or not isinstance(strategy, BlueGreen) or canary is None or arm == strategy.active:
            return ""
        if strategy.plan.pre_promotion is None:
            return ""
        written = await self._store.record(model)
        record = await self._present(written, route) if written is not None else None
        if record is not None and record.plan != plan_of(route.document):
            record = None
        left = skipped(record, canary, await self._store.now_ms())
        if left and not override:
            raise FailedPrecondition(
                f"model {model!r}: before version {route.document.version_of(canary.canary)} gets everybody: {left}; "
                "wait for it, or give --override to skip it"
            )
        return left

    async def check_ready(self, model: str) -> None:
        """Returns if every live worker could flip at once. Raises: FailedPrecondition (a preview is not loaded yet)."""
        route = await self._route(model)
        canary = canary_of(route.document) if route is not None else None
        if route is None or canary is None or not canary.previews:
            return
        if late := await self._store.laggards(route.revision):
            raise FailedPrecondition(
                f"model {model!r}: version {route.document.version_of(canary.canary)} is not loaded by every worker: "
                f"{', '.join(late)}; wait for them (gateway workers), or pin the arm"
            )

    async def admit_deletion(self, model: str, *, override: bool) -> None:
        """Returns if the route may go. Raises: FailedPrecondition (a rollout of it is running), unless `override`."""
        record = await self._store.record(model)
        if record is not None and record.is_running and not override:
            raise ends(record, "this")
        if not override:
            await self._bandits.admit_deletion(model)

    async def _pause(self, model: str, change: Change) -> None:
        await self._change("rollout.pause", model, change, lambda record: paused(record, change.actor))

    async def _resume(self, model: str, change: Change) -> None:
        record = await self._record(model)
        document = (await self._control.get(model)).document
        canary = canary_of(document)
        if document.kill_switch is not None:
            raise FailedPrecondition(
                f"model {model!r}: its kill switch is on ({document.kill_switch.reason}); unkill it"
            )
        if record.state.paused_by:
            await self._change("rollout.resume", model, change, resumed)
        elif not (record.is_running and canary is not None and canary.weight is not None):
            raise FailedPrecondition(f"model {model!r}: its rollout is not held by anybody: {record.told}")
        if canary is not None and canary.weight is not None and record.state.phase == "ramping":
            await self._editor.amend(model, Amendment("resume", resume), change=change)

    async def _abort(self, model: str, change: Change) -> None:
        record = await self._record(model)
        if not record.is_running:
            raise FailedPrecondition(f"model {model!r}: its rollout is over ({record.state.phase}: {record.told})")
        edit = revert if record.state.phase == "watching" else abort
        done = await self._editor.amend(model, Amendment("abort", edit), change=change, check=False)
        if (
            done.change.unchanged
        ):  # it had no share already; without this the rollout would go on when it gets one again
            await self._change(
                "rollout.abort", model, change, lambda record: aborted(record, change.actor, change.reason)
            )

    async def _retry(self, model: str, change: Change) -> None:
        record = await self._record(model)
        if record.is_running:
            raise FailedPrecondition(f"model {model!r}: its rollout is running ({record.told_phase}); abort it first")
        if record.state.phase == "promoted":
            raise FailedPrecondition(
                f"model {model!r}: version {record.versions[0]} has everything; the next begins with another document"
            )
        await self._editor.amend(model, Amendment("retry", retry), change=change)

    async def _change(
        self, operation: str, model: str, change: Change, edit: Callable[[RolloutRecord], RolloutRecord]
    ) -> None:
        """Order: what cannot be done is refused before it is recorded, and recorded before it takes effect."""
        edit(await self._record(model))
        # An entry for each: a key that was used before would leave the change unrecorded.
        await append(self._control.store, operation, model=model, change=change, once=uuid.uuid4().hex)
        for _ in range(_TRIES):  # the judge writes the state once a second
            record = await self._record(model)
            changed = edit(record)
            if await self._store.save(changed, record.sequence):
                return
        raise Unavailable(f"model {model!r}: the state of its rollout changed {_TRIES} times meanwhile: try again")

    async def _record(self, model: str) -> RolloutRecord:
        """Returns the state under the route that is in force. Raises: NotFound."""
        return await self._present(await self._written(model), await self._route(model))

    async def _written(self, model: str) -> RolloutRecord:
        record = await self._store.record(model)
        if record is None:
            raise NotFound(
                f"model {model!r} has no rollout: apply a judged canary, or blue-green with a plan, "
                "and the judge takes it up"
            )
        return record

    async def _route(self, model: str) -> Route | None:
        try:
            return await self._control.get(model)
        except UnknownRoute:
            return None

    async def _state(self, model: str) -> pb.RolloutState:
        if await self._bandits.has(model):
            return await self._bandits.state(model)
        route = await self._route(model)
        canary = hand_driven(route)
        if route is not None and canary is not None:
            return hand_driven_message(route, canary)
        return _message(await self._record(model), route)

    async def _present(self, record: RolloutRecord, route: Route | None) -> RolloutRecord:
        """Returns the state under that route: what was changed a moment ago the judge has not seen yet."""
        if route is None or route.revision == record.revision:
            return record
        entry = await self._store.entry(record.model, route.revision)
        return followed(record, route, entry, await self._store.now_ms(), record.id) or record


def _message(record: RolloutRecord, route: Route | None) -> pb.RolloutState:
    canary: Canary | None = canary_of(route.document) if route is not None else None
    analysis = (canary.analysis if canary is not None else None) or UNJUDGED
    state = record.state
    told: list[Finding] = []
    evidence = 0.0
    watched = (
        [_watched(metric) for metric in record.watch.metrics] if record.watch and state.phase == "watching" else []
    )
    # The numbers are those of the plan that they were counted under.
    if canary is not None and len(state.evidence.guardrails) == len(analysis.effective_guardrails):
        told = list(findings(state.evidence, analysis))
        evidence = e_value(harm_log_e(state.evidence, analysis))
    waits = canary is not None and state.phase == "ramping" and state.step < len(canary.steps)
    return pb.RolloutState(
        model=record.model,
        id=record.id,
        phase=record.told_phase,
        step=state.step,
        steps=len(canary.steps) if canary is not None else 0,
        revision=record.revision,
        told=record.told,
        left_ms=record.left_ms,
        paused_by=state.paused_by,
        approved_by=state.approved_by,
        approvers=canary.steps[state.step].gate.approval if canary is not None and waits else (),
        evidence=evidence,
        bound=1 / analysis.alpha,
        harmed=harmed(state.evidence),
        started_at_us=record.started_ms * 1000,
        judged_at_us=record.tick_ms * 1000,
        findings=watched or [finding_message(finding) for finding in told],
        stable_version=record.versions[0],
        canary_version=record.versions[1],
        capacity=_capacity(state.capacity) if state.capacity is not None else None,
        costs=_costs(canary, state.evidence) if canary is not None else (),
        strategy=record.strategy,
    )


def _capacity(forecast: CapacityForecast) -> pb.RolloutCapacity:
    return pb.RolloutCapacity(
        cores=forecast.cores,
        now=forecast.now,
        at_next=forecast.at_next,
        after_rollback=forecast.after_rollback,
        next_percent=forecast.next_weight / BUCKETS * 100,
        assumed=forecast.assumed,
    )


def _costs(canary: Canary, evidence: CanaryEvidence) -> list[pb.ArmCost]:
    costs = (
        (arm, cpu_seconds_per_1000(counts))
        for arm, counts in zip((canary.canary, canary.stable), evidence.whole, strict=True)
    )
    return [pb.ArmCost(arm=arm, cpu_seconds_per_1000=cost) for arm, cost in costs if cost is not None]


def _watched(metric: WatchedMetric) -> pb.RolloutFinding:
    """Returns a rate that is watched after the promotion: there is no other arm, so its limit stands for the ratio."""
    return pb.RolloutFinding(
        kind=metric.kind,
        action="fail",
        verdict="inconclusive" if metric.requests else "nodata",
        evidence=e_value(metric.log_e),
        stable=metric.requests,
        stable_events=metric.events,
        text=f"{metric.kind}: {metric.events} of {metric.requests}, the limit is {metric.limit:.2%}",
    )
