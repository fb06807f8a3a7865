"""One worker's worth of real parts behind a real port: catalog, engine, log, servicers, transport."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2_grpc

from gateway.access.quotas import Quotas
from gateway.api.feedback_token import Tokens
from gateway.api.health import HealthService
from gateway.api.inference import InferenceService
from gateway.api.load_reports import LoadReports
from gateway.api.reflection import add_reflection
from gateway.api.tfserving.prediction_service import TfModelService, TfPredictionService
from gateway.features.feature_stores import FeatureStores
from gateway.pb.inference_pb2_grpc import (
    GRPCInferenceServiceStub,
    add_GRPCInferenceServiceServicer_to_server,
)
from gateway.pb.tensorflow_serving_pb2_grpc import (
    add_ModelServiceServicer_to_server,
    add_PredictionServiceServicer_to_server,
)
from gateway.records.worker.prediction_log import LogLimits, PredictionLog
from gateway.rest.rest_front import RestFront
from gateway.rest.rest_service import RestService
from gateway.routing.decision.snapshot import Snapshot
from gateway.rpc.grpcio import GrpcioServer
from gateway.rpc.ngh2_server import Ngh2Server
from gateway.rpc.server import Server, ServerOptions
from gateway.runtime.worker_gauges import tell_features
from gateway.serving.admission import Admission
from gateway.serving.catalog import Catalog
from gateway.serving.engine import Engine
from gateway.serving.intents import IntentStore
from gateway.serving.lifecycle import Pipeline
from gateway.serving.model_kind import ModelKind
from gateway.serving.probe import Prober
from gateway.serving.repository import ModelRepository
from gateway.serving.response_cache import ResponseCache
from gateway.serving.shared_run_state import SharedRunState
from gateway.serving.tracer import Tracer
from gateway.telemetry.counters import Counters
from gateway.telemetry.sums import Tree, branch
from loaders.filesystem import FilesystemLoader
from loaders.store import ContentStore

MAX_ANSWER_BYTES = 4 << 20
CLIENT_OPTIONS = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))


@dataclass
class Rules:
    """The rules of the moment, set by hand where a worker has its feed."""

    snapshot: Snapshot = field(default_factory=lambda: Snapshot.of("tests", 0, ()))


@dataclass
class OneWorker:
    """Loads, unloads and counts for a host with one worker."""

    catalog: Catalog
    counters: Counters

    async def load(self, model: str, config: str | None, *, actor: str) -> None:
        await self.catalog.load(model, config)

    async def unload(self, model: str, *, actor: str) -> None:
        await self.catalog.unload(model)

    async def sums(self) -> Tree:
        return branch(self.counters.snapshot(), "sums")


@dataclass
class Stand:
    """What a test may look at."""

    catalog: Catalog
    engine: Engine
    rules: Rules
    counters: Counters
    log: PredictionLog
    health: HealthService
    repository: Path
    address: str
    channel: grpc.aio.Channel
    stub: GRPCInferenceServiceStub
    rest_port: int = 0


@asynccontextmanager
async def standing(
    repository: Path,
    data: Path,
    *,
    probes: Path,
    max_requests: int = 1000,
    stream_limit: int = 64,
    transport: str = "ngh2",
    tokens: Tokens | None = None,
    log_limits: LogLimits | None = None,
    quotas: Quotas | None = None,
    ladder: Sequence[float] = (1.0,),
    rest: bool = False,
    tracer: Tracer | None = None,
    load_reports: LoadReports | None = None,
    feature_stores: Mapping[str, str] | None = None,
) -> AsyncIterator[Stand]:
    """A worker that serves the repository, by REST as well if asked for; its models were loaded, or have failed to."""
    async with AsyncExitStack() as stack:
        loader = FilesystemLoader(repository, ContentStore(data / "content"))
        pipeline = Pipeline(loader, Prober(probes, concurrency=2, idle_s=5), intra_threads=1)
        catalog = Catalog(ModelRepository(loader), pipeline, IntentStore(data / "state"))
        stack.push_async_callback(catalog.close)
        counters = Counters()
        log = PredictionLog(data / "wal", worker="worker-0", gateway="tests", boot=str(uuid4()), limits=log_limits)
        rules = Rules()
        admission = Admission(max_requests=max_requests, max_bytes=1 << 28, ladder=ladder)
        shared = SharedRunState(cache=ResponseCache(1 << 20))
        engine = Engine(catalog, rules, counters, log, admission, threads=2, shared=shared, tracer=tracer)
        stack.callback(engine.close)
        features = FeatureStores(feature_stores or {})
        catalog.describe_by(ModelKind.FEATURES, features.describe)
        engine.queue_by(ModelKind.FEATURES, features.queue_of)
        stack.push_async_callback(features.aclose)
        tell_features(counters, features)
        catalog.attach(engine.attach, engine.detach)
        flushing = asyncio.create_task(log.run())
        stack.push_async_callback(_ended, log, flushing)
        host = OneWorker(catalog, counters)
        options = ServerOptions(reuse_port=False)
        server: Server = (GrpcioServer if transport == "grpcio" else Ngh2Server)(options, None, quotas)
        health = HealthService(catalog, max_watchers=4)
        service = InferenceService(
            engine,
            catalog,
            repository=host,
            counts=host,
            max_answer_bytes=MAX_ANSWER_BYTES,
            max_stream_requests=stream_limit,
            tokens=tokens,
            quotas=quotas,
            load_reports=load_reports,
        )
        add_GRPCInferenceServiceServicer_to_server(service, server)  # type: ignore[no-untyped-call]
        prediction = TfPredictionService(service.exchanges, catalog, max_bytes=MAX_ANSWER_BYTES)
        add_PredictionServiceServicer_to_server(prediction, server)  # type: ignore[no-untyped-call]
        add_ModelServiceServicer_to_server(TfModelService(catalog), server)  # type: ignore[no-untyped-call]
        health_pb2_grpc.add_HealthServicer_to_server(health, server)
        add_reflection(server)
        await catalog.poll()
        await server.start()
        stack.push_async_callback(server.stop, 0.0)
        address = f"127.0.0.1:{server.port}"
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(address, options=CLIENT_OPTIONS))
        stub = GRPCInferenceServiceStub(channel)  # type: ignore[no-untyped-call]
        rest_port = 0
        if rest:
            front = RestFront(RestService(service, catalog, max_body_bytes=MAX_ANSWER_BYTES).table())
            rest_server = Ngh2Server(options, None, quotas, front=front)
            await rest_server.start()
            stack.push_async_callback(rest_server.stop, 0.0)
            rest_port = rest_server.port
        yield Stand(catalog, engine, rules, counters, log, health, repository, address, channel, stub, rest_port)


async def _ended(log: PredictionLog, flushing: "asyncio.Task[None]") -> None:
    flushing.cancel()
    await asyncio.gather(flushing, return_exceptions=True)
    await log.close()
