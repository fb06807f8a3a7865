"""The worker's side of the routing store: every committed change, in force within milliseconds, come what may.

Rules, each with its reason:

1. The log is read by a blocked XREAD after the last revision. It returns with the commit, and after a lost connection
   the next one continues where the last one ended: nothing is polled and nothing is missed.
2. Whatever is not exactly the next revision (a gap, an entry that nobody committed) is answered by reading the whole
   state at once: the snapshot says what holds, the log only says it sooner.
3. A store that is behind this worker, or is another one, lost something. Serving goes on with the local rules and an
   operator heals it: an empty store is not the order to delete everything.
4. A route that cannot be taken keeps the old one of its model in force, and the acknowledgement says why.
"""

import asyncio
import logging
import os
import random
import socket
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from gateway.backoff import Backoff
from gateway.errors import InvalidArgument, StoreUnavailable
from gateway.routing.decision.snapshot import EMPTY, CompiledRoute, Route, Snapshot, compile_route
from gateway.routing.store import last_known_good
from gateway.routing.store.acknowledger import Acknowledger
from gateway.routing.store.change import parse_entry
from gateway.routing.store.preparation import Preparations, RouteLoader
from gateway.routing.store.redis_store import BLOCK_MS, read_state
from gateway.routing.store.store_keys import StoreKeys
from gateway.routing.store.store_link import Link
from gateway.routing.store.store_reply import (
    StoreState,
    digest_of,
    fingerprint,
    loss,
    read_entries,
    revision_in,
    store_identity,
)
from gateway.routing.store.worker_status import FeedState, WorkerStatus

log = logging.getLogger(__name__)

BATCH = 256
BACKOFF = Backoff(first_s=0.05, longest_s=2.0)
COMPARE_S = 10.0
SLOWEST_S = 6.0  # a store whose answers take a second is followed, if slowly


class RouteConsumer(RouteLoader, Protocol):
    """Does with the rules that a feed brings what its worker has to."""

    def swapped(self, snapshot: Snapshot) -> None:
        """Learns that this snapshot is in force."""

    def applied(self, seconds: float) -> None:
        """Learns how long after its commit a route came into force."""


class Feed:
    """The current snapshot of one worker, kept in step with the store.

    `snapshot` is EMPTY until rules are known, is replaced as a whole and never awaits anything. A route for which there
    is nothing to load is in force before anything else happens.

    Units: `defer_s` is for a host with more workers than CPUs, all of which wake at once: what can wait until the
           others have swapped (the acknowledgement, the next wait) waits for so long.
    """

    def __init__(
        self,
        store_url: str,
        environment: str,
        worker_id: str,
        consumer: RouteConsumer,
        *,
        last_known_good_path: Path,
        defer_s: float = 0.0,
        boot_id: str = "",
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.snapshot: Snapshot = EMPTY
        self.state = FeedState.STARTING
        self.error = ""
        self._known = asyncio.Event()
        self._keys = StoreKeys(environment)
        self._link = Link(store_url, name=f"gateway-feed:{worker_id}", connections=1, slowest_s=SLOWEST_S)
        self._consumer = consumer
        self._draw = draw
        self._id = worker_id
        self._boot_id = boot_id or uuid.uuid4().hex
        self._preparations = Preparations(consumer, self)
        self._defer_s = defer_s
        self._acknowledger = Acknowledger(
            store_url, self._keys, worker_id=worker_id, status=self.status, defer_s=defer_s
        )
        self._path = last_known_good_path
        self._keeper = last_known_good.Keeper(last_known_good_path, lambda: self.snapshot if self.rules_known else None)
        self._epoch = ""
        self._head = 0
        self._known_at_boot = 0
        self._cursor = "0-0"
        self._fingerprints: dict[str, tuple[int, int]] = {}
        self._fresh_at = time.monotonic()
        self._compare_at = 0.0

    async def boot(self, timeout_s: float = 0.5) -> None:
        """Takes the rules from the store, or from disk where the store is away, behind or unknown. Never fails.

        Where neither has any, `rules_known` is False until the store was read: nobody knows what may answer until then.

        Order: at boot routes come into force before their versions are loaded, because the alternative is to answer
               with a version that no route names; `prepared` tells when they are.
        """
        saved, store = await asyncio.gather(
            asyncio.to_thread(last_known_good.load_newest, self._path), self._read_within(timeout_s)
        )
        if saved is not None:
            self._known.set()
            self._epoch, self._head = saved.epoch, saved.revision
            self.snapshot = saved
            for compiled in saved.routes.values():
                self._preparations.put(compiled)
        if isinstance(store, StoreState):
            self._adopt(store, in_force_at_once=True)
        else:
            self._become(FeedState.STALE, store)
        self._known_at_boot = self._head
        self._cursor = f"{self._head}-0"
        self._publish(self.snapshot)

    async def run(self) -> None:
        """Follows, prepares, acknowledges and saves for ever."""
        try:
            async with asyncio.TaskGroup() as group:
                self._preparations.start(group)
                group.create_task(self._follow())
                group.create_task(self._acknowledger.run())
                group.create_task(self._keeper.run())
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        """Closes the connections; `run` does so when it ends."""
        await self._link.aclose()
        await self._acknowledger.aclose()

    @property
    def rules_known(self) -> bool:
        """Returns whether the rules were read once, from the store or from disk."""
        return self._known.is_set()

    async def known(self) -> None:
        """Returns once the rules are known."""
        await self._known.wait()

    async def prepared(self) -> None:
        """Returns once nothing is being prepared: every known route is in force, or its failure is known."""
        await self._preparations.prepared()

    def retry_pending(self) -> None:
        """Prepares again the routes that failed: to be called when versions changed."""
        self._preparations.retry()

    async def leave(self) -> None:
        """Takes the worker off the list of those that are waited for, and saves the rules it had."""
        self.state = FeedState.DRAINING
        await self._acknowledger.leave()
        await self._keeper.save()

    def stale_seconds(self) -> float:
        """Age of the knowledge that the rules in force are the store's; 0 while following it."""
        return 0.0 if self.state is FeedState.LIVE else time.monotonic() - self._fresh_at

    def status(self) -> WorkerStatus:
        lost = sorted(self.snapshot.routes.keys() - self._fingerprints.keys()) if self.state is FeedState.LIVE else []
        missing = f"the store has lost the routes of {', '.join(lost)}" if lost else ""
        return WorkerStatus(
            id=self._id,
            state=self.state.value,
            epoch=self._epoch,
            head=self._head,
            revision=self._revision(),
            unapplied=self._preparations.unapplied,
            digest=self.snapshot.digest,
            error="; ".join(part for part in (self.error, missing) if part),
            pid=os.getpid(),
            boot=self._boot_id,
            host=socket.gethostname(),
        )

    async def _read_within(self, timeout_s: float) -> StoreState | str:
        """Returns what the store holds, or why it could not be read in time."""
        try:
            async with asyncio.timeout(timeout_s):
                return await read_state(self._link, self._keys)
        except TimeoutError:
            return f"the routing store did not answer within {timeout_s:g} s"
        except StoreUnavailable as error:
            return str(error)

    async def _follow(self) -> None:
        failures = 0
        while True:
            try:
                await self._compare()
                while True:
                    failures = 0
                    await self._step()
            except StoreUnavailable as error:
                if self.state is not FeedState.AHEAD:
                    self._become(FeedState.STALE, str(error))
                failures += 1
                await asyncio.sleep(BACKOFF.delay_s(failures, self._draw()))

    async def _step(self) -> None:
        """One wait for the log: until the next change, or the heartbeat."""
        if time.monotonic() >= self._compare_at:
            await self._compare()
        if self.state is FeedState.AHEAD:
            await asyncio.sleep(BLOCK_MS / 1000)
            await self._glance()
            return
        words = ("XREAD", "COUNT", BATCH, "BLOCK", BLOCK_MS, "STREAMS", self._keys.log, self._cursor)
        entries = read_entries(await self._link.call(*words))
        self._fresh_at = time.monotonic()
        if not entries:
            await self._glance()
            return
        for entry_id, fields in entries:
            if not self._take_entry(entry_id, fields):
                await self._resync(beyond=entries[-1][0])
                return
        if self._defer_s:
            await asyncio.sleep(self._defer_s)

    def _take_entry(self, entry_id: str, fields: list[bytes]) -> bool:
        """Takes the next change; False if only the whole state can tell what holds."""
        try:
            entry = parse_entry(entry_id, fields)
            if not self._epoch or entry.revision != self._head + 1 or entry.operation in ("restore", "accept"):
                return False
            deleted = entry.operation == "delete"
            compiled = None if deleted else _compiled(entry.route_text, entry.model)
        except InvalidArgument as error:
            log.warning("a log entry is no change", extra={"entry": entry_id, "error": str(error)})
            return False
        if compiled is not None and compiled.route.revision != entry.revision:
            return False
        self._head = entry.revision
        self._cursor = entry_id
        if compiled is not None:
            self._preparations.put_at_once(compiled)
            self._fingerprints[entry.model] = fingerprint(entry.model, entry.route_text)
        else:
            self._fingerprints.pop(entry.model, None)
            self._remove(entry.model)
        return True

    async def _glance(self) -> None:
        """The heartbeat: is this still the store, at the revision that the log told?"""
        names = (self._keys.epoch, self._keys.revision, self._keys.accepted)
        seen = store_identity(await self._link.call("MGET", *names))
        if (seen.epoch, seen.revision) != (self._epoch, self._head):
            lost = loss(self._epoch, self._head, seen)
            if lost and self.state is FeedState.AHEAD:
                self._become(FeedState.AHEAD, lost)
            else:
                await self._resync()
        elif self.state is not FeedState.LIVE:
            await self._resync()

    async def _compare(self) -> None:
        """Anti-entropy: the digest over everything that the store holds, against what was taken from it."""
        self._compare_at = time.monotonic() + COMPARE_S * (0.8 + 0.4 * self._draw())
        seen = await read_state(self._link, self._keys, routes=False)
        taken = (self._epoch, self._head, digest_of(self._fingerprints))
        if (seen.epoch, seen.revision, seen.digest) != taken or self.state is not FeedState.LIVE:
            await self._resync()
        else:
            self._become(FeedState.LIVE, "")

    async def _resync(self, *, beyond: str = "") -> None:
        """Adopts the whole state. `beyond` is an entry of the log not to be read again, whatever it was."""
        self._adopt(await read_state(self._link, self._keys))
        if beyond and _position(beyond) > _position(self._cursor):
            self._cursor = beyond

    def _adopt(self, store: StoreState, *, in_force_at_once: bool = False) -> None:
        lost = loss(self._epoch, self._head, store)
        if lost:
            self._become(FeedState.AHEAD, lost)
            return
        self._fresh_at = time.monotonic()
        # At the revision that this worker has, a missing route was not deleted by a commit: it is kept and reported.
        advanced = (store.epoch, store.revision) != (self._epoch, self._head)
        known = self._fingerprints if store.epoch == self._epoch else {}
        self._epoch, self._head, self._cursor = store.epoch, store.revision, f"{store.revision}-0"
        if advanced:
            for model in (self.snapshot.routes.keys() | self._preparations.unapplied.keys()) - store.texts.keys():
                self._remove(model)
        fingerprints = {}
        taken: dict[str, CompiledRoute] = {}
        for model, value in store.texts.items():
            fingerprints[model] = fingerprint(model, value, store.sizes[model])
            if known.get(model) != fingerprints[model]:
                compiled = self._take_text(model, value)
                if compiled is not None:
                    taken[model] = compiled
        self._fingerprints = fingerprints
        if in_force_at_once or not self.rules_known:
            self.snapshot = Snapshot(self._epoch, self._head, {**self.snapshot.routes, **taken})
        self._known.set()
        self._publish(self.snapshot)
        self._become(FeedState.LIVE, "")

    def _take_text(self, model: str, value: str | None) -> CompiledRoute | None:
        """The route that the store holds, if it is one and not in force yet."""
        try:
            if value is None:
                raise InvalidArgument("too large to be a route")
            compiled = _compiled(value, model)
        except InvalidArgument as error:
            revision = revision_in(value or "") or self._head
            self._preparations.refuse(_printable(model), revision, _printable(str(error)))
            return None
        in_force = self.snapshot.routes.get(model)
        if in_force is not None and in_force.route == compiled.route and not self._preparations.waits(model):
            return None
        self._preparations.put(compiled)
        return compiled

    def install(self, compiled: CompiledRoute) -> None:
        """Brings a prepared route into force."""
        in_force = self.snapshot.routes.get(compiled.route.model)
        self._publish(self.snapshot if in_force is compiled else self.snapshot.with_route(compiled))
        if compiled.route.revision > self._known_at_boot:
            self._consumer.applied(max(0.0, time.time() - compiled.route.committed_at_us / 1e6))

    def preparation_failed(self) -> None:
        """Acknowledges why a route is not in force."""
        self._acknowledger.changed()

    def _remove(self, model: str) -> None:
        self._preparations.drop(model)
        if model in self.snapshot.routes:
            self._publish(self.snapshot.without_route(model, self._head))

    def _revision(self) -> int:
        oldest = self._preparations.oldest()
        return self._head if oldest is None else min(self._head, oldest - 1)

    def _publish(self, snapshot: Snapshot) -> None:
        """One reference is swapped; then everybody who must know is told."""
        self.snapshot = snapshot.at(self._epoch, self._revision())
        self._consumer.swapped(self.snapshot)
        self._keeper.changed()
        self._acknowledger.changed()

    def _become(self, state: FeedState, error: str) -> None:
        if state is not self.state or (state is FeedState.STALE and error != self.error):
            level = logging.INFO if state is FeedState.LIVE else logging.WARNING
            log.log(level, "routing feed", extra={"state": state.value, "reason": error, "revision": self._head})
        if (state, error) != (self.state, self.error):
            self.state, self.error = state, error
            self._acknowledger.changed()


def _compiled(route_text: str, model: str) -> CompiledRoute:
    """Raises: InvalidArgument for a text that is no route of this model."""
    route = Route.from_json(route_text)
    if route.model != model:
        raise InvalidArgument(f"holds the route of {route.model!r}")
    return compile_route(route)


def _printable(words: str) -> str:
    """Returns what came from the store, without bytes that are no text."""
    return words.encode("ascii", "backslashreplace").decode()


def _position(entry_id: str) -> tuple[int, int]:
    major, _, minor = entry_id.partition("-")
    return int(major), int(minor or 0)
