"""Labels on their way to the disk in one worker: who sent them is answered when they are there.

Labels have segments of their own beside the prediction log's, so neither delays the other, and a thread of their own.
While it writes and syncs, the calls that come wait together and share the next write.
"""

import asyncio
import errno
import logging
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from uuid import UUID

from gateway.errors import ResourceExhausted, Unavailable
from gateway.records.worker.label import FEEDBACK_SUFFIX, Label, encode_labels
from gateway.records.worker.segment import Segment, checked_part
from gateway.records.worker.wal import Chunk, Durability, SegmentLimits, WalWriter, reason
from gateway.threads import started_threads

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FeedbackLimits:
    """Bounds of what waits for the disk, and when segments end. By default an acknowledged label survives the host.

    Over `disk_off` of the disk in use labels are refused, so that whoever sends them cannot fill it; 1 turns that off.
    """

    max_waiting: int = 100_000
    disk_off: float = 0.98
    tend_interval_s: float = 1.0
    close_timeout_s: float = 10.0
    segment: SegmentLimits = field(default_factory=lambda: SegmentLimits(durability=Durability.ALWAYS))


class FeedbackLog:
    """The labels that one worker takes. Everything but the writing itself happens on the loop.

    Raises: ValueError (a worker or gateway name that cannot be part of a file name, a boot that is no UUID).
    """

    def __init__(
        self,
        directory: Path,
        *,
        worker: str,
        gateway: str,
        boot: str,
        limits: FeedbackLimits | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._limits = limits or FeedbackLimits()
        run = Segment(
            checked_part("gateway", gateway), checked_part("worker", worker + FEEDBACK_SUFFIX), UUID(boot).hex, 0
        )
        self._directory = directory
        self._wal = WalWriter(directory, run, self._limits.segment, clock)
        self._executor = started_threads(1, "feedback")
        self._failed = False
        self._waiting: list[tuple[Sequence[Label], asyncio.Future[None]]] = []
        self._waiting_labels = 0
        self._writing: asyncio.Task[None] | None = None
        self._next_record = 0
        self._closed = False
        self.counts: Counter[str] = Counter(accepted=0, refused=0, unwritten=0)
        self.restarts = 0  # of the thread's work, after errors that nobody foresaw

    async def write(self, labels: Sequence[Label]) -> None:
        """All of the labels are on the disk.

        Raises: Unavailable (the disk does not take them, or the worker stops: none of them counts as taken),
                ResourceExhausted (too many wait already).
        """
        if self._closed:
            raise Unavailable("this worker is stopping: send the labels again, to another")
        if self._waiting_labels + len(labels) > self._limits.max_waiting:
            self.counts["refused"] += len(labels)
            raise ResourceExhausted(
                f"{self._waiting_labels} labels wait for the disk, at most {self._limits.max_waiting} may: send later"
            )
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((labels, done))
        self._waiting_labels += len(labels)
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_all())
        await done

    async def run(self) -> None:
        """Ends segments in time, until cancelled."""
        while True:
            await asyncio.sleep(self._limits.tend_interval_s)
            if self._writing is None:
                await self._failure_of(self._tend)

    async def close(self) -> None:
        """Returns what waits is written and sealed; labels that come later are refused. Gives up after
        `close_timeout_s`."""
        self._closed = True
        try:
            async with asyncio.timeout(self._limits.close_timeout_s):
                if self._writing is not None:
                    await self._writing
                await self._failure_of(self._seal)
        except TimeoutError:
            _log.error("the disk does not answer: %d labels were not acknowledged", self._waiting_labels)
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def _write_all(self) -> None:
        """Writes what waits, and what comes meanwhile, until nothing does."""
        try:
            while self._waiting:
                group, self._waiting = self._waiting, []
                error = await self._failure_of(self._flush, [labels for labels, _ in group])
                for labels, done in group:
                    self._waiting_labels -= len(labels)
                    self.counts["unwritten" if error else "accepted"] += len(labels)
                    if done.cancelled():
                        continue
                    if error is None:
                        done.set_result(None)
                    else:
                        why = reason(error) if isinstance(error, OSError) else "internal_error"
                        done.set_exception(Unavailable(f"the labels were not written ({why}): send again"))
        finally:
            self._writing = None

    async def _failure_of(self, work: Callable[..., None], *arguments: object) -> BaseException | None:
        """Does the work on the thread; returns the error that it ended with, if any.

        One that nobody foresaw costs this work only: the segment is left as it is, the thread goes on.
        """
        done = asyncio.get_running_loop().run_in_executor(self._executor, work, *arguments)
        await asyncio.wait([done])
        error = done.exception()
        if error is not None and not isinstance(error, OSError):
            self.restarts += 1
            _log.error("the thread that writes labels failed and goes on", exc_info=error)
            self._failed = True
        return error

    def _flush(self, calls: Sequence[Sequence[Label]]) -> None:
        """Writes the labels of each call as one frame.

        Raises: OSError (a disk that refuses them all).
        """
        if self._failed:
            self._failed = False
            self._wal.abandon()
        chunks = []
        for labels in calls:
            chunks.append(Chunk(0, None, encode_labels(labels, first_record=self._next_record)))
            self._next_record += len(labels)
        if self._disk_use() > self._limits.disk_off:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._wal.write(chunks)
        self._wal.tend(self.counts)

    def _disk_use(self) -> float:
        """Returns the share of the disk in use; 0 where it cannot be told."""
        try:
            status = os.statvfs(self._directory)
        except OSError:
            return 0.0
        return 1.0 - status.f_bavail / status.f_blocks if status.f_blocks else 0.0

    def _tend(self) -> None:
        try:
            self._wal.tend(self.counts)
        except OSError as error:
            _log.warning("a segment of labels was not ended in order: %s", error)

    def _seal(self) -> None:
        try:
            self._wal.seal(self.counts)
        except OSError as error:
            _log.warning("the last segment of labels was not ended in order: %s", error)
