"""Healing a store that lost what workers serve by: it gets that back, or what it holds is declared right."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from time import monotonic

from gateway.errors import FailedPrecondition, StoreUnavailable
from gateway.routing.decision.snapshot import Snapshot
from gateway.routing.store.change import Change, Replicas
from gateway.routing.store.redis_store import RedisStore
from gateway.routing.store.store_reply import Applied, StoreState, loss

LOOK_S = 1.0  # how long workers may take to follow before the store is asked whether it still has it
PAUSE_S = 0.1  # before a store that did not answer is asked again


@dataclass(frozen=True, slots=True)
class Healed:
    """What the store is from now on, who follows it, and how many replicas would keep it if its server were lost."""

    epoch: str
    revision: int
    replicas: Replicas = field(default_factory=Replicas)
    applied: Applied = field(default_factory=Applied)


async def heal_once(store: RedisStore, local: Snapshot | None, seen: StoreState, change: Change) -> Healed:
    """The store with the routes of `local`, or without it with those that it was `seen` with; nobody waited for.

    Raises: FailedPrecondition if another worker knows more than `local` does; StoreReplaced if somebody was faster.
    """
    workers = await store.workers()
    brothers = [worker for worker in workers if local is not None and worker.epoch == local.epoch]
    for worker in brothers:
        if local is not None and worker.revision > local.revision:
            raise FailedPrecondition(
                f"worker {worker.id!r} serves revision {worker.revision}, this one {local.revision}: ask again"
            )
    beyond = max((worker.head for worker in brothers), default=0)
    epoch, revision, replicas = await store.heal(seen, local, change, beyond=beyond)
    return Healed(epoch, revision, replicas)


async def heal(
    store: RedisStore, snapshot: Callable[[], Snapshot], change: Change, *, accept_store: bool, wait_s: float
) -> Healed:
    """The healed store once every live worker follows it, or with those that do not after `wait_s` (0: at once).

    One failover is often followed by another, and a healing that no replica had yet is lost with its server. Workers
    then wait as they did before it; so it is made again for as long as they are waited for.

    Raises: FailedPrecondition (the store lost nothing; another worker knows more than this one); StoreUnavailable only
            while nothing was healed.
    """
    deadline = monotonic() + wait_s
    healed = await _once(store, snapshot(), change, accept_store=accept_store)
    while (left_s := deadline - monotonic()) > 0:
        try:
            applied = await store.wait_applied(healed.revision, min(left_s, LOOK_S), epoch=healed.epoch)
            healed = replace(healed, applied=applied)
            if applied.final:
                break
            if loss(healed.epoch, healed.revision, await store.state()):
                healed = await _once(store, snapshot(), change, accept_store=accept_store)
        except (StoreUnavailable, FailedPrecondition) as error:
            healed = replace(healed, applied=Applied(laggards=("unknown",), errors={"unknown": str(error)}))
            await asyncio.sleep(PAUSE_S)
    return healed


async def _once(store: RedisStore, snapshot: Snapshot, change: Change, *, accept_store: bool) -> Healed:
    seen = await store.state()
    if not loss(snapshot.epoch, snapshot.revision, seen):
        raise FailedPrecondition("the routing store has lost nothing that this worker serves by")
    return await heal_once(store, None if accept_store else snapshot, seen, change)
