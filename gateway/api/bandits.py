"""Bandits as operators ask for them: their states with the numbers, and what people do to them."""

import math
import uuid
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from gateway.api.findings import e_value, finding_message
from gateway.errors import FailedPrecondition, NotFound, Unavailable, UnknownRoute
from gateway.pb import control_pb2 as pb
from gateway.rollout.bandit_record import BanditRecord, analysis_of, bandit_in, followed_bandit
from gateway.rollout.bandit_store import BanditStore
from gateway.rollout.bandit_weights import posterior_strata
from gateway.rollout.evidence import findings, harm_log_e, harmed
from gateway.rollout.rollout_record import plan_of
from gateway.routing.decision.route import Route
from gateway.routing.document.bucket import BUCKETS
from gateway.routing.document.document import RouteDocument
from gateway.routing.document.quantity import percent_text
from gateway.routing.store.amendment import Amendment, weigh
from gateway.routing.store.audit_trail import append
from gateway.routing.store.change import Change, Operation
from gateway.routing.store.editor import Editor
from gateway.routing.store.route_control import RouteControl

_TRIES: Final = 20


class Bandits:
    """The bandits' part of GetRollout, ListRollouts and SteerRollout."""

    def __init__(self, control: RouteControl, editor: Editor) -> None:
        self._control = control
        self._editor = editor
        self._store = BanditStore(control.store)

    async def has(self, model: str) -> bool:
        """Returns whether the model's route has a bandit."""
        route = await self._route(model)
        return route is not None and bandit_in(route.document) is not None

    async def state(self, model: str) -> pb.RolloutState:
        """Returns where it is. Raises: NotFound (nobody has looked at it yet)."""
        return bandit_message(await self._record(model), await self._route(model))

    async def states(self, routes: Mapping[str, Route]) -> dict[str, pb.RolloutState]:
        """Returns where all are, by model."""
        records = await self._store.records()
        return {
            model: bandit_message(await self._present(record, routes.get(model)), routes.get(model))
            for model, record in records.items()
        }

    async def check_goes_on(self, applied: RouteDocument, document: RouteDocument) -> None:
        """Returns if the document may be applied after the other one: a bandit that is running goes on under it.

        Raises: FailedPrecondition (it would end, and what it has learnt would be lost).
        """
        if bandit_in(applied) is None or (bandit_in(document) is not None and plan_of(document) == plan_of(applied)):
            return
        await self._admit(document.model, "this document")

    async def admit_deletion(self, model: str) -> None:
        """Returns if the route may go. Raises: FailedPrecondition (a bandit of it is running)."""
        await self._admit(model, "this")

    async def _admit(self, model: str, what: str) -> None:
        record = await self._store.record(model)
        if record is not None and record.is_running:
            raise FailedPrecondition(
                f"model {model!r}: a bandit is running, and {what} would end it: abort it first "
                "(gateway rollout abort), or give --override"
            )

    async def pause(self, model: str, change: Change) -> None:
        def edit(record: BanditRecord) -> BanditRecord:
            _running(record)
            return msgspec.structs.replace(record, paused_by=change.actor or "somebody")

        await self._change("rollout.pause", model, change, edit)

    async def resume(self, model: str, change: Change) -> None:
        def edit(record: BanditRecord) -> BanditRecord:
            _running(record)
            if not record.paused_by:
                raise FailedPrecondition(f"model {model!r}: its bandit is not held by anybody: {record.told}")
            return msgspec.structs.replace(record, paused_by="")

        await self._change("rollout.resume", model, change, edit)

    async def abort(self, model: str, change: Change) -> None:
        """Everything to the control, at once. Raises: FailedPrecondition (it is over)."""
        _running(await self._record(model))
        test = bandit_in((await self._control.get(model)).document)
        assert test is not None
        weights = {arm: percent_text(BUCKETS if arm == test[0].control else 0) for arm, _ in test[0].weights}
        await self._reweigh("abort", model, weights, change)

    async def retry(self, model: str, change: Change) -> None:
        """The document's weights again, with no evidence. Raises: FailedPrecondition (it is running)."""
        record, spec = await self._record(model), (await self._control.get(model)).spec
        if record.is_running:
            raise FailedPrecondition(f"model {model!r}: its bandit is running; abort it first")
        test = bandit_in(spec)
        assert test is not None
        await self._reweigh("retry", model, {arm: percent_text(share) for arm, share in test[0].weights}, change)

    async def _reweigh(self, operation: Operation, model: str, weights: dict[str, str], change: Change) -> None:
        amendment = Amendment(operation, lambda document: weigh(document, weights))
        await self._editor.amend(model, amendment, change=change, check=operation != "abort")

    async def _change(
        self, operation: str, model: str, change: Change, edit: Callable[[BanditRecord], BanditRecord]
    ) -> None:
        """Order: what cannot be done is refused before it is recorded, and recorded before it takes effect."""
        edit(await self._record(model))
        await append(self._control.store, operation, model=model, change=change, once=uuid.uuid4().hex)
        for _ in range(_TRIES):  # the judge writes the state once a second
            record = await self._record(model)
            if await self._store.save(edit(record), record.sequence):
                return
        raise Unavailable(f"model {model!r}: the state of its bandit changed {_TRIES} times meanwhile: try again")

    async def _record(self, model: str) -> BanditRecord:
        """Returns the state under the route that is in force. Raises: NotFound."""
        record = await self._store.record(model)
        if record is None:
            raise NotFound(f"model {model!r}: its bandit has not been judged yet; the judge looks once a second")
        return await self._present(record, await self._route(model))

    async def _route(self, model: str) -> Route | None:
        try:
            return await self._control.get(model)
        except UnknownRoute:
            return None

    async def _present(self, record: BanditRecord, route: Route | None) -> BanditRecord:
        """Returns the state under that route: what was changed a moment ago the judge has not seen yet."""
        if route is None or route.revision == record.revision:
            return record
        entry = await self._control.store.entry(record.model, route.revision)
        return followed_bandit(record, route, entry, await self._control.store.now_us() // 1000, record.id) or record


def bandit_message(record: BanditRecord, route: Route | None) -> pb.RolloutState:
    """Returns a bandit as the control service tells it; without its route, what the record alone says."""
    test = bandit_in(route.document) if route is not None else None
    message = pb.RolloutState(
        model=record.model,
        id=record.id,
        phase=record.phase,
        revision=record.revision,
        told=record.told,
        left_ms=record.left_ms,
        paused_by=record.paused_by,
        started_at_us=record.started_ms * 1000,
        judged_at_us=record.tick_ms * 1000,
        strategy="bandit",
    )
    if test is None or route is None or record.plan != plan_of(route.spec):
        return message
    strategy, plan = test
    analysis = analysis_of(strategy, plan)
    message.bound = 1 / analysis.alpha
    message.stable_version = route.document.version_of(strategy.control)
    message.harmed = sum(max(0.0, harmed(known)) for known in record.harm.values())
    for arm, known in sorted(record.harm.items()):
        message.evidence = max(message.evidence, e_value(harm_log_e(known, analysis)))
        for finding in findings(known, analysis):
            told = finding_message(finding)
            told.kind, told.text = f"{arm}: {told.kind}", f"{arm}: {told.text}"
            message.findings.append(told)
    strata = posterior_strata(plan, record.evidence, record.tick_ms)
    rewards = record.evidence.rewards
    for arm, weight in strategy.weights:
        known_of = strata.get(arm)
        is_known = known_of is not None and known_of.rewards > 0
        message.arms.append(
            pb.BanditArm(
                arm=arm,
                version=route.document.version_of(arm),
                percent=weight / BUCKETS * 100,
                rewards=rewards.get(arm, 0),
                counted=known_of.rewards if known_of is not None else 0.0,
                mean=known_of.value if known_of is not None and is_known else math.nan,
                out=record.out.get(arm, "" if weight else "it has no weight"),
            )
        )
    return message


def _running(record: BanditRecord) -> None:
    if not record.is_running:
        raise FailedPrecondition(f"model {record.model!r}: its bandit is over: {record.told}")
