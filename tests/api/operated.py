"""A worker that operators can ask: a stand whose rules come from a real store, with the control service on a port."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import grpc.aio

from gateway.access.quotas import Quotas
from gateway.api.control_service import ControlService
from gateway.api.feedback_intake import FeedbackIntake
from gateway.api.feedback_token import KEY_BYTES, Tokens
from gateway.errors import Unavailable
from gateway.page.host_view import HostView
from gateway.pb import control_pb2 as pb
from gateway.pb.control_pb2_grpc import ControlStub, add_ControlServicer_to_server
from gateway.records.worker.feedback_log import FeedbackLog
from gateway.routing.decision.route import Route
from gateway.routing.decision.snapshot import Snapshot
from gateway.routing.document.document import RouteDocument
from gateway.routing.store.feed import Feed
from gateway.routing.store.redis_store import RedisStore
from gateway.routing.store.route_control import RouteControl
from gateway.rpc.grpcio import GrpcioServer
from gateway.rpc.server import ServerOptions
from gateway.serving.arm_tally import JudgedRoutes
from gateway.serving.catalog import Catalog
from gateway.serving.registry import VersionStatus
from gateway.serving.route_versions import check_versions
from tests import models
from tests.api.stand import Stand, standing
from tests.valkey import Valkey

BY = pb.Change(actor="tester", reason="test", source="cli")
TOKENS = Tokens(bytes(KEY_BYTES))
WAIT = pb.WaitFor(applied=True, timeout_ms=5000)


@dataclass
class Alone:
    """The fleet of a host with one worker."""

    quotas: Quotas | None = None

    async def versions(self, model: str) -> Mapping[str, Sequence[VersionStatus]]:
        return {}

    async def present(self) -> Sequence[Mapping[str, object]]:
        return [{"quotas": self.quotas.present(), "trouble": ""}] if self.quotas is not None else []


@dataclass
class Operated:
    """What a test may look at and ask."""

    stand: Stand
    feed: Feed
    store: RedisStore
    valkey: Valkey
    server: str
    stub: ControlStub
    service: ControlService
    labels: FeedbackLog
    log_dir: Path

    async def clear(self) -> None:
        """No model has a route."""
        for route in (await self.stub.ListRoutes(pb.ListRoutesRequest())).routes:
            await self.stub.DeleteRoute(pb.DeleteRouteRequest(model=route.model, change=BY, wait=WAIT, override=True))

    async def apply(self, document: RouteDocument) -> int:
        """The revision at which the document is in force."""
        request = pb.ApplyRequest(document_json=document.to_json(), change=BY, wait=WAIT)
        answer: pb.ApplyResponse = await self.stub.Apply(request)
        assert not answer.change.laggards
        return answer.change.revision

    async def document(self, model: str = "affine") -> str:
        answer: pb.Route = await self.stub.GetRoute(pb.GetRouteRequest(model=model))
        return answer.document_json


def fill(repository: Path, versions: Iterable[tuple[str, float]] = (("1", 2.0), ("2", 3.0), ("3", 4.0))) -> None:
    """Two models: affine, of three versions whose answers differ (and a fourth with another input), and other."""
    config = "version_policy { all {} }"
    for name, scale in versions:
        models.write_version(repository, "affine", name, models.affine(scale), config=config)
    models.write_version(repository, "affine", "4", models.affine(2.0, features=8), config=config)
    models.write_version(repository, "other", "1", models.affine(2.0))


async def no_host() -> HostView:
    """What a worker knows of its host while the control process is being started."""
    raise Unavailable("control.sock does not answer 'host_view'")


class Followed:
    """What the stand does with the rules that its feed brings."""

    def __init__(self, stand: Stand) -> None:
        self._stand = stand

    async def prepare(self, route: Route) -> None:
        await self._stand.catalog.require(route.model, route.document.versions())

    def prepare_at_once(self, route: Route) -> bool:
        return False

    def swapped(self, snapshot: Snapshot) -> None:
        self._stand.rules.snapshot = snapshot

    def applied(self, seconds: float) -> None:
        pass


class Site:
    """What the stand is to the operations on routes."""

    def __init__(self, feed: Feed, catalog: Catalog) -> None:
        self._feed = feed
        self._catalog = catalog

    @property
    def snapshot(self) -> Snapshot:
        return self._feed.snapshot

    async def check(self, document: RouteDocument) -> None:
        check_versions(self._catalog, document)

    def newest_version(self, model: str) -> str:
        return self._catalog.newest(model).name


@asynccontextmanager
async def operated(directory: Path, probes: Path) -> AsyncIterator[Operated]:
    """Everything of a worker that has to do with routes, run until the block ends."""
    async with AsyncExitStack() as stack:
        valkey = Valkey(directory / "valkey").start()
        stack.callback(valkey.kill)
        fill(directory / "models")
        stand = await stack.enter_async_context(standing(directory / "models", directory, probes=probes))

        feed = Feed(valkey.url, "default", "w0", Followed(stand), last_known_good_path=directory / "rules")
        await feed.boot()
        running = asyncio.create_task(feed.run())
        stack.push_async_callback(_ended, running)
        store = RedisStore(valkey.url)
        stack.push_async_callback(store.aclose)
        control = RouteControl(store, Site(feed, stand.catalog))
        labels = FeedbackLog(directory / "wal", worker="w0", gateway="gw", boot=uuid4().hex)
        stack.push_async_callback(labels.close)
        service = ControlService(
            control,
            stand.catalog,
            Alone(),
            feedback=FeedbackIntake(stand.catalog, labels, TOKENS, directory / "lake", JudgedRoutes()),
            host=no_host,
            quotas=Alone(),
            log_dir=directory / "wal",
            worker="w0",
            transport="grpcio",
        )
        server = GrpcioServer(ServerOptions(reuse_port=False))
        add_ControlServicer_to_server(service, server)  # type: ignore[no-untyped-call]
        await server.start()
        stack.push_async_callback(server.stop, 0.0)
        address = f"127.0.0.1:{server.port}"
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(address))
        stub = ControlStub(channel)  # type: ignore[no-untyped-call]
        yield Operated(stand, feed, store, valkey, address, stub, service, labels, directory / "wal")


async def _ended(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
