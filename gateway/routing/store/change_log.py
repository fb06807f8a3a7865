"""The log of changes as it grows, for those who tell of it and serve nothing."""

import asyncio
from collections.abc import Callable

from gateway.errors import InvalidArgument, StoreUnavailable
from gateway.routing.store.change import ChangeEntry, parse_entry
from gateway.routing.store.store_keys import StoreKeys
from gateway.routing.store.store_link import Link
from gateway.routing.store.store_reply import number, read_entries

BATCH = 100
BLOCK_MS = 1000
PAUSE_S = 2.0


class ChangeLog:
    """Every change after `cursor`, the id of an entry; with "" those that come from now on.

    Order: `cursor` moves after an entry was taken, so what is read again after a crash is the last one at most.
    """

    def __init__(self, store_url: str, environment: str, *, cursor: str = "") -> None:
        self.cursor = cursor
        self._keys = StoreKeys(environment)
        self._link = Link(store_url, name="gateway-events", timeout_s=BLOCK_MS / 1000 + 1.5, connections=1)

    async def follow(self, take: Callable[[ChangeEntry], None]) -> None:
        """Reads for ever; while the store is away it tries again. What is no change is passed over."""
        while True:
            try:
                await self.step(take)
            except StoreUnavailable:
                await asyncio.sleep(PAUSE_S)

    async def step(self, take: Callable[[ChangeEntry], None]) -> None:
        """One wait for changes. Raises: StoreUnavailable."""
        last = f"{number(await self._link.call('GET', self._keys.revision))}-0"
        if not self.cursor or _position(last) < _position(self.cursor):
            self.cursor = last  # it begins now, or the log was moved aside and counts from elsewhere
        words = ("XREAD", "COUNT", BATCH, "BLOCK", BLOCK_MS, "STREAMS", self._keys.log, self.cursor)
        for entry_id, fields in read_entries(await self._link.call(*words)):
            try:
                take(parse_entry(entry_id, fields))
            except InvalidArgument:
                pass
            self.cursor = entry_id

    async def aclose(self) -> None:
        await self._link.aclose()


def _position(entry_id: str) -> tuple[int, int]:
    major, _, minor = entry_id.partition("-")
    return int(major), int(minor or 0)
