"""Which queue a version has: by whether it is in memory, and by the kind of its model."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from gateway.serving.batcher import Batcher
from gateway.serving.catalog import Catalog
from gateway.serving.cold_queue import ColdQueue
from gateway.serving.model_kind import ModelKind
from gateway.serving.response_cache import VersionCache
from gateway.serving.shared_run_state import SharedRunState
from gateway.serving.version import Version
from gateway.serving.version_queue import VersionQueue


class QueueMaker:
    """Makes the queues of versions; `kinds` has who makes those of versions without a session."""

    def __init__(
        self,
        catalog: Catalog,
        loop: asyncio.AbstractEventLoop,
        threads: ThreadPoolExecutor,
        parallel: int,
        shared: SharedRunState,
        draw: Callable[[], float],
    ) -> None:
        self._catalog = catalog
        self._loop = loop
        self._threads = threads
        self._parallel = parallel
        self._shared = shared
        self._draw = draw
        self.kinds: dict[ModelKind, Callable[[Version], VersionQueue]] = {}

    def queue_of(self, version: Version) -> VersionQueue:
        """Returns a new queue for the version."""
        if version.is_cold:
            return ColdQueue(
                version, loop=self._loop, wake=self._catalog.wake, delay=self._catalog.delay, draw=self._draw
            )
        return self.own_queue(version) or Batcher(
            version,
            loop=self._loop,
            threads=self._threads,
            parallel=self._parallel,
            shared=self._shared,
            draw=self._draw,
            cache=self._cache_of(version),
        )

    def own_queue(self, version: Version) -> VersionQueue | None:
        """Returns a new queue for a version that has no session; None for one that has."""
        queue_of = self.kinds.get(version.config.kind)
        return queue_of(version) if queue_of is not None else None

    def _cache_of(self, version: Version) -> VersionCache | None:
        cache = self._shared.cache
        if cache is None or not version.config.caches:
            return None
        return cache.of_version(fixed=all(-1 not in spec.shape[1:] and not spec.optional for spec in version.inputs))
