"""A worker's share in rollouts: it tells once a second what the arms of judged routes did."""

import asyncio
import logging
from time import process_time_ns
from typing import Final

from gateway.errors import StoreUnavailable
from gateway.rollout.arm_counts import LOAD
from gateway.rollout.rollout_store import CountsWriter
from gateway.serving.arm_tally import JudgedRoutes

TELL_S: Final = 1.0
_log = logging.getLogger(__name__)


class RolloutCounts:
    """Writes the tallies of one worker, and its load, to the store; while no route is judged it does nothing.

    `cores` is its share of the host's CPUs.
    """

    def __init__(self, judged: JudgedRoutes, url: str, environment: str, worker_id: str, *, cores: float) -> None:
        self._judged = judged
        self._cores = cores
        self._writer = CountsWriter(url, environment, worker_id)

    async def run(self) -> None:
        """Tells for ever. Totals are told, so what was not written is in the next write."""
        while True:
            await asyncio.sleep(TELL_S)
            await self.tell()

    async def tell(self) -> None:
        """Tells once; while the store is away nothing is lost."""
        if not self._judged.by_revision:
            return
        try:
            load = {LOAD: {"cpu_ns": process_time_ns(), "cores": self._cores}}
            counts = {revision: {**arms, **load} for revision, arms in self._judged.snapshot().items()}
            await self._writer.write(counts)
        except StoreUnavailable as error:
            _log.debug("counts of rollouts were not written: %s", error)

    async def aclose(self) -> None:
        """Tells what came since the last time."""
        await self.tell()
        await self._writer.aclose()
