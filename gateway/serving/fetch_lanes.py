"""The threads on which versions are fetched: each repository has its own, so that a slow one holds up no other."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from gateway.errors import Unavailable
from gateway.serving.patient_permits import PatientPermits

T = TypeVar("T")

_MOST_THREADS: Final = 16  # of one repository: so many of its versions may come slowly before others of it wait
FETCH_PATIENCE_S: Final = 2.0


class FetchLanes:
    """Runs what reads a repository on its own threads, `at_once` of each at a time.

    What takes longer than `patience_s` counts no more: what is here already does not wait for what is still to come.
    """

    def __init__(self, at_once: int, patience_s: float) -> None:
        self._at_once = at_once
        self._patience_s = patience_s
        self._lanes: dict[str, tuple[PatientPermits, ThreadPoolExecutor]] = {}

    async def run(self, origin: str, work: Callable[[], T], on_late: Callable[[], None] | None = None) -> T:
        """Returns what `work` returns, on a thread of the repository with that URI.

        `on_late` is called once it takes longer than others wait for it.

        Raises: as `work`; Unavailable, where no thread can be started for it.
        """
        lane = self._lanes.get(origin)
        if lane is None:
            threads = ThreadPoolExecutor(max(_MOST_THREADS, self._at_once), thread_name_prefix="fetch")
            lane = self._lanes[origin] = (PatientPermits(self._at_once, self._patience_s), threads)
        permits, threads = lane
        async with permits.held(on_late):
            try:
                done = asyncio.get_running_loop().run_in_executor(threads, work)
            except RuntimeError as error:  # the system starts no more threads, or this is the end
                raise Unavailable(f"its files cannot be fetched now: {error}") from error
            return await done

    def shutdown(self) -> None:
        """Lets nothing more begin."""
        for _, threads in self._lanes.values():
            threads.shutdown(wait=False, cancel_futures=True)
