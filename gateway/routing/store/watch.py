"""Committed changes and changes of workers as they happen, for people who watch."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from time import monotonic
from typing import TypeAlias

from gateway.errors import InvalidArgument, StoreUnavailable
from gateway.routing.store.change import ChangeEntry, parse_entry
from gateway.routing.store.redis_store import RedisStore
from gateway.routing.store.store_reply import Reply, many, number, stream_entries, text
from gateway.routing.store.worker_status import WorkerStatus, parse_status

BLOCK_MS = 500
REFRESH_S = 2.0  # how soon a worker that died is missed, after its acknowledgement expired
PAUSE_S = 1.0
BATCH = 100


@dataclass(frozen=True, slots=True)
class WorkerSeen:
    """A worker that is new or has changed; `gone` if it left, or was not heard of for 15 s."""

    status: WorkerStatus
    gone: bool = False


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """Everything told before this was so already."""


@dataclass(frozen=True, slots=True)
class StoreAway:
    """Nothing can be told, and why. When the store is back, workers are told anew, then `CaughtUp`."""

    reason: str


Happening: TypeAlias = ChangeEntry | WorkerSeen | CaughtUp | StoreAway


async def watch(store: RedisStore, *, backlog: int = 0, after: int = 0) -> AsyncGenerator[Happening, None]:
    """The last `backlog` changes, every live worker, `CaughtUp`, and then what happens, for ever.

    With `after`, a revision that was seen already, every change since then and no backlog.

    Order: changes in the order of their revisions, none left out and none twice, through a store that was away too.
    """
    watcher = _Watcher(store, after)
    away = False
    first = True
    while True:
        try:
            if first or away:
                for happening in await watcher.begin(backlog if first else None):
                    yield happening
                first = away = False
            for happening in await watcher.step():
                yield happening
        except StoreUnavailable as error:
            if not away:
                yield StoreAway(str(error))
            away = True
            await asyncio.sleep(PAUSE_S)


class _Watcher:
    """Holds where one who watches stands in the log and among the acknowledgements."""

    def __init__(self, store: RedisStore, after: int) -> None:
        self._store = store
        self._log = f"{after}-0" if after else ""
        self._acks = ""
        self._known: dict[str, WorkerStatus] = {}
        self._looked_at = 0.0

    async def begin(self, backlog: int | None) -> list[Happening]:
        """Returns what is so already; None leaves the place in the log where it is."""
        keys, link = self._store.keys, self._store.link
        told: list[Happening] = []
        if not self._log:
            count = max(1, backlog or 0)
            newest = stream_entries(await link.call("XREVRANGE", keys.log, "+", "-", "COUNT", count))
            told += _entries(reversed(newest if backlog else []))
            self._log = newest[0][0] if newest else "0-0"
        last = stream_entries(await link.call("XREVRANGE", keys.acknowledgements, "+", "-", "COUNT", 1))
        self._acks = last[0][0] if last else "0-0"
        told += await self._refresh()
        return [*told, CaughtUp()]

    async def step(self) -> list[Happening]:
        """One wait for news."""
        keys = self._store.keys
        words = ("XREAD", "COUNT", BATCH, "BLOCK", BLOCK_MS, "STREAMS", keys.log, keys.acknowledgements)
        reply = await self._store.link.call(*words, self._log, self._acks)
        news: list[Happening] = []
        for name, entries in _streams(reply):
            if name == keys.log:
                news += _entries(iter(entries))
                self._log = entries[-1][0]
            else:
                news += self._acknowledged(entries)
                self._acks = entries[-1][0]
        if monotonic() - self._looked_at >= REFRESH_S:
            news += await self._refresh()
        return news

    def _acknowledged(self, entries: list[tuple[str, list[bytes]]]) -> Iterator[Happening]:
        for _, fields in entries:
            try:
                status = parse_status(fields)
            except InvalidArgument:
                continue
            yield from self._seen(status)

    async def _refresh(self) -> list[Happening]:
        """Workers that left or died without a word, and those whose word was missed."""
        self._looked_at = monotonic()
        head = number(await self._store.link.call("GET", self._store.keys.revision))
        if head < int(self._log.partition("-")[0]):
            self._log = f"{head}-0"  # the store was emptied or restored: it counts from there
        live = {status.id: status for status in await self._store.workers()}
        news: list[Happening] = [WorkerSeen(self._known.pop(name), True) for name in self._known.keys() - live.keys()]
        for status in live.values():
            news += self._seen(status)
        return news

    def _seen(self, status: WorkerStatus) -> Iterator[Happening]:
        before = self._known.get(status.id)
        self._known[status.id] = status
        if before is None or _shown(before) != _shown(status):
            yield WorkerSeen(status)


def _shown(status: WorkerStatus) -> tuple[object, ...]:
    return status.state, status.revision, status.epoch, status.all_errors(), status.boot


def _entries(listed: Iterator[tuple[str, list[bytes]]]) -> Iterator[ChangeEntry]:
    for entry_id, fields in listed:
        try:
            yield parse_entry(entry_id, fields)
        except InvalidArgument:
            continue


def _streams(reply: Reply) -> Iterator[tuple[str, list[tuple[str, list[bytes]]]]]:
    """Name and entries of each stream that an XREAD answered with."""
    for stream in many(reply) if reply is not None else ():
        name, entries = many(stream)
        yield text(name), stream_entries(entries)
