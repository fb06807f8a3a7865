"""Healing a store that lost what workers serve by: it gets that back, or what it holds is declared right."""

import asyncio
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from time import monotonic

from gateway.errors import FailedPrecondition, StoreDamaged, StoreUnavailable
from gateway.routing.decision.snapshot import Snapshot
from gateway.routing.store.change import Change, Healing, Replicas
from gateway.routing.store.examination import Examination, examine
from gateway.routing.store.redis_store import RedisStore
from gateway.routing.store.store_reply import Applied, loss, revision_in
from gateway.routing.store.worker_status import WorkerStatus

LOOK_S = 1.0  # how long workers may take to follow before the store is asked whether it still has it
PAUSE_S = 0.1  # before a store that did not answer is asked again


@dataclass(frozen=True, slots=True)
class Healed:
    """Holds what was wrong with the store, what it is now, who follows it, and how many replicas would keep it."""

    epoch: str
    revision: int
    replicas: Replicas = field(default_factory=Replicas)
    applied: Applied = field(default_factory=Applied)
    findings: tuple[str, ...] = ()


async def heal(
    store: RedisStore,
    snapshot: Callable[[], Snapshot],
    change: Change,
    *,
    accept_store: bool,
    wait_s: float,
    expected_revision: int | None = None,
) -> Healed:
    """The healed store once every live worker follows it, or with those that do not after `wait_s` (0: at once).

    One failover is often followed by another, and a healing that no replica had yet is lost with its server. Workers
    then wait as they did before it; so it is made again for as long as they are waited for.

    Raises: what `plan_healing` raises; StoreUnavailable only while nothing was healed.
    """
    deadline = monotonic() + wait_s
    healed = await _once(store, snapshot(), change, accept_store=accept_store, expected_revision=expected_revision)
    while (left_s := deadline - monotonic()) > 0:
        try:
            applied = await store.wait_applied(healed.revision, min(left_s, LOOK_S), epoch=healed.epoch, somebody=True)
            healed = replace(healed, applied=applied)
            if applied.final:
                break
            if loss(healed.epoch, healed.revision, await store.state()):
                healed = await _once(store, snapshot(), change, accept_store=accept_store)
        except (StoreUnavailable, FailedPrecondition) as error:
            healed = replace(healed, applied=Applied(laggards=("unknown",), errors={"unknown": str(error)}))
            await asyncio.sleep(PAUSE_S)
    return healed


async def plan_healing(
    store: RedisStore, local: Snapshot, *, accept_store: bool, expected_revision: int | None = None
) -> tuple[Healing, Examination]:
    """Returns what would be written, and what is wrong.

    1. With `accept_store` the store's own state is declared right: it gets a new epoch, and workers drop theirs.
    2. What the store lost, it gets back from `local` under its old epoch, and loses what is not in there.
    3. Where it lost nothing, its routes stay; those that are unreadable or gone come back as `local` has them.

    Keys of another type, and what is no route of a model that `local` has none of, are moved aside in any case; the
    revision is beyond all that anybody has seen.
    Raises: FailedPrecondition (nothing is wrong; the store is not at the expected revision; this worker has no rules;
            another worker knows more than this one).
    """
    examination = await examine(store, local)
    if expected_revision is not None and examination.number != expected_revision:
        raise FailedPrecondition(
            f"the routing store is at revision {examination.number}, not {expected_revision}: look at it again"
        )
    if not examination.findings:
        raise FailedPrecondition("the routing store has lost nothing that this worker serves by, and is not damaged")
    siblings = [worker for worker in await _workers(store) if worker.epoch == local.epoch]
    held = examination.state.texts.values() if examination.state is not None else ()
    known = [local.revision, *(worker.head for worker in siblings), *(revision_in(one or "") for one in held)]
    seen, wrong = (examination.epoch, examination.revision), examination.findings
    revision = 1 + max(examination.number, *known)
    strangers = tuple(model for model in examination.unreadable if model not in local.routes)
    if accept_store:
        epoch = uuid.uuid4().hex
        return Healing("accept", *seen, epoch, revision, (), True, wrong, strangers), examination
    _check_knows_most(local, siblings)
    keeps = _keeps(examination, local)
    routes = tuple(
        compiled.route for model, compiled in local.routes.items() if not keeps or model in examination.unreadable
    )
    return Healing("restore", *seen, local.epoch, revision, routes, keeps, wrong, strangers), examination


def _check_knows_most(local: Snapshot, siblings: Iterable[WorkerStatus]) -> None:
    """Raises: FailedPrecondition if this worker has no rules, or another worker has newer ones."""
    if not local.epoch:
        raise FailedPrecondition(
            "this worker serves by no rules that it could write back: ask one that does, or accept what the store has"
        )
    for worker in siblings:
        if worker.revision > local.revision:
            raise FailedPrecondition(
                f"worker {worker.id!r} serves revision {worker.revision}, this one {local.revision}: ask again"
            )


def _keeps(examination: Examination, local: Snapshot) -> bool:
    """Returns whether the store has every served route in the same or a newer revision, unreadable ones aside."""
    state = examination.state
    if state is None or examination.epoch != local.epoch.encode():
        return False
    if examination.lost and examination.number:  # a revision that is a number, and too low: writes were lost
        return False
    return all(
        model in examination.unreadable or revision_in(state.texts.get(model) or "") >= compiled.route.revision
        for model, compiled in local.routes.items()
    )


async def _workers(store: RedisStore) -> list[WorkerStatus]:
    """Live workers; none where the store has no readable list of them."""
    try:
        return await store.workers()
    except StoreDamaged:
        return []


async def _once(
    store: RedisStore, snapshot: Snapshot, change: Change, *, accept_store: bool, expected_revision: int | None = None
) -> Healed:
    healing, examination = await plan_healing(
        store, snapshot, accept_store=accept_store, expected_revision=expected_revision
    )
    epoch, revision, replicas = await store.heal(healing, change)
    return Healed(epoch, revision, replicas, findings=examination.findings)
