"""Explanations: why a request is, or was, answered as it is; and what becomes of keys under a draft."""

import asyncio
import random
from functools import partial
from pathlib import Path
from time import time

from gateway.api.described_request import DescribedRequest, Parameter
from gateway.api.naming import check_request_id
from gateway.api.route_messages import flow_messages, named, read_document, row_message
from gateway.errors import FailedPrecondition, InvalidArgument, NotFound, UnknownRoute
from gateway.pb import control_pb2 as pb
from gateway.records.worker.lookup import Search, find, newest
from gateway.routing.decision.decision import Decision
from gateway.routing.decision.explanation import Explanation, explain
from gateway.routing.decision.record_replay import Logged, replay
from gateway.routing.decision.route import Route
from gateway.routing.decision.simulate import Simulation, hashing, simulate_buckets, simulate_keys
from gateway.routing.decision.snapshot import Snapshot
from gateway.routing.document.bucket import BUCKETS
from gateway.routing.document.document import RouteDocument
from gateway.routing.document.source import METHODS
from gateway.routing.store.route_control import RouteControl
from gateway.serving.catalog import Catalog

MAX_KEYS = 100_000  # in one call, and 2 MiB together, as in any message that is decoded whole
MAX_LOGGED = 1_000_000
REVISIONS_ASKED = 50  # of the log's newest records, for the salts that their buckets were made with
# What describes a request that need not exist; a logged one is told by its id or its record alone.
_DESCRIBING = tuple(
    field.name
    for field in pb.ExplainRequest.DESCRIPTOR.fields
    if field.name not in ("model", "request_id", "record", "bucket")
)


class Explanations:
    """Serves Explain and Simulate."""

    def __init__(self, control: RouteControl, catalog: Catalog, log_dir: Path) -> None:
        self._control = control
        self._catalog = catalog
        self._log_dir = log_dir
        self._searching = asyncio.Lock()  # one search of the log at a time: each holds a segment in memory

    async def explain(self, request: pb.ExplainRequest, context: object) -> pb.ExplainResponse:
        model = named(request.model)
        if request.request_id or request.HasField("record"):
            others = [name for name in _DESCRIBING if getattr(request, name)]
            others += [name for name in ("bucket", "record") if request.HasField(name) and request.request_id]
            if others or request.HasField("bucket"):
                raise InvalidArgument(f"request_id or record: a logged request is told by it alone, without {others}")
            if request.HasField("record"):
                return await self._explain_record(model, request.record)
            check_request_id(request.request_id)
            return await self._explain_logged(model, request.request_id)
        route = await self._route(model, request.revision)
        snapshot = Snapshot.of("", route.revision, [route]) if route is not None else Snapshot("", 0)
        draw = _draw(request)
        given = _given(request)
        keyed = given.with_key(route.document, request.key) if route is not None and request.key else given
        explained = explain(snapshot, model, keyed or given, draw, now_s=time())
        answer = _explained(explained)
        if keyed is None:
            answer.steps.add(stage="key", outcome="noted", detail="given, but this route reads none")
        if explained.decision is not None and not explained.decision.version:
            newest_ready = self._catalog.newest(model).name
            answer.decision.version = newest_ready
            answer.steps.add(stage="version", outcome="taken", detail=f"{newest_ready} is the newest ready one here")
        return answer

    async def simulate(self, request: pb.SimulateRequest, context: object) -> pb.SimulateResponse:
        draft = read_document(request.document_json)
        if bool(request.keys) == bool(request.logged):
            raise InvalidArgument("keys or logged: exactly one of them is needed")
        if len(request.keys) > MAX_KEYS:
            raise InvalidArgument(f"keys: {len(request.keys)} of them, at most {MAX_KEYS} in one call are allowed")
        if not 0 <= request.logged <= MAX_LOGGED:
            raise InvalidArgument(f"logged is {request.logged}, allowed: 1 to {MAX_LOGGED}")
        active = await self._route(draft.model, 0)
        if request.keys:
            newest_version = self._control.site.newest_version(draft.model)
            told = partial(simulate_keys, active, draft, list(request.keys), newest=newest_version)
            simulation = await asyncio.to_thread(told)
            return _simulated(draft, simulation, ())
        async with self._searching:
            search = await asyncio.to_thread(newest, self._log_dir, draft.model, request.logged)
        simulation = await self._simulate_logged(active, draft, search)
        return _simulated(draft, simulation, search.searched)

    async def _explain_logged(self, model: str, request_id: str) -> pb.ExplainResponse:
        async with self._searching:
            search = await asyncio.to_thread(find, self._log_dir, model, request_id)
        row = search.row
        if row is None:
            raise NotFound(
                f"model {model!r}: no record of request {request_id!r}; searched: {'; '.join(search.searched)}"
            )
        answer = await self._explain_record(model, row_message(row))
        answer.searched.extend(search.searched)
        return answer

    async def _explain_record(self, model: str, row: pb.LogRow) -> pb.ExplainResponse:
        """Explains the answer to a recorded request. Raises: InvalidArgument for another model's record."""
        if row.model != model:
            raise InvalidArgument(f"record: it is of model {row.model[:128]!r}, not of {model!r}")
        logged = Logged(row.version, row.arm, row.revision, row.reason, row.bucket)
        try:
            explained = replay(await self._route_then(model, logged), logged)
        except (NotFound, FailedPrecondition) as error:
            explained = Explanation((), None)
            lost = str(error)
        else:
            lost = ""
        answer = _explained(explained)
        if lost:
            answer.steps.add(stage="history", outcome="refused", detail=f"{lost}: this request cannot be decided again")
        answer.served.CopyFrom(_outcome(Decision(row.arm, row.version, row.revision, row.reason, row.bucket)))
        answer.row.CopyFrom(row)
        answer.agrees = logged.agrees(explained.decision)
        return answer

    async def _route_then(self, model: str, logged: Logged) -> Route | None:
        """Returns the model's route at the record's revision, None if it had none.

        A request that no route decided carries the revision of all models, which the model's history does not have.
        Raises: NotFound, FailedPrecondition (the history does not hold it any more).
        """
        if not logged.revision:
            return None
        try:
            return await self._control.get(model, logged.revision)
        except (NotFound, FailedPrecondition):
            if logged.arm or logged.reason not in ("PIN", "DEFAULT"):
                raise
            return None

    async def _route(self, model: str, revision: int) -> Route | None:
        """Returns the active route or a revision's, None if the model has none. Raises: UnknownModel, NotFound."""
        try:
            return await self._control.get(model, revision)
        except UnknownRoute:
            self._catalog.newest(model)
            return None

    async def _simulate_logged(self, active: Route | None, draft: RouteDocument, search: Search) -> Simulation:
        """Simulates with those records whose bucket was made as the active route makes them."""
        wanted = hashing(active.document if active is not None else draft)
        same: dict[int, bool] = {}
        buckets: list[int] = []
        for revision, bucket in search.marks:
            if bucket < 0:
                continue
            if revision not in same:
                same[revision] = len(same) < REVISIONS_ASKED and await self._hashes(draft.model, revision) == wanted
            if same[revision]:
                buckets.append(bucket)
        newest = self._control.site.newest_version(draft.model)
        return simulate_buckets(active, draft, buckets, len(search.marks) - len(buckets), newest=newest)

    async def _hashes(self, model: str, revision: int) -> tuple[object, ...]:
        try:
            return hashing((await self._control.get(model, revision)).document)
        except (NotFound, FailedPrecondition):
            return ()


def _draw(request: pb.ExplainRequest) -> float:
    """Returns a draw that falls into the requested bucket, or a random one."""
    if not request.HasField("bucket"):
        return random.random()
    if request.bucket >= BUCKETS:
        raise InvalidArgument(f"bucket is {request.bucket}, allowed: 0 to {BUCKETS - 1}")
    return (request.bucket + 0.5) / BUCKETS


def _given(request: pb.ExplainRequest) -> DescribedRequest:
    parameters: dict[str, Parameter] = {}
    for name, parameter in request.parameters.items():
        which = parameter.WhichOneof("value")
        if which is None:
            raise InvalidArgument(f"parameters.{name}: no value")
        parameters[name] = getattr(parameter, which)
    if request.method not in ("", *METHODS):
        raise InvalidArgument(f"method is {request.method[:64]!r}, allowed: {', '.join(METHODS)}")
    return DescribedRequest(
        {name.lower(): value for name, value in request.metadata.items()},
        parameters,
        dict(request.inputs),
        request.id,
        request.requested_version,
        request.tenant,
        request.identity,
        request.method or METHODS[0],
    )


def _explained(explained: Explanation) -> pb.ExplainResponse:
    decision, error = explained.decision, explained.error
    return pb.ExplainResponse(
        steps=[pb.Step(stage=step.stage, outcome=step.outcome, detail=step.detail) for step in explained.steps],
        decision=_outcome(decision) if decision is not None else None,
        error=str(error) if error is not None else "",
        error_code=error.code.name if error is not None else "",
    )


def _outcome(decision: Decision) -> pb.Outcome:
    return pb.Outcome(
        arm=decision.arm,
        version=decision.version,
        revision=decision.revision,
        reason=decision.reason,
        bucket=decision.bucket,
        fallbacks=[arm for arm, _ in decision.fallbacks],
        mirrors=[arm for arm, _ in decision.mirrors],
    )


def _simulated(draft: RouteDocument, simulation: Simulation, searched: tuple[str, ...]) -> pb.SimulateResponse:
    return pb.SimulateResponse(
        model=draft.model,
        base_revision=simulation.base_revision,
        counted=simulation.counted,
        moved=simulation.moved,
        other_version=simulation.other_version,
        flows=flow_messages(simulation.flows),
        left_out=simulation.left_out,
        searched=searched,
    )
