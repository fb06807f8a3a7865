"""Documents, workers and waiting for the tests of the store, the feed and the control operations."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from gateway.routing.decision.snapshot import EMPTY, Route, Snapshot, propose
from gateway.routing.document.document import RouteDocument, parse
from gateway.routing.store.audit_chain import AuditEntry, first_fault
from gateway.routing.store.audit_trail import chain
from gateway.routing.store.change import Change
from gateway.routing.store.feed import Feed
from gateway.routing.store.redis_store import RedisStore
from gateway.routing.store.route_control import RouteControl
from gateway.routing.store.store_link import Link
from gateway.routing.store.worker_status import FeedState
from tests.machine_load import as_loaded

DEADLINE_S = 10.0
BY = Change(actor="tester", reason="test", source="cli")


def document(model: str = "fraud", share: int = 10, *, versions: tuple[str, str] = ("1", "2")) -> RouteDocument:
    """An A/B document in which the second arm has `share` percent."""
    arms = {"a": {"version": versions[0]}, "b": {"version": versions[1]}}
    strategy = {"ab": {"control": "a", "weights": {"a": 100 - share, "b": share}}}
    spec = {"arms": arms, "strategy": strategy}
    return parse({"apiVersion": "gateway/v1", "kind": "Route", "metadata": {"model": model}, "spec": spec})


def route(model: str = "fraud", share: int = 10) -> Route:
    return propose(document(model, share), None)


async def until(true: Callable[[], bool], deadline_s: float = DEADLINE_S) -> None:
    """Returns as soon as the condition holds; fails at the deadline."""
    end = time.monotonic() + as_loaded(deadline_s)
    while not true():
        assert time.monotonic() < end, "the condition did not come to hold in time"
        await asyncio.sleep(0.002)


async def ready(_route: Route) -> None:
    """Prepares nothing: every version is loaded."""


def share_of(snapshot: Snapshot, model: str = "fraud") -> int:
    """The percentage of the second arm by which a worker answers, -1 without a route."""
    compiled = snapshot.routes.get(model)
    return -1 if compiled is None else compiled.route.table.weights().get("b", 0) // 10_000


@dataclass
class Consumer:
    """A `RouteConsumer` of functions."""

    prepare_route: Callable[[Route], Awaitable[None]]
    at_once: Callable[[Route], bool]
    on_swap: Callable[[Snapshot], None]
    on_applied: Callable[[float], None]

    async def prepare(self, route: Route) -> None:
        await self.prepare_route(route)

    def prepare_at_once(self, route: Route) -> bool:
        return self.at_once(route)

    def swapped(self, snapshot: Snapshot) -> None:
        self.on_swap(snapshot)

    def applied(self, seconds: float) -> None:
        self.on_applied(seconds)


def feed(
    url: str,
    directory: Path,
    name: str = "w0",
    *,
    prepare: Callable[[Route], Awaitable[None]] = ready,
    at_once: Callable[[Route], bool] = lambda _route: False,
    on_applied: Callable[[float], None] = lambda _seconds: None,
    on_swap: Callable[[Snapshot], None] = lambda _snapshot: None,
    defer_s: float = 0.0,
    file: str = "",
) -> Feed:
    consumer = Consumer(prepare, at_once, on_swap, on_applied)
    path = directory / (file or f"{name}.routes")
    return Feed(url, "default", name, consumer, last_known_good_path=path, defer_s=defer_s)


@asynccontextmanager
async def running(*feeds: Feed) -> AsyncIterator[None]:
    """The feeds boot and run until the block ends."""
    await asyncio.gather(*(one.boot() for one in feeds))
    tasks = [asyncio.create_task(one.run()) for one in feeds]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        ended, hanging = await asyncio.wait(tasks, timeout=as_loaded(2.0))
    assert not hanging
    assert all(task.cancelled() for task in ended), [task.exception() for task in ended if not task.cancelled()]


@asynccontextmanager
async def workers(url: str, directory: Path, count: int) -> AsyncIterator[list[Feed]]:
    feeds = [feed(url, directory, f"w{index}") for index in range(count)]
    async with running(*feeds):
        yield feeds


@asynccontextmanager
async def store_of(url: str, *, timeout_s: float = 1.5) -> AsyncIterator[RedisStore]:
    store = RedisStore(url, timeout_s=timeout_s)
    try:
        yield store
    finally:
        await store.aclose()


@asynccontextmanager
async def admin_of(url: str) -> AsyncIterator[Link]:
    """A plain connection, for what nobody but an administrator or an intruder does."""
    link = Link(url, name="admin", connections=2)
    try:
        yield link
    finally:
        await link.aclose()


async def kill_feeds(url: str) -> int:
    """Closes the connections of all feeds from the server's side, and says how many that were."""
    async with admin_of(url) as admin:
        listing = await admin.call("CLIENT", "LIST")
        assert isinstance(listing, bytes)
        killed = 0
        for line in listing.decode().splitlines():
            words = dict(word.split("=", 1) for word in line.split(" "))
            if words["name"].startswith(("gateway-feed:", "gateway-ack:")):
                await admin.call("CLIENT", "KILL", "ID", words["id"])
                killed += 1
        return killed


async def serves(_document: RouteDocument) -> None:
    """Checks nothing: every version is ready."""


@dataclass
class Site:
    """A `RouteSite`: what a feed serves by, or nothing, and what checks documents."""

    served_by: Feed | None = None
    check_document: Callable[[RouteDocument], Awaitable[None]] = serves
    newest: str = "9"

    @property
    def snapshot(self) -> Snapshot:
        return EMPTY if self.served_by is None else self.served_by.snapshot

    async def check(self, document: RouteDocument) -> None:
        await self.check_document(document)

    def newest_version(self, model: str) -> str:
        return self.newest


def control_of(store: RedisStore, served_by: Feed | None = None) -> RouteControl:
    return RouteControl(store, Site(served_by))


def live(*feeds: Feed) -> bool:
    return all(one.state is FeedState.LIVE for one in feeds)


async def whole_trail(store: RedisStore) -> list[AuditEntry]:
    """The entries of a trail that is found to be whole."""
    page = await chain(store)
    assert first_fault(page.entries, anchor=page.anchor, head=page.head) is None
    return list(page.entries)
