"""The acknowledgement of a worker: it tells operators what it follows, at each change and every 5 s."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from gateway.errors import StoreUnavailable
from gateway.routing.store.redis_store import WORKER_EXPIRE_MS
from gateway.routing.store.store_keys import StoreKeys
from gateway.routing.store.store_link import Link, Word
from gateway.routing.store.worker_status import WorkerStatus

log = logging.getLogger(__name__)

REFRESH_S = 5.0
RETRY_S = 0.5
ACKNOWLEDGEMENTS_KEPT = 1000
FORGET_S = 3600


class Acknowledger:
    """Writes `status()` on a connection of its own, so that an acknowledgement never delays the next change.

    Order: what is acknowledged is in force; several changes at once are one acknowledgement.
    """

    def __init__(
        self,
        url: str,
        keys: StoreKeys,
        *,
        worker_id: str,
        status: Callable[[], WorkerStatus],
        defer_s: float = 0.0,
    ) -> None:
        self._link = Link(url, name=f"gateway-ack:{worker_id}", connections=1)
        self._keys = keys
        self._id = worker_id
        self._status = status
        self._defer_s = defer_s
        self._changed = asyncio.Event()
        self._told: dict[str, str] = {}
        self._left = False

    def changed(self) -> None:
        self._changed.set()

    async def run(self) -> None:
        """Acknowledges for ever; while the store is away it tries again with what is then the newest status."""
        while True:
            if self._defer_s:
                await asyncio.sleep(self._defer_s)
            try:
                self._changed.clear()
                await self.acknowledge()
                pause_s = REFRESH_S
            except StoreUnavailable as error:
                log.debug("not acknowledged", extra={"error": str(error)})
                self._told = {}
                pause_s = RETRY_S
            try:
                async with asyncio.timeout(pause_s):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def acknowledge(self) -> None:
        """Raises: StoreUnavailable."""
        if self._left:
            return
        fields = self._status().to_fields()
        words: list[Word] = [word for pair in fields.items() for word in pair]
        now_ms = int(time.time() * 1000)
        key = self._keys.worker(self._id)
        commands: list[Sequence[Word]] = [
            ("HSET", key, *words),
            ("PEXPIRE", key, WORKER_EXPIRE_MS),
            ("ZADD", self._keys.workers, now_ms, self._id),
        ]
        if fields != self._told:
            stream = self._keys.acknowledgements
            commands.append(("XADD", stream, "MAXLEN", "~", ACKNOWLEDGEMENTS_KEPT, "*", *words))
        else:
            commands.append(("ZREMRANGEBYSCORE", self._keys.workers, "-inf", now_ms - FORGET_S * 1000))
        await self._link.transaction(commands)
        self._told = fields

    async def leave(self) -> None:
        """Takes the worker off the list, so that nobody waits for it. A store that is away forgets it by itself.

        Order: an acknowledgement that is on its way has the one connection first; none follows.
        """
        self._left = True
        try:
            await self._link.transaction(
                [("DEL", self._keys.worker(self._id)), ("ZREM", self._keys.workers, self._id)],
            )
        except StoreUnavailable as error:
            log.debug("left without a word", extra={"error": str(error)})

    async def aclose(self) -> None:
        await self._link.aclose()
