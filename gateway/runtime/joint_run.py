"""One run for all who ask for it while another one is under way."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class JointRun(Generic[T]):
    """Runs a function whose outcome any number of callers can share.

    Order: an outcome is of a run that began after its caller asked. Who asks during a run waits for the next one, with
           all others who do, so that however many ask, nobody waits for more than two runs.
    """

    def __init__(self, run: Callable[[], Awaitable[T]]) -> None:
        self._run = run
        self._one_at_a_time = asyncio.Lock()
        self._next: asyncio.Task[T] | None = None  # it has not begun

    async def outcome(self) -> T:
        """Returns what the run returns. Raises: what it raises."""
        if self._next is None:
            self._next = asyncio.create_task(self._begin(), name="joint run")
        return await asyncio.shield(self._next)  # others wait for it, too

    async def _begin(self) -> T:
        async with self._one_at_a_time:
            self._next = None
            return await self._run()
