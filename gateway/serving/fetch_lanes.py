"""The threads on which versions are fetched: each repository has its own, so that a slow one holds up no other."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from math import inf
from typing import Final, TypeVar

from gateway.serving.patient_permits import PatientPermits
from gateway.threads import started_daemon
from loaders.uri import has_scheme

T = TypeVar("T")

_MOST_THREADS: Final = 16  # of one repository: so many of its versions may come slowly before others of it wait
FETCH_PATIENCE_S: Final = 2.0


class FetchLanes:
    """Runs what reads a repository on its own threads, `at_once` of each at a time.

    Of one elsewhere what takes longer than `patience_s` counts no more: what is here already does not wait for what is
    still to come. What takes long on this machine is work, of which no more is done at once.
    The threads hold up no end of the process: a copy that breaks off goes on at the next start.
    """

    def __init__(self, at_once: int, patience_s: float) -> None:
        self._at_once = at_once
        self._patience_s = patience_s
        self._lanes: dict[tuple[str, bool], tuple[PatientPermits, asyncio.Semaphore]] = {}

    async def run(
        self,
        origin: str,
        work: Callable[[], T],
        on_late: Callable[[], None] | None = None,
        *,
        apart: bool = False,
    ) -> T:
        """Returns what `work` returns, on a thread of the repository with that URI.

        `on_late` is called once it takes longer than others wait for it. What is `apart` is so for content that the
        store is to have, which does not queue behind what comes from the repository.

        Raises: as `work`; Unavailable, where the system starts no more threads.
        """
        lane = self._lanes.get((origin, apart))
        if lane is None:
            most = asyncio.Semaphore(max(_MOST_THREADS, self._at_once))
            patience_s = self._patience_s if has_scheme(origin) else inf
            lane = self._lanes[origin, apart] = (PatientPermits(self._at_once, patience_s), most)
        permits, threads = lane
        async with permits.held(on_late), threads:
            return await _on_thread(work)


async def _on_thread(work: Callable[[], T]) -> T:
    """Returns what `work` returns, on a thread that nobody waits for at the end of the process. Raises: as `run`."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[Callable[[], T]] = loop.create_future()

    def tell(outcome: Callable[[], T]) -> None:
        if not ended.done():
            ended.set_result(outcome)

    def run() -> None:
        with suppress(RuntimeError):  # the loop has ended: nobody waits any more
            loop.call_soon_threadsafe(tell, _outcome(work))

    started_daemon(run, "fetch")
    return (await ended)()


def _outcome(work: Callable[[], T]) -> Callable[[], T]:
    """Returns what gives the result of `work`, or raises what it raised."""
    try:
        result = work()
    except BaseException as error:  # the boundary of the thread: whoever waits for it raises it
        raised = error

        def fail() -> T:
            raise raised

        return fail
    return lambda: result
