"""Upkeep of the content store: the copies of models that a worker uses stay, what nobody uses goes."""

import asyncio
import logging
from collections.abc import Callable
from time import time
from typing import Final

from gateway.serving.repository_reader import RepositoryReader
from loaders.errors import LoaderError
from loaders.store import Collected, ContentStore

UNUSED_COPY_S: Final = 86_400.0
UPKEEP_S: Final = 60.0
# A copy that was marked since then is in use: a load may take long, a worker stand still.
MARKED_COPY_S: Final = 15 * UPKEEP_S

logger = logging.getLogger(__name__)


class CopyUpkeep:
    """Marks and collects the copies of one worker; `held` returns the digests of what it serves.

    `keep_prepared` marks the prepared forms of those as used.
    """

    def __init__(
        self,
        store: ContentStore | None,
        reader: RepositoryReader,
        held: Callable[[], set[str]],
        keep_prepared: Callable[[set[str]], None],
    ) -> None:
        self._store = store
        self._reader = reader
        self._held = held
        self._keep_prepared = keep_prepared
        self._is_over = False  # the content store has more in use than its limit
        self.size_bytes = 0  # of all copies, when they were looked at last

    async def run(self) -> None:
        """Keeps the content store free of copies that nobody uses, for ever."""
        while True:
            await self.tend(time())
            await asyncio.sleep(UPKEEP_S)

    async def tend(self, now_s: float) -> tuple[str, ...]:
        """Marks the copies that this worker holds or a route needs; removes and returns what may go.

        That is what no worker has marked for a day, and beyond the store's limit what was used least recently.
        """
        store = self._store
        if store is None:
            return ()
        digests = self._held()

        def keep_and_collect() -> Collected:
            self._keep_prepared(digests)
            store.keep(digests | self._reader.read_intents().digests())
            return store.collect(now_s=now_s, unused_s=UNUSED_COPY_S, marked_s=MARKED_COPY_S)

        try:
            collected = await self._reader.on_thread(keep_and_collect)
        except LoaderError as error:
            logger.warning("the content store cannot be cleaned up: %s", error)
            return ()
        if collected.removed:
            logger.info("unused copies removed from the content store: copies=%d", len(collected.removed))
        if collected.excess_bytes and not self._is_over:
            logger.warning(
                "the content store has %d bytes more than its limit, all of them in use: raise --content-store-bytes, "
                "or unload models",
                collected.excess_bytes,
            )
        self._is_over = collected.excess_bytes > 0
        self.size_bytes = collected.left_bytes
        return collected.removed
