"""Permits for work of which a part may take very long: who keeps one for too long makes room for another."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from math import inf


class PatientPermits:
    """Lets `count` at once go on; one that takes longer than `patience_s` counts no more. It may be inf."""

    def __init__(self, count: int, patience_s: float) -> None:
        self._permits = asyncio.Semaphore(count)
        self._patience_s = patience_s

    @asynccontextmanager
    async def held(self, on_late: Callable[[], None] | None = None) -> AsyncIterator[None]:
        """Holds a permit, given back after `patience_s` or at the end, whichever comes first.

        `on_late` is called where it is after `patience_s`.
        """
        await self._permits.acquire()
        given_back = False

        def give_back() -> None:
            nonlocal given_back
            if not given_back:
                given_back = True
                self._permits.release()

        def make_room() -> None:
            give_back()
            if on_late is not None:
                on_late()

        loop = asyncio.get_running_loop()
        timer = None if self._patience_s == inf else loop.call_later(self._patience_s, make_room)
        try:
            yield
        finally:
            if timer is not None:
                timer.cancel()
            give_back()
