"""Operations on models: each runs to its end, and those that must not mix wait for the lock of their model."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

logger = logging.getLogger(__name__)


class Operations:
    """Holds the operations that are under way, and the locks of models."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._locks: dict[str, asyncio.Lock] = {}

    @property
    def tasks(self) -> list["asyncio.Task[None]"]:
        """Returns the operations that have not ended."""
        return list(self._tasks)

    def lock(self, model: str) -> asyncio.Lock:
        """Returns the lock of a model."""
        return self._locks.setdefault(model, asyncio.Lock())

    def is_locked(self, model: str) -> bool:
        """Returns whether an operation holds the lock of the model."""
        lock = self._locks.get(model)
        return lock is not None and lock.locked()

    async def finish(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs the operation to its end even if the caller goes away: half an operation helps nobody."""
        await asyncio.shield(self.begin(work))

    def begin(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Returns the operation, which has begun."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.debug("operation ended with an error: %s", task.exception())
