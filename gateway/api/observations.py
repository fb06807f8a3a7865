"""Observations for operators: news as they happen, the audit of all models, the settling of a damaged store."""

import logging
from collections.abc import AsyncIterator
from time import time_ns

from gateway.access.audience import Audience
from gateway.api.drain import Drain
from gateway.api.route_messages import (
    audit_message,
    chained_message,
    change_of,
    expected_revision,
    laggard_texts,
    principal_of,
    replicas_message,
    revision_message,
    wait_or_default,
    worker_message,
)
from gateway.errors import InvalidArgument
from gateway.pb import control_pb2 as pb
from gateway.routing.store.audit_trail import LIMIT, audit, chain_and_routes
from gateway.routing.store.audit_witness import AuditWitness
from gateway.routing.store.change import Change, ChangeEntry
from gateway.routing.store.healing import Healed
from gateway.routing.store.history import Revision, readable
from gateway.routing.store.route_control import RouteControl
from gateway.routing.store.watch import CaughtUp, Happening, StoreAway, WorkerSeen, watch

MAX_WATCHERS = 8  # each holds one of the connections that this worker has to the store
MAX_BACKLOG = 1000

logger = logging.getLogger(__name__)


class Observations:
    """Serves Watch, Audit, AuditChain and Heal."""

    def __init__(self, control: RouteControl, drain: Drain, witness: AuditWitness) -> None:
        self._control = control
        self._witness = witness
        self._drain = drain
        self._watchers = Audience(MAX_WATCHERS, "watch this worker")

    async def watch(self, request: pb.WatchRequest, context: object) -> AsyncIterator[pb.Event]:
        if not 0 <= request.backlog <= MAX_BACKLOG:
            raise InvalidArgument(f"backlog is {request.backlog}, allowed: 0 to {MAX_BACKLOG}")
        if request.after_revision < 0:
            raise InvalidArgument(f"after_revision is {request.after_revision}, it must not be negative")
        principal = principal_of(context)
        self._watchers.join(principal)
        try:
            news = watch(self._control.store, backlog=request.backlog, after=request.after_revision)
            async for happening in self._drain.through(news):
                if isinstance(happening, ChangeEntry) and request.model not in ("", happening.model):
                    continue
                yield _event(happening)
        finally:
            self._watchers.leave(principal)

    async def audit(self, request: pb.AuditRequest, context: object) -> pb.HistoryResponse:
        entries = await audit(self._control.store, limit=request.limit, model=request.model, actor=request.actor)
        return pb.HistoryResponse(entries=[audit_message(entry) for entry in entries])

    async def audit_chain(self, request: pb.AuditChainRequest, context: object) -> pb.AuditChainResponse:
        store = self._control.store
        limit = request.limit or LIMIT
        if not request.after:
            await self._witness.look(store)
        noted = self._witness.noted  # before the page is read, which lacks what is recorded and noted after it
        page, routes = await chain_and_routes(store, after=request.after, limit=limit)
        return pb.AuditChainResponse(
            entries=[chained_message(entry) for entry in page.entries],
            trimmed_sequence=page.anchor.sequence,
            trimmed_hash=page.anchor.hash,
            head_sequence=page.head.sequence,
            head_hash=page.head.hash,
            noted_sequence=noted.sequence,
            noted_hash=noted.hash,
            routes=[
                pb.RecordedRoute(model=route.model, revision=route.revision, document=route.document)
                for route in routes
            ],
        )

    async def heal(self, request: pb.HealRequest, context: object) -> pb.HealResponse:
        change = change_of(request.change, context)
        wait_s = wait_or_default(request) or 0.0
        healed = await self._control.heal(
            change=change,
            accept_store=request.accept_store,
            wait_s=wait_s,
            expected_revision=expected_revision(request),
            dry_run=request.dry_run,
        )
        if not request.dry_run:
            self._break_glass(request, change, healed)
        return pb.HealResponse(
            epoch=healed.epoch,
            revision=healed.revision,
            applied_by=healed.applied.workers,
            laggards=laggard_texts(healed.applied),
            replicas=replicas_message(healed.replicas),
            findings=healed.findings,
        )

    def _break_glass(self, request: pb.HealRequest, change: Change, healed: Healed) -> None:
        logger.warning(
            "break-glass: the routing store was healed by %s (%s), revision %d: %s",
            change.actor or "nobody named",
            "the store's state" if request.accept_store else "this worker's routes",
            healed.revision,
            change.reason or "no reason given",
        )


def _event(happening: Happening) -> pb.Event:
    now_us = time_ns() // 1000
    match happening:
        case ChangeEntry():
            revision = Revision(happening, readable(happening.route_text))
            return pb.Event(at_us=happening.committed_at_us, committed=revision_message(revision))
        case WorkerSeen(status, gone):
            return pb.Event(at_us=now_us, worker=pb.WorkerChange(worker=worker_message(status), gone=gone))
        case StoreAway(reason):
            return pb.Event(at_us=now_us, store_away=reason)
        case CaughtUp():
            return pb.Event(at_us=now_us, settled=True)
